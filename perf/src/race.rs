//! The other runner: a plain file on the same filesystem, `O_DIRECT | O_DSYNC`.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workload::Target;
use twinsan_witness::pattern::{BLOCK, Model, fill};

/// `O_DIRECT` wants memory aligned to the disk's block; a page is enough for every disk.
const ALIGN: usize = 4096;

/// A prefilled file, written synchronously.
#[derive(Debug)]
pub struct DirectFile {
    file: File,
    path: PathBuf,
    memory: Vec<u8>,
    start: usize,
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
        let (memory, start) = aligned(1 << 20);
        let mut made = Self { file, path: path.to_owned(), memory, start };
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
        let end = self.start + data.len();
        self.memory[self.start..end].copy_from_slice(data);
        let aligned = &self.memory[self.start..end];
        self.file
            .write_all_at(aligned, offset)
            .with_context(|| format!("{}: {} bytes at {offset}", self.path.display(), data.len()))
    }
}

/// Memory of `len` bytes that begins at `start` of the vector.
fn aligned(len: usize) -> (Vec<u8>, usize) {
    let memory = vec![0; len + ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN);
    (memory, start)
}

/// Flips a bit of a byte of `path` past everybody's back, and makes it durable.
///
/// # Errors
/// The filesystem's.
pub fn corrupt(path: &Path, offset: u64) -> Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_DIRECT | libc::O_DSYNC);
    let file = options.open(path).with_context(|| path.display().to_string())?;
    let (mut memory, start) = aligned(ALIGN);
    let page = offset - offset % ALIGN as u64;
    let bytes = &mut memory[start..start + ALIGN];
    file.read_exact_at(bytes, page)?;
    bytes[usize::try_from(offset - page)?] ^= 1;
    file.write_all_at(bytes, page)?;
    Ok(())
}
