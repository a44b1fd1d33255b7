//! Synthetic events: each sentence of the protocol that binds the client, one at a time.

mod attach;
mod chaos;
mod cluster;
mod completions;
mod epochs;
mod feeding;
mod handover;
mod reading;
mod relayed;
mod timing;
#[cfg(feature = "weaken")]
mod weak;

use alloc::vec;
use alloc::vec::Vec;

use twinsan_staging::Geometry;
use twinsan_wire::{
    Blob, BlobKind, ClientMsg, Epoch, Generation, Incarnation, Lba, Mailbox, Members, NodeId, NodeMsg, Refusal, Role,
    Seq,
};

use crate::{Action, ConnId, ConnectError, Event, LinkPhase, Notice, Session, SessionConfig};

use NodeId::{A, B};

const BLOCK: u32 = 512;
const VOLUME_BLOCKS: u64 = 64;
/// The incarnations that the nodes begin with.
const A1: u64 = 0xa1;
const B1: u64 = 0xb1;
/// The session that [`Rig::open_dual`] and its kin open, and the epoch that it begins in.
const OURS: Generation = Generation(8);
const FIRST: Epoch = Epoch(6);

fn inc(raw: u64) -> Incarnation {
    Incarnation::from_wire(raw).expect("not zero")
}

fn config() -> SessionConfig {
    SessionConfig::new(Geometry::new(8, 16 * u64::from(BLOCK), BLOCK).expect("legal"), VOLUME_BLOCKS)
}

/// A View in the making: of an idle volume whose only member is A.
#[derive(Clone, Copy)]
struct Say {
    role: Role,
    from: u64,
    epoch: u64,
    primary: Option<NodeId>,
    members: [u64; 2],
    joiner: u64,
    generation: Generation,
}

impl Say {
    /// A serves with this epoch and these members; 0: none.
    fn primary_a(epoch: Epoch, members: [u64; 2]) -> Self {
        let from = members[0];
        Self { role: Role::Primary, from, epoch: epoch.0, primary: Some(A), members, joiner: 0, generation: OURS }
    }

    /// B serves.
    fn primary_b(epoch: Epoch, members: [u64; 2]) -> Self {
        Self { from: members[1], primary: Some(B), ..Self::primary_a(epoch, members) }
    }

    /// The same, as the other node repeats it.
    fn hint(self, role: Role, from: u64) -> Self {
        Self { role, from, ..self }
    }

    fn joiner(self, joiner: u64) -> Self {
        Self { joiner, ..self }
    }

    fn generation(self, generation: Generation) -> Self {
        Self { generation, ..self }
    }

    fn msg(self) -> NodeMsg {
        NodeMsg::View {
            role: self.role,
            from: inc(self.from),
            epoch: Epoch(self.epoch),
            primary: self.primary,
            members: Members(self.members.map(Incarnation::from_wire)),
            joiner: Incarnation::from_wire(self.joiner),
            generation: self.generation,
        }
    }
}

/// A session, and a driver that does what the test says.
struct Rig {
    session: Session,
    now: u64,
    out: Vec<Action>,
    conns: u64,
}

impl Rig {
    fn new(config: SessionConfig) -> Self {
        let mut rig = Self { session: Session::new(config), now: 1000, out: Vec::new(), conns: 0 };
        rig.session.start(rig.now, &mut rig.out);
        assert_eq!(rig.take(), [Action::Connect { node: A }, Action::Connect { node: B }]);
        rig
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        self.session.handle(event, self.now, &mut self.out);
        self.take()
    }

    fn take(&mut self) -> Vec<Action> {
        core::mem::take(&mut self.out)
    }

    /// The attempt to connect that is out succeeds.
    fn connect(&mut self, node: NodeId, incarnation: u64) -> (ConnId, Vec<Action>) {
        self.conns += 1;
        let conn = ConnId(self.conns);
        (conn, self.event(Event::Connected { node, conn, incarnation: inc(incarnation) }))
    }

    fn refuse_connection(&mut self, node: NodeId) -> Vec<Action> {
        self.event(Event::ConnectFailed { node, why: ConnectError::Refused })
    }

    fn message(&mut self, conn: ConnId, msg: NodeMsg) -> Vec<Action> {
        self.event(Event::Message { conn, msg })
    }

    fn say(&mut self, conn: ConnId, view: Say) -> Vec<Action> {
        self.message(conn, view.msg())
    }

    fn resumed(&mut self, conn: ConnId, from: u64, received: u64) -> Vec<Action> {
        self.message(conn, NodeMsg::Resumed { generation: OURS, from: inc(from), received: Seq(received) })
    }

    fn refused(&mut self, conn: ConnId, why: Refusal) -> Vec<Action> {
        self.message(conn, NodeMsg::Refused { why })
    }

    fn mailbox(&mut self, conn: ConnId, from: u64, epoch: Epoch, durable: Option<u64>, released: u64) -> Vec<Action> {
        let (from, durable, released) = (inc(from), durable.map(Seq), Seq(released));
        let mailbox = Mailbox::Completion { epoch, from, generation: OURS, durable, released, relayed: false };
        self.event(Event::Mailbox { conn, mailbox })
    }

