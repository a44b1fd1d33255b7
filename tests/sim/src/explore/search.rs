//! The search: breadth first over all states of a scenario, each once.
//!
//! Safety: the simulator's checkers look at every step, and no machine may give up (its own assertions). Liveness: over the
//! finished graph, backwards from the states in which the client has got all that it asked for and is served, by steps
//! that are no faults; a state that owes service, and from which none of those can be reached, is a violation.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use twinsan_session::{LinkPhase, Session};
use twinsan_wire::{NodeId, Role};

use crate::check::Violation;
use crate::event::Host;
use crate::explore::canonical::Fingerprint;
use crate::explore::census::{Census, Part};
use crate::explore::scenario::Scenario;
use crate::explore::situation::Situation;
use crate::explore::sum::halves;
use crate::explore::trace;
use crate::world::Process;

/// How far a search goes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most states: a search that comes to more has shown nothing.
    pub states: usize,
    /// Where a state is taken for one seen before, look whether the same states follow from both. Takes several times as
    /// long.
    pub verify: bool,
    /// Look what the states differ in. Takes several times as long, and much memory.
    pub census: bool,
}

/// How a search ended.
#[derive(Debug)]
pub enum Found {
    /// Every state has been seen, and every promise is kept.
    Nothing,
    /// There are more states than the limit.
    Capped,
    /// A promise is broken, and this is a shortest way there.
    Broken(Violation, Vec<String>),
}

/// What a search has seen.
#[derive(Debug)]
pub struct Outcome {
    /// Distinct states.
    pub states: usize,
    /// Steps between them.
    pub steps: u64,
    /// Of the farthest state.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// States in which the client has got everything and is served.
    pub served: usize,
    /// States with a healthy node that reaches disk and client.
    pub owing: usize,
    /// The result.
    pub found: Found,
    /// What the states differ in, if that was to be looked at.
    pub census: Vec<Part>,
}

/// How a state was first reached, and what it is.
#[derive(Clone, Copy)]
struct Origin {
    parent: u32,
    choice: u16,
    served: bool,
    owes: bool,
}

/// Fingerprints are random enough.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are looked up");
    }

    fn write_u64(&mut self, n: u64) {
        self.0 ^= n.rotate_left(32);
    }
}

struct Search<'a> {
    scenario: &'a Scenario,
    limits: Limits,
    /// By both halves of the fingerprint, which takes less space than the whole.
    seen: HashMap<(u64, u64), u32, BuildHasherDefault<AsItIs>>,
    origins: Vec<Origin>,
    /// Steps that are no faults.
    free: Vec<(u32, u32)>,
    steps: u64,
    /// What follows from each state, where that is to be verified.
    followers: HashMap<u32, Vec<Fingerprint>>,
    census: Census,
}

/// Searches a scenario to its end.
#[must_use]
pub fn search(scenario: &Scenario, limits: Limits) -> Outcome {
    let begun = Instant::now();
    let mut search = Search {
        scenario,
        limits,
        seen: HashMap::default(),
        origins: Vec::new(),
        free: Vec::new(),
        steps: 0,
        followers: HashMap::new(),
        census: Census::default(),
    };
    let (depth, found) = search.run();
    Outcome {
        states: search.origins.len(),
        steps: search.steps,
        depth,
        took: begun.elapsed(),
        served: search.origins.iter().filter(|o| o.served).count(),
        owing: search.origins.iter().filter(|o| o.owes).count(),
        found,
        census: search.census.parts(),
    }
}

/// Runs machines' code, whose assertions are promises too.
pub(crate) fn guarded<R>(run: impl FnOnce() -> R) -> Result<R, Violation> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
        Violation { checker: "no_machine_gives_up", message: words.to_owned() }
    })
}

