//! A target by its name on the command line: an NBD URI, a block device, or a file.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use super::engine::one;
use super::file::DirectIo;
use super::job::Job;
use super::nbd::{Address, Nbd};
use super::target::{Buffers, Kind, Request, Target};

/// Where a target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// One export.
    Nbd(Address, String),
    /// A file or a block device.
    Path(PathBuf),
}

/// NBD's.
const PORT: u16 = 10809;
/// One read while looking for what is there.
const CHUNK: usize = 1 << 20;

impl FromStr for Place {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let right = "write nbd+unix:///NAME?socket=PATH, nbd://HOST:PORT/NAME, or the path of a device or a file";
        if let Some(rest) = text.strip_prefix("nbd+unix://") {
            let (name, query) = rest.split_once('?').with_context(|| format!("\"{text}\" names no socket: {right}"))?;
            let socket = query.split('&').find_map(|pair| pair.strip_prefix("socket="));
            let socket = socket.with_context(|| format!("\"{text}\" names no socket: {right}"))?;
            let name = name.strip_prefix('/').unwrap_or(name);
            return Ok(Self::Nbd(Address::Unix(decoded(socket)?.into()), decoded(name)?));
        }
        if let Some(rest) = text.strip_prefix("nbd://") {
            let (at, name) = rest.split_once('/').unwrap_or((rest, ""));
            let (host, port) = match at.rsplit_once(':') {
                Some((host, port)) if !port.contains(']') => {
                    (host, port.parse().ok().with_context(|| format!("\"{text}\": port \"{port}\": {right}"))?)
                }
                _ => (at, PORT),
            };
            let host = host.trim_start_matches('[').trim_end_matches(']');
            ensure!(!host.is_empty(), "\"{text}\" names no host: {right}");
            return Ok(Self::Nbd(Address::Tcp(host.to_owned(), port), decoded(name)?));
        }
        ensure!(!text.contains("://"), "\"{text}\": {right}");
        Ok(Self::Path(text.into()))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nbd(address, name) => write!(f, "NBD export \"{name}\" at {address}"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// `%2F` and its like.
fn decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend(before.bytes());
        let digits = after.get(..2).and_then(|two| u8::from_str_radix(two, 16).ok());
        bytes.push(digits.with_context(|| format!("\"{text}\": two hexadecimal digits follow a %"))?);
        rest = &after[2..];
    }
    bytes.extend(rest.bytes());
    String::from_utf8(bytes).with_context(|| format!("\"{text}\" is not UTF-8"))
}

impl Place {
    /// Opens it for a job, or for prefill and read-back.
    ///
    /// # Errors
    /// If it is not there.
    pub fn open(&self, job: Option<&Job>) -> Result<Box<dyn Target>> {
        let synchronous = job.is_none_or(|job| job.flush_every.is_none());
        Ok(match self {
            Self::Nbd(address, name) => Box::new(Nbd::connect(std::slice::from_ref(address), name)?),
            Self::Path(path) => Box::new(DirectIo::open(path, synchronous)?),
        })
    }

    /// Makes the file if there is none and a size is given, which then ends with what is returned.
    ///
    /// # Errors
    /// If there is none and no size, or there is one and a size.
    pub fn make(&self, bytes: Option<u64>) -> Result<Option<Made>> {
        let Self::Path(path) = self else {
            ensure!(bytes.is_none(), "--create with {self}: only a file can be made");
            return Ok(None);
        };
        match (path.exists(), bytes) {
            (true, None) => Ok(None),
            (true, Some(_)) => bail!("--create with {self}: it is there already"),
            (false, None) => bail!("{self} is not there; --create 1GiB makes a file for the time of the measurement"),
            (false, Some(bytes)) => {
                let file = File::create_new(path).with_context(|| self.to_string())?;
                let made = Made(path.clone());
                file.set_len(bytes).with_context(|| format!("{self} with {bytes} bytes"))?;
                Ok(Some(made))
            }
        }
    }

