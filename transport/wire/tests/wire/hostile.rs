//! Torn, cut, changed, forged and random bytes. A forged one has the right CRC: only the fields' own checks are left.

use proptest::prelude::*;
use twinsan_wire::limits::{MAX_MESSAGE_BYTES, PROTOCOL_VERSION};
use twinsan_wire::{
    ClientMsg, DecodeError, Descriptor, Immediate, Mailbox, NodeFrame, PeerMsg, SetupMsg, Times, VolumeName,
};

use crate::pinned;
use crate::strategy;

/// The fixed-size encodings carry their CRC in their last four bytes.
const CRC_AT_64: usize = 60;
/// Messages carry it in their header.
const CRC_OF_MESSAGE: usize = 12;

fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    // Bit by bit, so that it is not the implementation under test.
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

/// `bytes[at]` becomes `byte`, and the CRC right again.
fn forged_64(mut bytes: [u8; 64], at: usize, byte: u8) -> [u8; 64] {
    bytes[at] = byte;
    let crc = crc32c(bytes[..CRC_AT_64].iter().copied());
    bytes[CRC_AT_64..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn seal_message(bytes: &mut [u8]) {
    let crc = crc32c(bytes[..CRC_OF_MESSAGE].iter().chain(&bytes[CRC_OF_MESSAGE + 4..]).copied());
    bytes[CRC_OF_MESSAGE..CRC_OF_MESSAGE + 4].copy_from_slice(&crc.to_le_bytes());
}

fn forged_message(bytes: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] = byte;
    seal_message(&mut bytes);
    bytes
}

/// What every direction's decoder makes of the bytes: what it takes, encoded again.
fn decode_all(bytes: &[u8]) -> [Result<Vec<u8>, DecodeError>; 5] {
    [
        SetupMsg::decode(bytes).map(|msg| msg.encode().as_bytes().to_vec()),
        PeerMsg::decode(bytes).map(|msg| msg.encode().as_bytes().to_vec()),
        ClientMsg::decode(bytes).map(|msg| msg.encode().as_bytes().to_vec()),
        NodeFrame::decode(bytes).map(|msg| msg.encode().as_bytes().to_vec()),
        Times::decode(bytes).map(|times| times.encode().as_bytes().to_vec()),
    ]
}

/// Whoever takes the bytes takes a value whose only encoding they are.
fn assert_canonical(bytes: &[u8]) {
    for encoded in decode_all(bytes).iter().flatten() {
        assert_eq!(encoded, bytes, "two encodings of one message");
    }
}

fn is_refused(bytes: &[u8]) -> bool {
    decode_all(bytes).iter().all(Result::is_err)
}

#[test]
fn every_flipped_bit_of_a_descriptor_is_noticed() {
    for (_, value, _) in pinned::DESCRIPTORS {
        for bit in 0..512 {
            let mut bytes = value.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Descriptor::decode(&bytes).is_err(), "{value:?}, bit {bit}");
        }
    }
}

#[test]
fn every_flipped_bit_of_a_mailbox_is_a_tear() {
    for (_, value, _) in pinned::MAILBOXES {
        for bit in 0..512 {
            let mut bytes = value.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Mailbox::decode(&bytes).unwrap_err().is_torn(), "{value:?}, bit {bit}");
        }
    }
}

#[test]
fn every_flipped_bit_of_a_message_is_noticed() {
    for (name, _, bytes) in pinned::messages() {
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(is_refused(&bytes), "{name}, bit {bit}");
        }
    }
}

/// A slot that nobody has written yet.
#[test]
fn zeros_are_nothing() {
    assert!(Mailbox::decode(&[0; 64]).unwrap_err().is_torn());
    assert!(matches!(Descriptor::decode(&[0; 64]), Err(DecodeError::Magic { found: 0, .. })));
    assert!(Immediate::decode(0).is_err());
    assert!(is_refused(&[0; 16]));
}

