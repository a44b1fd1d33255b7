//! Relays (rule 14): one that feeds this node, and one by which it feeds the other node from its own lane.

use twinsan_fabric::{ConnId, Fabric, LocalSlice};
use twinsan_replica::{Event, RelayId};
use twinsan_wire::limits::DESCRIPTOR_BYTES;
use twinsan_wire::message::SetupMsg;
use twinsan_wire::{Blob, BlobKind, Descriptor, Incarnation, NodeFrame};

use super::Reactor;
use crate::conn::{NO_KEY, Stage};
use crate::dial::Errand;
use crate::layout::index as offset;
use crate::outbox::Relayed;
use crate::volume::Volume;

impl<F: Fabric> Reactor<F> {
    /// The other node has connected, to feed us: from here on it is like a client that is written nothing.
    pub(super) fn fed(&mut self, id: ConnId, from: Incarnation) {
        let conn = self.conns.get_mut(id).expect("it has just spoken");
        conn.stage = Stage::Client { mailbox: NO_KEY, reads: NO_KEY, grant: None };
        conn.since = self.now;
        let volume = conn.volume.expect("admitted to a volume");
        self.feed(volume, Event::RelayAccepted { conn: twinsan_replica::ConnId(id.0), from });
    }

    /// The other node lets us in; it is fed only as the incarnation that the machine means.
    pub(super) fn relay_welcomed(&mut self, index: usize, id: ConnId, incarnation: Incarnation) {
        let dial = self.volumes[index].dials[Errand::Relay as usize].as_ref();
        if dial.is_none_or(|dial| dial.to != Some(incarnation)) {
            self.dial_refused(id, "it is another incarnation by now");
            return;
        }
        self.say(id, &SetupMsg::Ready { mailbox: NO_KEY, reads: None });
        let conn = self.conns.get_mut(id).expect("it has just spoken");
        conn.stage = Stage::Relay { grant: None };
        conn.since = self.now;
        let volume = &mut self.volumes[index];
        volume.dials[Errand::Relay as usize] = None;
        volume.counters.relays_connected += 1;
        self.feed(index, Event::RelayDialled(Some(RelayId(id.0))));
    }

    /// The answer to our Resume, with the keys of its lane.
    pub(super) fn relay_message(&mut self, index: usize, id: ConnId, bytes: &[u8]) {
        match NodeFrame::decode(bytes) {
            Ok(NodeFrame { msg, grant: given }) => {
                let conn = self.conns.get_mut(id).expect("the caller has looked");
                if let (Stage::Relay { grant }, Some(given)) = (&mut conn.stage, given) {
                    *grant = Some(given);
                }
                self.feed(index, Event::Relay { relay: RelayId(id.0), msg });
            }
            Err(error) => self.violation(id, &error),
        }
    }

    pub(super) fn relay_post(&mut self, index: usize, id: ConnId, blob: &Blob) {
        let Some(Stage::Relay { grant }) = self.conns.get(id).map(|conn| &conn.stage) else { return };
        let grant = grant.expect("the codec has it with every Resumed");
        let volume = &mut self.volumes[index];
        volume.counters.blobs_relayed += 1;
        let relayed = volume.relayed(grant, blob);
        self.conns.outbox(id).expect("looked at just now").relayed(relayed);
    }
}

impl Volume {
    fn relayed(&self, grant: twinsan_wire::LaneGrant, blob: &Blob) -> Relayed {
        let descriptor = Descriptor { blob: *blob, payload_crc: self.payload_crc(blob), timed: false };
        let at = self.layout.staged(blob.data_pos);
        let payload = LocalSlice { region: self.region, offset: at, len: blob.payload_len };
        Relayed::new(grant, descriptor, self.layout.slot(blob.seq), payload, at - self.layout.ring)
    }

    /// The client's own, as it stands in its descriptor: what has rotted here since is not passed on as sound. The
    /// descriptor lies where the client may write: if it is not this blob's any more, the CRC is that of the bytes.
    fn payload_crc(&self, blob: &Blob) -> Option<u32> {
        let mut bytes = [0; DESCRIPTOR_BYTES];
        self.arena.copy_out(offset(self.layout.descriptor(self.layout.slot(blob.seq))), &mut bytes);
        match Descriptor::decode(&bytes) {
            Ok(descriptor) if descriptor.blob == *blob => descriptor.payload_crc,
            _ if blob.kind == BlobKind::Write => {
                Some(self.arena.crc32c(offset(self.layout.staged(blob.data_pos)), blob.payload_len as usize))
            }
            _ => None,
        }
    }
}
