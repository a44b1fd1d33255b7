//! A shell in a guest of a lab that is switched on, maybe by another process: that one listens on a socket in its folder.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use crate::agent::Agent;
use crate::topology::{HOSTS, Lab, runs};

const SOCKET: &str = "shell.sock";
/// A person may think for a while.
const FOR_EVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// Lets others in, from a thread of its own.
///
/// # Errors
/// If the socket can't be made.
pub fn listen(lab: &Lab) -> Result<()> {
    let path = lab.folder().join(SOCKET);
    let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
    let agents: Vec<(&'static str, Option<Agent>)> =
        HOSTS.iter().map(|&host| (host.name(), lab.node(host).agent().ok().cloned())).collect();
    std::thread::spawn(move || {
        for visitor in listener.incoming().flatten() {
            let agents = agents.clone();
            std::thread::spawn(move || {
                // The visitor has gone, or the guest: nobody is left to be told.
                let _ = serve(visitor, &agents);
            });
        }
    });
    Ok(())
}

fn serve(mut visitor: UnixStream, agents: &[(&'static str, Option<Agent>)]) -> Result<()> {
    let mut input = BufReader::new(visitor.try_clone()?);
    let mut line = String::new();
    input.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (host, columns, rows) = (words.next(), words.next().unwrap_or("80"), words.next().unwrap_or("24"));
    let agent = agents.iter().find(|(name, _)| Some(*name) == host).and_then(|(_, agent)| agent.as_ref());
    let Some(agent) = agent else {
        writeln!(visitor, "{} is off\r", host.unwrap_or("nobody"))?;
        return Ok(());
    };
    let shell = format!("stty cols {columns} rows {rows}; cd; PS1='\\h:\\w# ' TERM=xterm exec bash --norc -i");
    let job = agent.spawn_with_input(&format!("exec script -qfc \"{shell}\" /dev/null"))?;
    let mut output = visitor.try_clone()?;
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut taken = 0;
            while let Ok(Some(said)) = job.said_since(taken, FOR_EVER) {
                taken += said.len();
                if output.write_all(&said).is_err() {
                    break;
                }
            }
            let _ = output.shutdown(Shutdown::Both);
        });
        let mut buffer = [0; 1024];
        while let Ok(len @ 1..) = input.read(&mut buffer) {
            if job.input(&buffer[..len]).is_err() {
                break;
            }
        }
        let _ = job.signal(libc::SIGHUP);
        let _ = job.signal(libc::SIGKILL);
    });
    Ok(())
}

/// Labs that are switched on and let others in.
#[must_use]
pub fn open_labs() -> Vec<PathBuf> {
    runs().into_iter().map(|folder| folder.join(SOCKET)).filter(|socket| UnixStream::connect(socket).is_ok()).collect()
}

/// The socket of a lab of this process.
#[must_use]
pub fn socket(lab: &Lab) -> PathBuf {
    lab.folder().join(SOCKET)
}

/// Connects this process's terminal to a shell in `host`, until either ends.
///
/// # Errors
/// If the lab is gone.
pub fn enter(socket: &Path, host: &str) -> Result<()> {
    let mut stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
    let stdin = std::io::stdin();
    let size = tcgetwinsize(&stdin).map_or((80, 24), |size| (size.ws_col, size.ws_row));
    writeln!(stream, "{host} {} {}", size.0, size.1)?;
    let _raw = isatty(&stdin).then(Raw::enter).transpose()?;
    let mut keys = stream.try_clone()?;
    // It reads a terminal that may never say anything more; it ends with the process.
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(len) = std::io::stdin().read(&mut buffer) {
            if len == 0 {
                // Its output is still wanted: the end of a script that was piped in.
                let _ = keys.write_all(&[4]);
                break;
            }
            if keys.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
    });
    let mut screen = std::io::stdout();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                screen.write_all(&buffer[..len])?;
                screen.flush()?;
            }
            Err(error) => bail!("the lab is gone: {error}"),
        }
    }
}

/// A terminal that passes every key on, and is put back at the end.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
