//! What goes wrong with connections whose path is whole: late writes, half-open ends, corrupt bytes.

use twinsan_wire::{Blob, NodeId};

use crate::coverage::Firing;
use crate::event::{ConnIndex, Ev, Host, Item, LifeIndex};
use crate::net::End;
use crate::stamp::{Cell, Version};
use crate::trace::trace;
use crate::world::{Process, World};

/// What a lane's block holds after a corrupt payload has landed there.
const GARBAGE: Cell = Cell { version: Version { generation: u64::MAX, seq: u64::MAX }, lba: u64::MAX };

impl World {
    // ---- for scripts, too ---------------------------------------------------------------------------------------

    /// What one host sends to another is late by so much, on the connections that are there: it lands after what is sent
    /// later by others, and maybe when its sender is long held for dead; not after its receiver has destroyed the
    /// connection. False: there is none.
    pub fn stall(&mut self, from: Host, to: Host, by_us: u64) -> bool {
        let stalls: Vec<(ConnIndex, usize)> =
            self.live_directions().into_iter().filter(|&(conn, dir)| self.direction(conn, dir) == (from, to)).collect();
        stalls.iter().for_each(|&(conn, dir)| self.stall_direction(conn, dir, by_us));
        !stalls.is_empty()
    }

    /// One end of the connections between two hosts hears that they are gone, the other end nothing. False: there is none.
    pub fn half_open(&mut self, hears: Host, believes: Host) -> bool {
        let open = self.open_connections();
        let theirs: Vec<ConnIndex> = open
            .into_iter()
            .filter(|&conn| self.net.conns[conn].ends.contains(&hears) && self.net.conns[conn].ends.contains(&believes))
            .collect();
        for &conn in &theirs {
            let end = self.net.conns[conn].end_at(hears);
            self.lose_one_end(conn, end);
        }
        !theirs.is_empty()
    }

    /// The next blob that lands at a node is corrupt.
    pub fn corrupt_next_blob(&mut self, node: NodeId) {
        trace!(self, "net", "=== the next blob for {node} is corrupted on its way");
        self.net.corrupt_blob[node.index()] = true;
    }

    /// The next message from one host to another is corrupt. False: there is no connection.
    pub fn corrupt_next_message(&mut self, from: Host, to: Host) -> bool {
        let theirs = self.live_directions().into_iter().find(|&(conn, dir)| self.direction(conn, dir) == (from, to));
        if let Some((conn, dir)) = theirs {
            self.corrupt_direction(conn, dir);
        }
        theirs.is_some()
    }

    // ---- drawn --------------------------------------------------------------------------------------------------

    pub(crate) fn some_direction_stalls(&mut self) -> bool {
        let live = self.live_directions();
        if live.is_empty() {
            return false;
        }
        let (conn, dir) = live[self.rng.index(live.len())];
        let by = if self.rng.coin() { self.rng.between(500, 100_000) } else { self.rng.between(100_000, 2_000_000) };
        self.stall_direction(conn, dir, by);
        true
    }

    pub(crate) fn some_connection_is_half_open(&mut self) -> bool {
        let open = self.open_connections();
        if open.is_empty() {
            return false;
        }
        let conn = open[self.rng.index(open.len())];
        let end = self.rng.index(2);
        self.lose_one_end(conn, end);
        if self.rng.chance(600) {
            let delay = self.rng.between(5_000, 3_000_000);
            self.after(delay, Ev::Reset { conn, end: 1 - end });
        }
        true
    }

    pub(crate) fn some_blob_is_corrupted(&mut self) -> bool {
        let node = self.any_node();
        let new = !self.net.corrupt_blob[node.index()];
        if new {
            self.corrupt_next_blob(node);
        }
        new
    }

    pub(crate) fn some_message_is_corrupted(&mut self) -> bool {
        let live = self.live_directions();
        if live.is_empty() {
            return false;
        }
        let (conn, dir) = live[self.rng.index(live.len())];
        self.corrupt_direction(conn, dir);
        true
    }

    // ---- what they do -------------------------------------------------------------------------------------------

