//! **Lane space is written over only when nobody needs it any more**: not on a node whose disk write or read answer
//! still uses it, not on the client while a node may still fetch it. Every cell carries its write's name, and whoever
//! takes bytes from a lane takes them as late as real hardware may.

use twinsan_replica::PieceSource;

use crate::config::BLOCK_BYTES;
use crate::event::{Answer, Host};
use crate::stamp::{Cell, Version};
use crate::world::World;

const NAME: &str = "lane_space_is_not_reused_early";

/// A cell is taken for what it is meant to hold.
pub(crate) fn check(world: &mut World, who: Host, what: &str, lba: u64, seq: u64, cell: Cell) {
    if cell.version.seq != seq || cell.lba != lba {
        broken(world, who, what, lba, seq, cell.version);
    }
}

/// It holds something else.
pub(crate) fn broken(world: &mut World, who: Host, what: &str, lba: u64, seq: u64, is: Version) {
    world.fail(NAME, format!("{what} of {who} wants #{seq} for block {lba}, the lane has {is} there"));
}

impl World {
    /// The bytes of an answer, each piece from where it is at this moment.
    pub(crate) fn compose(&mut self, answer: &Answer) -> Vec<Cell> {
        let ring = self.config.ring_blocks();
        let mut cells = Vec::new();
        let mut from_disk = answer.from_disk.iter();
        let who = self.net_owner(answer.life);
        for piece in &answer.pieces {
            for i in 0..u64::from(piece.blocks) {
                let lba = piece.lba.0 + i;
                cells.push(match piece.source {
                    PieceSource::Disk => from_disk.next().copied().unwrap_or_default(),
                    PieceSource::Staged { seq, data_pos } => {
                        let at = (data_pos / u64::from(BLOCK_BYTES) + i) % ring;
                        let cell = self.lives[answer.life].ring[usize::try_from(at).expect("a small ring")];
                        check(self, who, "a read's answer", lba, seq.0, cell);
                        cell
                    }
                    // Zeros take no lane space; staged blobs are of the session that reads.
                    PieceSource::Zeros { seq } => {
                        Cell { version: Version { generation: answer.generation, seq: seq.0 }, lba }
                    }
                });
            }
        }
        cells
    }

    fn net_owner(&self, life: crate::event::LifeIndex) -> Host {
        Host::Node(self.lives[life].node)
    }
}
