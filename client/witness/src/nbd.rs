//! A small blocking NBD client: one connection, one request at a time, simple replies (NBD proto.md).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use thiserror::Error;

const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;
const FLAGS_FIXED_NO_ZEROES: u32 = 3;

/// Force Unit Access: durable before the reply.
pub const FUA: u16 = 1;

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

type Result<T> = std::result::Result<T, Error>;

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
        let stream =
            UnixStream::connect(socket).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", socket.display())))?;
        let mut client = Self { stream, size: 0, cookie: 0 };
        client.negotiate(name)?;
        Ok(client)
    }

    fn negotiate(&mut self, name: &str) -> Result<()> {
        require(self.u64()? == NBDMAGIC && self.u64()? == IHAVEOPT, || "not an NBD server".to_owned())?;
        require(self.u16()? & 1 == 1, || "the server does not speak fixed newstyle".to_owned())?;
        let mut option = FLAGS_FIXED_NO_ZEROES.to_be_bytes().to_vec();
        option.extend(IHAVEOPT.to_be_bytes());
        option.extend(OPT_GO.to_be_bytes());
        let name_len = length(name.as_bytes())?;
        option.extend((name_len + 8).to_be_bytes());
        option.extend(name_len.to_be_bytes());
        option.extend(name.as_bytes());
        option.extend(1_u16.to_be_bytes());
        option.extend(INFO_BLOCK_SIZE.to_be_bytes());
        self.stream.write_all(&option)?;
        loop {
            require(self.u64()? == OPTION_REPLY && self.u32()? == OPT_GO, || "not a reply to GO".to_owned())?;
            let (kind, len) = (self.u32()?, self.u32()? as usize);
            require(len <= 65_536, || format!("an option reply of {len} bytes"))?;
            let mut data = vec![0; len];
            self.stream.read_exact(&mut data)?;
            match kind {
                REP_ACK => return Ok(()),
                REP_INFO if data.len() >= 10 && data[..2] == INFO_EXPORT.to_be_bytes() => {
                    self.size = u64::from_be_bytes(data[2..10].try_into().expect("8 bytes"));
                }
                REP_INFO => {}
                code => {
                    let why = String::from_utf8_lossy(&data).into_owned();
                    return Err(Error::Refused { export: name.to_owned(), code, why });
                }
            }
        }
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
        self.request(1, FUA, offset, length(data)?, data)?;
        self.reply("a write", offset, data.len())
    }

    /// Fills `data`.
    ///
    /// # Errors
    /// The server's, or a broken connection.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<()> {
        self.request(0, 0, offset, length(data)?, &[])?;
        self.reply("a read", offset, data.len())?;
        Ok(self.stream.read_exact(data)?)
    }

    fn request(&mut self, command: u16, flags: u16, offset: u64, len: u32, payload: &[u8]) -> Result<()> {
        self.cookie += 1;
        let mut header = [0; 28];
        header[0..4].copy_from_slice(&REQUEST.to_be_bytes());
        header[4..6].copy_from_slice(&flags.to_be_bytes());
        header[6..8].copy_from_slice(&command.to_be_bytes());
        header[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        header[16..24].copy_from_slice(&offset.to_be_bytes());
        header[24..28].copy_from_slice(&len.to_be_bytes());
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
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        require(reply[0..4] == SIMPLE_REPLY.to_be_bytes(), || format!("not a simple reply: {reply:02x?}"))?;
        require(reply[8..16] == self.cookie.to_be_bytes(), || "a reply to another request".to_owned())?;
        match u32::from_be_bytes(reply[4..8].try_into().expect("4 bytes")) {
            0 => Ok(()),
            code => Err(Error::Failed { command, offset, len, code }),
        }
    }

    fn u16(&mut self) -> io::Result<u16> {
        let mut b = [0; 2];
        self.stream.read_exact(&mut b)?;
        Ok(u16::from_be_bytes(b))
    }

    fn u32(&mut self) -> io::Result<u32> {
        let mut b = [0; 4];
        self.stream.read_exact(&mut b)?;
        Ok(u32::from_be_bytes(b))
    }

    fn u64(&mut self) -> io::Result<u64> {
        let mut b = [0; 8];
        self.stream.read_exact(&mut b)?;
        Ok(u64::from_be_bytes(b))
    }
}

fn require(holds: bool, why: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Protocol(why())) }
}

fn length(data: &[u8]) -> Result<u32> {
    u32::try_from(data.len()).map_err(|_| Error::Protocol(format!("{} bytes are too many", data.len())))
}

impl Drop for Client {
    /// NBD asks for a DISC before the connection ends; nobody is left to tell of its failure.
    fn drop(&mut self) {
        let _ = self.request(2, 0, 0, 0, &[]);
    }
}
