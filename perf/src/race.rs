//! The other runner: a plain file on the same filesystem, `O_DIRECT | O_DSYNC`.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workload::Target;
use twinsan_witness::device::Aligned;
use twinsan_witness::pattern::{BLOCK, Model, fill};

/// What is read and written anew around a byte that is changed.
const PAGE: usize = 4096;

/// A prefilled file, written synchronously.
#[derive(Debug)]
pub struct DirectFile {
    file: File,
    path: PathBuf,
    memory: Aligned,
}

impl DirectFile {
    /// Makes the file and fills it, so that no write allocates; `progress` hears the bytes written.
    ///
    /// # Errors
    /// If the filesystem has no room, or no `O_DIRECT`.
    pub fn create(path: &Path, bytes: u64, model: &mut Model, mut progress: impl FnMut(u64)) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).read(true);
        options.custom_flags(libc::O_DIRECT | libc::O_DSYNC);
        let file = options.open(path).with_context(|| format!("{} with O_DIRECT|O_DSYNC", path.display()))?;
        let mut made = Self { file, path: path.to_owned(), memory: Aligned::new(1 << 20) };
        let mut buffer = vec![0; 1 << 20];
        let stamp = model.next_stamp();
        for offset in (0..bytes).step_by(buffer.len()) {
            let first = offset / BLOCK as u64;
            fill(&mut buffer, first, stamp);
            made.write(offset, &buffer)?;
            model.completed(first, buffer.len() / BLOCK, stamp);
            progress(offset + buffer.len() as u64);
        }
        Ok(made)
    }
}

impl Target for DirectFile {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let aligned = &mut self.memory.bytes()[..data.len()];
        aligned.copy_from_slice(data);
        self.file
            .write_all_at(aligned, offset)
            .with_context(|| format!("{}: {} bytes at {offset}", self.path.display(), data.len()))
    }
}

/// Flips a bit of a byte of `path` past everybody's back, and makes it durable.
///
/// # Errors
/// The filesystem's.
pub fn corrupt(path: &Path, offset: u64) -> Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_DIRECT | libc::O_DSYNC);
    let file = options.open(path).with_context(|| path.display().to_string())?;
    let mut memory = Aligned::new(PAGE);
    let page = offset - offset % PAGE as u64;
    let bytes = memory.bytes();
    file.read_exact_at(bytes, page)?;
    bytes[usize::try_from(offset - page)?] ^= 1;
    file.write_all_at(bytes, page)?;
    Ok(())
}
