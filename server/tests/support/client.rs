//! A client of one node, by hand: the fabric, the set-up, and the words of the wire, without the session machine. It
//! can say what a well-behaved client never says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use twinsan_arena::{Arena, ArenaOptions, PagePolicy};
use twinsan_auth::{Connector, ConnectorStep, Key, fresh_nonce};
use twinsan_fabric::{ConnId, Event, Fabric, LocalSlice, Payload, RegionId, RemoteAddr};
use twinsan_tcp::{TcpFabric, TcpOptions};
use twinsan_wire::layout::{CLIENT_MAILBOX_BYTES, READ_REGION_BYTES, descriptor_offset, descriptor_slot, read_offset};
use twinsan_wire::{
    Blob, BlobKind, ClientMsg, Descriptor, Epoch, Generation, Immediate, LaneGrant, Lba, Mailbox, NodeFrame, NodeMsg,
    Purpose, Refusal, Seq, SetupMsg, VolumeName, VolumeShape,
};

use super::PATIENCE;

const READS: u64 = 4096;
const RING: u64 = READS + READ_REGION_BYTES;
const RING_BYTES: u64 = 4 << 20;

/// No connection is needed for so long: a node says this and that all the time, so that a wait for something else would
/// not end by itself.
const LIFETIME: Duration = Duration::from_secs(40);

/// One connection to one node.
pub(crate) struct Client {
    fabric: TcpFabric,
    arena: Arc<Arena>,
    region: RegionId,
    conn: ConnId,
    events: Vec<Event>,
    begun: Instant,
    pub(crate) shape: VolumeShape,
    pub(crate) generation: Generation,
    pub(crate) epoch: Epoch,
    grant: Option<LaneGrant>,
    next_pos: u64,
    next_seq: Seq,
    next_read: u64,
    /// The node has released it.
    released: Seq,
    /// Both members have released it, by a relay's word.
    released_by_both: Seq,
}

/// What a test may wait for.
#[derive(Debug)]
pub(crate) enum Heard {
    Message(NodeMsg),
    Mailbox(Mailbox),
    Closed,
}

impl Client {
    /// Connects and proves itself.
    pub(crate) fn connect(address: &str, volume: &str, key: Option<Key>) -> Self {
        let bytes = usize::try_from(RING + RING_BYTES).unwrap();
        let options = ArenaOptions { name: "client".into(), bytes, pages: PagePolicy::Small, lock: false };
        let arena = Arc::new(Arena::new(&options).unwrap());
        let mut fabric = TcpFabric::new(TcpOptions::default()).unwrap();
        let region = fabric.register(Arc::clone(&arena)).unwrap();
        let conn = fabric.connect(address).unwrap();
        let shape = VolumeShape { uuid: [0; 16], blocks: 0, block_bytes: 0, ring_bytes: 0 };
        let mut client = Self {
            fabric,
            arena,
            region,
            conn,
            events: Vec::new(),
            begun: Instant::now(),
            shape,
            generation: Generation::ZERO,
            epoch: Epoch::ZERO,
            grant: None,
            next_pos: 0,
            next_seq: Seq(1),
            next_read: 1,
            released: Seq::ZERO,
            released_by_both: Seq::ZERO,
        };
        client.set_up(VolumeName::new(volume).unwrap(), key);
        client
    }

    fn set_up(&mut self, volume: VolumeName, key: Option<Key>) {
        let (mut connector, hello) = Connector::new(Purpose::Client, volume, key, fresh_nonce().unwrap());
        assert!(matches!(self.event(), Event::Connected { .. }));
        self.say(hello.encode().as_bytes());
        loop {
            let Event::Message { bytes, .. } = self.event() else { panic!("the set-up broke off") };
            match connector.handle_bytes(&bytes).unwrap() {
                ConnectorStep::Send(msg) => self.say(msg.encode().as_bytes()),
                ConnectorStep::Welcomed(welcome) => {
                    self.shape = welcome.volume;
                    break;
                }
            }
        }
        let mailbox = self.fabric.expose(self.conn, self.region, 0, CLIENT_MAILBOX_BYTES).unwrap();
        let reads = self.fabric.expose(self.conn, self.region, READS, READ_REGION_BYTES).unwrap();
        self.say(SetupMsg::Ready { mailbox, reads: Some(reads) }.encode().as_bytes());
    }

