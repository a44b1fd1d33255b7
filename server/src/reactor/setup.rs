//! Who may connect, and dialling the other node. No machine sees a connection before its set-up is through.
//!
//! Node B dials for the link: what its machine probes with is the link itself. Node A only asks, and closes.

use twinsan_auth::{AuthError, Connector, ConnectorStep, Listener, ListenerStep, Welcome, fresh_nonce};
use twinsan_fabric::{CloseReason, ConnId, Fabric};
use twinsan_replica::{Event, LinkId, Probe};
use twinsan_wire::layout::PEER_MAILBOX_BYTES;
use twinsan_wire::message::{Purpose, Rejection, RemoteKey, SetupMsg, VolumeName};
use twinsan_wire::{Incarnation, NodeId};

use super::Reactor;
use crate::conn::{Conn, NO_KEY, Stage};
use crate::dial::{Dial, Errand};
use crate::limits::{DIAL_TIMEOUT_MS, MAX_CONNECTIONS};

/// The node that dials for the link.
const DIALLER: NodeId = NodeId::B;

/// Between two log lines about those who are not let in.
const REJECTION_LOG_MS: u64 = 1000;

impl<F: Fabric> Reactor<F> {
    // ---- listening ------------------------------------------------------------------------------------------------

    pub(super) fn accepted(&mut self, id: ConnId) {
        if self.conns.len() >= MAX_CONNECTIONS && !self.make_room() {
            tracing::warn!("{MAX_CONNECTIONS} connections already: another one is turned away");
            self.fabric.disconnect(id);
            return;
        }
        let nonce = fresh_nonce().expect("the kernel has random bytes");
        let stage = Stage::Listening(Box::new(Listener::new(self.identity.node, nonce)));
        self.conns.insert(id, Conn::new(None, stage, self.now));
    }

    /// Of those who have proven nothing, the oldest goes, if there is one: the table full of such must not keep the
    /// other node or a client out. An honest set-up is through within a few round trips. After them, whoever has the key
    /// and has had no lane for the longest: it comes back if it wants one.
    fn make_room(&mut self) -> bool {
        let unproven = |conn: &Conn| matches!(conn.stage, Stage::Listening(_) | Stage::Parting);
        let idle = |conn: &Conn| matches!(conn.stage, Stage::Admitted(_) | Stage::Client { grant: None, .. });
        let oldest =
            |wanted: &dyn Fn(&Conn) -> bool| self.conns.iter().find(|(_, conn)| wanted(conn)).map(|(id, _)| id);
        let Some(id) = oldest(&unproven).or_else(|| oldest(&idle)) else { return false };
        self.destroy_and_tell(id);
        true
    }

    /// A message on a connection whose set-up is not through.
    pub(super) fn setup_message(&mut self, id: ConnId, bytes: &[u8]) {
        let conn = self.conns.get_mut(id).expect("the caller has looked");
        match &mut conn.stage {
            Stage::Listening(listener) => match listener.handle_bytes(bytes, &self.identity.keyring) {
                Ok(ListenerStep::Send(msg)) => self.say(id, &msg),
                Ok(ListenerStep::Admitted(admitted)) => self.admit(id, admitted),
                Err(error) => {
                    let named = listener.named();
                    self.reject(id, named, &error);
                }
            },
            Stage::Admitted(purpose) => {
                let purpose = *purpose;
                match SetupMsg::decode(bytes) {
                    Ok(SetupMsg::Ready { mailbox, reads }) => self.ready(id, purpose, mailbox, reads),
                    Ok(_) => self.violation(id, &"another message where Ready was due"),
                    Err(error) => self.violation(id, &error),
                }
            }
            Stage::Proving(purpose, connector) => {
                let purpose = *purpose;
                match connector.handle_bytes(bytes) {
                    Ok(ConnectorStep::Send(msg)) => self.say(id, &msg),
                    Ok(ConnectorStep::Welcomed(welcome)) => self.welcomed(id, purpose, &welcome),
                    Err(error) => self.dial_refused(id, &error.to_string()),
                }
            }
            Stage::Dialling(_) | Stage::Parting | Stage::Link { .. } | Stage::Client { .. } | Stage::Relay { .. } => {
                self.violation(id, &"a message where none was due");
            }
        }
    }

