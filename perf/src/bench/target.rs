//! What is measured: something that takes reads, durable writes and flushes, several at a time.

use std::time::{Duration, Instant};

use anyhow::Result;
use twinsan_witness::device::Aligned;

/// A timer may be late by so much.
const LATE: Duration = Duration::from_micros(100);

/// How long one may sleep until that moment, so as not to be late; None: one looks all the time from here on.
#[must_use]
pub fn sleep_for(until: Instant) -> Option<Duration> {
    until.saturating_duration_since(Instant::now()).checked_sub(LATE)
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Fills the slot's memory.
    Read,
    /// From the slot's memory.
    Write,
    /// All writes that have ended become durable.
    Flush,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whose memory it is about; nothing else in flight has the same.
    pub slot: usize,
    /// What is asked for.
    pub kind: Kind,
    /// The first byte on the target.
    pub offset: u64,
    /// Bytes.
    pub len: usize,
    /// A write is durable when it ends.
    pub fua: bool,
    /// Which copy a read is answered by; 0 if only one can be asked.
    pub copy: usize,
}

/// A request that has ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Whose.
    pub slot: usize,
    /// When the target began with it, where that is not when it was submitted.
    pub began: Option<Instant>,
    /// When its end was known.
    pub at: Instant,
}

/// The memory of every slot. None: somebody has it until the slot's request has ended.
#[derive(Debug, Default)]
pub struct Buffers(pub Vec<Option<Aligned>>);

impl Buffers {
    /// For so many slots.
    #[must_use]
    pub fn new(slots: usize, bytes: usize) -> Self {
        Self((0..slots).map(|_| Some(Aligned::new(bytes))).collect())
    }

    /// What a slot holds.
    ///
    /// # Panics
    /// If somebody has it.
    #[must_use]
    pub fn get(&self, slot: usize) -> &[u8] {
        self.0[slot].as_ref().expect("the slot's memory").get()
    }

    /// To change it.
    ///
    /// # Panics
    /// If somebody has it.
    pub fn of(&mut self, slot: usize) -> &mut [u8] {
        self.0[slot].as_mut().expect("the slot's memory").bytes()
    }
}

/// Something that can be measured.
pub trait Target {
    /// Its size.
    fn bytes(&self) -> u64;

    /// From now on slots below `depth` are used. Nothing is in flight.
    ///
    /// # Errors
    /// If it can't have so many.
    fn prepare(&mut self, depth: usize) -> Result<()>;

    /// How many copies can be read each by itself.
    fn copies(&self) -> usize {
        1
    }

    /// Takes a request. It may leave for the target with the next call of [`Target::wait`] only.
    fn submit(&mut self, request: Request);

    /// Goes on until at least one request has ended, or until that moment. Nothing has to be in flight then.
    ///
    /// # Errors
    /// If the target fails, or answers with an error.
    fn wait(&mut self, buffers: &mut Buffers, until: Option<Instant>, done: &mut Vec<Done>) -> Result<()>;

    /// The clock that requests are timed by.
    fn now(&self) -> Instant {
        Instant::now()
    }
}
