//! How fabrics wait: they look at their queues in memory, for a while over and over again, and then sleep.
//!
//! A poll that finds something in the queues makes no system call; one that finds nothing, or has no queues, makes one,
//! epoll_wait(2).

use std::time::{Duration, Instant};

use super::{Spin, Wait};
use crate::{Event, WaitPolicy};

/// After so many polls in a row that were content with the queues, the descriptors are looked at.
const MOST_UNLOOKED: u32 = 16;

/// While spinning, the descriptors are looked at once in so many looks at the queues.
const LOOK_EVERY: u32 = 8;

/// While spinning, others are given way once in so many looks: a switch costs more than a look, and may be in vain.
const YIELD_EVERY: u32 = 8;

/// What waiting remembers from poll to poll.
#[derive(Debug)]
pub struct Waiting {
    /// How long to look before sleeping.
    spin: Spin,
    /// Polls in a row that have not looked at the descriptors.
    unlooked: u32,
}

impl Waiting {
    /// By a policy.
    #[must_use]
    pub const fn new(policy: WaitPolicy) -> Self {
        Self { spin: Spin::new(policy.spin), unlooked: 0 }
    }
}

/// What there is to look at.
pub trait Queues {
    /// What waiting remembers from poll to poll.
    fn waiting(&mut self) -> &mut Waiting;

    /// Whether there are queues at all: else only descriptors tell.
    fn has_queues(&self) -> bool;

    /// Looks at the queues alone, without a system call. Returns the number of events added.
    fn poll_queues(&mut self, events: &mut Vec<Event>) -> usize;

    /// Waits for the descriptors as long as `wait` says, and looks at them and then at the queues.
    fn look(&mut self, events: &mut Vec<Event>, wait: Wait);

    /// Sees to it that a descriptor becomes readable with the next event, and takes what has come until then. Returns the
    /// number of events added: only if there are none may the caller sleep, until [`Queues::next_timer`] at most.
    fn prepare_to_sleep(&mut self, events: &mut Vec<Event>) -> usize;

    /// When something wants to be looked at without an event.
    fn next_timer(&self) -> Option<Instant>;
}

/// [`crate::Fabric::poll`] of such a fabric.
pub fn poll_until(queues: &mut impl Queues, events: &mut Vec<Event>, timeout: Option<Duration>) -> usize {
    let before = events.len();
    queues.poll_queues(events);
    if queues.has_queues() && events.len() > before && queues.waiting().unlooked < MOST_UNLOOKED {
        queues.waiting().unlooked += 1;
        queues.waiting().spin.waited(Duration::ZERO);
        return events.len() - before;
    }
    // Who is going to sleep at once looks at the descriptors by that.
    if events.len() > before || timeout.is_none() || queues.waiting().spin.is_open() {
        look(queues, events, Wait::Not);
    }
    if let Some(timeout) = timeout {
        wait(queues, events, before, timeout);
    }
    events.len() - before
}

/// Until there are more events than `before`, or the time is over.
fn wait(queues: &mut impl Queues, events: &mut Vec<Event>, before: usize, timeout: Duration) {
    let start = Instant::now();
    let end = start.checked_add(timeout);
    let mut spin = queues.waiting().spin.window(start);
    let mut looks = 0;
    let mut now = start;
    while events.len() == before {
        if end.is_some_and(|end| now >= end) {
            break;
        }
        let (before, spins) = (now, now.duration_since(start) < spin);
        if spins {
            looks += 1;
            if looks % YIELD_EVERY == 0 || !queues.has_queues() {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
            if queues.has_queues() && looks % LOOK_EVERY > 0 {
                queues.poll_queues(events);
            } else {
                look(queues, events, Wait::Not);
            }
        } else if queues.prepare_to_sleep(events) == 0 {
            let until = [end, queues.next_timer()].into_iter().flatten().min();
            look(queues, events, until.map_or(Wait::Forever, |until| Wait::For(until.saturating_duration_since(now))));
        }
        now = Instant::now();
        if spins && !queues.waiting().spin.looked(before, now) {
            spin = Duration::ZERO;
        }
    }
    queues.waiting().spin.waited(now.duration_since(start));
}

fn look(queues: &mut impl Queues, events: &mut Vec<Event>, wait: Wait) {
    queues.waiting().unlooked = 0;
    queues.look(events, wait);
}
