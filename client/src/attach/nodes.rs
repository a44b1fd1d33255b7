//! The fabric's side of a session: connections to the two nodes, what the session sends by them and what comes.

use anyhow::Context;
use twinsan_auth::Welcome;
use twinsan_fabric::{CloseReason, ConnId, Event as FabricEvent, Fabric, RegionId};
use twinsan_session::{self as session, ConnectError, Event};
use twinsan_wire::imm::Immediate;
use twinsan_wire::layout::{CLIENT_COMPLETION_SLOT, CLIENT_MAILBOX_BYTES, READ_REGION_BYTES, mailbox_offset};
use twinsan_wire::limits::MAILBOX_BYTES;
use twinsan_wire::{Blob, ClientMsg, Mailbox, NodeFrame, NodeId, SetupMsg, Times, VolumeShape};

use super::dial::{Dial, Dialled, Target};
use super::outbox::{Crcs, Outbox};
use crate::memory::{MAILBOX_AREAS, Memory};

/// A connection that the session knows.
#[derive(Debug)]
struct Up {
    node: NodeId,
    outbox: Outbox,
    /// Its mailbox area.
    area: usize,
}

/// Both nodes.
#[derive(Debug)]
pub(crate) struct Nodes {
    dials: [Dial; 2],
    up: Vec<Up>,
    /// Mailbox areas that no connection can write into.
    areas: Vec<usize>,
    memory: Memory,
    region: RegionId,
    shape: VolumeShape,
    crcs: Crcs,
    /// The last complaint about a node, so that one which is down is not reported at every attempt.
    complaints: [Option<String>; 2],
    /// Blobs ask how long they take.
    timed: bool,
    /// What was said to that.
    times: Vec<Times>,
}

/// The session's number for a connection is the fabric's.
const fn session_conn(conn: ConnId) -> session::ConnId {
    session::ConnId(conn.0)
}

impl Nodes {
    /// Without connections yet. `shape`: what both nodes must say of the volume.
    pub(crate) fn new(
        targets: [Target; 2],
        memory: Memory,
        region: RegionId,
        shape: VolumeShape,
        integrity: bool,
    ) -> Self {
        Self {
            dials: targets.map(Dial::new),
            up: Vec::new(),
            areas: (0..MAILBOX_AREAS).collect(),
            memory,
            region,
            shape,
            crcs: Crcs::new(integrity, shape.slots()),
            complaints: [None, None],
            timed: false,
            times: Vec::new(),
        }
    }

    /// With blobs that ask how long they take, or without.
    pub(crate) fn timed(self, timed: bool) -> Self {
        Self { timed, ..self }
    }

