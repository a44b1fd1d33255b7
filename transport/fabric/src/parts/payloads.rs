//! How long payloads have been lately: loops that share a host place themselves by it, and have to agree.

/// From here on payloads are long: copying and checking one takes 20 µs, longer than a wake-up, and all who do it had better
/// do it at the same time, on all cores there are.
const LONG_BYTES: u64 = 128 << 10;

/// Blobs, and the bytes of their payloads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Payloads {
    blobs: u64,
    bytes: u64,
}

impl Payloads {
    /// One more.
    pub fn add(&mut self, payload_bytes: u32) {
        self.blobs += 1;
        self.bytes += u64::from(payload_bytes);
    }

    /// How many blobs there were since the last judgement.
    #[must_use]
    pub const fn blobs(&self) -> u64 {
        self.blobs
    }

    /// Judges them together, and begins anew. `None`: there were none.
    pub fn judge(&mut self) -> Option<bool> {
        let Self { blobs, bytes } = std::mem::take(self);
        bytes.checked_div(blobs).map(|mean| mean >= LONG_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_counts_since_the_last_judgement() {
        let mut payloads = Payloads::default();
        assert_eq!(payloads.judge(), None);
        [4096, 1 << 20].into_iter().for_each(|bytes| payloads.add(bytes));
        assert_eq!((payloads.blobs(), payloads.judge()), (2, Some(true)));
        payloads.add(4096);
        assert_eq!((payloads.judge(), payloads.judge()), (Some(false), None));
    }
}
