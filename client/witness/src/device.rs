//! What a load writes to.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use thiserror::Error;

use crate::nbd;

/// How a request ended that did not complete.
#[derive(Debug, Error)]
pub enum Failure {
    /// The device answers with an error. No failure of a node, a link or a path may come to that.
    #[error("{0}")]
    Answered(String),
    /// The device is gone, and with it the answer.
    #[error("{0}")]
    Gone(String),
}

/// A device of which every write is durable when it completes.
pub trait Device {
    /// Writes.
    ///
    /// # Errors
    /// See [`Failure`]. The write may have happened.
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Failure>;

    /// Fills `data`.
    ///
    /// # Errors
    /// See [`Failure`].
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), Failure>;
}

impl Device for nbd::Client {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Failure> {
        Ok(Self::write(self, offset, data)?)
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), Failure> {
        Ok(Self::read(self, offset, data)?)
    }
}

impl From<nbd::Error> for Failure {
    fn from(error: nbd::Error) -> Self {
        let words = error.to_string();
        match error {
            // What a server says that has the volume no more.
            nbd::Error::Io(_) | nbd::Error::Failed { code: nbd::ESHUTDOWN, .. } => Self::Gone(words),
            _ => Self::Answered(words),
        }
    }
}

/// A block device or a file, past the page cache: what completes there has completed at the device, and what is read
/// comes from it. Buffers must be [`Aligned`].
#[derive(Debug)]
pub struct Direct(File);

impl Direct {
    /// Opens it.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_DIRECT | libc::O_DSYNC);
        options.open(path).map(Self)
    }
}

impl Device for Direct {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Failure> {
        self.0.write_all_at(data, offset).map_err(|e| Failure::Answered(format!("write at byte {offset}: {e}")))
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), Failure> {
        self.0.read_exact_at(data, offset).map_err(|e| Failure::Answered(format!("read at byte {offset}: {e}")))
    }
}

/// A page is enough for every disk.
const ALIGN: usize = 4096;

/// Memory that O_DIRECT takes.
#[derive(Debug)]
pub struct Aligned {
    memory: Vec<u8>,
    start: usize,
}

impl Aligned {
    /// Of `len` bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let memory = vec![0; len + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        Self { memory, start }
    }

    /// All of it, to read.
    #[must_use]
    pub fn get(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.memory.len() - ALIGN]
    }

    /// All of it.
    pub fn bytes(&mut self) -> &mut [u8] {
        let len = self.memory.len() - ALIGN;
        &mut self.memory[self.start..self.start + len]
    }
}
