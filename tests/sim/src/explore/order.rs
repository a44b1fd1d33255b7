//! Numbers that only tell newer from older (epochs, superblocks' counters), as small as they can be: the same order, the
//! same neighbours, and no more than one left out between two. Else two nodes that take over from each other in turn would
//! come to new states for ever.
//!
//! Nobody counts on from a number but by one, and from one that is not the newest at most once, by a write that the fence
//! then refuses: so it makes no difference how many are left out, but for whether there are any.

use twinsan_replica as replica;
use twinsan_session as session;
use twinsan_wire::{ClientMsg, Epoch, Mailbox, NodeMsg, PeerBody, PeerMsg, Superblock};

use crate::disk::What;
use crate::event::{ByConn, Ev, Host, Inbound, Item};
use crate::explore::situation::Situation;

/// Those of one state.
#[derive(Default)]
pub(crate) struct Order {
    epochs: Row,
    counters: Row,
    /// Epochs in which somebody has served, as long as another one may come to serve in them.
    pub(crate) served: Vec<u64>,
}

impl Order {
    pub(crate) fn of(state: &Situation) -> Self {
        let mut order = Self::default();
        order.gather(state);
        // Somebody knows it, or the one before it.
        let known = |&epoch: &u64| order.epochs.has(epoch) || order.epochs.has(epoch - 1);
        order.served = state.world.check.primaries.keys().copied().filter(known).collect();
        order.served.iter().for_each(|&epoch| order.epochs.add(epoch));
        order.epochs.settle();
        order.counters.settle();
        order
    }

    pub(crate) fn epoch(&self, epoch: Epoch) -> Epoch {
        Epoch(self.epochs.small(epoch.0))
    }

    pub(crate) fn counter(&self, counter: u64) -> u64 {
        self.counters.small(counter)
    }

    fn gather(&mut self, state: &Situation) {
        let world = &state.world;
        for node in &world.nodes {
            let clock = node.life.map(|life| world.clock_ms(Host::Node(world.lives[life].node)));
            if let (Some(machine), Some(now)) = (&node.machine, clock) {
                let Self { epochs, counters, .. } = self;
                machine.numbers(now, &mut |epoch| epochs.add(epoch.0), &mut |counter| counters.add(counter));
            }
            node.inbox.iter().for_each(|what| self.inbound(what));
        }
        for client in &world.clients {
            client.machine.iter().for_each(|machine| machine.epochs(&mut |epoch| self.epochs.add(epoch.0)));
        }
        let items = world.net.conns.iter().flat_map(|conn| &conn.dirs).flat_map(|dir| &dir.items);
        items.for_each(|(_, item)| self.item(item));
        world.disk.slots.into_iter().flatten().for_each(|superblock| self.superblock(superblock));
        for op in world.disk.ops.values() {
            match &op.what {
                What::Superblock { superblock } => self.superblock(*superblock),
                What::ReadSuperblock { seen } => {
                    seen.iter().copied().flatten().for_each(|superblock| self.superblock(superblock));
                }
                _ => {}
            }
        }
        self.epochs.add(world.check.settled_epoch);
        for ev in &state.bag {
            if let Ev::Hand(_, _, what) = ev {
                self.inbound(what);
            }
        }
    }

