//! The pre-shared key of a volume.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

/// The shortest key: 128 bits.
pub const MIN_KEY_BYTES: usize = 16;
/// The longest key.
pub const MAX_KEY_BYTES: usize = 1024;

/// Access of anybody but the owner.
const GROUP_AND_OTHERS: u32 = 0o077;

/// A pre-shared key. Clones share one copy, which is overwritten with zeros when the last goes; it is never printed.
#[derive(Clone)]
pub struct Key(Arc<Zeroizing<Vec<u8>>>);

/// Why a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file can't be read.
    #[error("key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// Not a regular file.
    #[error("key file {path}: not a regular file")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else could read or change it.
    #[error("key file {path}: mode {mode:04o} lets group or others in; do: chmod 600 {path}")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Too short or too long.
    #[error(
        "key{}: {length} bytes; right are {} to {}, as random as can be; do: openssl rand -hex 32",
        .path.as_ref().map(|path| format!(" file {}", path.display())).unwrap_or_default(),
        MIN_KEY_BYTES,
        MAX_KEY_BYTES
    )]
    Length {
        /// The file, if it came from one.
        path: Option<PathBuf>,
        /// Its bytes, without the line end; [`MAX_KEY_BYTES`] + 1 stands for all that is longer.
        length: usize,
    },
}

impl Key {
    /// From bytes.
    ///
    /// # Errors
    /// If there are fewer than [`MIN_KEY_BYTES`] or more than [`MAX_KEY_BYTES`].
    pub fn new(bytes: &[u8]) -> Result<Self, KeyError> {
        if (MIN_KEY_BYTES..=MAX_KEY_BYTES).contains(&bytes.len()) {
            Ok(Self(Arc::new(Zeroizing::new(bytes.to_vec()))))
        } else {
            Err(KeyError::Length { path: None, length: bytes.len() })
        }
    }

    /// From a file: its bytes without the line end that editors and `openssl rand -hex` leave there (one LF or CR LF).
    ///
    /// # Errors
    /// If it can't be read, is no regular file, lets group or others in, or is too short or too long.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let io = |source: io::Error| KeyError::Io { path: path.to_owned(), source };
        // NONBLOCK, so that a FIFO of that name does not hang us: it is refused below.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mut file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|error| io(error.into()))?);
        // Of the open file, not of the name, which may be another file's by now.
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(KeyError::NotAFile { path: path.to_owned() });
        }
        if metadata.mode() & GROUP_AND_OTHERS != 0 {
            let mode = metadata.permissions().mode() & 0o7777;
            return Err(KeyError::Mode { path: path.to_owned(), mode });
        }
        let mut buffer = Zeroizing::new([0; MAX_KEY_BYTES + 3]);
        let length = read_up_to(&mut file, buffer.as_mut_slice()).map_err(io)?;
        Self::new(without_line_end(&buffer[..length])).map_err(|error| match error {
            KeyError::Length { length, .. } => {
                KeyError::Length { path: Some(path.to_owned()), length: length.min(MAX_KEY_BYTES + 1) }
            }
            other => other,
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// Fills the buffer as far as the file goes, without the copies that a growing vector leaves behind.
fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn without_line_end(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(contents: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_key_file_loads_without_its_line_end() {
        for contents in [&b"0123456789abcdef"[..], b"0123456789abcdef\n", b"0123456789abcdef\r\n"] {
            let (_dir, path) = file_with(contents, 0o600);
            assert_eq!(Key::load(&path).unwrap().bytes(), b"0123456789abcdef");
        }
        let (_dir, path) = file_with(b"0123456789abcdef\n\n", 0o400);
        assert_eq!(Key::load(&path).unwrap().bytes(), b"0123456789abcdef\n", "only one line end goes");
    }

    #[test]
    fn any_access_of_group_or_others_is_refused_with_the_way_out() {
        for bit in 0..6 {
            let (_dir, path) = file_with(b"0123456789abcdef", 0o600 | 1 << bit);
            let error = Key::load(&path).unwrap_err();
            assert!(matches!(&error, KeyError::Mode { mode, .. } if *mode == 0o600 | 1 << bit), "{error}");
            let text = error.to_string();
            assert!(text.contains(&format!("{:04o}", 0o600 | 1 << bit)), "{text}");
            assert!(text.contains(&format!("chmod 600 {}", path.display())), "{text}");
            assert!(text.starts_with(&format!("key file {}", path.display())), "{text}");
        }
    }

    #[test]
    fn the_length_has_bounds() {
        let load = |bytes: &[u8]| {
            let (_dir, path) = file_with(bytes, 0o600);
            Key::load(&path)
        };
        for length in [MIN_KEY_BYTES, MAX_KEY_BYTES] {
            let exact = vec![b'k'; length];
            assert_eq!(load(&exact).unwrap().bytes(), exact);
            assert_eq!(load(&[&exact[..], b"\r\n"].concat()).unwrap().bytes(), exact);
        }
        for (bytes, expected) in
            [(vec![], 0), (vec![b'k'; 15], 15), (vec![b'k'; MAX_KEY_BYTES + 1], 1025), (vec![b'k'; 1 << 16], 1025)]
        {
            assert!(
                matches!(load(&bytes), Err(KeyError::Length { path: Some(_), length }) if length == expected),
                "{} bytes",
                bytes.len()
            );
        }
        assert!(matches!(Key::new(b"short"), Err(KeyError::Length { path: None, length: 5 })));
    }

    #[test]
    fn what_is_no_readable_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Key::load(dir.path()), Err(KeyError::NotAFile { .. })));
        assert!(matches!(
            Key::load(&dir.path().join("absent")),
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound
        ));
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(matches!(Key::load(&fifo), Err(KeyError::NotAFile { .. })), "and it does not hang");
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = Key::new(b"0123456789abcdef").unwrap();
        assert_eq!(format!("{key:?}"), "Key(secret)");
        assert_eq!(format!("{:?}", Some(&key)), "Some(Key(secret))");
    }
}
