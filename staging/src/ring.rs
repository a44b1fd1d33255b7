//! The ring rule: where the next payload goes. One place, used by [`crate::Window`] to choose a position and by
//! [`crate::Lane`] to check the client's choice.
//!
//! A *position* only grows; its byte offset is the position mod the ring's size. The *cursor* is the position after
//! the last payload.
//!
//! ```text
//! offset 0                          cursor            ring_bytes
//!   |   free    |  live  |  live  |   |    too short     |     a payload never wraps: what is left is
//!               ^ oldest                                       skipped, and it begins the next lap
//! ```
//!
//! Invariants:
//! 1. No payload crosses a multiple of the ring's size.
//! 2. From the oldest unreleased blob's position to the end of the newest payload is at most the ring's size. So no two
//!    live payloads share a byte, the skipped bytes counted as used.
//! 3. A ring that holds no payload takes the longest one ([`Geometry::max_payload`] is at most half of the ring).
//! 4. Who has released more accepts whatever one who has released less could place: positions grow with seq, so its
//!    oldest position is no smaller. That is why a node, which always releases before the client hears of it, never
//!    refuses an honest client.

use crate::geometry::Geometry;

/// Where a payload of `len` bytes goes when `cursor` is the position after the last one. A length of 0 goes to the
/// cursor itself. `None`: positions have run out, at 2^64.
pub(crate) fn place(geometry: &Geometry, cursor: u64, len: u32) -> Option<u64> {
    let ring = geometry.ring_bytes();
    let left = ring - cursor % ring;
    let pos = if u64::from(len) <= left { cursor } else { cursor.checked_add(left)? };
    pos.checked_add(u64::from(len))?;
    Some(pos)
}

/// Whether a payload at `pos` crosses no wrap and is aligned to blocks, for a lane that has no cursor yet.
pub(crate) fn is_placeable(geometry: &Geometry, pos: u64, len: u32) -> bool {
    pos.is_multiple_of(u64::from(geometry.block_bytes())) && place(geometry, pos, len) == Some(pos)
}

/// Whether a payload at `pos` leaves alone what is live, `oldest` being the position of the oldest unreleased blob. One
/// of no bytes always does, by invariant 2.
pub(crate) fn fits(geometry: &Geometry, oldest: Option<u64>, pos: u64, len: u32) -> bool {
    oldest.is_none_or(|oldest| pos + u64::from(len) - oldest <= geometry.ring_bytes())
}
