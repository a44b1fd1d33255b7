//! What a peer has put into our memory, taken out once, checked, and only then believed.

use twinsan_arena::Arena;
use twinsan_wire::layout::mailbox_offset;
use twinsan_wire::limits::{DESCRIPTOR_BYTES, MAILBOX_BYTES};
use twinsan_wire::{BlobKind, DecodeError, Descriptor, Mailbox, VolumeShape};

use crate::layout::{Layout, index};

/// Why a blob is not one: whoever sent it is cut off, and sends it again when it is back (rule 14).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadBlob {
    /// The descriptor's own fault.
    #[error(transparent)]
    Descriptor(#[from] DecodeError),
    /// The lane has none such.
    #[error("an immediate for descriptor slot {found}; this lane has {slots}, from 0 on")]
    NoSlot {
        /// As given.
        found: u32,
        /// The lane's.
        slots: u32,
    },
    /// Right, but not here.
    #[error("blob {seq} in descriptor slot {found}; right is {right}")]
    Slot {
        /// Its number.
        seq: u64,
        /// Where it lies.
        found: u32,
        /// Where it should.
        right: u32,
    },
    /// This volume wants payload CRCs.
    #[error("blob {seq} has no payload CRC; this volume is configured with integrity = true")]
    NoCrc {
        /// Its number.
        seq: u64,
    },
    /// The payload changed on the way.
    #[error("blob {seq}: payload CRC32C {found:#010x}, its descriptor says {right:#010x}")]
    Crc {
        /// Its number.
        seq: u64,
        /// Computed.
        found: u32,
        /// Promised.
        right: u32,
    },
}

/// Takes the descriptor in `slot`, and checks it.
///
/// # Errors
/// [`BadBlob`].
pub(crate) fn take_descriptor(
    arena: &Arena,
    layout: &Layout,
    shape: &VolumeShape,
    slot: u32,
) -> Result<Descriptor, BadBlob> {
    if slot >= layout.slots {
        return Err(BadBlob::NoSlot { found: slot, slots: layout.slots });
    }
    let mut bytes = [0; DESCRIPTOR_BYTES];
    arena.copy_out(index(layout.descriptor(slot)), &mut bytes);
    let descriptor = Descriptor::decode(&bytes)?;
    let blob = &descriptor.blob;
    let right = layout.slot(blob.seq);
    if slot != right {
        return Err(BadBlob::Slot { seq: blob.seq.0, found: slot, right });
    }
    shape.check_blob(blob)?;
    Ok(descriptor)
}

/// Checks the payload of a descriptor that was taken.
///
/// # Errors
/// [`BadBlob`].
pub(crate) fn check_payload(
    arena: &Arena,
    layout: &Layout,
    integrity: bool,
    &Descriptor { blob, payload_crc, .. }: &Descriptor,
) -> Result<(), BadBlob> {
    if integrity && blob.kind == BlobKind::Write {
        let right = payload_crc.ok_or(BadBlob::NoCrc { seq: blob.seq.0 })?;
        let found = arena.crc32c(index(layout.staged(blob.data_pos)), blob.payload_len as usize);
        if found != right {
            return Err(BadBlob::Crc { seq: blob.seq.0, found, right });
        }
    }
    Ok(())
}