    pub(super) fn say(&mut self, id: ConnId, msg: &SetupMsg) {
        if let Some(outbox) = self.conns.outbox(id) {
            outbox.message(msg.encode());
        }
    }

    /// Proven: say who we are, and let the other node write its mailboxes.
    fn admit(&mut self, id: ConnId, admitted: twinsan_auth::Admitted) {
        let by_name = |volume: &crate::volume::Volume| volume.facts.name == admitted.volume;
        let index = self.volumes.iter().position(by_name).expect("the keyring knows the volumes that are served");
        if matches!(admitted.purpose, Purpose::Peer { .. }) && self.identity.node == DIALLER {
            // Our own node letter says that nobody dials us for the link: the other side's file is another one.
            self.say(id, &SetupMsg::Rejected { why: Rejection::NotAPeer });
            self.part(id, Some(index));
            return;
        }
        let mailbox = match admitted.purpose {
            Purpose::Peer { .. } => self.expose_mailboxes(index, id),
            // Whoever writes no mailboxes gets no key.
            Purpose::Client | Purpose::Relay { .. } | Purpose::Probe { .. } => Some(NO_KEY),
        };
        let Some(mailbox) = mailbox else { return };
        let volume = &self.volumes[index];
        let welcome = SetupMsg::Welcome {
            node: self.identity.node,
            incarnation: volume.incarnation,
            volume: volume.facts.shape,
            mailbox,
        };
        self.say(id, &welcome);
        let conn = self.conns.get_mut(id).expect("it has just spoken");
        conn.volume = Some(index);
        conn.stage = match admitted.purpose {
            Purpose::Probe { .. } => Stage::Parting,
            purpose @ (Purpose::Client | Purpose::Peer { .. } | Purpose::Relay { .. }) => Stage::Admitted(purpose),
        };
    }

    fn expose_mailboxes(&mut self, index: usize, id: ConnId) -> Option<RemoteKey> {
        let volume = &self.volumes[index];
        self.fabric.expose(id, volume.region, volume.layout.mailboxes, PEER_MAILBOX_BYTES).ok()
    }

    fn ready(&mut self, id: ConnId, purpose: Purpose, mailbox: RemoteKey, reads: Option<RemoteKey>) {
        match (purpose, reads) {
            (Purpose::Peer { incarnation, .. }, _) => self.link_up(id, incarnation, mailbox),
            (Purpose::Relay { incarnation, .. }, None) => self.fed(id, incarnation),
            (Purpose::Client, Some(reads)) => self.client_up(id, mailbox, reads),
            (Purpose::Relay { .. }, Some(_)) => self.violation(id, &"a relay that names read buffers"),
            (Purpose::Client | Purpose::Probe { .. }, _) => self.violation(id, &"Ready without what it must name"),
        }
    }

    fn client_up(&mut self, id: ConnId, mailbox: RemoteKey, reads: RemoteKey) {
        let conn = self.conns.get_mut(id).expect("it has just spoken");
        conn.stage = Stage::Client { mailbox, reads, grant: None };
        conn.since = self.now;
        let volume = conn.volume.expect("admitted to a volume");
        self.volumes[volume].counters.clients_connected += 1;
        self.feed(volume, Event::ClientUp { conn: twinsan_replica::ConnId(id.0) });
    }

    /// The link is up, in place of an earlier one, which is destroyed first.
    fn link_up(&mut self, id: ConnId, peer: Incarnation, mailbox: RemoteKey) {
        let volume = self.conns.get(id).and_then(|conn| conn.volume).expect("a link is a volume's");
        let earlier = |conn: &Conn| conn.volume == Some(volume) && matches!(conn.stage, Stage::Link { .. });
        for earlier in self.conns.which(earlier) {
            self.destroy(earlier);
        }
        let conn = self.conns.get_mut(id).expect("looked at just now");
        conn.stage = Stage::Link { mailbox };
        conn.since = self.now;
        self.volumes[volume].counters.links_connected += 1;
        self.feed(volume, Event::LinkUp { link: LinkId(id.0), peer });
    }

    /// `named`: the volume that it wanted, as far as it has said.
    fn reject(&mut self, id: ConnId, named: Option<VolumeName>, error: &AuthError) {
        self.log_rejection(id, error);
        if let Some(reply) = error.reply() {
            self.say(id, &reply);
        }
        let wanted = self.volumes.iter().position(|volume| Some(volume.facts.name) == named);
        self.part(id, wanted);
    }

