//! What a connection owes its client, in order: reply bytes and the read buffers that READ answers are sent from.
//!
//! Everything that is owed leaves in one gathered write. A client that does not take its answers keeps read buffers
//! occupied; when others need them, what is left in them moves to ordinary memory ([`Output::vacate`]).

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use twinsan_arena::{IoPart, writev};

use crate::memory::Memory;

/// Parts of one gathered write.
const MAX_PARTS: usize = 64;

#[derive(Debug)]
enum Segment {
    /// The next so many of `bytes`.
    Bytes(usize),
    /// Bytes of a read buffer; with the last of them, whether the buffer is free again.
    Slot { slot: u32, at: usize, len: usize },
    /// What was in a read buffer.
    Moved { data: Vec<u8>, at: usize },
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Reply bytes of all `Bytes` segments; those before `sent` are gone.
    bytes: Vec<u8>,
    sent: usize,
    segments: VecDeque<Segment>,
    /// READ bytes in `segments`.
    data: u64,
}

/// What one gathered write came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Nothing is owed any more.
    Empty,
    /// The socket takes no more for now.
    Blocked,
}

impl Output {
    /// Appends reply bytes.
    pub(crate) fn reply(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        match (self.bytes.len() - before, self.segments.back_mut()) {
            (0, _) => {}
            (added, Some(Segment::Bytes(len))) => *len += added,
            (added, _) => self.segments.push_back(Segment::Bytes(added)),
        }
    }

    /// Appends `len` bytes at `at` of read buffer `slot`, which is handed back once they are sent.
    pub(crate) fn slot(&mut self, slot: u32, at: u32, len: u32) {
        self.data += u64::from(len);
        self.segments.push_back(Segment::Slot { slot, at: at as usize, len: len as usize });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Reply bytes not yet sent, READ data apart.
    pub(crate) const fn reply_bytes(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Bytes of all kinds not yet sent.
    pub(crate) const fn owed_bytes(&self) -> u64 {
        self.data + self.reply_bytes() as u64
    }

    /// READ data not yet sent.
    pub(crate) const fn data_bytes(&self) -> u64 {
        self.data
    }

    /// Sends as much as the socket takes; buffers that it is done with are appended to `free`.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn flush(&mut self, fd: BorrowedFd<'_>, memory: &Memory, free: &mut Vec<u32>) -> io::Result<Flush> {
        while !self.segments.is_empty() {
            match self.write_once(fd, memory) {
                Ok(sent) => self.advance(sent, free),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Flush::Blocked),
                Err(error) => return Err(error),
            }
        }
        Ok(Flush::Empty)
    }

    fn write_once(&self, fd: BorrowedFd<'_>, memory: &Memory) -> io::Result<usize> {
        let mut parts = [IoPart::Bytes(&[]); MAX_PARTS];
        let mut bytes = &self.bytes[self.sent..];
        let mut count = 0;
        for (part, segment) in parts.iter_mut().zip(&self.segments) {
            *part = match *segment {
                Segment::Bytes(len) => {
                    let (now, later) = bytes.split_at(len);
                    bytes = later;
                    IoPart::Bytes(now)
                }
                Segment::Slot { slot, at, len } => {
                    IoPart::Arena { arena: memory.arena(), offset: Memory::read_slot(slot) + at, len }
                }
                Segment::Moved { ref data, at } => IoPart::Bytes(&data[at..]),
            };
            count += 1;
        }
        writev(fd, &parts[..count])
    }

    fn advance(&mut self, mut sent: usize, free: &mut Vec<u32>) {
        while sent > 0 {
            let front = self.segments.front_mut().expect("no more was sent than is queued");
            let (take, done) = match front {
                Segment::Bytes(len) => {
                    let take = sent.min(*len);
                    *len -= take;
                    self.sent += take;
                    (take, *len == 0)
                }
                Segment::Slot { at, len, .. } => {
                    let take = sent.min(*len);
                    *at += take;
                    *len -= take;
                    self.data -= take as u64;
                    (take, *len == 0)
                }
                Segment::Moved { data, at } => {
                    let take = sent.min(data.len() - *at);
                    *at += take;
                    self.data -= take as u64;
                    (take, *at == data.len())
                }
            };
            sent -= take;
            if done && let Some(Segment::Slot { slot, .. }) = self.segments.pop_front() {
                free.push(slot);
            }
        }
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        }
    }

    /// Moves what is left in read buffers to ordinary memory; the buffers are appended to `free`.
    pub(crate) fn vacate(&mut self, memory: &Memory, free: &mut Vec<u32>) {
        for segment in &mut self.segments {
            if let Segment::Slot { slot, at, len } = *segment {
                let mut data = vec![0; len];
                memory.arena().copy_out(Memory::read_slot(slot) + at, &mut data);
                free.push(slot);
                *segment = Segment::Moved { data, at: 0 };
            }
        }
    }

    /// The client is gone: nothing is owed; the buffers are appended to `free`.
    pub(crate) fn abandon(&mut self, free: &mut Vec<u32>) {
        for segment in self.segments.drain(..) {
            if let Segment::Slot { slot, .. } = segment {
                free.push(slot);
            }
        }
        *self = Self::default();
    }
}
