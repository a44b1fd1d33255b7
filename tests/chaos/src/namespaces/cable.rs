//! A cable between two hosts: packets go from one end to the other through a thread for each way, which may lose them or
//! hold them back.
//!
//! That costs a packet two wake-ups more than a cable of the kernel's (veth) would: `docs/testing.md` says what it comes to.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{read, write};

use crate::random::Random;
use crate::world::{Condition, Way};

/// The largest packet.
pub(super) const MTU: usize = 16_384;
/// How soon a thread sees that its cable is gone.
const LOOK: Duration = Duration::from_millis(100);
/// Packets between two looks at what was held back.
const IN_A_TURN: usize = 64;
/// What a slow cable holds; beyond that it loses packets, as every buffer in a network does.
const HELD: usize = 4096;

/// One cable. Its threads end with it.
#[derive(Debug)]
pub(super) struct Cable {
    condition: Arc<Mutex<Condition>>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Cable {
    /// A cable that works, between two ends that don't wait.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub(super) fn new<E: AsFd + Send + Sync + 'static>(ends: [E; 2]) -> Result<Self> {
        let mut cable = Self { condition: Arc::default(), over: Arc::default(), threads: Vec::new() };
        let ends = Arc::new(ends);
        for (from, way) in [(0, Way::Forward), (1, Way::Backward)] {
            let (ends, over) = (Arc::clone(&ends), Arc::clone(&cable.over));
            let mut side =
                Side { condition: Arc::clone(&cable.condition), way, held: VecDeque::new(), random: Random::new(0) };
            let thread = std::thread::Builder::new().name("cable".into());
            cable.threads.push(thread.spawn(move || side.carry(&ends[from], &ends[1 - from], &over))?);
        }
        Ok(cable)
    }

    /// From now on it is like this.
    pub(super) fn set(&self, condition: Condition) {
        *lock(&self.condition) = condition;
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One direction.
struct Side {
    condition: Arc<Mutex<Condition>>,
    way: Way,
    held: VecDeque<(Instant, Vec<u8>)>,
    random: Random,
}

impl Side {
    fn carry(&mut self, from: &impl AsFd, to: &impl AsFd, over: &AtomicBool) {
        let mut packet = vec![0; 2 * MTU];
        while !over.load(Ordering::Relaxed) {
            wait_for(from, self.next());
            // In turns, so that what was held back is not forgotten where packets come without end.
            for _ in 0..IN_A_TURN {
                let Ok(len @ 1..) = read(from, &mut packet) else { break };
                self.take(&packet[..len], to);
            }
            self.deliver_due(to);
        }
    }

    /// How long nothing is to be done unless a packet comes.
    fn next(&self) -> Duration {
        let due = self.held.front().map(|(due, _)| due.saturating_duration_since(Instant::now()));
        due.map_or(LOOK, |due| due.min(LOOK))
    }

    fn take(&mut self, packet: &[u8], to: &impl AsFd) {
        let condition = *lock(&self.condition);
        if condition.is_cut(self.way) {
            return;
        }
        // One that overtakes another would look like a lost one.
        if condition.delay.is_zero() && self.held.is_empty() {
            deliver(to, packet);
        } else if self.held.len() < HELD {
            let jitter = condition.jitter.mul_f64(self.random.share());
            let due = Instant::now() + condition.delay + jitter;
            let before = self.held.back().map_or(due, |&(before, _)| before);
            self.held.push_back((due.max(before), packet.to_vec()));
        }
    }

    /// A cut takes what is on its way too.
    fn deliver_due(&mut self, to: &impl AsFd) {
        let now = Instant::now();
        while self.held.front().is_some_and(|&(due, _)| due <= now) {
            if let Some((_, packet)) = self.held.pop_front()
                && !lock(&self.condition).is_cut(self.way)
            {
                deliver(to, &packet);
            }
        }
    }
}

/// Nobody takes it (the interface is down, the queue is full): it is lost, as on any cable.
fn deliver(to: &impl AsFd, packet: &[u8]) {
    let _ = write(to, packet);
}

fn wait_for(end: &impl AsFd, most: Duration) {
    let most = Timespec::try_from(most).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
    let _ = poll(&mut [PollFd::new(end, PollFlags::IN)], Some(&most));
}

fn lock(condition: &Mutex<Condition>) -> MutexGuard<'_, Condition> {
    condition.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    /// The hosts' ends of a cable of sockets.
    fn cable() -> (Cable, [UnixDatagram; 2]) {
        let (a, near) = UnixDatagram::pair().unwrap();
        let (b, far) = UnixDatagram::pair().unwrap();
        for end in [&near, &far] {
            end.set_nonblocking(true).unwrap();
        }
        for end in [&a, &b] {
            end.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        }
        (Cable::new([near, far]).unwrap(), [a, b])
    }

    fn arrives(from: &UnixDatagram, to: &UnixDatagram) -> bool {
        from.send(b"packet").unwrap();
        let mut packet = [0; 16];
        to.recv(&mut packet).is_ok_and(|len| &packet[..len] == b"packet")
    }

    #[test]
    fn a_cut_stops_one_way_or_both_until_it_is_mended() {
        let (cable, [a, b]) = cable();
        assert!(arrives(&a, &b) && arrives(&b, &a));
        cable.set(Condition { cut: Some(Way::Forward), ..Condition::default() });
        assert!(!arrives(&a, &b) && arrives(&b, &a));
        cable.set(Condition { cut: Some(Way::Backward), ..Condition::default() });
        assert!(arrives(&a, &b) && !arrives(&b, &a));
        cable.set(Condition { cut: Some(Way::Both), ..Condition::default() });
        assert!(!arrives(&a, &b) && !arrives(&b, &a));
        cable.set(Condition::default());
        assert!(arrives(&a, &b) && arrives(&b, &a));
    }

    #[test]
    fn a_slow_cable_is_late_and_keeps_the_order() {
        let (cable, [a, b]) = cable();
        cable.set(Condition { cut: None, delay: Duration::from_millis(100), jitter: Duration::from_millis(50) });
        let begin = Instant::now();
        for number in 0..5_u8 {
            a.send(&[number]).unwrap();
        }
        // The thread has them, all with the delay.
        std::thread::sleep(Duration::from_millis(20));
        cable.set(Condition::default());
        a.send(&[5]).unwrap();
        let mut packet = [0; 16];
        let got: Vec<u8> = (0..=5).map(|_| b.recv(&mut packet).map(|_| packet[0]).unwrap()).collect();
        assert_eq!(got, [0, 1, 2, 3, 4, 5]);
        assert!(begin.elapsed() >= Duration::from_millis(100));
    }

    #[test]
    fn a_cut_takes_what_is_on_its_way() {
        let (cable, [a, b]) = cable();
        cable.set(Condition { delay: Duration::from_millis(100), ..Condition::default() });
        a.send(b"packet").unwrap();
        std::thread::sleep(Duration::from_millis(30));
        cable.set(Condition { cut: Some(Way::Both), ..Condition::default() });
        assert!(b.recv(&mut [0; 16]).is_err());
    }
}
