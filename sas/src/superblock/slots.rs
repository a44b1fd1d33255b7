//! The two slots: which one serves, and in which order a change is written.
//!
//! Why two slots, both written at every change (protocol section 7): slots written in turn would leave the state
//! before last in the older one. Were the newest to rot, the older would name a member that has since been dropped, and
//! that one would take over without the writes that completed after its drop. Written both, the state that the other
//! slot falls back to is the same one.

use twinsan_wire::Superblock;
use twinsan_wire::message::VolumeName;

use super::codec::{self, SlotError};
use super::{Slot, SuperblockError, Uuid};
use crate::layout::SLOT_OFFSETS;
use crate::page::Page;

/// One of the two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotIndex {
    /// At byte 0.
    First,
    /// At byte 4096.
    Second,
}

impl SlotIndex {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// Where it lies on the disk, in bytes.
    #[must_use]
    pub const fn offset(self) -> u64 {
        SLOT_OFFSETS[match self {
            Self::First => 0,
            Self::Second => 1,
        }]
    }
}

/// What the two slots say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotPair {
    /// The valid slot with the highest counter.
    pub best: Slot,
    /// Where it stands.
    pub at: SlotIndex,
    /// The other slot says the same. If not, it is to be mended, under the fence, before anything else: by writing
    /// `best` again, see [`SlotPair::plan`].
    pub settled: bool,
    /// The other slot, where it is valid and says something older: the write of `best` has not ended, so its writer has not
    /// acted on it.
    pub older: Option<Slot>,
    /// Why the other slot is not valid; `None` if it is.
    pub other_error: Option<SlotError>,
}

/// What a node knows of the volume before it reads the slots.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// From the configuration.
    pub name: Option<VolumeName>,
    /// From an earlier reading.
    pub uuid: Option<Uuid>,
}

impl SlotPair {
    /// Judges the slots, in disk order.
    ///
    /// # Errors
    /// Neither is valid, they don't belong together, or they are another volume's.
    pub fn judge(pages: &[Page; 2], expected: &Expected) -> Result<Self, SuperblockError> {
        let pair = Self::choose([codec::decode(&pages[0]), codec::decode(&pages[1])])?;
        let found = &pair.best.identity;
        match expected {
            Expected { name: Some(name), .. } if *name != found.name => {
                Err(SuperblockError::WrongName { expected: name.as_str().into(), found: found.name.as_str().into() })
            }
            Expected { uuid: Some(uuid), .. } if *uuid != found.uuid => {
                Err(SuperblockError::WrongUuid { expected: *uuid, found: found.uuid })
            }
            Expected { .. } => Ok(pair),
        }
    }

    fn choose(slots: [Result<Slot, SlotError>; 2]) -> Result<Self, SuperblockError> {
        let alone = |best, at, error| Self { best, at, settled: false, older: None, other_error: Some(error) };
        let (first, second) = match slots {
            [Ok(first), Ok(second)] => (first, second),
            [Ok(best), Err(error)] => return Ok(alone(best, SlotIndex::First, error)),
            [Err(error), Ok(best)] => return Ok(alone(best, SlotIndex::Second, error)),
            [Err(first), Err(second)] if first.is_foreign() && second.is_foreign() => {
                return Err(SuperblockError::NoVolume { first, second });
            }
            [Err(first), Err(second)] => return Err(SuperblockError::Corrupt { first, second }),
        };
        if first.identity != second.identity {
            return Err(SuperblockError::Mixed { first: first.identity.uuid, second: second.identity.uuid });
        }
        let (counter, settled) = (first.superblock.counter, first == second);
        if counter == second.superblock.counter && !settled {
            return Err(SuperblockError::Disagree { counter });
        }
        let (best, at, other) = if counter >= second.superblock.counter {
            (first, SlotIndex::First, second)
        } else {
            (second, SlotIndex::Second, first)
        };
        Ok(Self { best, at, settled, older: (!settled).then_some(other), other_error: None })
    }

    /// How `new` gets onto the disk.
    ///
    /// The write counter is the disk's own, there to tell the newer slot from the older: if `new` differs from what
    /// serves, it gets a higher one than any valid slot, whatever `new.counter` says, so that an attempt that failed
    /// half-way can never leave two different slots with one counter. If it doesn't differ, what serves is written once
    /// more as it stands: that mends the other slot, and brings what an earlier writer may have left in the disk's
    /// cache past it.
    ///
    /// # Errors
    /// The epoch would go back.
    pub fn plan(&self, new: &Superblock, now_unix: u64) -> Result<WritePlan, SuperblockError> {
        let old = &self.best.superblock;
        if new.epoch < old.epoch {
            return Err(SuperblockError::EpochBack { new: new.epoch.0, on_disk: old.epoch.0 });
        }
        let same = Superblock { counter: old.counter, ..*new } == *old;
        let slot = if same && new.counter <= old.counter {
            self.best
        } else {
            let above = old.counter.checked_add(1).expect("the write counter has run out");
            let superblock = Superblock { counter: new.counter.max(above), ..*new };
            Slot { superblock, changed_at: now_unix, ..self.best }
        };
        // The slot that serves is touched only after the other one holds the new state, past the cache.
        Ok(WritePlan { slot, order: [self.at.other(), self.at] })
    }
}

/// A change of the superblock: `slot` goes to the slots in this order, each past the disk's cache before the next is
/// begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WritePlan {
    /// What is written, with the counter that it gets.
    pub slot: Slot,
    /// The older (or invalid) slot first.
    pub order: [SlotIndex; 2],
}

impl WritePlan {
    /// The writes: byte offset and contents, in order.
    #[must_use]
    pub fn steps(&self) -> [(u64, Page); 2] {
        let page = codec::encode(&self.slot);
        [(self.order[0].offset(), page.clone()), (self.order[1].offset(), page)]
    }
}