    fn say(&mut self, bytes: &[u8]) {
        self.fabric.send(self.conn, bytes).unwrap();
        self.fabric.submit(self.conn);
    }

    pub(crate) fn send(&mut self, msg: &ClientMsg) {
        self.say(msg.encode().as_bytes());
    }

    /// The same if there is room for it.
    pub(crate) fn offer(&mut self, msg: &ClientMsg) -> bool {
        let taken = self.fabric.send(self.conn, msg.encode().as_bytes()).is_ok();
        self.fabric.submit(self.conn);
        taken
    }

    fn event(&mut self) -> Event {
        assert!(self.begun.elapsed() < LIFETIME, "it hears things, and never what it waits for");
        let deadline = Instant::now() + PATIENCE;
        while self.events.is_empty() {
            assert!(Instant::now() < deadline, "nothing comes");
            self.fabric.poll(&mut self.events, Some(Duration::from_millis(50)));
        }
        self.events.remove(0)
    }

    /// What the node says next. Views are taken note of.
    pub(crate) fn hear(&mut self) -> Heard {
        loop {
            match self.event() {
                Event::Message { bytes, .. } => {
                    let frame = NodeFrame::decode(&bytes).unwrap();
                    self.grant = frame.grant.or(self.grant);
                    if let NodeMsg::View { epoch, .. } = frame.msg {
                        self.epoch = epoch;
                    }
                    return Heard::Message(frame.msg);
                }
                Event::Immediate { imm, .. } => {
                    assert_eq!(Immediate::decode(imm), Ok(Immediate::Mailbox { slot: 0 }));
                    let mut bytes = [0; 64];
                    self.arena.copy_out(0, &mut bytes);
                    let mailbox = Mailbox::decode(&bytes).unwrap();
                    if let Mailbox::Completion { released, relayed, .. } = mailbox {
                        self.released = self.released.max(released);
                        if relayed {
                            self.released_by_both = self.released_by_both.max(released);
                        }
                    }
                    return Heard::Mailbox(mailbox);
                }
                Event::Closed { .. } => return Heard::Closed,
                Event::Sent { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Opens a session; the node must be the primary and have no live one.
    pub(crate) fn attach(&mut self) {
        self.try_attach(Generation::ZERO).unwrap_or_else(|why| panic!("refused: {why:?}"));
    }

    /// Opens a session, in place of a live one that is no newer than `over`.
    pub(crate) fn try_attach(&mut self, over: Generation) -> Result<(), Refusal> {
        self.send(&ClientMsg::Attach { over });
        loop {
            match self.hear() {
                Heard::Message(NodeMsg::Attached { generation }) => {
                    self.generation = generation;
                    return Ok(());
                }
                Heard::Message(NodeMsg::Refused { why }) => return Err(why),
                Heard::Closed => panic!("closed"),
                Heard::Message(_) | Heard::Mailbox(_) => {}
            }
        }
    }

    /// Goes on with a session at this node.
    pub(crate) fn resume(&mut self, generation: Generation, first: Seq) -> Result<(), Refusal> {
        self.send(&ClientMsg::Resume { generation, first });
        loop {
            match self.hear() {
                Heard::Message(NodeMsg::Resumed { .. }) => {
                    self.generation = generation;
                    return Ok(());
                }
                Heard::Message(NodeMsg::Refused { why }) => return Err(why),
                Heard::Closed => panic!("closed"),
                Heard::Message(_) | Heard::Mailbox(_) => {}
            }
        }
    }

    /// Takes in what is there, without waiting. `false`: the node has cut us off.
    pub(crate) fn is_connected(&mut self) -> bool {
        loop {
            if self.events.is_empty() && self.fabric.poll(&mut self.events, None) == 0 {
                return true;
            }
            if matches!(self.hear(), Heard::Closed) {
                return false;
            }
        }
    }

    /// Posts a blob of the same session that another node has been sent too.
    pub(crate) fn mirror(&mut self, descriptor: &Descriptor, payload: &[u8]) {
        let Blob { seq, data_pos, payload_len, .. } = descriptor.blob;
        (self.next_seq, self.next_pos) = (seq.next(), data_pos + u64::from(payload_len));
        self.arena.copy_in(usize::try_from(RING + data_pos % RING_BYTES).unwrap(), payload);
        self.post(descriptor);
    }

    /// The node has released everything up to here.
    pub(crate) const fn released(&self) -> Seq {
        self.released
    }

    /// The next write: whole blocks of `payload` from `lba` on.
    pub(crate) fn blob(&mut self, lba: u64, payload: &[u8]) -> Descriptor {
        let blocks = u32::try_from(payload.len()).unwrap() / self.shape.block_bytes;
        let blob = Blob {
            generation: self.generation,
            seq: self.next_seq,
            kind: BlobKind::Write,
            lba: Lba(lba),
            blocks,
            data_pos: self.next_pos,
            payload_len: u32::try_from(payload.len()).unwrap(),
        };
        self.next_seq = self.next_seq.next();
        self.next_pos += payload.len() as u64;
        self.arena.copy_in(usize::try_from(RING + blob.data_pos % RING_BYTES).unwrap(), payload);
        Descriptor { blob, payload_crc: Some(crc32c::crc32c(payload)), timed: false }
    }

    /// Puts it into the node's lane, in the slot where it belongs.
    pub(crate) fn post(&mut self, descriptor: &Descriptor) {
        let slot = descriptor_slot(descriptor.blob.seq, self.shape.slots());
        self.post_at(descriptor, slot);
    }

    /// Puts it into any slot.
    pub(crate) fn post_at(&mut self, descriptor: &Descriptor, slot: u32) {
        self.post_payload(descriptor);
        let to = RemoteAddr { key: self.grant.expect("attached").descriptors, offset: descriptor_offset(slot) };
        let imm = Immediate::Blob { slot }.encode();
        self.fabric.write_imm(self.conn, Payload::Inline(&descriptor.encode()), to, imm, None).unwrap();
        self.fabric.submit(self.conn);
    }

    /// Puts its payload into the node's ring, and no more.
    pub(crate) fn post_payload(&mut self, descriptor: &Descriptor) {
        self.post_part_of_payload(descriptor, descriptor.blob.payload_len);
    }

    /// Puts the first `len` bytes of its payload into the node's ring.
    pub(crate) fn post_part_of_payload(&mut self, descriptor: &Descriptor, len: u32) {
        let grant = self.grant.expect("attached");
        let offset = descriptor.blob.data_pos % RING_BYTES;
        let local = LocalSlice { region: self.region, offset: RING + offset, len };
        let data = RemoteAddr { key: grant.data, offset };
        self.fabric.write(self.conn, Payload::Region(local), data, None).unwrap();
    }

    /// Waits until the node says that everything up to `seq` is durable.
    pub(crate) fn wait_durable(&mut self, seq: Seq) {
        loop {
            match self.hear() {
                Heard::Mailbox(Mailbox::Completion { durable: Some(durable), .. }) if durable >= seq => return,
                Heard::Closed => panic!("closed before blob {seq} was durable"),
                _ => {}
            }
        }
    }

    /// Waits until the primary, which feeds the other member, says that both have released everything up to `seq`.
    pub(crate) fn wait_released_by_both(&mut self, seq: Seq) {
        while self.released_by_both < seq {
            assert!(!matches!(self.hear(), Heard::Closed), "closed before {seq} was released");
        }
    }

    /// Reads; the node must be the primary of the epoch that it last told.
    pub(crate) fn read(&mut self, lba: u64, blocks: u32) -> Vec<u8> {
        let id = self.next_read;
        self.next_read += 1;
        let (epoch, slot) = (self.epoch, 3);
        let after = self.next_seq.prev();
        self.send(&ClientMsg::Read { id, epoch, after, lba: Lba(lba), blocks, slot });
        loop {
            match self.hear() {
                Heard::Message(NodeMsg::ReadDone { id: answered, .. }) => {
                    assert_eq!(answered, id);
                    break;
                }
                Heard::Closed => panic!("closed before the read was answered"),
                _ => {}
            }
        }
        let mut bytes = vec![0; blocks as usize * self.shape.block_bytes as usize];
        self.arena.copy_out(usize::try_from(READS + read_offset(slot)).unwrap(), &mut bytes);
        bytes
    }

    /// Waits for the node to cut us off.
    pub(crate) fn wait_closed(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !matches!(self.hear(), Heard::Closed) {
            assert!(Instant::now() < deadline, "the node does not cut it off");
        }
    }

    /// The fabric's own words, to misuse them.
    pub(crate) fn raw(&mut self) -> (&mut TcpFabric, ConnId, Option<LaneGrant>) {
        (&mut self.fabric, self.conn, self.grant)
    }
}
