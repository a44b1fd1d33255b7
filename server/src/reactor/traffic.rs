//! Messages and immediates: taken out of the peer's reach, checked, and made events.

use std::time::Instant;

use twinsan_fabric::{ConnId, Fabric};
use twinsan_replica::{Event, LinkId};
use twinsan_wire::{ClientMsg, Descriptor, Immediate, PeerMsg};

use super::Reactor;
use crate::conn::Stage;
use crate::incoming::{BadBlob, check_payload, take_descriptor, take_mailbox};

impl<F: Fabric> Reactor<F> {
    pub(super) fn message(&mut self, id: ConnId, bytes: &[u8]) {
        let Some(conn) = self.conns.get(id) else { return };
        let volume = conn.volume;
        let event = match (&conn.stage, volume) {
            (Stage::Link { .. }, Some(_)) => PeerMsg::decode(bytes).map(|msg| Event::Peer { link: LinkId(id.0), msg }),
            (Stage::Client { .. }, Some(_)) => {
                ClientMsg::decode(bytes).map(|msg| Event::Client { conn: twinsan_replica::ConnId(id.0), msg })
            }
            (Stage::Relay { .. }, Some(volume)) => return self.relay_message(volume, id, bytes),
            _ => return self.setup_message(id, bytes),
        };
        match (event, volume) {
            (Ok(event), Some(volume)) => self.feed(volume, event),
            (Err(error), _) => self.violation(id, &error),
            (Ok(_), None) => unreachable!("links and clients have a volume"),
        }
    }

    pub(super) fn immediate(&mut self, id: ConnId, imm: u32) {
        let Some(conn) = self.conns.get(id) else { return };
        let Some(volume) = conn.volume else { return self.violation(id, &"an immediate before its set-up is through") };
        let granted = matches!(conn.stage, Stage::Client { grant: Some(_), .. });
        let is_link = matches!(conn.stage, Stage::Link { .. });
        match Immediate::decode(imm) {
            Ok(Immediate::Blob { slot }) if granted => self.blob(volume, id, slot),
            Ok(Immediate::Mailbox { slot }) if is_link => self.mailbox(volume, id, slot),
            Ok(other) => self.violation(id, &format_args!("{other:?} from one that may not send it")),
            Err(error) => self.violation(id, &error),
        }
    }

    fn blob(&mut self, index: usize, id: ConnId, slot: u32) {
        self.ticks.stir(self.now);
        let volume = &mut self.volumes[index];
        let facts = &volume.facts;
        let taken = take_descriptor(&volume.arena, &volume.layout, &facts.shape, slot);
        if let Ok(Descriptor { blob, timed: true, .. }) = taken {
            volume.stopwatch.came(id, blob.generation, blob.seq, Instant::now());
        }
        let checked = taken.and_then(|descriptor| {
            check_payload(&volume.arena, &volume.layout, facts.integrity, &descriptor).map(|()| descriptor.blob)
        });
        match checked {
            Ok(blob) => {
                volume.counters.blobs_received += 1;
                volume.counters.blob_bytes_received += u64::from(blob.payload_len);
                volume.arrived(blob.seq, self.now);
                self.placement.came(id, blob.payload_len, self.fabric.peer_core(id));
                self.feed(index, Event::Blob { conn: twinsan_replica::ConnId(id.0), blob });
            }
            Err(error) => {
                if matches!(error, BadBlob::Crc { .. }) {
                    volume.counters.payload_crc_errors += 1;
                }
                self.violation(id, &error);
            }
        }
    }

    fn mailbox(&mut self, index: usize, id: ConnId, slot: u32) {
        let volume = &mut self.volumes[index];
        match take_mailbox(&volume.arena, &volume.layout, slot) {
            Ok(Some(mailbox)) => {
                if !volume.stopwatch.is_idle() {
                    volume.stopwatch.heard(&mailbox, Instant::now());
                }
                self.feed(index, Event::PeerMailbox { link: LinkId(id.0), mailbox });
            }
            Ok(None) => volume.counters.torn_mailboxes += 1,
            Err(error) => self.violation(id, &error),
        }
    }

    /// The peer broke the protocol: nothing that it says counts any more. It may come back and say it right.
    pub(super) fn violation(&mut self, id: ConnId, what: &dyn std::fmt::Display) {
        let volume = self.conns.get(id).and_then(|conn| conn.volume);
        self.note_violation(id, volume, what);
        self.destroy_and_tell(id);
    }

    /// Counts and logs it. `volume`: whose, once the peer has proven that it may.
    pub(super) fn note_violation(&mut self, id: ConnId, volume: Option<usize>, what: &dyn std::fmt::Display) {
        let Some(volume) = volume else { return self.log_rejection(id, what) };
        let volume = &mut self.volumes[volume];
        volume.counters.violations += 1;
        let name = volume.facts.name.as_str();
        tracing::warn!(volume = name, conn = id.0, "connection destroyed, the peer broke the protocol: {what}");
    }
}
