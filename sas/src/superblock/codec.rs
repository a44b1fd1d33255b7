//! One superblock slot: value ⇄ 4096 bytes, as `docs/disk-format.md` has them.

use twinsan_wire::message::VolumeName;
use twinsan_wire::{Epoch, Generation, Incarnation, Members, NodeId, Superblock};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{NodeName, Slot, Uuid, VolumeIdentity};
use crate::layout::PAGE_BYTES;
use crate::page::Page;

/// The first eight bytes of a slot.
pub const MAGIC: [u8; 8] = *b"TWSANSB\0";
/// The format's version: changes with every incompatible change of the table.
pub const VERSION: u32 = 1;

/// The bytes of a slot.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U32,
    reserved_0: [u8; 4],
    uuid: [u8; 16],
    name: [u8; 64],
    blocks: U64,
    block_bytes: U32,
    reserved_1: [u8; 4],
    data_offset: U64,
    counter: U64,
    epoch: U64,
    generation: U64,
    changed_at: U64,
    primary: u8,
    clean: u8,
    reserved_2: [u8; 6],
    nodes: [RawNode; 2],
    reserved_3: [u8; RESERVED_3],
    crc: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawNode {
    name: [u8; 64],
    incarnation: U64,
}

const RESERVED_3: usize = PAGE_BYTES - 304 - 4;
const _: () = assert!(size_of::<Raw>() == PAGE_BYTES);

/// Why a slot is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// All zeros.
    #[error("blank")]
    Blank,
    /// Something else, or garbage.
    #[error("not a TwinSAN superblock")]
    Magic,
    /// Torn, rotten, or written by somebody else.
    #[error("checksum wrong")]
    Checksum,
    /// Written by another version of this program.
    #[error("format version {0}, this program knows {VERSION}")]
    Version(u32),
    /// A number that this version never writes.
    #[error("{what} is {value}")]
    Field {
        /// Which.
        what: &'static str,
        /// What stands there.
        value: u64,
    },
    /// A name that no configuration can have.
    #[error("the name of the {what} is not a legal one")]
    Name {
        /// Whose.
        what: &'static str,
    },
    /// A byte that must be zero is not.
    #[error("reserved bytes are not zero")]
    Reserved,
}

impl SlotError {
    /// Whether the slot shows no sign of ever having been ours.
    #[must_use]
    pub const fn is_foreign(self) -> bool {
        matches!(self, Self::Blank | Self::Magic)
    }
}

/// A slot's bytes, CRC included.
#[must_use]
pub fn encode(slot: &Slot) -> Page {
    let Slot { identity, superblock, changed_at } = slot;
    let node = |id: NodeId| RawNode {
        name: *identity.nodes[id.index()].as_bytes(),
        incarnation: superblock.members.of(id).map_or(0, Incarnation::get).into(),
    };
    let raw = Raw {
        magic: MAGIC,
        version: VERSION.into(),
        reserved_0: [0; 4],
        uuid: identity.uuid.0,
        name: *identity.name.as_bytes(),
        blocks: identity.blocks.into(),
        block_bytes: identity.block_bytes.into(),
        reserved_1: [0; 4],
        data_offset: identity.data_offset.into(),
        counter: superblock.counter.into(),
        epoch: superblock.epoch.0.into(),
        generation: superblock.generation.0.into(),
        changed_at: (*changed_at).into(),
        primary: node_to_raw(superblock.primary),
        clean: u8::from(superblock.clean),
        reserved_2: [0; 6],
        nodes: NodeId::BOTH.map(node),
        reserved_3: [0; RESERVED_3],
        crc: 0.into(),
    };
    let mut page = Page::ZERO;
    page.0.copy_from_slice(raw.as_bytes());
    page.seal();
    page
}

/// A slot from its bytes.
///
/// # Errors
/// What makes it invalid; every single flipped bit does.
pub fn decode(page: &Page) -> Result<Slot, SlotError> {
    let raw = Raw::ref_from_bytes(&page.0[..]).map_err(|_| SlotError::Magic)?;
    if page.is_zero() {
        return Err(SlotError::Blank);
    }
    if raw.magic != MAGIC {
        return Err(SlotError::Magic);
    }
    if !page.is_sealed() {
        return Err(SlotError::Checksum);
    }
    if raw.version.get() != VERSION {
        return Err(SlotError::Version(raw.version.get()));
    }
    let reserved = [&raw.reserved_0[..], &raw.reserved_1, &raw.reserved_2, &raw.reserved_3];
    if reserved.iter().any(|bytes| bytes.iter().any(|&b| b != 0)) {
        return Err(SlotError::Reserved);
    }
    Ok(Slot { identity: identity(raw)?, superblock: superblock(raw)?, changed_at: raw.changed_at.get() })
}

fn identity(raw: &Raw) -> Result<VolumeIdentity, SlotError> {
    let node = |id: NodeId, what| {
        let name = name_from_raw(&raw.nodes[id.index()].name, what)?;
        NodeName::new(name.as_str()).ok_or(SlotError::Name { what })
    };
    let identity = VolumeIdentity {
        uuid: Uuid(raw.uuid),
        name: name_from_raw(&raw.name, "volume")?,
        blocks: raw.blocks.get(),
        block_bytes: raw.block_bytes.get(),
        data_offset: raw.data_offset.get(),
        nodes: [node(NodeId::A, "first node")?, node(NodeId::B, "second node")?],
    };
    identity.check()?;
    Ok(identity)
}

fn superblock(raw: &Raw) -> Result<Superblock, SlotError> {
    let members = Members(NodeId::BOTH.map(|id| Incarnation::from_wire(raw.nodes[id.index()].incarnation.get())));
    let primary = node_from_raw(raw.primary)?;
    if primary.is_some_and(|node| members.of(node).is_none()) {
        return Err(SlotError::Field { what: "primary, which is not a member,", value: u64::from(raw.primary) });
    }
    let clean = match raw.clean {
        0 => false,
        1 => true,
        other => return Err(SlotError::Field { what: "clean flag", value: u64::from(other) }),
    };
    Ok(Superblock {
        counter: raw.counter.get(),
        epoch: Epoch(raw.epoch.get()),
        primary,
        members,
        generation: Generation(raw.generation.get()),
        clean,
    })
}

const fn node_to_raw(node: Option<NodeId>) -> u8 {
    match node {
        None => 0,
        Some(NodeId::A) => 1,
        Some(NodeId::B) => 2,
    }
}

const fn node_from_raw(raw: u8) -> Result<Option<NodeId>, SlotError> {
    match raw {
        0 => Ok(None),
        1 => Ok(Some(NodeId::A)),
        2 => Ok(Some(NodeId::B)),
        other => Err(SlotError::Field { what: "primary", value: other as u64 }),
    }
}

fn name_from_raw(raw: &[u8; 64], what: &'static str) -> Result<VolumeName, SlotError> {
    let len = raw.iter().position(|&b| b == 0).ok_or(SlotError::Name { what })?;
    let text = core::str::from_utf8(&raw[..len]).map_err(|_| SlotError::Name { what })?;
    let name = VolumeName::new(text).ok_or(SlotError::Name { what })?;
    // Zero-padded to the end: there is one encoding of a name.
    if name.as_bytes() == raw { Ok(name) } else { Err(SlotError::Name { what }) }
}