    /// That nothing is in the first `span` bytes, by looking.
    ///
    /// # Errors
    /// If something is; with what would be lost.
    pub fn check_empty(&self, target: &mut dyn Target, span: u64) -> Result<()> {
        let mut buffers = Buffers::new(1, CHUNK);
        target.prepare(1)?;
        let mut offset = 0;
        while offset < span {
            let len = usize::try_from((span - offset).min(CHUNK as u64))?;
            one(target, &mut buffers, Request { slot: 0, kind: Kind::Read, offset, len, fua: false, copy: 0 })?;
            let bytes = &buffers.get(0)[..len];
            if let Some(first) = bytes.iter().position(|&b| b != 0) {
                let what = if offset == 0 { signature(bytes) } else { None };
                let what = what.map(|w| format!(" It looks like {w}.")).unwrap_or_default();
                bail!(
                    "{self} is not empty: byte {} is not zero.{what} The first {span} of its {} bytes would be lost; \
                     --overwrite says that you know",
                    offset + first as u64,
                    target.bytes()
                );
            }
            offset += len as u64;
        }
        Ok(())
    }
}

/// A file of ours, for as long as it is measured.
#[derive(Debug)]
pub struct Made(PathBuf);

impl Drop for Made {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Made {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// What people keep on disks, by its first bytes.
fn signature(bytes: &[u8]) -> Option<&'static str> {
    const SIGNATURES: [(usize, &[u8], &str); 8] = [
        (0, b"XFSB", "an XFS filesystem"),
        (0, b"LUKS\xba\xbe", "a LUKS container"),
        (1080, b"\x53\xef", "an ext filesystem"),
        (65_600, b"_BHRfS_M", "a btrfs filesystem"),
        (512, b"LABELONE", "an LVM volume"),
        (0, b"TWINSAN", "a TwinSAN disk"),
        (512, b"EFI PART", "a disk with a GPT"),
        (510, b"\x55\xaa", "a disk with a partition table"),
    ];
    let is = |at: usize, mark: &[u8]| bytes.get(at..at + mark.len()) == Some(mark);
    SIGNATURES.into_iter().find(|(at, mark, _)| is(*at, mark)).map(|(.., what)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        let unix = |path: &str, name: &str| Place::Nbd(Address::Unix(path.into()), name.into());
        let tcp = |host: &str, port, name: &str| Place::Nbd(Address::Tcp(host.into(), port), name.into());
        for (text, place) in [
            ("nbd+unix:///vol1?socket=/tmp/x.sock", unix("/tmp/x.sock", "vol1")),
            ("nbd+unix://?socket=/tmp/a%20b", unix("/tmp/a b", "")),
            ("nbd+unix:///a%2Fb?x=1&socket=s", unix("s", "a/b")),
            ("nbd://host:7/name", tcp("host", 7, "name")),
            ("nbd://host", tcp("host", 10809, "")),
            ("nbd://[::1]/x", tcp("::1", 10809, "x")),
            ("nbd://[::1]:9/x", tcp("::1", 9, "x")),
            ("/dev/sdb", Place::Path("/dev/sdb".into())),
            ("file", Place::Path("file".into())),
        ] {
            assert_eq!(text.parse::<Place>().unwrap(), place, "{text}");
        }
        for text in ["nbd+unix:///x", "nbd+unix:///x?y=z", "nbd://", "nbd://h:x/", "http://h/", "nbd://h/%4"] {
            let error = format!("{:#}", text.parse::<Place>().unwrap_err());
            assert!(error.contains("nbd+unix:///NAME?socket=PATH") || error.contains("hexadecimal"), "{text}: {error}");
        }
    }

    #[test]
    fn what_would_be_lost_is_said() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let place = Place::Path(folder.path().join("disk"));
        assert!(place.make(None).unwrap_err().to_string().contains("--create"));
        let made = place.make(Some(3 << 20)).unwrap().unwrap();
        place.check_empty(&mut *place.open(None).unwrap(), 3 << 20).unwrap();
        assert!(place.make(Some(1)).unwrap_err().to_string().contains("there already"));
        let mut bytes = vec![0; 3 << 20];
        bytes[(2 << 20) + 5] = 1;
        let words = |bytes: &[u8], span| {
            std::fs::write(made.path(), bytes).unwrap();
            place.check_empty(&mut *place.open(None).unwrap(), span).map_err(|e| e.to_string())
        };
        assert_eq!(words(&bytes, 2 << 20), Ok(()), "what is not used is not lost");
        let error = words(&bytes, 3 << 20).unwrap_err();
        assert!(error.contains("byte 2097157 is not zero") && error.contains("--overwrite"), "{error}");
        bytes[1080..1082].copy_from_slice(b"\x53\xef");
        let error = words(&bytes, 3 << 20).unwrap_err();
        assert!(error.contains("an ext filesystem") && error.contains("The first 3145728"), "{error}");
        let path = made.path().to_owned();
        drop(made);
        assert!(!path.exists());
    }
}
