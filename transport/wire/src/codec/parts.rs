//! Fields that many encodings share.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::cluster::{Members, Role, Superblock};
use crate::error::DecodeError;
use crate::ids::{Epoch, Generation, Incarnation, NodeId, Seq};
use crate::limits::MAX_COUNT;

/// A field that holds what it may not.
pub(crate) fn bad(field: &'static str, value: impl Into<Value>, right: &'static str) -> DecodeError {
    DecodeError::Field { field, value: value.into().0, right }
}

/// What a field held, of any width.
pub(crate) struct Value(u64);

macro_rules! value {
    ($($width:ty),*) => {$(
        impl From<$width> for Value {
            fn from(value: $width) -> Self {
                Self(value.into())
            }
        }
    )*};
}
value!(u8, u16, u32, u64, U32, U64);

/// Reserved bytes.
pub(crate) fn zero(field: &'static str, bytes: &[u8]) -> Result<(), DecodeError> {
    match bytes.iter().find(|&&byte| byte != 0) {
        None => Ok(()),
        Some(&byte) => Err(bad(field, byte, "zero")),
    }
}

/// A field that a flag announces.
pub(crate) fn optional(field: &'static str, given: bool, raw: U64) -> Result<Option<u64>, DecodeError> {
    match (given, raw.get()) {
        (true, value) => Ok(Some(value)),
        (false, 0) => Ok(None),
        (false, value) => Err(bad(field, value, "zero where its flag is not set")),
    }
}

/// A byte that says yes or no.
pub(crate) fn flag(field: &'static str, raw: u8) -> Result<bool, DecodeError> {
    match raw {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(bad(field, raw, "0 (no) or 1 (yes)")),
    }
}

/// An incarnation that must be named.
pub(crate) fn incarnation(field: &'static str, raw: U64) -> Result<Incarnation, DecodeError> {
    Incarnation::from_wire(raw.get()).ok_or_else(|| bad(field, raw, "an incarnation, which is never zero"))
}

/// The wire's form of an incarnation that need not be named.
pub(crate) fn maybe_incarnation(incarnation: Option<Incarnation>) -> U64 {
    incarnation.map_or(0, Incarnation::get).into()
}

/// A blob's number: there is no blob 0.
pub(crate) fn seq_from_one(field: &'static str, seq: Seq) -> Result<Seq, DecodeError> {
    if seq == Seq::ZERO { Err(bad(field, 0u64, "at least 1: blobs count from 1")) } else { Ok(seq) }
}

/// A session that exists.
pub(crate) fn session(field: &'static str, raw: U64) -> Result<Generation, DecodeError> {
    match raw.get() {
        0 => Err(bad(field, 0u64, "at least 1: zero is a volume never attached")),
        generation => Ok(Generation(generation)),
    }
}

/// Blocks whose end can be counted.
pub(crate) fn check_span(field: &'static str, lba: u64, blocks: u32) -> Result<(), DecodeError> {
    match lba.checked_add(blocks.into()) {
        Some(_) => Ok(()),
        None => Err(bad(field, lba, "a block whose span ends below 2^64")),
    }
}

/// 0 for nobody, 1 for A, 2 for B.
pub(crate) const fn node_to_wire(node: Option<NodeId>) -> u8 {
    match node {
        None => 0,
        Some(NodeId::A) => 1,
        Some(NodeId::B) => 2,
    }
}

/// A node, or nobody.
pub(crate) fn maybe_node(field: &'static str, raw: u8) -> Result<Option<NodeId>, DecodeError> {
    match raw {
        0 => Ok(None),
        1 => Ok(Some(NodeId::A)),
        2 => Ok(Some(NodeId::B)),
        _ => Err(bad(field, raw, "0 (nobody), 1 (node A) or 2 (node B)")),
    }
}

/// A node that must be named.
pub(crate) fn node(field: &'static str, raw: u8) -> Result<NodeId, DecodeError> {
    match maybe_node(field, raw) {
        Ok(Some(node)) => Ok(node),
        _ => Err(bad(field, raw, "1 (node A) or 2 (node B)")),
    }
}

/// 1 for the first of [`Role::ALL`].
pub(crate) const fn role_to_wire(role: Role) -> u8 {
    match role {
        Role::Waiting => 1,
        Role::Refusing => 2,
        Role::Joining => 3,
        Role::Secondary => 4,
        Role::TakingOver => 5,
        Role::Primary => 6,
        Role::Fenced => 7,
        Role::Leaving => 8,
    }
}

/// A role.
pub(crate) fn role(field: &'static str, raw: u8) -> Result<Role, DecodeError> {
    let index = usize::from(raw).checked_sub(1);
    index.and_then(|index| Role::ALL.get(index)).copied().ok_or_else(|| bad(field, raw, "a role, 1 to 8"))
}

/// The members' incarnations, by node; zero where there is none.
pub(crate) fn members_to_wire(members: Members) -> [U64; 2] {
    members.0.map(maybe_incarnation)
}

/// The members.
pub(crate) fn members(raw: [U64; 2]) -> Members {
    Members(raw.map(|raw| Incarnation::from_wire(raw.get())))
}

/// A number that leaves room for those that follow it.
fn count(field: &'static str, raw: U64) -> Result<u64, DecodeError> {
    if raw.get() > MAX_COUNT {
        return Err(bad(field, raw, "at most MAX_COUNT, 2^63 - 1"));
    }
    Ok(raw.get())
}

/// The replicated part of a superblock, as Announce carries it.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawSuperblock {
    counter: U64,
    epoch: U64,
    generation: U64,
    members: [U64; 2],
    primary: u8,
    clean: u8,
    reserved: [u8; 6],
}

const _: () = assert!(size_of::<RawSuperblock>() == 48);

impl RawSuperblock {
    pub(crate) fn new(superblock: &Superblock) -> Self {
        Self {
            counter: superblock.counter.into(),
            epoch: superblock.epoch.0.into(),
            generation: superblock.generation.0.into(),
            members: members_to_wire(superblock.members),
            primary: node_to_wire(superblock.primary),
            clean: superblock.clean.into(),
            reserved: [0; 6],
        }
    }

    pub(crate) fn superblock(&self) -> Result<Superblock, DecodeError> {
        zero("Announce.reserved", &self.reserved)?;
        let (primary, members) = (maybe_node("Announce.primary", self.primary)?, members(self.members));
        if primary.is_some_and(|node| members.of(node).is_none()) {
            return Err(bad("Announce.primary", self.primary, "a node that is a member"));
        }
        Ok(Superblock {
            counter: count("Announce.counter", self.counter)?,
            epoch: Epoch(count("Announce.epoch", self.epoch)?),
            primary,
            members,
            generation: Generation(count("Announce.generation", self.generation)?),
            clean: flag("Announce.clean", self.clean)?,
        })
    }
}
