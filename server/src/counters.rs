//! What has happened since the start, for `status`. They only grow; no log line per I/O is written.

use std::collections::BTreeMap;

use twinsan_replica::Notice;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// One volume's counters.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: u64,)*
        }

        impl Counters {
            /// By name, as `status` shows them.
            pub(crate) fn by_name(&self) -> BTreeMap<String, u64> {
                BTreeMap::from([$((stringify!($name).to_owned(), self.$name),)*])
            }
        }
    };
}

impl Counters {
    /// What the machine has told.
    pub(crate) fn note(&mut self, notice: Notice) {
        match notice {
            Notice::Serving => self.takeovers += 1,
            Notice::HandedOver { .. } => self.handovers += 1,
            Notice::Fenced => self.fenced += 1,
            Notice::Joined => self.joins += 1,
            Notice::JoinThrownAway => self.joins_thrown_away += 1,
            Notice::DroppingSecondary => self.drops += 1,
            Notice::DiskTrouble => self.disk_troubles += 1,
            Notice::ClientViolation(_) => self.violations += 1,
            _ => {}
        }
    }
}

counters! {
    /// Blobs that passed every check of the driver's.
    blobs_received,
    /// Their payloads.
    blob_bytes_received,
    /// Blobs whose payload did not match its CRC.
    payload_crc_errors,
    /// Connections destroyed because the peer broke the protocol.
    violations,
    /// Connections that did not pass the set-up.
    setups_rejected,
    /// Mailboxes waited out because they were being written over.
    torn_mailboxes,
    /// Reads answered.
    reads_answered,
    /// Their bytes.
    read_bytes_answered,
    /// Flush batches issued.
    flush_batches,
    /// Ranges in them.
    flush_ranges,
    /// Bytes in them.
    flush_bytes,
    /// Clients' connections that were let in.
    clients_connected,
    /// Links to the other node that came up.
    links_connected,
    /// Relays to the other node that came up (rule 14).
    relays_connected,
    /// Blobs fed to it.
    blobs_relayed,
    /// Times that the other node was dialled.
    probes,
    /// Connections closed because they took nothing any more.
    overruns,
    /// Times that this node has become the primary: it was started alone, took over, or was handed the volume.
    takeovers,
    /// Times that it has handed over.
    handovers,
    /// Times that it was fenced out.
    fenced,
    /// Joins of the other node that have ended well.
    joins,
    /// Joins of the other node that made no progress.
    joins_thrown_away,
    /// Times that the other node was dropped.
    drops,
    /// Times that the disk has begun to fail.
    disk_troubles,
}