    /// Directions whose receiver still listens.
    fn live_directions(&self) -> Vec<(ConnIndex, usize)> {
        let conns = self.net.conns.iter().enumerate();
        conns.flat_map(|(i, c)| (0..2).filter(|&dir| c.state[1 - dir] == End::Open).map(move |dir| (i, dir))).collect()
    }

    fn open_connections(&self) -> Vec<ConnIndex> {
        let open = |i: &ConnIndex| self.net.conns[*i].state == [End::Open; 2];
        (0..self.net.conns.len()).filter(open).collect()
    }

    fn direction(&self, conn: ConnIndex, dir: usize) -> (Host, Host) {
        let ends = self.net.conns[conn].ends;
        (ends[dir], ends[1 - dir])
    }

    fn stall_direction(&mut self, conn: ConnIndex, dir: usize, by_us: u64) {
        let (from, to) = self.direction(conn, dir);
        trace!(self, "net", "=== what {from} sends to {to} is late: {} ms", by_us / 1000);
        self.net.conns[conn].dirs[dir].stalls_until_us = self.now_us + by_us;
        self.after(by_us, Ev::Deliver { conn, dir });
    }

    fn corrupt_direction(&mut self, conn: ConnIndex, dir: usize) {
        let (from, to) = self.direction(conn, dir);
        trace!(self, "net", "=== the next message from {from} to {to} is corrupted on its way");
        self.net.conns[conn].dirs[dir].corrupt_next = true;
    }

    /// End `end` hears that the connection is gone; the other one does not.
    fn lose_one_end(&mut self, conn: ConnIndex, end: usize) {
        let (hears, believes) = self.direction(conn, end);
        trace!(self, "net", "=== a connection is gone: {hears} hears it, {believes} does not");
        self.net.conns[conn].mute = true;
        self.end_noticed(conn, end);
    }

    /// An end that had not heard hears now.
    pub(crate) fn reset_arrives(&mut self, conn: ConnIndex, end: usize) {
        if self.net.conns[conn].alive(end) {
            self.end_noticed(conn, end);
        }
    }

    /// Whether this message is the corrupt one: who receives it destroys the connection.
    pub(crate) fn arrives_corrupt(&mut self, conn: ConnIndex, dir: usize, item: &Item) -> bool {
        if !self.net.conns[conn].dirs[dir].corrupt_next
            || !matches!(item, Item::Peer(_) | Item::Client(_) | Item::Node(_))
        {
            return false;
        }
        let (_, to) = self.direction(conn, dir);
        if self.process(to) != Process::Up {
            return false; // Who is frozen looks at nothing.
        }
        self.net.conns[conn].dirs[dir].corrupt_next = false;
        self.counts.corrupt_messages += 1;
        trace!(self, to, "a corrupt message: the connection is destroyed");
        self.end_noticed(conn, 1 - dir);
        true
    }

    /// Whether this blob is the corrupt one: its bytes are in the lane, its CRC does not fit, the connection is destroyed.
    pub(crate) fn blob_is_corrupt(&mut self, conn: ConnIndex, life: LifeIndex, blob: &Blob) -> bool {
        let Host::Node(node) = self.net.conns[conn].ends[1] else { unreachable!("only nodes have lanes") };
        if !self.net.corrupt_blob[node.index()] || self.process(Host::Node(node)) != Process::Up {
            return false;
        }
        self.net.corrupt_blob[node.index()] = false;
        self.counts.corrupt_blobs += 1;
        self.fired(Firing::CorruptBlob);
        trace!(self, Host::Node(node), "blob {} is corrupt: the connection is destroyed", blob.seq);
        for (at, _) in self.payload_places(blob) {
            self.lives[life].ring[at] = GARBAGE;
        }
        let slot = self.config.geometry.slot(blob.seq) as usize;
        self.lives[life].slots[slot] = None;
        self.end_noticed(conn, 1);
        true
    }

    pub(crate) fn mend_fabric(&mut self) {
        self.net.corrupt_blob = [false; 2];
        for dir in self.net.conns.iter_mut().flat_map(|conn| &mut conn.dirs) {
            dir.corrupt_next = false;
        }
    }
}
