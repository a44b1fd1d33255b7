//! The remote keys of one connection (contract 4).

use rustix::rand::{GetRandomFlags, getrandom};

use crate::{FabricError, RemoteKey};

/// An open byte range.
#[derive(Debug)]
struct Exposure {
    key: u64,
    region: usize,
    offset: u64,
    len: u64,
}

/// All that the peer of one connection may write to. A handful, so that a scan is the fastest look-up.
#[derive(Debug, Default)]
pub struct Exposures(Vec<Exposure>);

impl Exposures {
    /// Opens `len` bytes at `offset` of a region, which the caller has checked, under a fresh random key.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn open(&mut self, region: usize, offset: u64, len: u64) -> Result<RemoteKey, FabricError> {
        let key = loop {
            let key = random().map_err(|e| FabricError::Io { what: "getrandom for a remote key".into(), source: e })?;
            if self.0.iter().all(|open| open.key != key) {
                break key;
            }
        };
        self.0.push(Exposure { key, region, offset, len });
        Ok(RemoteKey(key))
    }

    /// The same, under a key that is known: for tests.
    pub fn open_as(&mut self, key: u64, region: usize, offset: u64, len: u64) {
        self.0.push(Exposure { key, region, offset, len });
    }

    /// The region and the first byte in it that a write of `len` bytes to `offset` of `key` means.
    ///
    /// # Errors
    /// A text that says how the peer broke the protocol. The key itself is not in it: it may be another's.
    pub fn find(&self, key: u64, offset: u64, len: u32) -> Result<(usize, usize), String> {
        let open = self.0.iter().find(|open| open.key == key).ok_or("a write with a key that opens nothing here")?;
        let end = offset.checked_add(u64::from(len)).filter(|&end| end <= open.len);
        if end.is_none() {
            return Err(format!("a write of {len} bytes at {offset} of a range of {} bytes", open.len));
        }
        let at = usize::try_from(open.offset + offset).map_err(|_| "a write beyond the address space")?;
        Ok((open.region, at))
    }
}

fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    // Reads of up to 256 bytes are never short (getrandom(2)).
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_stays_inside() {
        let mut open = Exposures::default();
        let RemoteKey(a) = open.open(3, 4096, 100).expect("random");
        let RemoteKey(b) = open.open(1, 0, 1).expect("random");
        assert_eq!(open.find(a, 0, 100), Ok((3, 4096)));
        assert_eq!(open.find(a, 99, 1), Ok((3, 4195)));
        assert_eq!(open.find(a, 100, 0), Ok((3, 4196)));
        assert_eq!(open.find(b, 0, 1), Ok((1, 0)));
        assert!(open.find(a, 0, 101).is_err());
        assert!(open.find(a, 100, 1).is_err());
        assert!(open.find(a, u64::MAX, 1).is_err());
        assert!(open.find(a, u64::MAX - 1, u32::MAX).is_err());
        assert!(open.find(b, 1, 1).is_err());
        let other = (0..).find(|&key| key != a && key != b).expect("one of three");
        assert!(open.find(other, 0, 0).is_err());
    }

    #[test]
    fn an_error_does_not_tell_a_key() {
        let mut open = Exposures::default();
        let RemoteKey(key) = open.open(0, 0, 1).expect("random");
        for why in [open.find(key, 7, 9).expect_err("outside"), open.find(!key, 0, 1).expect_err("unknown")] {
            assert!(!why.contains(&key.to_string()) && !why.contains(&(!key).to_string()), "{why}");
        }
    }
}
