//! What the front end asks of the volume, and of whoever waits for its sockets.

use std::os::fd::BorrowedFd;

use twinsan_fabric::Interest;
use twinsan_wire::{BlobKind, Lba, Seq};

/// The replicated volume: [`crate::attach`]'s is the session, the tests' a model in RAM.
///
/// Completions come back by [`NbdFront::writes_completed`](super::NbdFront::writes_completed) and
/// [`NbdFront::read_completed`](super::NbdFront::read_completed).
pub trait Backend {
    /// The data position that the next payload of `payload_len` bytes gets (0: a blob without payload); `None` while
    /// the window is full. Reserves nothing.
    fn place(&mut self, payload_len: u32) -> Option<u64>;

    /// A write's request is there, for whoever measures; its payload may still be on the way.
    fn requested(&mut self) {}

    /// Commits the next blob, for which [`Backend::place`] has just given a position where the payload now lies.
    /// Blobs are applied in the order of this call, and reads asked for after it see it.
    fn write(&mut self, kind: BlobKind, lba: Lba, blocks: u32) -> Seq;

    /// Reads into read buffer `slot`.
    fn read(&mut self, lba: Lba, blocks: u32, slot: u32);
}

/// Whoever calls [`NbdFront::ready`](super::NbdFront::ready).
pub trait Watcher {
    /// From now on waits for this, level-triggered.
    ///
    /// # Errors
    /// If the system refuses: the connection ends.
    fn watch(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<(), String>;

    /// Stops waiting.
    fn unwatch(&mut self, fd: BorrowedFd<'_>);
}
