//! Bytes, taken as numbers and choices. Whatever is missing is zero, so that every input means something.

/// What is left of an input.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Whether anything is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let (&first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        first
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let taken = self.take(N);
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }

    /// Up to `len` bytes.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// As many bytes as the next one says.
    pub fn counted(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte());
        self.take(len)
    }

    /// The next bit of its own byte.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `most`, which is at least 1.
    pub fn below(&mut self, most: usize) -> usize {
        usize::from(self.byte()) % most
    }

    /// A number from around `near`, a small one, one from the end of the numbers, or any.
    pub fn number(&mut self, near: u64) -> u64 {
        let how = self.byte();
        match how {
            0..128 => near.wrapping_add(u64::from(how % 16)).wrapping_sub(4),
            128..224 => u64::from(how % 32),
            224..232 => u64::MAX - u64::from(how % 8),
            232..240 => 1 << (self.byte() % 64),
            _ => u64::from_le_bytes(self.array()),
        }
    }

    /// The same, of 32 bits.
    pub fn short(&mut self, near: u32) -> u32 {
        let number = self.number(u64::from(near));
        u32::try_from(number & u64::from(u32::MAX)).expect("32 bits")
    }
}
