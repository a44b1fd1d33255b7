//! A connection's message buffers: registered once, at its beginning.
//!
//! ```text
//! | a slot for each post of the send queue ... | one for credits | a slot for each receive ... |
//! ```
//!
//! A post's number modulo the depth is its slot: posts complete in order and no more than the depth are outstanding.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use twinsan_arena::{Arena, ArenaOptions, PagePolicy};

use crate::message::MAX_BYTES;
use crate::sys::{Access, MemoryRegion, ProtectionDomain, Receive};

/// From one slot to the next: the longest message, on words of its own.
const STRIDE: usize = MAX_BYTES.next_multiple_of(16);

/// See the module.
#[derive(Debug)]
pub(crate) struct Pool {
    memory: MemoryRegion,
    sends: usize,
    receives: usize,
}

impl Pool {
    /// Slots for so many posts and receives.
    ///
    /// # Errors
    /// The system's, if there is no memory or it can't be registered.
    pub(crate) fn new(domain: &Rc<ProtectionDomain>, sends: usize, receives: usize) -> io::Result<Self> {
        let bytes = (sends + 1 + receives) * STRIDE;
        let options = ArenaOptions { name: "messages".into(), bytes, pages: PagePolicy::Small, lock: false };
        let arena = Arc::new(Arena::new(&options).map_err(io::Error::other)?);
        let own = arena.as_ptr().addr() as u64;
        let memory = MemoryRegion::new(domain, &arena, (0, bytes), own, Access::Receive)?;
        Ok(Self { memory, sends, receives })
    }

    pub(crate) const fn memory(&self) -> &MemoryRegion {
        &self.memory
    }

    /// Where the slot of post `number` begins.
    pub(crate) fn send_at(&self, number: u64) -> usize {
        usize::try_from(number % self.sends as u64).expect("below a usize") * STRIDE
    }

    /// Where the slot for credits begins.
    pub(crate) const fn credits_at(&self) -> usize {
        self.sends * STRIDE
    }

    /// The receive with a slot's index.
    pub(crate) fn receive(&self, slot: usize, number: u64) -> Receive {
        assert!(slot < self.receives, "receive {slot} of {}", self.receives);
        Receive { number, offset: self.receive_at(slot), len: MAX_BYTES }
    }

    /// Where a receive's slot begins.
    pub(crate) const fn receive_at(&self, slot: usize) -> usize {
        (self.sends + 1 + slot) * STRIDE
    }

    pub(crate) fn put(&self, at: usize, bytes: &[u8]) {
        self.memory.arena().copy_in(at, bytes);
    }

    pub(crate) fn get(&self, at: usize, bytes: &mut [u8]) {
        self.memory.arena().copy_out(at, bytes);
    }
}
