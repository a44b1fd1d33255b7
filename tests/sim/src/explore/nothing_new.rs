//! Words that change nothing at their hearer but that it has heard something: they are heard at once.
//!
//! Heartbeats, and mailboxes and Views written again, would else make a hundred states of one. What is lost is that such
//! a word is still on its way when its hearer has changed so far that it would tell something; but then it is said again.

use twinsan_replica::{self as replica, Replica};
use twinsan_session as session;
use twinsan_wire::{Epoch, Incarnation};

use crate::event::{ConnIndex, Host, Item};
use crate::net::End;
use crate::world::{Process, World};

/// Leaves every name as it is.
struct AsTheyAre;

impl replica::Names for AsTheyAre {
    fn incarnation(&mut self, incarnation: Incarnation) -> Incarnation {
        incarnation
    }

    fn conn(&mut self, conn: u64) -> u64 {
        conn
    }

    fn token(&mut self, token: u64) -> u64 {
        token
    }

    fn batch(&mut self, batch: u64) -> u64 {
        batch
    }

    fn other_beat(&mut self, beat: u64) -> u64 {
        beat
    }

    fn epoch(&mut self, epoch: Epoch) -> Epoch {
        epoch
    }

    fn counter(&mut self, counter: u64) -> u64 {
        counter
    }
}

impl session::Names for AsTheyAre {
    fn incarnation(&mut self, incarnation: Incarnation) -> Incarnation {
        incarnation
    }

    fn conn(&mut self, conn: u64) -> u64 {
        conn
    }

    fn epoch(&mut self, epoch: Epoch) -> Epoch {
        epoch
    }
}

/// Whether the next item is a word that changes nothing at its hearer, but that this has been heard of.
pub(crate) fn tells_nothing_new(world: &World, conn: ConnIndex, dir: usize) -> bool {
    let c = &world.net.conns[conn];
    let end = 1 - dir;
    if !c.alive(end) || c.state[end] == End::Setup || world.process(c.ends[end]) != Process::Up {
        return false;
    }
    let (_, item) = c.dirs[dir].items.front().expect("there is one");
    match c.ends[end] {
        Host::Node(node) => {
            let event = match *item {
                Item::Peer(msg) => replica::Event::Peer { link: replica::LinkId(conn as u64), msg },
                Item::Client(msg) => replica::Event::Client { conn: replica::ConnId(conn as u64), msg },
                Item::Mailbox(mailbox) => replica::Event::PeerMailbox { link: replica::LinkId(conn as u64), mailbox },
                _ => return false,
            };
            let before = world.nodes[node.index()].machine.as_ref().expect("it runs");
            leaves_node_alone(before, event, world.clock_ms(Host::Node(node)))
        }
        Host::Client(number) => {
            let event = match *item {
                Item::Node(msg) => session::Event::Message { conn: session::ConnId(conn as u64), msg },
                Item::Mailbox(mailbox) => session::Event::Mailbox { conn: session::ConnId(conn as u64), mailbox },
                _ => return false,
            };
            let before = world.clients[number].machine.as_ref().expect("it runs");
            let (mut after, mut out) = (before.clone(), Vec::new());
            after.handle(event, world.now_ms(), &mut out);
            // As seen from the beginning of time nothing has an age.
            out.is_empty() && before.canonical(0, &mut AsTheyAre) == after.canonical(0, &mut AsTheyAre)
        }
    }
}

fn leaves_node_alone(before: &Replica, event: replica::Event, now: u64) -> bool {
    let (mut after, mut out) = (before.clone(), Vec::new());
    after.handle(event, now, &mut out);
    out.is_empty() && before.canonical(0, &mut AsTheyAre) == after.canonical(0, &mut AsTheyAre)
}