    /// What nodes have said of how long blobs took.
    pub(crate) fn take_times(&mut self) -> std::vec::Drain<'_, Times> {
        self.times.drain(..)
    }

    /// The node's name in the configuration.
    pub(crate) fn name(&self, node: NodeId) -> &str {
        &self.dials[node.index()].target().name
    }

    /// The cores of those that are on this host, where that is known.
    pub(crate) fn cores<F: Fabric>(&self, fabric: &F) -> impl Iterator<Item = usize> {
        self.up.iter().filter_map(|up| fabric.peer_core(up.outbox.conn()))
    }

    // ---- What the session wants.

    /// Connects; the event follows, now or later.
    pub(crate) fn connect<F: Fabric>(&mut self, node: NodeId, fabric: &mut F, now_ms: u64) -> Option<Event> {
        let dialled = self.dials[node.index()].begin(fabric, now_ms);
        self.dialled(node, dialled, fabric)
    }

    /// Destroys a connection: nothing from it lands any more, so its mailbox area may be another's.
    pub(crate) fn close<F: Fabric>(&mut self, conn: session::ConnId, fabric: &mut F) {
        if let Some(at) = self.up.iter().position(|up| session_conn(up.outbox.conn()) == conn) {
            let up = self.up.swap_remove(at);
            fabric.disconnect(up.outbox.conn());
            self.areas.push(up.area);
        }
    }

    pub(crate) fn send(&mut self, conn: session::ConnId, msg: ClientMsg) {
        if let Some(up) = self.find(conn) {
            up.outbox.message(msg);
        }
    }

    pub(crate) fn post(&mut self, conn: session::ConnId, blob: Blob) {
        if let Some(up) = self.find(conn) {
            up.outbox.blob(blob);
        }
    }

    /// Posts what waits: one doorbell per connection, and one more for a long payload, which is on its way to both nodes
    /// while its CRC is computed.
    pub(crate) fn flush<F: Fabric>(&mut self, fabric: &mut F) {
        for up in &mut self.up {
            up.outbox.begin(fabric, &self.memory, self.region);
        }
        for up in &mut self.up {
            up.outbox.flush(fabric, &self.memory, self.region, &mut self.crcs);
        }
    }

    /// Whether everything has been posted.
    pub(crate) fn is_flushed(&self) -> bool {
        self.up.iter().all(|up| up.outbox.is_empty())
    }

    /// Whether no connection is left.
    pub(crate) const fn is_alone(&self) -> bool {
        self.up.is_empty()
    }

    fn find(&mut self, conn: session::ConnId) -> Option<&mut Up> {
        self.up.iter_mut().find(|up| session_conn(up.outbox.conn()) == conn)
    }

    // ---- What the fabric says.

    /// Takes an event of a connection; what the session is to hear of it.
    pub(crate) fn handle<F: Fabric>(&mut self, event: FabricEvent, fabric: &mut F, now_ms: u64) -> Option<Event> {
        match event {
            FabricEvent::Connected { conn } => {
                let node = self.dialling(conn)?;
                let dialled = self.dials[node.index()].connected(fabric, now_ms);
                self.dialled(node, dialled, fabric)
            }
            FabricEvent::Message { conn, bytes } => match self.dialling(conn) {
                Some(node) => {
                    let dialled = self.dials[node.index()].message(fabric, now_ms, &bytes);
                    self.dialled(node, dialled, fabric)
                }
                None => self.message(conn, &bytes, fabric),
            },
            FabricEvent::Immediate { conn, imm } => self.immediate(conn, imm, fabric),
            FabricEvent::Closed { conn, why } => match self.dialling(conn) {
                Some(node) => {
                    let dialled = self.dials[node.index()].closed(fabric, now_ms, &why);
                    self.dialled(node, dialled, fabric)
                }
                None => self.closed(conn, &why),
            },
            // Nobody connects to a client; the memory of posts is the window's (see `outbox`).
            FabricEvent::Accepted { .. } | FabricEvent::Sent { .. } | FabricEvent::Ready { .. } => None,
        }
    }

    /// Gives up what takes too long.
    pub(crate) fn tick<F: Fabric>(&mut self, node: NodeId, fabric: &mut F, now_ms: u64) -> Option<Event> {
        let dialled = self.dials[node.index()].tick(fabric, now_ms);
        self.dialled(node, dialled, fabric)
    }

    fn dialling(&self, conn: ConnId) -> Option<NodeId> {
        NodeId::BOTH.into_iter().find(|node| self.dials[node.index()].owns(conn))
    }

    fn message<F: Fabric>(&mut self, conn: ConnId, bytes: &[u8], fabric: &mut F) -> Option<Event> {
        if Times::is_kind_of(bytes) {
            return self.timed_by(conn, bytes, fabric);
        }
        let up = self.find(session_conn(conn))?;
        match NodeFrame::decode(bytes) {
            Ok(NodeFrame { msg, grant }) => {
                if let Some(grant) = grant {
                    up.outbox.grant(grant);
                }
                Some(Event::Message { conn: session_conn(conn), msg })
            }
            Err(error) => self.violation(conn, &error, fabric),
        }
    }

    fn timed_by<F: Fabric>(&mut self, conn: ConnId, bytes: &[u8], fabric: &mut F) -> Option<Event> {
        match Times::decode(bytes) {
            Ok(times) if self.timed => self.times.push(times),
            Ok(_) => return self.violation(conn, &"times that nobody asked for", fabric),
            Err(error) => return self.violation(conn, &error, fabric),
        }
        None
    }

    fn immediate<F: Fabric>(&mut self, conn: ConnId, imm: u32, fabric: &mut F) -> Option<Event> {
        let area = self.find(session_conn(conn))?.area;
        match Immediate::decode(imm) {
            Ok(Immediate::Mailbox { slot: CLIENT_COMPLETION_SLOT }) => {}
            Ok(other) => return self.violation(conn, &format!("{other:?} is not for a client"), fabric),
            Err(error) => return self.violation(conn, &error, fabric),
        }
        // Copied out once, then checked: the node may be writing the next one at this moment.
        let at = Memory::mailboxes(area) + usize::try_from(mailbox_offset(CLIENT_COMPLETION_SLOT)).expect("small");
        let mut bytes = [0; MAILBOX_BYTES];
        self.memory.arena().copy_out(at, &mut bytes);
        match Mailbox::decode(&bytes) {
            Ok(mailbox) => Some(Event::Mailbox { conn: session_conn(conn), mailbox }),
            Err(torn) if torn.is_torn() => None,
            Err(error) => self.violation(conn, &error, fabric),
        }
    }

    fn closed(&mut self, conn: ConnId, why: &CloseReason) -> Option<Event> {
        let at = self.up.iter().position(|up| up.outbox.conn() == conn)?;
        let up = self.up.swap_remove(at);
        self.areas.push(up.area);
        tracing::debug!(node = self.name(up.node), "connection ended: {why}");
        Some(Event::Closed { conn: session_conn(conn) })
    }

    /// The node said what no node may say: the connection ends.
    fn violation<F: Fabric>(&mut self, conn: ConnId, what: &dyn std::fmt::Display, fabric: &mut F) -> Option<Event> {
        if let Some(up) = self.find(session_conn(conn)) {
            let node = up.node;
            tracing::error!(node = self.name(node), "protocol violation, connection destroyed: {what}");
        }
        self.close(session_conn(conn), fabric);
        Some(Event::Closed { conn: session_conn(conn) })
    }

    fn dialled<F: Fabric>(&mut self, node: NodeId, dialled: Option<Dialled>, fabric: &mut F) -> Option<Event> {
        match dialled? {
            Dialled::Failed { error, why } => Some(self.connect_failed(node, error, why)),
            Dialled::Welcomed { conn, welcome } => match self.welcome(conn, &welcome, fabric) {
                Ok(area) => {
                    self.complaints[node.index()] = None;
                    self.up.push(Up { node, outbox: Outbox::new(conn, self.timed), area });
                    let incarnation = welcome.incarnation;
                    Some(Event::Connected { node, conn: session_conn(conn), incarnation })
                }
                Err(why) => {
                    fabric.disconnect(conn);
                    Some(self.connect_failed(node, ConnectError::Rejected, format!("{why:#}")))
                }
            },
        }
    }

    fn connect_failed(&mut self, node: NodeId, error: ConnectError, why: String) -> Event {
        let complaint = &mut self.complaints[node.index()];
        if complaint.as_ref() != Some(&why) {
            let name = &self.dials[node.index()].target().name;
            match error {
                ConnectError::Rejected => tracing::error!(node = name, "{why}"),
                _ => tracing::warn!(node = name, "not reached, trying on: {why}"),
            }
            *complaint = Some(why);
        }
        Event::ConnectFailed { node, why: error }
    }

    /// Checks what the node says of the volume, opens our memory to it and says so. Returns its mailbox area.
    fn welcome<F: Fabric>(&mut self, conn: ConnId, welcome: &Welcome, fabric: &mut F) -> anyhow::Result<usize> {
        check_shape(&self.shape, &welcome.volume)?;
        let area = *self.areas.last().context("more connections than the session makes")?;
        let at = Memory::mailboxes(area);
        // What an earlier connection left there must not be taken for this one's.
        self.memory.arena().fill_zero(at, MAILBOX_BYTES);
        let mailbox = fabric.expose(conn, self.region, at as u64, CLIENT_MAILBOX_BYTES)?;
        let reads = fabric.expose(conn, self.region, Memory::reads() as u64, READ_REGION_BYTES)?;
        let ready = SetupMsg::Ready { mailbox, reads: Some(reads) };
        fabric.send(conn, ready.encode().as_bytes())?;
        fabric.submit(conn);
        self.areas.pop();
        Ok(area)
    }
}

