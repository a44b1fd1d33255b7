//! Asking, and the line framing that both sides use.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Request, Response};

/// The longest line that either side takes.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// Why an answer did not come.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens there.
    #[error("{path}: {source}; is twinsand running, and is this its user?", path = path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The conversation broke off, or took too long.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

/// Asks the node behind the socket at `path`; `timeout` bounds each wait for it.
///
/// # Errors
/// [`AdminError`] names the socket.
pub fn ask(path: &Path, request: &Request, timeout: Duration) -> Result<Response, AdminError> {
    let stream = UnixStream::connect(path).map_err(|source| AdminError::Connect { path: path.to_owned(), source })?;
    converse(&stream, request, timeout).map_err(|source| AdminError::Io { path: path.to_owned(), source })
}

fn converse(stream: &UnixStream, request: &Request, timeout: Duration) -> io::Result<Response> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write_line(stream, request)?;
    read_line(stream)
}

/// Writes one value as one line.
///
/// # Errors
/// The system's.
pub fn write_line(mut to: impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// Reads one line and its value; what follows the line is lost.
///
/// # Errors
/// The system's; `UnexpectedEof` if the line does not end, `InvalidData` if it is longer than [`MAX_LINE_BYTES`] or
/// no such value.
pub fn read_line<T: DeserializeOwned>(from: impl Read) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(from.take(MAX_LINE_BYTES as u64)).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(if line.len() + 1 >= MAX_LINE_BYTES {
            io::Error::new(io::ErrorKind::InvalidData, format!("the line is longer than {MAX_LINE_BYTES} bytes"))
        } else {
            io::Error::new(io::ErrorKind::UnexpectedEof, "the other side closed before its line ended")
        });
    }
    serde_json::from_slice(&line).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
}