    fn superblock(&mut self, superblock: Superblock) {
        self.epochs.add(superblock.epoch.0);
        self.counters.add(superblock.counter);
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::Peer(msg) => self.peer_msg(msg),
            Item::Client(msg) => self.client_msg(msg),
            Item::Node(msg) => self.node_msg(msg),
            Item::Mailbox(mailbox) => self.mailbox(mailbox),
            _ => {}
        }
    }

    fn inbound(&mut self, what: &Inbound) {
        match what {
            Inbound::Replica(event) | Inbound::ByConn(_, ByConn::Replica(event)) => self.replica_event(event),
            Inbound::Session(event) | Inbound::ByConn(_, ByConn::Session(event)) => self.session_event(event),
            _ => {}
        }
    }

    fn replica_event(&mut self, event: &replica::Event) {
        use replica::Event;
        match event {
            Event::SuperblockRead(Ok(read)) => {
                [read.superblock].into_iter().chain(read.older).for_each(|superblock| self.superblock(superblock));
            }
            Event::Peer { msg, .. } => self.peer_msg(msg),
            Event::Client { msg, .. } => self.client_msg(msg),
            Event::Relay { msg, .. } => self.node_msg(msg),
            Event::PeerMailbox { mailbox, .. } => self.mailbox(mailbox),
            _ => {}
        }
    }

    fn session_event(&mut self, event: &session::Event) {
        match event {
            session::Event::Message { msg, .. } => self.node_msg(msg),
            session::Event::Mailbox { mailbox, .. } => self.mailbox(mailbox),
            _ => {}
        }
    }

    fn peer_msg(&mut self, msg: &PeerMsg) {
        self.epochs.add(msg.epoch.0);
        if let PeerBody::Announce { superblock } | PeerBody::HandOver { superblock } = msg.body {
            self.superblock(superblock);
        }
    }

    fn client_msg(&mut self, msg: &ClientMsg) {
        if let ClientMsg::Read { epoch, .. } | ClientMsg::Unreachable { epoch, .. } = msg {
            self.epochs.add(epoch.0);
        }
    }

    fn node_msg(&mut self, msg: &NodeMsg) {
        if let NodeMsg::View { epoch, .. } | NodeMsg::ReadDone { epoch, .. } = msg {
            self.epochs.add(epoch.0);
        }
    }

    fn mailbox(&mut self, mailbox: &Mailbox) {
        let (Mailbox::Ack { epoch, .. } | Mailbox::Released { epoch, .. } | Mailbox::Completion { epoch, .. }) =
            mailbox;
        self.epochs.add(epoch.0);
    }
}

/// Numbers, and the small ones that stand for them. Zero, which means that there is none yet, stays.
#[derive(Default)]
struct Row {
    all: Vec<u64>,
    small: Vec<u64>,
}

impl Row {
    fn add(&mut self, number: u64) {
        if number != 0 && !self.all.contains(&number) {
            self.all.push(number);
        }
    }

    fn has(&self, number: u64) -> bool {
        self.all.contains(&number)
    }

    fn settle(&mut self) {
        self.all.sort_unstable();
        self.small.clear();
        for (at, number) in self.all.iter().enumerate() {
            let before = at.checked_sub(1).map(|at| (self.all[at], self.small[at]));
            self.small.push(before.map_or(1, |(before, small)| small + (number - before).min(2)));
        }
    }

    fn small(&self, number: u64) -> u64 {
        if number == 0 {
            return 0;
        }
        let at = self.all.iter().position(|&n| n == number);
        self.small[at.expect("every number that is named has been gathered")]
    }
}

#[cfg(test)]
mod tests {
    use super::Row;

    fn small(numbers: &[u64]) -> Vec<u64> {
        let mut row = Row::default();
        numbers.iter().for_each(|&number| row.add(number));
        row.settle();
        numbers.iter().map(|&number| row.small(number)).collect()
    }

    #[test]
    fn order_and_neighbours_stay() {
        assert_eq!(small(&[7, 5, 6]), [3, 1, 2]);
        assert_eq!(small(&[0, 9, 4, 9]), [0, 3, 1, 3], "zero stays, and several are left out between 4 and 9");
        assert_eq!(small(&[4, 6]), small(&[14, 17]), "how many are left out makes no difference");
        assert_ne!(small(&[4, 5]), small(&[4, 6]), "whether any are makes one");
    }

    #[test]
    #[should_panic(expected = "has been gathered")]
    fn a_number_that_nobody_has_gathered_is_a_mistake() {
        let mut row = Row::default();
        row.add(3);
        row.settle();
        row.small(4);
    }
}
