//! What TwinSAN's hosts say to each other: values, and their bytes.
//!
//! [`ids`], [`cluster`] and [`blob`] are the protocol's nouns. [`message`] and [`mailbox`] are its sentences. Every
//! offset of every encoding is documented in `docs/wire-format.md` and pinned by a test.
//!
//! Pure: no I/O, no clock, no allocation but for the list of a message's own fields. The payload CRC is computed by
//! the drivers; this crate only carries it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod blob;
pub mod cluster;
pub mod ids;
pub mod limits;
pub mod mailbox;
pub mod message;

pub use blob::{Blob, BlobKind};
pub use cluster::{Member, Members, Role, Superblock};
pub use ids::{Epoch, Generation, Incarnation, Lba, NodeId, Seq};
pub use mailbox::Mailbox;
pub use message::{ClientMsg, NodeMsg, PeerBody, PeerMsg, Refusal};