    /// Whoever has proven nothing must not fill the log.
    pub(super) fn log_rejection(&mut self, id: ConnId, why: &dyn std::fmt::Display) {
        if self.now >= self.rejections_quiet_until {
            self.rejections_quiet_until = self.now + REJECTION_LOG_MS;
            tracing::warn!(conn = id.0, "not let in: {why}");
        }
    }

    /// Waits, for as long as a set-up may take, until the peer has read the last word and closes.
    fn part(&mut self, id: ConnId, wanted: Option<usize>) {
        self.conns.get_mut(id).expect("it has just spoken").stage = Stage::Parting;
        if let Some(volume) = wanted {
            self.volumes[volume].counters.setups_rejected += 1;
        }
    }

    // ---- dialling -------------------------------------------------------------------------------------------------

    /// Carries out a probe, or what becomes a relay to that incarnation.
    pub(super) fn dial(&mut self, index: usize, errand: Errand, to: Option<Incarnation>) {
        let volume = &mut self.volumes[index];
        let dial = &mut volume.dials[errand as usize];
        assert!(dial.is_none(), "the machine dials once at a time for each");
        let timeout_ms = if errand == Errand::Relay { volume.facts.relay_dial_ms } else { DIAL_TIMEOUT_MS };
        *dial = Some(Dial::new(to, volume.answered, timeout_ms, self.now));
        volume.counters.probes += u64::from(errand == Errand::Probe);
        self.dial_next(index, errand);
    }

    /// Tries the dial's present address, and those after it as long as they are none.
    fn dial_next(&mut self, index: usize, errand: Errand) {
        loop {
            let volume = &mut self.volumes[index];
            let Some(dial) = &mut volume.dials[errand as usize] else { return };
            let Some(address) = volume.facts.other.get(dial.address()) else {
                let verdict = dial.verdict();
                self.dial_ended(index, errand, verdict);
                return;
            };
            match self.fabric.connect(&address.to_string()) {
                Ok(id) => {
                    dial.begun(Some(id), self.now);
                    let node = self.identity.node;
                    let incarnation = volume.incarnation;
                    let purpose = match (errand, node) {
                        (Errand::Relay, _) => Purpose::Relay { node, incarnation },
                        (Errand::Probe, DIALLER) => Purpose::Peer { node, incarnation },
                        (Errand::Probe, _) => Purpose::Probe { node },
                    };
                    self.conns.insert(id, Conn::new(Some(index), Stage::Dialling(purpose), self.now));
                    return;
                }
                Err(error) => {
                    let why = error.to_string();
                    self.dial_trouble(index, errand, &why);
                    let Some(dial) = &mut self.volumes[index].dials[errand as usize] else { return };
                    dial.failed(CloseReason::Unreachable(why), self.now);
                }
            }
        }
    }

    /// Our own connect has succeeded: say who we are.
    pub(super) fn connected(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let (Stage::Dialling(purpose), Some(volume)) = (&conn.stage, conn.volume) else { return };
        let purpose = *purpose;
        let name = self.volumes[volume].facts.name;
        let key = self.identity.keyring.find(&name).flatten().cloned();
        let nonce = fresh_nonce().expect("the kernel has random bytes");
        let (connector, hello) = Connector::new(purpose, name, key, nonce);
        conn.stage = Stage::Proving(purpose, Box::new(connector));
        self.say(id, &hello);
    }

    /// The other node has let us in.
    fn welcomed(&mut self, id: ConnId, purpose: Purpose, welcome: &Welcome) {
        let index = self.conns.get(id).and_then(|conn| conn.volume).expect("a dial is a volume's");
        let ours = self.volumes[index].facts.shape;
        if welcome.volume != ours {
            let theirs = welcome.volume;
            let message = format!(
                "it serves another volume or another lane: {theirs:?} where we have {ours:?}; both \
                                   nodes must use the same disk and the same configuration"
            );
            self.dial_refused(id, &message);
            return;
        }
        let volume = &mut self.volumes[index];
        if let Some(dial) = volume.dials.iter().flatten().find(|dial| dial.conn == Some(id)) {
            volume.answered = dial.address();
        }
        if let Purpose::Relay { .. } = purpose {
            self.relay_welcomed(index, id, welcome.incarnation);
            return;
        }
        let alive = Probe::Alive(welcome.incarnation);
        if !matches!(purpose, Purpose::Peer { .. }) {
            self.destroy(id);
            self.dial_ended(index, Errand::Probe, alive);
            self.feed_inbox();
            return;
        }
        let Some(mailbox) = self.expose_mailboxes(index, id) else { return };
        self.say(id, &SetupMsg::Ready { mailbox, reads: None });
        self.dial_ended(index, Errand::Probe, alive);
        self.feed_inbox();
        self.link_up(id, welcome.incarnation, welcome.mailbox);
    }