#[test]
fn a_message_has_exactly_its_length() {
    for (name, _, bytes) in pinned::messages() {
        for length in 0..bytes.len() {
            assert!(is_refused(&bytes[..length]), "{name} cut to {length}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(is_refused(&longer), "{name} and one more");
        longer.resize(MAX_MESSAGE_BYTES + 1, 0);
        assert!(is_refused(&longer), "{name}, longer than any message");

        // And with a header that agrees with the wrong length.
        for length in (16..bytes.len()).chain([bytes.len() + 1, bytes.len() + 8]) {
            let mut resized = bytes.clone();
            resized.resize(length, 0);
            resized[6..8].copy_from_slice(&u16::try_from(length).unwrap().to_le_bytes());
            seal_message(&mut resized);
            for error in decode_all(&resized) {
                assert!(
                    matches!(error, Err(DecodeError::Length { found, .. }) if found == length)
                        || matches!(error, Err(DecodeError::Kind { .. })),
                    "{name} resized to {length}: {error:?}"
                );
            }
        }
    }
}

#[test]
fn a_message_is_taken_by_its_own_direction_only() {
    for (name, direction, bytes) in pinned::messages() {
        for (index, taken) in decode_all(&bytes).iter().enumerate() {
            if index == direction as usize {
                assert!(taken.is_ok(), "{name}: {taken:?}");
            } else {
                assert!(matches!(taken, Err(DecodeError::Kind { .. })), "{name}: {taken:?}");
            }
        }
    }
}

#[test]
fn another_version_is_named_before_anything_else() {
    let other = PROTOCOL_VERSION + 1;
    for (name, _, bytes) in pinned::messages() {
        // A later version may have other lengths, kinds and CRCs, but not another place for its number.
        let mut bytes = bytes[..16].to_vec();
        bytes[4] = other;
        bytes[5] = 0xff;
        for error in decode_all(&bytes) {
            assert!(matches!(error, Err(DecodeError::Version { found, .. }) if found == other), "{name}: {error:?}");
        }
    }
    let (_, descriptor, _) = pinned::DESCRIPTORS[0];
    assert!(matches!(
        Descriptor::decode(&forged_64(descriptor.encode(), 4, other)),
        Err(DecodeError::Version { found, .. }) if found == other
    ));
    let (_, mailbox, _) = pinned::MAILBOXES[0];
    assert!(matches!(
        Mailbox::decode(&forged_64(mailbox.encode(), 4, other)),
        Err(DecodeError::Version { found, .. }) if found == other
    ));
}

/// Bytes that mean nothing must be zero, so that a later version can give them a meaning.
#[test]
fn every_byte_of_every_encoding_means_something() {
    for (name, value, _) in pinned::DESCRIPTORS {
        for at in 0..CRC_AT_64 {
            for flip in [0x01, 0x80, 0xff] {
                let bytes = forged_64(value.encode(), at, value.encode()[at] ^ flip);
                assert!(Descriptor::decode(&bytes) != Ok(*value), "{name}, byte {at}");
            }
        }
    }
    for (name, value, _) in pinned::MAILBOXES {
        for at in 0..CRC_AT_64 {
            for flip in [0x01, 0x80, 0xff] {
                let bytes = forged_64(value.encode(), at, value.encode()[at] ^ flip);
                assert!(Mailbox::decode(&bytes) != Ok(*value), "{name}, byte {at}");
            }
        }
    }
    for (_, _, bytes) in pinned::messages() {
        for at in (0..CRC_OF_MESSAGE).chain(16..bytes.len()) {
            for flip in [0x01, 0x80, 0xff] {
                assert_canonical(&forged_message(&bytes, at, bytes[at] ^ flip));
            }
        }
    }
}

/// (the encoding, first byte of the field, its new bytes, the field that is named)
type Forgery = (&'static str, usize, &'static [u8], &'static str);

/// One line for every check of a descriptor.
const DESCRIPTOR_FORGERIES: &[Forgery] = &[
    ("write", 6, &[4, 0], "Descriptor.flags"),
    ("write", 6, &[2, 0], "Descriptor.payload_crc"),
    ("write", 6, &[0, 0], "Descriptor.payload_crc"),
    ("discard", 6, &[1, 0], "Descriptor.flags"),
    ("write", 8, &[0; 8], "Descriptor.generation"),
    ("write", 16, &[0; 8], "Descriptor.seq"),
    ("write", 24, &[0xff; 8], "Descriptor.lba"),
    ("write", 32, &[0xff; 8], "Descriptor.data_pos"),
    ("write", 40, &[0; 4], "Descriptor.blocks"),
    ("write", 40, &[4, 0, 0, 0], "Descriptor.payload_len"),
    ("write", 44, &[0; 4], "Descriptor.payload_len"),
    ("write", 44, &[1, 0, 0x10, 0], "Descriptor.payload_len"),
    ("zeroes", 40, &[0; 4], "Descriptor.blocks"),
    ("zeroes", 40, &[1, 0, 0x10, 0], "Descriptor.blocks"),
    ("zeroes", 44, &[0, 2, 0, 0], "Descriptor.payload_len"),
    ("zeroes", 52, &[0, 0, 0, 1], "Descriptor.reserved"),
];

/// One line for every check of a mailbox.
const MAILBOX_FORGERIES: &[Forgery] = &[
    ("ack", 6, &[2, 0], "Mailbox.flags"),
    ("ack", 6, &[0, 0], "Mailbox.second"),
    ("ack", 16, &[0; 8], "Mailbox.from"),
    ("ack", 24, &[0; 8], "Mailbox.to"),
    ("ack", 48, &[0; 8], "Mailbox.first"),
    ("ack", 56, &[1, 0, 2, 0], "Mailbox.behind"),
    ("ack, nothing known yet", 56, &[1], "Mailbox.behind"),
    ("released", 6, &[1, 0], "Mailbox.flags"),
    ("released", 24, &[0; 8], "Mailbox.to"),
    ("released", 48, &[1], "Mailbox.second"),
    ("released", 56, &[1], "Mailbox.reserved"),
    ("completion", 16, &[0; 8], "Mailbox.from"),
    ("completion", 6, &[4, 0], "Mailbox.flags"),
    ("completion", 24, &[1], "Mailbox.to"),
    ("completion", 56, &[0, 1], "Mailbox.reserved"),
];

/// One line for every check of a message; the offsets count from the message's first byte.
const MESSAGE_FORGERIES: &[Forgery] = &[
    ("client attach", 8, &[1], "Header.reserved"),
    ("peer status", 24, &[0; 8], "PeerMsg.from"),
    ("peer status", 48, &[0], "Status.role"),
    ("peer status", 48, &[9], "Status.role"),
    ("peer status", 49, &[2], "Status.paths"),
    ("peer status", 55, &[1], "Status.reserved"),
    ("peer announce", 40, &[0xff; 8], "Announce.counter"),
    ("peer announce", 55, &[0x80], "Announce.epoch"),
    ("peer announce", 63, &[0x80], "Announce.generation"),
    ("peer announce", 80, &[3], "Announce.primary"),
    ("peer announce", 72, &[0; 8], "Announce.primary"),
    ("peer announce", 81, &[2], "Announce.clean"),
    ("peer announce", 87, &[1], "Announce.reserved"),
    ("peer join request", 32, &[0; 8], "PeerMsg.to"),
    ("peer join accept", 48, &[0; 8], "JoinAccept.first"),
    ("peer join accept", 56, &[0], "JoinAccept.first"),
    ("peer join accept", 56, &[2], "JoinAccept.has_first"),
    ("peer join accept", 57, &[1], "JoinAccept.reserved"),
    ("client resume", 16, &[0; 8], "Resume.generation"),
    ("client resume", 24, &[0; 8], "Resume.first"),
    ("client read", 40, &[0xff; 8], "Read.lba"),
    ("client read", 48, &[0; 4], "Read.blocks"),
    ("client read", 48, &[1, 8, 0, 0], "Read.blocks"),
    ("client read", 52, &[64, 0, 0, 0], "Read.slot"),
    ("client unreachable", 32, &[0], "Unreachable.node"),
    ("client unreachable", 32, &[3], "Unreachable.node"),
    ("client unreachable", 39, &[1], "Unreachable.reserved"),
    ("node view", 16, &[0; 8], "View.from"),
    ("node view", 64, &[0], "View.role"),
    ("node view", 65, &[3], "View.primary"),
    ("node view", 66, &[1], "View.reserved"),
    ("node attached", 16, &[0; 8], "Attached.generation"),
    ("node resumed", 16, &[0; 8], "Resumed.generation"),
    ("node resumed", 24, &[0; 8], "Resumed.from"),
    ("node refused", 16, &[0], "Refused.why"),
    ("node refused", 16, &[5], "Refused.why"),
    ("node refused", 17, &[1], "Refused.reserved"),
    ("setup hello peer", 16, b"/", "Hello.volume"),
    ("setup hello peer", 17, b"\0", "Hello.volume"),
    ("setup hello peer", 112, &[0; 8], "Hello.incarnation"),
    ("setup hello peer", 120, &[0], "Hello.incarnation"),
    ("setup hello client", 120, &[5], "Hello.purpose"),
    ("setup hello client", 121, &[1], "Hello.node"),
    ("setup hello relay", 112, &[0; 8], "Hello.incarnation"),
    ("setup hello relay", 121, &[0], "Hello.node"),
    ("setup hello probe", 112, &[1], "Hello.incarnation"),
    ("setup hello probe", 121, &[0], "Hello.node"),
    ("setup hello probe", 122, &[2], "Hello.keyed"),
    ("setup hello probe", 123, &[1], "Hello.reserved"),
    ("setup challenge", 80, &[2], "Proof.has_proof"),
    ("setup challenge", 80, &[0], "Proof.proof without has_proof"),
    ("setup proof", 49, &[1], "Proof.reserved"),
    ("setup welcome", 32, &[0; 8], "VolumeShape.blocks"),
    ("setup welcome", 32, &[0xff; 8], "VolumeShape.blocks"),
    ("setup welcome", 40, &[0xff, 0xff, 0x3f, 0, 0, 0, 0, 0], "VolumeShape.ring_bytes"),
    ("setup welcome", 40, &[1], "VolumeShape.ring_bytes"),
    ("setup welcome", 48, &[0; 8], "Welcome.incarnation"),
    ("setup welcome", 64, &[0, 4, 0, 0], "VolumeShape.block_bytes"),
    ("setup welcome", 68, &[0], "Welcome.node"),
    ("setup welcome", 69, &[1], "Welcome.reserved"),
    ("setup ready", 32, &[0], "Ready.reads"),
    ("setup ready", 32, &[2], "Ready.has_reads"),
    ("setup ready", 33, &[1], "Ready.reserved"),
    ("setup rejected", 16, &[0], "Rejected.why"),
    ("setup rejected", 16, &[5], "Rejected.why"),
    ("setup rejected", 23, &[1], "Rejected.reserved"),
];

fn assert_names_field(error: &DecodeError, forgery: &Forgery) {
    assert!(matches!(error, DecodeError::Field { field, .. } if *field == forgery.3), "{forgery:?}: {error:?}");
}

#[test]
fn each_forged_field_of_a_descriptor_is_named() {
    for forgery @ (name, at, field, _) in DESCRIPTOR_FORGERIES {
        let (_, value, _) = pinned::DESCRIPTORS.iter().find(|(other, ..)| other == name).unwrap();
        let mut bytes = value.encode();
        bytes[*at..at + field.len()].copy_from_slice(field);
        let bytes = forged_64(bytes, *at, field[0]);
        assert_names_field(&Descriptor::decode(&bytes).unwrap_err(), forgery);
    }
    let (_, value, _) = pinned::DESCRIPTORS[0];
    for kind in [0, 4, 0xff] {
        let forged = Descriptor::decode(&forged_64(value.encode(), 5, kind));
        assert_eq!(forged, Err(DecodeError::Kind { what: "descriptor", found: kind }));
    }
}

#[test]
fn each_forged_field_of_a_mailbox_is_named() {
    for forgery @ (name, at, field, _) in MAILBOX_FORGERIES {
        let (_, value, _) = pinned::MAILBOXES.iter().find(|(other, ..)| other == name).unwrap();
        let mut bytes = value.encode();
        bytes[*at..at + field.len()].copy_from_slice(field);
        let bytes = forged_64(bytes, *at, field[0]);
        assert_names_field(&Mailbox::decode(&bytes).unwrap_err(), forgery);
    }
    let (_, value, _) = pinned::MAILBOXES[0];
    for kind in [0, 4, 0xff] {
        let forged = Mailbox::decode(&forged_64(value.encode(), 5, kind));
        assert_eq!(forged, Err(DecodeError::Kind { what: "mailbox", found: kind }));
    }
    assert!(matches!(Mailbox::decode(&forged_64(value.encode(), 0, b'X')), Err(DecodeError::Magic { .. })));
}

#[test]
fn each_forged_field_of_a_message_is_named() {
    for forgery @ (name, at, field, _) in MESSAGE_FORGERIES {
        let (_, direction, mut bytes) =
            pinned::messages().into_iter().find(|(other, ..)| other == name).unwrap_or_else(|| panic!("{name}"));
        bytes[*at..at + field.len()].copy_from_slice(field);
        seal_message(&mut bytes);
        assert_names_field(decode_all(&bytes)[direction as usize].as_ref().unwrap_err(), forgery);
    }
}

#[test]
fn an_immediate_names_a_slot_that_exists() {
    for raw in [0, 0x0000_0001, 0x3000_0000, 0xf000_0000, 0x1002_0000, 0x1fff_ffff, 0x2000_0002, 0x2002_0000] {
        assert!(matches!(Immediate::decode(raw), Err(DecodeError::Field { .. })), "{raw:#x}");
    }
}

#[test]
fn a_volume_name_is_no_path_and_no_option() {
    let longest = "x".repeat(63);
    for good in ["a", "vol-0", "7", "db.main_2", &longest] {
        assert_eq!(VolumeName::new(good).map(|name| name.as_str() == good), Some(true), "{good}");
    }
    let too_long = "x".repeat(64);
    for bad in ["", ".", "..", "-rf", "_x", "a/b", "a b", "a\0", "a\0b", "\0", "größe", &too_long] {
        assert_eq!(VolumeName::new(bad), None, "{bad:?}");
    }
    assert!(VolumeName::from_wire("field", &[b'x'; 64]).is_err(), "no room for the final zero");
}

/// An error says what was found and what would be right.
#[test]
fn errors_read_well() {
    let text = |bytes: [u8; 64]| Descriptor::decode(&bytes).unwrap_err().to_string();
    let (_, value, _) = pinned::DESCRIPTORS[0];
    assert_eq!(text(forged_64(value.encode(), 40, 0)), "Descriptor.blocks is 0; right is: at least 1");
    assert_eq!(text([0; 64]), "descriptor: magic 0x00000000 where 0x64537754 is right");
    assert_eq!(text(forged_64(value.encode(), 4, 2)), "descriptor: protocol version 2, this program speaks 1");
    assert_eq!(
        ClientMsg::decode(b"short").unwrap_err().to_string(),
        "message from a client: 5 bytes where 16 are right"
    );
}

proptest! {
    /// Half of an old mailbox and half of a new one: the CRC tells, wherever the cut is.
    #[test]
    fn a_torn_mailbox_is_one(old in strategy::mailbox(), new in strategy::mailbox(), cut in 1..64usize) {
        let (old, new) = (old.encode(), new.encode());
        let mut torn = old;
        torn[..cut].copy_from_slice(&new[..cut]);
        if torn != old && torn != new {
            prop_assert!(Mailbox::decode(&torn).unwrap_err().is_torn());
        }
    }

    #[test]
    fn random_bytes_are_no_descriptor_or_mailbox(bytes in any::<[u8; 64]>()) {
        prop_assert!(Descriptor::decode(&bytes).is_err());
        prop_assert!(Mailbox::decode(&bytes).is_err());
    }

    /// Behind a right CRC any byte may stand: it is taken as the one value that it encodes, or refused.
    #[test]
    fn a_forged_descriptor_is_taken_as_it_is_or_refused(
        value in strategy::descriptor(), changes in prop::collection::vec((0..60usize, any::<u8>()), 1..8),
    ) {
        let bytes = changes.iter().fold(value.encode(), |bytes, &(at, byte)| forged_64(bytes, at, byte));
        if let Ok(taken) = Descriptor::decode(&bytes) {
            prop_assert_eq!(taken.encode(), bytes);
            // The blob's own arithmetic holds.
            prop_assert!(taken.blob.end() > taken.blob.lba);
        }
    }

    #[test]
    fn a_forged_mailbox_is_taken_as_it_is_or_refused(
        value in strategy::mailbox(), changes in prop::collection::vec((0..60usize, any::<u8>()), 1..8),
    ) {
        let bytes = changes.iter().fold(value.encode(), |bytes, &(at, byte)| forged_64(bytes, at, byte));
        if let Ok(taken) = Mailbox::decode(&bytes) {
            prop_assert_eq!(taken.encode(), bytes);
        }
    }

    #[test]
    fn any_immediate_is_taken_as_it_is_or_refused(raw in any::<u32>()) {
        if let Ok(taken) = Immediate::decode(raw) {
            prop_assert_eq!(taken.encode(), raw);
        }
    }

    #[test]
    fn random_bytes_are_no_message(bytes in prop::collection::vec(any::<u8>(), 0..2 * MAX_MESSAGE_BYTES)) {
        prop_assert!(is_refused(&bytes));
    }

    /// Random bodies behind a right header, of every kind and length.
    #[test]
    fn a_message_made_up_is_taken_as_it_is_or_refused(
        kind in any::<u8>(), body in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..128),
    ) {
        let mut bytes = b"TwSg\x01".to_vec();
        bytes.push(kind);
        bytes.extend(u16::try_from(16 + body.len()).unwrap().to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        seal_message(&mut bytes);
        assert_canonical(&bytes);
    }
}
