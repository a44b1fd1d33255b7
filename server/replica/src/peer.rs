//! What is known of the other node: its link, its life signs, its words (rule 15's evidence).

use twinsan_wire::{Epoch, Generation, Incarnation, Role};

use crate::ids::LinkId;

/// The other node, as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    /// The link that is up.
    pub(crate) link: Option<LinkId>,
    /// Who was last heard there.
    pub(crate) incarnation: Option<Incarnation>,
    /// What it last said of itself.
    pub(crate) role: Option<Role>,
    /// Since when it says so.
    pub(crate) role_since: u64,
    /// Its last fabric heartbeat.
    pub(crate) beat: u64,
    /// When a sign of life last came over the fabric.
    pub(crate) heard_at: u64,
    /// Nobody listens there: its process is not running. Void as soon as it is heard, and where the disk shows that it
    /// has run since: on a path that is cut no probe would ever take it back.
    pub(crate) refused: bool,
    /// A probe is on its way.
    pub(crate) probing: bool,
    /// When to probe again.
    pub(crate) probe_at: u64,
    /// Its counter on the disk as last read.
    pub(crate) disk_beat: Option<u64>,
    /// When that counter was last seen to move.
    pub(crate) disk_moved_at: u64,
    /// Its heartbeat block is being read.
    pub(crate) reading_beat: bool,
    /// When to read it again.
    pub(crate) read_beat_at: u64,
    /// The session's client says that it can't reach it.
    pub(crate) missed: Option<Missed>,
    /// The epoch of its last Status.
    pub(crate) epoch: Epoch,
    /// It has a usable path to the disk, as far as it has said (rule 11).
    pub(crate) paths: bool,
    /// It ends in order.
    pub(crate) leaving: bool,
    /// When it last asked us to take over; it repeats that as long as it means it.
    pub(crate) asked_at: Option<u64>,
    /// Whose join was thrown away on this link: it may have ACKed what it drops on hearing so, and the ACK may come
    /// later than its next request. As another incarnation it may join again.
    pub(crate) thrown_away: Option<Incarnation>,
}

/// A client's word, which it repeats with every heartbeat as long as it means it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Missed {
    /// When it was first said.
    pub(crate) since: u64,
    /// When it was last said.
    pub(crate) at: u64,
    /// The epoch that it was said in.
    pub(crate) epoch: Epoch,
    /// The client's session.
    pub(crate) generation: Generation,
}

impl Peer {
    pub(crate) fn new(now: u64) -> Self {
        Self {
            link: None,
            incarnation: None,
            role: None,
            role_since: now,
            beat: 0,
            heard_at: now,
            refused: false,
            probing: false,
            probe_at: now,
            disk_beat: None,
            disk_moved_at: now,
            reading_beat: false,
            read_beat_at: now,
            missed: None,
            epoch: Epoch::ZERO,
            paths: true,
            leaving: false,
            asked_at: None,
            thrown_away: None,
        }
    }

    /// A sign of life from `incarnation`.
    pub(crate) fn hear(&mut self, incarnation: Incarnation, now: u64) {
        if self.incarnation != Some(incarnation) {
            self.role = None;
            self.epoch = Epoch::ZERO;
            self.paths = true;
            self.leaving = false;
            self.asked_at = None;
        }
        self.incarnation = Some(incarnation);
        self.heard_at = now;
        self.refused = false;
    }

    /// Its process is not running, or is not `incarnation` any more (rule 15: at once).
    pub(crate) fn is_gone(&self, incarnation: Incarnation) -> bool {
        self.refused || self.incarnation.is_some_and(|now| now != incarnation)
    }

    /// Its fabric heartbeat has stood still for `timeout`.
    pub(crate) fn is_silent(&self, now: u64, timeout: u64) -> bool {
        now.saturating_sub(self.heard_at) >= timeout
    }

    /// Rule 15, without a client's word: nobody runs there, or nothing has been heard of it for `timeout`, by no way.
    pub(crate) fn shows_no_life(&self, now: u64, timeout: u64) -> bool {
        self.refused || (self.is_silent(now, timeout) && self.disk_stands_still(now, timeout))
    }

    /// Its disk heartbeat has been watched standing still for `timeout`.
    pub(crate) fn disk_stands_still(&self, now: u64, timeout: u64) -> bool {
        self.disk_beat.is_some() && now.saturating_sub(self.disk_moved_at) >= timeout
    }
}