/// Both nodes must serve the same volume in the same shape.
fn check_shape(known: &VolumeShape, said: &VolumeShape) -> anyhow::Result<()> {
    let VolumeShape { uuid, blocks, block_bytes, ring_bytes } = *said;
    let show = |uuid: [u8; 16]| format!("{:032x}", u128::from_be_bytes(uuid));
    anyhow::ensure!(
        uuid == known.uuid,
        "it serves another volume of this name: its UUID is {}, the other node's is {}; both must name the same disk",
        show(uuid),
        show(known.uuid)
    );
    anyhow::ensure!(
        (blocks, block_bytes) == (known.blocks, known.block_bytes),
        "it says that the volume has {blocks} blocks of {block_bytes} bytes, the other node said {} of {}",
        known.blocks,
        known.block_bytes
    );
    anyhow::ensure!(
        ring_bytes == known.ring_bytes,
        "its data ring has {ring_bytes} bytes, the other node's {}: \"staging\" must be the same in both nodes' \
         configuration",
        known.ring_bytes
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_disagree_about_the_volume_are_named_with_both_values() {
        let shape = VolumeShape { uuid: [1; 16], blocks: 100, block_bytes: 4096, ring_bytes: 64 << 20 };
        assert!(check_shape(&shape, &shape).is_ok());
        for (said, words) in [
            (VolumeShape { uuid: [2; 16], ..shape }, ["0202", "0101"]),
            (VolumeShape { blocks: 99, ..shape }, ["99 blocks", "100 of"]),
            (VolumeShape { block_bytes: 512, ..shape }, ["512", "4096"]),
            (VolumeShape { ring_bytes: 4 << 20, ..shape }, ["4194304", "67108864"]),
        ] {
            let error = check_shape(&shape, &said).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }
}