    /// The other node answered, and it did not work: its process lives, and we don't know as what.
    pub(super) fn dial_refused(&mut self, id: ConnId, why: &str) {
        let Some(gone) = self.destroy(id) else { return };
        let index = gone.volume.expect("a dial is a volume's");
        let errand = gone.errand();
        self.dial_trouble(index, errand, why);
        self.next_address(index, errand, CloseReason::Violation(why.to_owned()));
        self.feed_inbox();
    }

    /// A dial's connection has ended by itself.
    pub(super) fn dial_failed(&mut self, id: ConnId, gone: &Conn, why: &CloseReason) {
        let index = gone.volume.expect("a dial is a volume's");
        let now = self.now;
        let errand = gone.errand();
        let dial = self.volumes[index].dials[errand as usize].as_mut();
        if let Some(dial) = dial.filter(|dial| dial.conn == Some(id)) {
            dial.ended(why.clone(), now);
            self.dial_next(index, errand);
        }
    }

    pub(super) fn expire_dials(&mut self) {
        for (index, errand) in (0..self.volumes.len()).flat_map(|i| [(i, Errand::Probe), (i, Errand::Relay)]) {
            let late = self.volumes[index].dials[errand as usize].as_ref().filter(|dial| self.now >= dial.deadline);
            if let Some((conn, ms)) = late.and_then(|dial| Some((dial.conn?, dial.timeout_ms()))) {
                self.destroy(conn);
                let why = CloseReason::Unreachable(format!("no answer within {ms} ms"));
                self.next_address(index, errand, why);
                self.feed_inbox();
            }
        }
    }

    /// The present address has answered nothing that helps.
    fn next_address(&mut self, index: usize, errand: Errand, why: CloseReason) {
        if let Some(dial) = &mut self.volumes[index].dials[errand as usize] {
            dial.failed(why, self.now);
            self.dial_next(index, errand);
        }
    }

    /// Puts the answer to the machine's probe into the inbox, or that there is no relay.
    fn dial_ended(&mut self, index: usize, errand: Errand, probe: Probe) {
        let volume = &mut self.volumes[index];
        volume.dials[errand as usize] = None;
        if errand == Errand::Relay {
            self.inbox.push_back((index, Event::RelayDialled(None)));
            return;
        }
        if matches!(probe, Probe::Alive(_)) {
            volume.dial_trouble = None;
        }
        self.inbox.push_back((index, Event::Probed(probe)));
    }

    /// Logs what keeps us from the other node, once until it changes or works.
    fn dial_trouble(&mut self, index: usize, errand: Errand, why: &str) {
        let volume = &mut self.volumes[index];
        if errand == Errand::Relay {
            tracing::debug!(volume = volume.facts.name.as_str(), "no relay: {why}"); // Tried again, or rule 7.
        } else if volume.dial_trouble.as_deref() != Some(why) {
            let (name, other) = (volume.facts.name.as_str(), volume.node_name(volume.other_node()));
            tracing::warn!(volume = name, "can't connect to {other}: {why}");
            volume.dial_trouble = Some(why.to_owned());
        }
    }

    /// New connections say the new incarnation. Those whose set-up has named the old one are void.
    pub(super) fn change_incarnation(&mut self, index: usize, incarnation: Incarnation) {
        let volume = &mut self.volumes[index];
        volume.incarnation = incarnation;
        volume.flusher.give(crate::flusher::Job::Incarnation(incarnation));
        let void = |conn: &Conn| conn.volume == Some(index) && conn.names_incarnation();
        for conn in self.conns.which(void) {
            self.destroy(conn);
        }
        for errand in [Errand::Probe, Errand::Relay] {
            if self.volumes[index].dials[errand as usize].is_some() {
                self.dial_ended(index, errand, Probe::Silent);
            }
        }
    }
}
