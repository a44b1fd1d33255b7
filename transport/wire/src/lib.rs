//! What TwinSAN's hosts say to each other: values, and their bytes.
//!
//! [`ids`], [`cluster`] and [`blob`] are the protocol's nouns. [`message`] and [`mailbox`] are its sentences. Every
//! offset of every encoding is documented in `docs/wire-format.md` and pinned by a test.
//!
//! The bytes: [`descriptor`] and [`mailbox`] for one-sided writes, [`imm`] and [`layout`] for where they go, [`frame`]
//! for the header of the small messages, which the types of [`message`] encode and decode themselves. Decoding never
//! panics, whatever comes; it says which field is wrong ([`DecodeError`]).
//!
//! Pure: no I/O, no clock, no allocation. The payload CRC is computed by the drivers; this crate only carries it.
#![no_std]
#![forbid(unsafe_code)]

pub mod blob;
pub mod cluster;
mod codec;
mod crc;
pub mod descriptor;
pub mod error;
pub mod frame;
pub mod ids;
pub mod imm;
pub mod layout;
pub mod limits;
pub mod mailbox;
pub mod message;
mod shape;

pub use blob::{Blob, BlobKind};
pub use cluster::{Member, Members, Role, Superblock};
pub use codec::node::NodeFrame;
pub use codec::times::Times;
pub use descriptor::Descriptor;
pub use error::DecodeError;
pub use frame::Encoded;
pub use ids::{Epoch, Generation, Incarnation, Lba, NodeId, Seq};
pub use imm::Immediate;
pub use mailbox::Mailbox;
pub use message::{
    ClientMsg, LaneGrant, NodeMsg, PeerBody, PeerMsg, Purpose, Refusal, Rejection, RemoteKey, SetupMsg, VolumeName,
    VolumeShape,
};
