//! What multipathd knows, by its socket. It is asked only; TwinSAN changes nothing there.
//!
//! The protocol (multipath-tools, `libmpathcmd/mpath_cmd.c`): an abstract unix socket; each way a `size_t` with the
//! length and then a text of that length, its closing NUL included.

use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

/// The abstract name.
const SOCKET: &str = "/org/kernel/linux/storage/multipathd";
/// A host with a thousand paths needs less.
const MAX_REPLY_BYTES: usize = 1 << 20;
/// A daemon that reconfigures takes its time; nobody waits longer for it.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What multipathd thinks of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonPath {
    /// `sda`.
    pub name: String,
    /// Whether dm-multipath uses it: `active`, `failed` or `undef`.
    pub dm: String,
    /// What its checker says: `ready`, `faulty`, `ghost`, …
    pub checker: String,
}

/// All paths that the daemon knows.
///
/// # Errors
/// It does not run, or does not answer in time.
pub fn paths() -> io::Result<Vec<DaemonPath>> {
    Ok(parse_paths(&ask("show paths raw format \"%d|%t|%T\"")?))
}

/// Whether map `name` queues I/O for ever while it has no path: `no_path_retry queue`, or the feature
/// `queue_if_no_path` without a limit. `None`: the daemon does not know the map.
///
/// # Errors
/// As [`paths`].
pub fn queues_for_ever(name: &str) -> io::Result<Option<bool>> {
    Ok(parse_queueing(&ask("show maps raw format \"%n|%Q|%f\"")?, name))
}

/// The reservation key that multipathd registers for map `name`, if it is told to: it must not.
///
/// # Errors
/// As [`paths`].
pub fn managed_key(name: &str) -> io::Result<Option<String>> {
    let reply = ask(&format!("getprkey map {name}"))?;
    let key = reply.trim();
    Ok((key.starts_with("0x") && key != "0x0").then(|| key.to_owned()))
}

fn ask(command: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(SOCKET)?)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(&frame(command))?;
    read_frame(&mut stream)
}

fn frame(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() + 1).to_ne_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes.push(0);
    bytes
}

pub(crate) fn read_frame(stream: &mut impl Read) -> io::Result<String> {
    let mut length = [0; size_of::<usize>()];
    stream.read_exact(&mut length)?;
    let length = usize::from_ne_bytes(length);
    if length > MAX_REPLY_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("multipathd announces {length} bytes")));
    }
    let mut reply = vec![0; length];
    stream.read_exact(&mut reply)?;
    while reply.last() == Some(&0) {
        reply.pop();
    }
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

pub(crate) fn parse_paths(reply: &str) -> Vec<DaemonPath> {
    let path = |line: &str| {
        let mut fields = line.split('|').map(|field| field.trim().to_owned());
        Some(DaemonPath { name: fields.next()?, dm: fields.next()?, checker: fields.next()? })
    };
    reply.lines().filter_map(path).collect()
}

/// `%Q` is `on` for ever, `off`, a number of checks or seconds, or `-` where the daemon leaves it to the table, whose
/// features `%f` shows.
pub(crate) fn parse_queueing(reply: &str, name: &str) -> Option<bool> {
    reply.lines().find_map(|line| {
        let mut fields = line.split('|').map(str::trim);
        if fields.next()? != name {
            return None;
        }
        let (queueing, features) = (fields.next()?, fields.next().unwrap_or_default());
        Some(queueing == "on" || (queueing == "-" && features.contains("queue_if_no_path")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let bytes = frame("show maps");
        assert_eq!(bytes[..8], 10_u64.to_ne_bytes());
        assert_eq!(&bytes[8..], b"show maps\0");
        assert_eq!(read_frame(&mut &bytes[..]).expect("whole"), "show maps");
        assert!(read_frame(&mut &bytes[..12]).is_err());
        let huge = usize::MAX.to_ne_bytes();
        assert_eq!(read_frame(&mut &huge[..]).expect_err("too long").kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn what_it_tells_of_paths() {
        let reply = "sda|active|ready\nsdb | failed | faulty\n\ntimeout\n";
        let path = |name: &str, dm: &str, checker: &str| DaemonPath {
            name: name.to_owned(),
            dm: dm.to_owned(),
            checker: checker.to_owned(),
        };
        assert_eq!(parse_paths(reply), [path("sda", "active", "ready"), path("sdb", "failed", "faulty")]);
    }

    #[test]
    fn queueing_without_an_end() {
        let reply = "mpatha|off|0\nmpathb|on|1 queue_if_no_path\nmpathc|-|1 queue_if_no_path\nmpathd|12 chk|-\n";
        let told = ["mpatha", "mpathb", "mpathc", "mpathd", "mpathe"].map(|name| parse_queueing(reply, name));
        assert_eq!(told, [Some(false), Some(true), Some(true), Some(false), None]);
    }
}
