//! The session as the front end's volume.

use twinsan_session::{Action, Event, Session};
use twinsan_wire::{BlobKind, Lba, Seq};

use super::ladder::Ladder;
use crate::front::Backend;

/// The machine, and what it wants done that the driver has not yet done.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) session: Session,
    pub(crate) actions: Vec<Action>,
    pub(crate) now_ms: u64,
    /// Where the microseconds go, if anybody wants to know.
    pub(crate) ladder: Option<Ladder>,
}

impl Volume {
    pub(crate) fn handle(&mut self, event: Event) {
        self.session.handle(event, self.now_ms, &mut self.actions);
    }
}

impl Backend for Volume {
    fn place(&mut self, payload_len: u32) -> Option<u64> {
        self.session.place(payload_len)
    }

    fn requested(&mut self) {
        if let Some(ladder) = &mut self.ladder {
            ladder.request();
        }
    }

    fn write(&mut self, kind: BlobKind, lba: Lba, blocks: u32) -> Seq {
        let seq = self.session.write(kind, lba, blocks, self.now_ms, &mut self.actions);
        if let Some(ladder) = &mut self.ladder {
            ladder.committed(seq, blocks);
        }
        seq
    }

    fn read(&mut self, lba: Lba, blocks: u32, slot: u32) {
        // The session's number for it is not needed: a buffer has one read at a time.
        self.session.read(lba, blocks, slot, self.now_ms, &mut self.actions);
    }
}