    fn read_done(&mut self, conn: ConnId, id: u64, epoch: Epoch, durable: u64) -> Vec<Action> {
        self.message(conn, NodeMsg::ReadDone { id, epoch, durable: Seq(durable) })
    }

    fn write(&mut self, lba: u64) -> Vec<Action> {
        self.session.write(BlobKind::Write, Lba(lba), 1, self.now, &mut self.out);
        self.take()
    }

    fn read(&mut self, slot: u32) -> (u64, Vec<Action>) {
        self.read_of(0, slot)
    }

    fn read_of(&mut self, lba: u64, slot: u32) -> (u64, Vec<Action>) {
        let id = self.session.read(Lba(lba), 1, slot, self.now, &mut self.out);
        (id, self.take())
    }

    /// Time goes on, tick by tick.
    fn wait(&mut self, ms: u64) -> Vec<Action> {
        let until = self.now + ms;
        let mut all = Vec::new();
        while self.now < until {
            self.now = until.min(self.now + 10);
            all.extend(self.event(Event::Tick));
        }
        all
    }

    fn phase(&self, node: NodeId) -> LinkPhase {
        self.session.status().links[node.index()].phase
    }

    /// A serves alone and the session is open; B has not been reached.
    fn open_solo(config: SessionConfig) -> (Self, ConnId) {
        let mut rig = Self::new(config);
        let (a, _) = rig.connect(A, A1);
        let before = Say::primary_a(Epoch(5), [A1, 0]).generation(Generation(7));
        assert_eq!(sends(&rig.say(a, before)), [(a, ClientMsg::Attach { over: Generation::ZERO })]);
        rig.say(a, Say::primary_a(FIRST, [A1, 0]));
        let opened = rig.message(a, NodeMsg::Attached { generation: OURS });
        assert_eq!(opened, [Action::Opened { generation: OURS }]);
        (rig, a)
    }

    /// A serves, B is its secondary, both are fed.
    fn open_dual(config: SessionConfig) -> (Self, ConnId, ConnId) {
        let (mut rig, a) = Self::open_solo(config);
        let view = Say::primary_a(FIRST.next(), [A1, B1]);
        rig.say(a, view);
        let (b, asked) = rig.connect(B, B1);
        assert_eq!(sends(&asked), [(b, resume(1))]);
        rig.say(b, view.hint(Role::Secondary, B1));
        rig.resumed(b, B1, 0);
        assert_eq!([rig.phase(A), rig.phase(B)], [LinkPhase::Feeding; 2]);
        (rig, a, b)
    }
}

/// The epoch that [`Rig::open_dual`] ends in.
const DUAL: Epoch = FIRST.next();

fn resume(first: u64) -> ClientMsg {
    ClientMsg::Resume { generation: OURS, first: Seq(first) }
}

/// The messages sent, but for heartbeats.
fn sends(actions: &[Action]) -> Vec<(ConnId, ClientMsg)> {
    let sent = actions.iter().filter_map(|action| match action {
        Action::Send { conn, msg } if *msg != ClientMsg::Heartbeat => Some((*conn, *msg)),
        _ => None,
    });
    sent.collect()
}

fn posts(actions: &[Action]) -> Vec<(ConnId, u64)> {
    let posted = actions.iter().filter_map(|action| match action {
        Action::Post { conn, blob } => Some((*conn, blob.seq.0)),
        _ => None,
    });
    posted.collect()
}

fn closes(actions: &[Action]) -> Vec<ConnId> {
    let closed = actions.iter().filter_map(|action| match action {
        Action::Close { conn } => Some(*conn),
        _ => None,
    });
    closed.collect()
}

/// The connection was destroyed because of what came by it, and is not made again at once.
#[track_caller]
fn assert_violation(actions: &[Action], conn: ConnId) {
    assert_eq!(actions.first(), Some(&Action::Close { conn }), "{actions:?}");
    let said = actions.iter().any(|action| matches!(action, Action::Notice(Notice::NodeViolation(_))));
    assert!(said, "{actions:?}");
    assert!(!actions.iter().any(|action| matches!(action, Action::Connect { .. })), "{actions:?}");
}

#[test]
fn the_table_of_transitions() {
    let mut table = Vec::new();
    for from in LinkPhase::ALL {
        let to: Vec<LinkPhase> = LinkPhase::ALL.into_iter().filter(|&to| from.may_become(to)).collect();
        table.push((from, to));
    }
    use LinkPhase::{Attaching, Connecting, Feeding, Idle, Listening, Resuming};
    let fed = if cfg!(feature = "weaken") { vec![Idle, Listening] } else { vec![Idle] };
    let expected = [
        (Idle, vec![Connecting]),
        (Connecting, vec![Idle, Listening]),
        (Listening, vec![Idle, Attaching, Resuming]),
        (Attaching, vec![Idle, Listening, Feeding]),
        (Resuming, vec![Idle, Listening, Feeding]),
        (Feeding, fed),
    ];
    assert_eq!(table, expected);
}
