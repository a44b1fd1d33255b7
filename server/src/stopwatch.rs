//! How long this node takes over blobs whose client wants to know: from the descriptor to the ACK and to the completion.
//!
//! What is measured is queued behind the mailbox that ends it, so a time never delays what it measures. Nothing is
//! decided by it, and without timed blobs it costs a look at an empty queue.

use std::collections::VecDeque;
use std::time::Instant;

use twinsan_fabric::ConnId;
use twinsan_wire::{Generation, Mailbox, Seq, Times};

/// Blobs that are timed at once. More are not: a client that wants a whole picture writes fewer at a time.
const MOST: usize = 1024;

/// One blob.
#[derive(Debug)]
struct Lap {
    conn: ConnId,
    generation: Generation,
    seq: Seq,
    came: Instant,
    to_ack_ns: Option<u32>,
}

/// The blobs of a volume that are being timed, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch {
    laps: VecDeque<Lap>,
}

impl Stopwatch {
    /// Nobody wants to know anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.laps.is_empty()
    }

    /// A blob has come that is to be timed.
    pub(crate) fn came(&mut self, conn: ConnId, generation: Generation, seq: Seq, now: Instant) {
        if self.laps.len() == MOST {
            self.laps.pop_front();
        }
        self.laps.push_back(Lap { conn, generation, seq, came: now, to_ack_ns: None });
    }

    /// The other node's word has come.
    pub(crate) fn heard(&mut self, mailbox: &Mailbox, now: Instant) {
        let Mailbox::Ack { generation, received, .. } = *mailbox else { return };
        for lap in self.laps.iter_mut().filter(|lap| lap.is_covered(generation, received)) {
            lap.to_ack_ns.get_or_insert(nanoseconds(lap.came, now));
        }
    }

    /// This node's word leaves: what there is to tell, and whom. Blobs that it covers are timed no more.
    pub(crate) fn said(&mut self, mailbox: &Mailbox, now: Instant) -> Option<(ConnId, Times)> {
        let (generation, upto, completes) = match *mailbox {
            Mailbox::Ack { generation, received, .. } => (generation, received, false),
            Mailbox::Completion { generation, durable: Some(durable), .. } => (generation, durable, true),
            Mailbox::Completion { .. } | Mailbox::Released { .. } => return None,
        };
        let lap = self.laps.pop_front_if(|lap| lap.is_covered(generation, upto))?;
        let took = nanoseconds(lap.came, now);
        let (to_ack_ns, to_completion_ns) = if completes { (lap.to_ack_ns, Some(took)) } else { (Some(took), None) };
        Some((lap.conn, Times { generation, seq: lap.seq, to_ack_ns, to_completion_ns }))
    }

    /// A connection is gone, and with it whoever wants to know.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.laps.retain(|lap| lap.conn != conn);
    }
}

impl Lap {
    fn is_covered(&self, generation: Generation, upto: Seq) -> bool {
        self.generation == generation && self.seq <= upto
    }
}

fn nanoseconds(from: Instant, to: Instant) -> u32 {
    u32::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use twinsan_wire::{Epoch, Incarnation};

    const CLIENT: ConnId = ConnId(7);
    const SESSION: Generation = Generation(3);

    fn ack(received: u64) -> Mailbox {
        let (epoch, from, generation) = (Epoch(2), Incarnation::from_random(9), SESSION);
        Mailbox::Ack { epoch, from, to: from, generation, first: None, received: Seq(received), released: Seq(0) }
    }

    fn completion(durable: Option<u64>) -> Mailbox {
        let (epoch, from, generation) = (Epoch(2), Incarnation::from_random(9), SESSION);
        Mailbox::Completion { epoch, from, generation, durable: durable.map(Seq), released: Seq(0), relayed: false }
    }

    #[test]
    fn a_primary_tells_when_the_ack_came_and_the_completion_left() {
        let (mut watch, begin) = (Stopwatch::default(), Instant::now());
        let at = |us| begin + Duration::from_micros(us);
        watch.came(CLIENT, SESSION, Seq(5), at(0));
        watch.came(CLIENT, SESSION, Seq(6), at(1));
        watch.heard(&ack(5), at(10));
        watch.heard(&ack(6), at(12));
        assert_eq!(watch.said(&completion(None), at(13)), None, "it completes nothing");
        let times = |seq, ack, done| Times {
            generation: SESSION,
            seq: Seq(seq),
            to_ack_ns: Some(ack),
            to_completion_ns: Some(done),
        };
        assert_eq!(watch.said(&completion(Some(6)), at(14)), Some((CLIENT, times(5, 10_000, 14_000))));
        assert_eq!(watch.said(&completion(Some(6)), at(14)), Some((CLIENT, times(6, 11_000, 13_000))));
        assert_eq!(watch.said(&completion(Some(6)), at(14)), None);
        assert!(watch.is_idle());
    }

    #[test]
    fn a_secondary_tells_when_its_ack_left() {
        let (mut watch, begin) = (Stopwatch::default(), Instant::now());
        watch.came(CLIENT, SESSION, Seq(5), begin);
        let now = begin + Duration::from_micros(3);
        assert_eq!(watch.said(&ack(4), now), None);
        let times = Times { generation: SESSION, seq: Seq(5), to_ack_ns: Some(3000), to_completion_ns: None };
        assert_eq!(watch.said(&ack(5), now), Some((CLIENT, times)));
        assert!(watch.is_idle());
    }

    #[test]
    fn another_sessions_words_and_gone_connections_end_nothing_and_everything() {
        let (mut watch, now) = (Stopwatch::default(), Instant::now());
        watch.came(CLIENT, Generation(2), Seq(1), now);
        assert_eq!(watch.said(&ack(9), now), None, "the ACK is session 3's");
        watch.forget(CLIENT);
        assert!(watch.is_idle());
        for seq in 1..=MOST as u64 + 5 {
            watch.came(CLIENT, SESSION, Seq(seq), now);
        }
        assert_eq!(watch.laps.len(), MOST, "who never completes does not fill the memory");
    }
}
