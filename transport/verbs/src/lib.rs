//! The fabric over RDMA verbs: `rdma://host:port`, IPv6 addresses in brackets.
//!
//! libibverbs and librdmacm are opened at run time, when the first [`VerbsFabric`] is made: a program that has this
//! fabric starts, and works over others, on a host without RDMA, where making one fails with [`NoRdma`].
//!
//! # A connection
//!
//! Made by the RDMA connection manager: a reliable connected queue pair, a completion queue, a protection domain and a
//! pool of message buffers, all its own, all gone when [`Fabric::disconnect`] returns. The order is the barrier of contract
//! 5: first the queue pair is destroyed, so that the device does no more for the peer; then the memory is deregistered.
//!
//! **A key opens exactly its range.** Each [`expose`] registers a memory region of exactly the range's bytes in
//! the connection's own protection domain, for remote writes only. The device then checks each write's range against the
//! region, and refuses the key on every other connection's queue pair, as that is in another domain (IB Architecture
//! 10.2.3). Memory windows (type 2B, bound to the queue pair) would spare the registration, but the range of a window
//! is not enforced everywhere: Linux's rxe checks a write through a window against the whole region below it
//! (`check_rkey` in rxe_resp.c, 6.12), and a key that opens more than it says is what contract 4 excludes. The price:
//! a domain per connection means that a region which is sent from is registered once per connection too (for local reads
//! only, when the connection first exposes or sends something of it), and memlock counts each time.
//!
//! A [`RemoteKey`]'s lower half is the device's key, its upper half the device's address of the first byte: that byte's own
//! address modulo 2 MiB, plus 2 MiB, so that devices can map huge pages as such, no real address is told to the peer,
//! and zero is never valid.
//!
//! **Writes without bytes** pass no check of the device (the architecture says that their key is not looked at), so they
//! travel as small messages and the receiver's software checks key and offset. The protocol has none on its data path. A real
//! one with an immediate ends the connection: nothing of ours sends it, and its event would be one without a key.
//!
//! Relaxed ordering is never asked for.
//!
//! # Sending
//!
//! Posts are kept in a queue until [`Fabric::submit`], which turns what is there into one linked list and one
//! doorbell. Inline payloads and short messages go inline (128 bytes), longer messages from the pool. What the caller wants
//! signalled is signalled, and otherwise every 32nd post or 4 MiB; a completion frees everything before it.
//!
//! # Credits
//!
//! A message and a write with immediate take a receive of the peer's, and a send that finds none posted would be refused
//! by the device and repeated after a while (RNR). So each side tells in its private data how many receives it gives:
//! 256. A sender counts them down; at zero, what needs one waits in the queue, and everything behind it. The receiver
//! posts each receive again as soon as its event is handed out, and gives credits back in the header of its next message
//! or, at 64 owed, by a message of its own. That one takes no credit. It needs none: each such message carries at least 64 of
//! the 256 there are, so at most four can be under way that the peer has not taken in, and each side keeps four more
//! receives posted than it gives credits. So no RNR, and no deadlock: a sender without credits has sent 256, of which the
//! receiver, when it has taken them in, owes 256. See `credits`.
//!
//! # Ends
//!
//! | what comes | [`CloseReason`] |
//! | --- | --- |
//! | rejected by the system: no such service (8) | `Refused` |
//! | no route to the address, or no device that leads there | `NoRoute` |
//! | rejected otherwise, e.g. by a process that ends | `Ended` |
//! | rejected with our private data | `Violation`: another version |
//! | disconnected by the peer, or its process died | `Ended` |
//! | no acknowledgement: after the device's retries (0.3 s), or by our own watch (`connection/watch.rs`) when nothing has been acknowledged for 0.55 s, however much is queued | `Unreachable` |
//! | the device stopped the queue pair, and it was no failure of ours | `Violation` |
//! | the peer's device refused a write of ours | `Violation` |
//!
//! # Waiting
//!
//! A poll looks at the completion queues, without a system call, and at the descriptors. One that may wait spins for
//! as long as [`WaitPolicy`](twinsan_fabric::WaitPolicy) says, giving way to others from the start but for the first
//! few looks; then it arms the completion channels, looks once more, and sleeps in one epoll.
//!
//! [`expose`]: twinsan_fabric::Fabric::expose
//! [`Fabric::submit`]: twinsan_fabric::Fabric::submit
//! [`Fabric::disconnect`]: twinsan_fabric::Fabric::disconnect
//! [`RemoteKey`]: twinsan_fabric::RemoteKey
//! [`CloseReason`]: twinsan_fabric::CloseReason
//!
//! | module | |
//! | --- | --- |
//! | `sys` | all unsafe code |
//! | `address`, `greeting`, `dial` | how connections come to be |
//! | `message`, `credits`, `pool`, `exposure` | the parts of a `connection` |
//! | `fabric` | [`VerbsFabric`], which holds them all |
//! | [`raw`] | a bare queue pair, to measure and to test with |
#![deny(unsafe_code)]

mod address;
mod connection;
mod credits;
mod dial;
mod exposure;
mod fabric;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod greeting;
mod message;
mod pool;
pub mod raw;
mod sys;

pub use credits::RECEIVE_CREDITS;
pub use fabric::{LIMITS, NoRdma, VerbsFabric, VerbsOptions};
