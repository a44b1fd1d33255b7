//! The heartbeat block: a counter that the primary moves several times a second (rule 15), and, for the local-lock
//! fence, which process it is (section 5).

use twinsan_wire::{Incarnation, NodeId};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Uuid;
use crate::layout::PAGE_BYTES;
use crate::page::Page;

/// The first eight bytes of a heartbeat block.
pub const MAGIC: [u8; 8] = *b"TWSANHB\0";
/// The format's version.
pub const VERSION: u32 = 1;

/// A process, so that it can't be mistaken for another one: pids are used again, and mean nothing after a reboot or in
/// another pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStamp {
    /// Its pid, in the namespace below.
    pub pid: u32,
    /// When it started, in clock ticks since boot: field 22 of proc_pid_stat(5).
    pub start_ticks: u64,
    /// Which boot of which host: /proc/sys/kernel/random/boot_id.
    pub boot_id: [u8; 16],
    /// The pid namespace's inode number: /proc/self/ns/pid; 0 on a kernel that has only one.
    pub pid_namespace: u64,
}

/// One node's heartbeat block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The volume.
    pub volume: Uuid,
    /// Whose block it is.
    pub node: NodeId,
    /// Which life of the node wrote it last.
    pub incarnation: Incarnation,
    /// Grows with every beat.
    pub beat: u64,
    /// Who wrote it.
    pub process: ProcessStamp,
    /// That process held the claim (local-lock): a fence may kill it for it.
    pub holder: bool,
}

/// Why a heartbeat block says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeartbeatError {
    /// Read while it was being written, or rotten.
    #[error("heartbeat block of node {node}: torn or foreign")]
    Torn {
        /// Whose.
        node: NodeId,
    },
    /// Whole, but not what belongs there.
    #[error("heartbeat block of node {node}: {what}")]
    Invalid {
        /// Whose.
        node: NodeId,
        /// What is wrong.
        what: &'static str,
    },
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U32,
    node: U32,
    volume: [u8; 16],
    incarnation: U64,
    beat: U64,
    pid: U32,
    holder: U32,
    start_ticks: U64,
    boot_id: [u8; 16],
    pid_namespace: U64,
    reserved: [u8; RESERVED],
    crc: U32,
}

const RESERVED: usize = PAGE_BYTES - 88 - 4;
const _: () = assert!(size_of::<Raw>() == PAGE_BYTES);

const fn node_number(node: NodeId) -> u32 {
    match node {
        NodeId::A => 1,
        NodeId::B => 2,
    }
}

impl Heartbeat {
    /// The block's bytes, CRC included.
    #[must_use]
    pub fn encode(&self) -> Page {
        let raw = Raw {
            magic: MAGIC,
            version: VERSION.into(),
            node: node_number(self.node).into(),
            volume: self.volume.0,
            incarnation: self.incarnation.get().into(),
            beat: self.beat.into(),
            pid: self.process.pid.into(),
            holder: u32::from(self.holder).into(),
            start_ticks: self.process.start_ticks.into(),
            boot_id: self.process.boot_id,
            pid_namespace: self.process.pid_namespace.into(),
            reserved: [0; RESERVED],
            crc: 0.into(),
        };
        let mut page = Page::ZERO;
        page.0.copy_from_slice(raw.as_bytes());
        page.seal();
        page
    }

    /// `node`'s block of `volume` from its bytes; `None` if it was never written (all zeros).
    ///
    /// # Errors
    /// Torn, or not what belongs there.
    pub fn decode(page: &Page, node: NodeId, volume: Uuid) -> Result<Option<Self>, HeartbeatError> {
        if page.is_zero() {
            return Ok(None);
        }
        let torn = HeartbeatError::Torn { node };
        let invalid = |what| HeartbeatError::Invalid { node, what };
        let raw = Raw::ref_from_bytes(&page.0[..]).map_err(|_| torn)?;
        if raw.magic != MAGIC || !page.is_sealed() {
            return Err(torn);
        }
        if raw.version.get() != VERSION {
            return Err(invalid("another version of the format"));
        }
        if raw.node.get() != node_number(node) {
            return Err(invalid("another node's"));
        }
        if raw.volume != volume.0 {
            return Err(invalid("another volume's"));
        }
        if raw.holder.get() > 1 || raw.reserved.iter().any(|&b| b != 0) {
            return Err(invalid("reserved bits are set"));
        }
        let process = ProcessStamp {
            pid: raw.pid.get(),
            start_ticks: raw.start_ticks.get(),
            boot_id: raw.boot_id,
            pid_namespace: raw.pid_namespace.get(),
        };
        Ok(Some(Self {
            volume,
            node,
            incarnation: Incarnation::from_wire(raw.incarnation.get()).ok_or(invalid("nobody's incarnation"))?,
            beat: raw.beat.get(),
            process,
            holder: raw.holder.get() == 1,
        }))
    }
}