impl Search<'_> {
    fn run(&mut self) -> (usize, Found) {
        let begin = match guarded(|| Situation::begin(self.scenario, false)) {
            Ok(begin) => begin,
            Err(violation) => return (0, Found::Broken(violation, Vec::new())),
        };
        let (first, _) = self.number(&begin, 0, 0);
        let mut level = vec![(first, Box::new(begin))];
        let mut depth = 0;
        while !level.is_empty() {
            let mut next = Vec::new();
            for (number, state) in level {
                if let Err(broken) = self.expand(number, &state, &mut next) {
                    return (depth + 1, broken);
                }
                if self.origins.len() > self.limits.states {
                    return (depth + 1, Found::Capped);
                }
            }
            depth += usize::from(!next.is_empty());
            level = next;
        }
        (depth, self.liveness())
    }

    fn expand(&mut self, number: u32, state: &Situation, next: &mut Vec<(u32, Box<Situation>)>) -> Result<(), Found> {
        for (at, choice) in state.choices().into_iter().enumerate() {
            let at = u16::try_from(at).expect("few choices");
            let mut after = state.clone();
            let applied = guarded(|| after.apply(choice));
            self.steps += 1;
            if let Some(violation) = applied.err().or_else(|| after.world.violation().cloned()) {
                return Err(self.broken(violation, number, Some(at)));
            }
            let (child, new) = self.number(&after, number, at);
            if self.limits.verify {
                self.verify(child, &after, number, at)?;
            }
            if !choice.is_fault() && child != number {
                self.free.push((number, child));
            }
            if new {
                after.world.counts = state.world.counts.clone(); // Nobody asks how often what has happened.
                after.shrink();
                next.push((child, Box::new(after)));
            }
        }
        Ok(())
    }

    /// The state's number, and whether it is new.
    fn number(&mut self, state: &Situation, parent: u32, choice: u16) -> (u32, bool) {
        let next = u32::try_from(self.origins.len()).expect("fewer states than 2^32");
        let [low, high] = halves(state.fingerprint());
        let number = *self.seen.entry((low, high)).or_insert(next);
        let new = number == next;
        if new {
            if self.limits.census {
                self.census.take(state);
            }
            self.origins.push(Origin { parent, choice, served: state.is_served(), owes: state.owes_service() });
        }
        (number, new)
    }

    /// Two states that are taken for one are followed by the same states. If that holds for all pairs, whatever follows
    /// is the same, however long.
    fn verify(&mut self, number: u32, state: &Situation, parent: u32, choice: u16) -> Result<(), Found> {
        let follows = |choice| {
            let mut after = state.clone();
            guarded(|| after.apply(choice)).map_or(0, |()| after.fingerprint())
        };
        let mut followers: Vec<Fingerprint> = state.choices().into_iter().map(follows).collect();
        followers.sort_unstable();
        followers.dedup();
        if *self.followers.entry(number).or_insert_with(|| followers.clone()) == followers {
            return Ok(());
        }
        let message = format!("state {number} is not what it was taken for");
        Err(self.broken(Violation { checker: "canonical_form", message }, parent, Some(choice)))
    }

    /// Whoever owes service can still give it.
    fn liveness(&self) -> Found {
        let served = (0..self.origins.len()).filter(|&at| self.origins[at].served);
        let can = Backwards::new(self.origins.len(), &self.free).from(served);
        let Some(stuck) = (0..self.origins.len()).find(|&at| self.origins[at].owes && !can[at]) else {
            return Found::Nothing;
        };
        let message = "a healthy node reaches disk and client, and the client can't be served any more".to_owned();
        let stuck = u32::try_from(stuck).expect("a number");
        let way = self.way(stuck, None);
        let goes_on = trace::without_faults(self.scenario, &way);
        told(self.scenario, Violation { checker: "a_healthy_node_can_serve", message }, &way, &goes_on)
    }

    fn broken(&self, violation: Violation, at: u32, last: Option<u16>) -> Found {
        told(self.scenario, violation, &self.way(at, last), &[])
    }

    /// The choices that lead to a state, and one more.
    fn way(&self, at: u32, last: Option<u16>) -> Vec<u16> {
        let mut way: Vec<u16> = last.into_iter().collect();
        let mut at = at;
        while at != 0 {
            let origin = self.origins[at as usize];
            way.push(origin.choice);
            at = origin.parent;
        }
        way.reverse();
        way
    }
}

fn told(scenario: &Scenario, violation: Violation, way: &[u16], goes_on: &[u16]) -> Found {
    let mut trace = trace::replay(scenario, way, goes_on);
    trace.push(format!("broken: {}: {}", violation.checker, violation.message));
    Found::Broken(violation, trace)
}

/// A graph, to be walked against its edges.
struct Backwards {
    /// Where each state's predecessors begin.
    begins: Vec<usize>,
    before: Vec<u32>,
}

impl Backwards {
    fn new(states: usize, edges: &[(u32, u32)]) -> Self {
        let mut begins = vec![0; states + 1];
        edges.iter().for_each(|&(_, to)| begins[to as usize + 1] += 1);
        for at in 0..states {
            begins[at + 1] += begins[at];
        }
        let mut fill = begins.clone();
        let mut before = vec![0; edges.len()];
        for &(from, to) in edges {
            before[fill[to as usize]] = from;
            fill[to as usize] += 1;
        }
        Self { begins, before }
    }

    /// From where one of these is reached.
    fn from(&self, goals: impl Iterator<Item = usize>) -> Vec<bool> {
        let mut can = vec![false; self.begins.len() - 1];
        let mut todo: Vec<usize> = goals.collect();
        todo.iter().for_each(|&at| can[at] = true);
        while let Some(at) = todo.pop() {
            for &before in &self.before[self.begins[at]..self.begins[at + 1]] {
                if !std::mem::replace(&mut can[before as usize], true) {
                    todo.push(before as usize);
                }
            }
        }
        can
    }
}

impl Situation {
    /// The client has got all that it asked for, and the node that serves it runs and is connected.
    fn is_served(&self) -> bool {
        let world = &self.world;
        let number = self.client();
        let session = world.clients[number].machine.as_ref().filter(|session| session.is_open());
        let Some(status) = session.map(Session::status) else {
            return false;
        };
        let Some(primary) = status.primary else { return false };
        let serves = world.role(primary) == Some(Role::Primary) && world.process(Host::Node(primary)) == Process::Up;
        let feeds = status.links[primary.index()].phase == LinkPhase::Feeding;
        self.program.is_empty() && world.client_is_idle(number) && serves && feeds && self.reaches_client(primary)
    }

    fn reaches_client(&self, node: NodeId) -> bool {
        self.world.net.cut(Host::Node(node), Host::Client(self.client())).is_none()
    }

    /// A node runs that reaches disk and client, and may serve: nothing that counts is only in another one's RAM.
    fn owes_service(&self) -> bool {
        let Some(superblock) = self.world.disk.superblock() else { return false };
        NodeId::BOTH.into_iter().any(|node| {
            let n = &self.world.nodes[node.index()];
            let counts = superblock.members.of(node) == Some(n.incarnation);
            let healthy = n.process == Process::Up && self.world.disk.is_reached_by(node) && self.reaches_client(node);
            healthy && (counts || !superblock.members.is_dual() || superblock.clean)
        })
    }
}
