//! **A read returns a value that was written, and never one older than what had been completed, read or sent by the
//! same session before it began**, across nodes, epochs and sessions: each block is a linearizable register.

use crate::client::OpenRead;
use crate::stamp::{Cell, Version};
use crate::world::World;

const NAME: &str = "read_never_goes_back";

/// What a read must not be older than.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Why {
    Completed,
    Read,
    Sent,
}

impl Why {
    fn words(self) -> &'static str {
        match self {
            Self::Completed => "had been completed",
            Self::Read => "had been read",
            Self::Sent => "had been sent by the same session",
        }
    }
}

/// A client's read has completed with these cells in its buffer.
pub(crate) fn check(world: &mut World, client: usize, id: u64, read: &OpenRead, cells: &[Cell]) {
    let session = world.clients[client].generation.expect("an open session has one").0;
    if cells.len() != read.floors.len() {
        let what = format!("C{client}: read {id} of {} blocks brought {}", read.floors.len(), cells.len());
        return world.fail(NAME, what);
    }
    // A session that has been replaced reads nothing that counts.
    let counts = world.check.newest_session == session;
    for ((lba, cell), &(floor, why)) in read.extent.lbas().zip(cells).zip(&read.floors) {
        if let Some(what) = wrong(world, lba, *cell, floor, why, session).filter(|_| counts || cell.lba != lba) {
            let checker = if why == Why::Completed { "completed_write_is_never_lost" } else { NAME };
            return world.fail(checker, format!("C{client}: read {id}: {what}"));
        }
        if counts {
            remember(world, lba, cell.version, session);
        }
    }
}

fn wrong(world: &mut World, lba: u64, cell: Cell, floor: Version, why: Why, session: u64) -> Option<String> {
    let version = cell.version;
    if cell.lba != lba {
        return Some(format!("block {lba}'s place holds block {} ({version})", cell.lba));
    }
    let history = world.check.block(lba);
    if version != Version::NEVER && !history.issued.contains(&version) {
        return Some(format!("block {lba} is {version}, which nobody wrote"));
    }
    // An operator may have accepted a loss since the read began.
    let floor = if why == Why::Sent { floor } else { floor.min(history.floor()) };
    if version < floor {
        return Some(format!("block {lba} is {version}, but {floor} {}", why.words()));
    }
    match history.settled {
        Some((by, value)) if version.generation < by && version > value && session >= by => {
            Some(format!("block {lba} is {version}, but session g{by} had read {value} of an earlier session"))
        }
        _ => None,
    }
}

fn remember(world: &mut World, lba: u64, version: Version, session: u64) {
    let history = world.check.block(lba);
    history.read = history.read.max(version);
    if version.generation < session && history.settled.is_none_or(|(by, _)| by < session) {
        history.settled = Some((session, version));
    }
}
