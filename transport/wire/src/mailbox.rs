//! The one-sided words: 64 bytes that are written over, so that only the newest counts.
//!
//! Each names the epoch and both ends' incarnations; what does not fit the receiver's is ignored. It carries a CRC:
//! a torn one is waited out till the next.

use crate::ids::{Epoch, Generation, Incarnation, Seq};

/// A mailbox's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mailbox {
    /// Secondary (or joiner) → primary: every blob of `generation` from `first` to `received` is in this RAM.
    Ack {
        /// The sender's epoch.
        epoch: Epoch,
        /// The sender.
        from: Incarnation,
        /// The primary that it is meant for.
        to: Incarnation,
        /// The lane's session.
        generation: Generation,
        /// Where the lane begins: the lowest seq that it took, or will take. `None`: no client has said yet.
        first: Option<Seq>,
        /// The last seq received.
        received: Seq,
    },
    /// Primary → secondary (or joiner): every blob up to `released` is on the disk, its space may be given back.
    Released {
        /// The sender's epoch.
        epoch: Epoch,
        /// The sender.
        from: Incarnation,
        /// The node that it is meant for.
        to: Incarnation,
        /// The lane's session.
        generation: Generation,
        /// The released position.
        released: Seq,
    },
    /// Node → its client: the node's released position, and from the primary what may be completed.
    Completion {
        /// The node's epoch.
        epoch: Epoch,
        /// The sender.
        from: Incarnation,
        /// The session that it is meant for.
        generation: Generation,
        /// From the primary: complete every write up to here. From another node: `None`.
        durable: Option<Seq>,
        /// The node's own released position.
        released: Seq,
    },
}
