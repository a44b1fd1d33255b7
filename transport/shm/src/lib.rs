//! The fabric over shared memory (`shm:///path`), for nodes and clients on one host.
//!
//! A connection is a unix socket and one memory that both ends have mapped: two rings of posts, one each way. A post is
//! one slot of the ring, the doorbell a store, and a system call only if the other end is asleep.
//!
//! # Who copies
//!
//! **A one-sided write is carried out by its receiver**, when that polls: the slot says where the bytes lie in the sender's
//! memory, and the receiver, who has that memory mapped for reading, copies them to their place. The obvious way round, a
//! sender that copies into the receiver's memory, can't keep the contract: nobody can take a mapping back from another
//! process, so one that is frozen in the middle of a copy would go on with it after [`disconnect`] has returned, into
//! memory that is somebody else's by then, and who has a lane mapped could write into all of it. Here the receiver checks
//! every key and range before the first byte lands, no peer ever has its memory to write, and a payload is copied once at
//! each node, by both nodes at the same time.
//!
//! In detail, beyond [`twinsan_fabric`]'s contract:
//!
//! - Memory that is posted from has to be made by [`Arena::lendable`]; a peer is given it, to read, with the first post.
//! - [`Event::Sent`](twinsan_fabric::Event::Sent) comes when the receiver has taken the post, so it needs the receiver's
//!   polls.
//! - After the sender's [`disconnect`], nothing that it has posted from its memory arrives any more. A receiver that was in
//!   the middle of a copy at that moment drops it unreported: what has landed by then lies where that write alone was
//!   going.
//! - [`CloseReason::Refused`](twinsan_fabric::CloseReason::Refused) is a socket file that nobody listens at.
//! - What a process had posted before it died arrives: its memory outlives it.
//!
//! # Strangers
//!
//! The listener makes the rings, and takes no descriptor before it has exposed something to the peer: which it does when
//! the peer has proven itself. What it is given then must be sealed memory ([`Lent`](twinsan_arena::Lent)). Whatever
//! stands in a ring is checked as if it came by a wire.
//!
//! | module | |
//! | --- | --- |
//! | `slot` | what a post looks like in the ring |
//! | `ring` | one direction: its sending and its receiving end |
//! | `packet` | what goes by the socket: memory, and wake-ups |
//! | `connection` | both directions of one, and the peer's memory |
//! | `fabric` | [`ShmFabric`], which holds them all |
//!
//! [`disconnect`]: twinsan_fabric::Fabric::disconnect
//! [`Arena::lendable`]: twinsan_arena::Arena::lendable
#![forbid(unsafe_code)]

mod connection;
mod fabric;
mod packet;
mod ring;
mod slot;

pub use fabric::{LIMITS, ShmFabric, ShmOptions};
