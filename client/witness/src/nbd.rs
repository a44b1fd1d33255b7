//! A small blocking NBD client: one connection, one request at a time, simple replies (NBD proto.md).

pub mod proto;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use thiserror::Error;

use self::proto::{Command, REPLY_BYTES, header, length, require};

pub use self::proto::FUA;

/// `NBD_ESHUTDOWN`: the server has nothing to serve any more.
pub const ESHUTDOWN: u32 = 108;

/// What can go wrong with a server.
#[derive(Debug, Error)]
pub enum Error {
    /// The connection.
    #[error("NBD connection: {0}")]
    Io(#[from] io::Error),
    /// The server refuses the export.
    #[error("NBD export \"{export}\" refused ({code:#x}): {why}")]
    Refused {
        /// Its name.
        export: String,
        /// `NBD_REP_ERR_...`.
        code: u32,
        /// The server's words.
        why: String,
    },
    /// The server answers a request with an error.
    #[error("{command} of {len} bytes at byte {offset}: NBD error {code}")]
    Failed {
        /// What was asked.
        command: &'static str,
        /// Where.
        offset: u64,
        /// Its length.
        len: usize,
        /// `NBD_E...`.
        code: u32,
    },
    /// What comes is not NBD, or not the answer.
    #[error("NBD: {0}")]
    Protocol(String),
}

/// Or [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// One NBD connection.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    size: u64,
    cookie: u64,
}

impl Client {
    /// Connects to the socket and opens the export `name`.
    ///
    /// # Errors
    /// If the server is not there, or refuses.
    pub fn connect(socket: &Path, name: &str) -> Result<Self> {
        let mut stream =
            UnixStream::connect(socket).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", socket.display())))?;
        let size = proto::open(&mut stream, name)?.size;
        Ok(Self { stream, size, cookie: 0 })
    }

    /// The export's size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes with FUA.
    ///
    /// # Errors
    /// The server's, or a broken connection.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.request(Command::Write, FUA, offset, length(data)?, data)?;
        self.reply("a write", offset, data.len())
    }

    /// Fills `data`.
    ///
    /// # Errors
    /// The server's, or a broken connection.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<()> {
        self.request(Command::Read, 0, offset, length(data)?, &[])?;
        self.reply("a read", offset, data.len())?;
        Ok(self.stream.read_exact(data)?)
    }

    fn request(&mut self, command: Command, flags: u16, offset: u64, len: u32, payload: &[u8]) -> Result<()> {
        self.cookie += 1;
        let header = header(command, flags, self.cookie, offset, len);
        let parts = [io::IoSlice::new(&header), io::IoSlice::new(payload)];
        let sent = self.stream.write_vectored(&parts)?;
        if sent < header.len() {
            self.stream.write_all(&header[sent..])?;
            self.stream.write_all(payload)?;
        } else {
            self.stream.write_all(&payload[sent - header.len()..])?;
        }
        Ok(())
    }

    fn reply(&mut self, command: &'static str, offset: u64, len: usize) -> Result<()> {
        let mut bytes = [0; REPLY_BYTES];
        self.stream.read_exact(&mut bytes)?;
        let reply = proto::reply(&bytes)?;
        require(reply.cookie == self.cookie, || "a reply to another request".to_owned())?;
        match reply.code {
            0 => Ok(()),
            code => Err(Error::Failed { command, offset, len, code }),
        }
    }
}

impl Drop for Client {
    /// NBD asks for a DISC before the connection ends; nobody is left to tell of its failure.
    fn drop(&mut self) {
        let _ = self.request(Command::Disc, 0, 0, 0, &[]);
    }
}