/// Takes the mailbox in `slot`. `Ok(None)`: it is being written over, the next one will tell.
///
/// # Errors
/// It is whole and wrong, or in a slot that is not its kind's.
pub(crate) fn take_mailbox(arena: &Arena, layout: &Layout, slot: u32) -> Result<Option<Mailbox>, DecodeError> {
    let mut bytes = [0; MAILBOX_BYTES];
    arena.copy_out(index(layout.mailboxes + mailbox_offset(slot)), &mut bytes);
    match Mailbox::decode(&bytes) {
        Ok(mailbox) if mailbox.slot() == slot => Ok(Some(mailbox)),
        Ok(_) => Err(DecodeError::Field { field: "mailbox slot", value: slot.into(), right: "the slot of its kind" }),
        Err(error) if error.is_torn() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsan_arena::{ArenaOptions, PagePolicy};
    use twinsan_wire::layout::{PEER_ACK_SLOT, PEER_RELEASED_SLOT};
    use twinsan_wire::{Blob, Epoch, Generation, Incarnation, Lba, Seq};

    const LAYOUT: Layout = Layout::new(4 << 20);
    const SHAPE: VolumeShape = VolumeShape { uuid: [7; 16], blocks: 1000, block_bytes: 4096, ring_bytes: 4 << 20 };

    fn arena() -> Arena {
        let bytes = index(LAYOUT.bytes());
        let options = ArenaOptions { name: "test".into(), bytes, pages: PagePolicy::Small, lock: false };
        Arena::new(&options).unwrap()
    }

    fn write(seq: u64) -> Blob {
        Blob {
            generation: Generation(1),
            seq: Seq(seq),
            kind: BlobKind::Write,
            lba: Lba(10),
            blocks: 2,
            data_pos: 8192,
            payload_len: 8192,
        }
    }

    /// Puts `blob` where a client would, with `payload_crc`, and takes it from `slot`.
    fn taken(blob: Blob, payload_crc: Option<u32>, slot: u32, integrity: bool) -> Result<Blob, BadBlob> {
        let arena = arena();
        arena.copy_in(index(LAYOUT.staged(blob.data_pos)), &[5; 8192]);
        let bytes = Descriptor { blob, payload_crc, timed: false }.encode();
        arena.copy_in(index(LAYOUT.descriptor(slot)), &bytes);
        let descriptor = take_descriptor(&arena, &LAYOUT, &SHAPE, slot)?;
        check_payload(&arena, &LAYOUT, integrity, &descriptor).map(|()| descriptor.blob)
    }

    fn right_crc() -> u32 {
        crc32c::crc32c(&[5; 8192])
    }

    #[test]
    fn a_whole_blob_is_taken() {
        assert_eq!(taken(write(3), Some(right_crc()), 3, true), Ok(write(3)));
        assert_eq!(taken(write(3 + 1024), Some(right_crc()), 3, true), Ok(write(3 + 1024)));
        assert_eq!(taken(write(3), None, 3, false), Ok(write(3)));
        assert_eq!(taken(write(3), Some(1), 3, false), Ok(write(3)), "integrity off: nobody looks");
    }

    #[test]
    fn what_was_changed_on_the_way_is_not() {
        let wrong = right_crc() ^ 1;
        let error = BadBlob::Crc { seq: 3, found: right_crc(), right: wrong };
        assert_eq!(taken(write(3), Some(wrong), 3, true), Err(error));
        assert_eq!(taken(write(3), None, 3, true), Err(BadBlob::NoCrc { seq: 3 }));
        assert_eq!(taken(write(3), Some(right_crc()), 4, true), Err(BadBlob::Slot { seq: 3, found: 4, right: 3 }));
        let beyond = Blob { lba: Lba(999), ..write(3) };
        assert!(matches!(taken(beyond, Some(right_crc()), 3, true), Err(BadBlob::Descriptor(_))));
    }

    /// Behind the descriptor ring lies what is not the client's.
    #[test]
    fn a_slot_that_the_lane_does_not_have_is_not_looked_at() {
        let error = take_descriptor(&arena(), &LAYOUT, &SHAPE, 1024).unwrap_err();
        assert_eq!(error.to_string(), "an immediate for descriptor slot 1024; this lane has 1024, from 0 on");
    }

    #[test]
    fn a_slot_that_nobody_wrote_is_no_blob() {
        assert!(matches!(take_descriptor(&arena(), &LAYOUT, &SHAPE, 0), Err(BadBlob::Descriptor(_))));
    }

    fn ack() -> Mailbox {
        let incarnation = Incarnation::from_random(9);
        Mailbox::Ack {
            epoch: Epoch(2),
            from: incarnation,
            to: incarnation,
            generation: Generation(1),
            first: Some(Seq(1)),
            received: Seq(5),
            released: Seq(3),
        }
    }

    #[test]
    fn a_mailbox_is_whole_or_waited_out() {
        let arena = arena();
        assert_eq!(take_mailbox(&arena, &LAYOUT, PEER_ACK_SLOT), Ok(None), "never written");
        let mut bytes = ack().encode();
        let at = index(LAYOUT.mailboxes + mailbox_offset(PEER_ACK_SLOT));
        arena.copy_in(at, &bytes);
        assert_eq!(take_mailbox(&arena, &LAYOUT, PEER_ACK_SLOT), Ok(Some(ack())));
        bytes[40] ^= 1;
        arena.copy_in(at, &bytes);
        assert_eq!(take_mailbox(&arena, &LAYOUT, PEER_ACK_SLOT), Ok(None), "torn");
    }

    #[test]
    fn a_mailbox_in_another_ones_slot_is_a_violation() {
        let arena = arena();
        let at = index(LAYOUT.mailboxes + mailbox_offset(PEER_RELEASED_SLOT));
        arena.copy_in(at, &ack().encode());
        assert!(take_mailbox(&arena, &LAYOUT, PEER_RELEASED_SLOT).is_err());
    }
}
