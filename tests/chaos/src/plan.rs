//! Which faults, and when: by seed, the same on every run, whatever the programs do.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::fault::{Extent, Fault, Role, Wire};
use crate::random::Random;
use crate::world::Way;

/// Faults that begin from a state in which all is well, and are all over before the next round.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// When, after the round's beginning, and what. In order.
    pub faults: Vec<(Duration, Fault)>,
}

impl Round {
    /// The only fault, if it is one.
    #[must_use]
    pub fn single(&self) -> Option<Fault> {
        match self.faults[..] {
            [(_, only)] => Some(only),
            _ => None,
        }
    }
}

/// The rounds, without end.
#[derive(Clone, Debug)]
pub struct Plan {
    random: Random,
    /// The kinds that may be drawn.
    kinds: Vec<usize>,
    /// Kinds that were not drawn yet since all were: each comes as often as another.
    bag: Vec<usize>,
}

/// So many of ten rounds have one fault only.
const SINGLE: usize = 6;
/// The most faults of a round.
const MOST: usize = 3;
/// The last fault of a round begins before that.
const SPREAD: Duration = Duration::from_millis(2500);

/// Every kind, with what of it is by chance.
const KINDS: &[fn(&mut Random) -> Fault] = &[
    |r| Fault::Kill(Role::Primary, Extent::Process, down(r)),
    |r| Fault::Kill(Role::Secondary, Extent::Process, down(r)),
    |r| Fault::Kill(Role::Primary, Extent::Host, down(r)),
    |r| Fault::Kill(Role::Secondary, Extent::Host, down(r)),
    |r| Fault::Freeze(Role::Primary, Extent::Process, frozen(r)),
    |r| Fault::Freeze(Role::Secondary, Extent::Process, frozen(r)),
    |r| Fault::Freeze(Role::Primary, Extent::Host, frozen(r)),
    |r| Fault::Freeze(Role::Secondary, Extent::Host, frozen(r)),
    |r| Fault::Leave(Role::Primary, down(r)),
    |r| Fault::Leave(Role::Secondary, down(r)),
    |r| Fault::KillAlone(r.between(Duration::from_millis(200), Duration::from_secs(2))),
    |r| Fault::LeaveBoth(r.between(Duration::from_millis(200), Duration::from_secs(2))),
    |_| Fault::Switchover,
    |r| Fault::Cut(Wire::Client(Role::Primary), Way::Both, cut(r)),
    |r| Fault::Cut(Wire::Client(Role::Secondary), Way::Both, cut(r)),
    |r| Fault::Cut(Wire::Nodes, Way::Both, cut(r)),
    |r| Fault::Cut(Wire::Client(Role::Primary), one_way(r), cut(r)),
    |r| Fault::Cut(Wire::Client(Role::Secondary), one_way(r), cut(r)),
    |r| Fault::Cut(Wire::Nodes, one_way(r), cut(r)),
    |r| Fault::Isolate(Role::Primary, cut(r)),
    |r| Fault::Isolate(Role::Secondary, cut(r)),
    |r| Fault::IsolateClient(cut(r)),
    slow,
    |r| Fault::Fill(r.between(Duration::from_secs(1), Duration::from_secs(5))),
    |r| Fault::KillClient(away(r)),
    |r| Fault::FreezeClient(frozen(r)),
    |r| Fault::LeaveClient(away(r)),
    |_| Fault::TakeOver,
];

fn down(random: &mut Random) -> Duration {
    random.between(Duration::from_millis(300), Duration::from_secs(8))
}

fn frozen(random: &mut Random) -> Duration {
    random.between(Duration::from_millis(100), Duration::from_secs(5))
}

fn cut(random: &mut Random) -> Duration {
    random.between(Duration::from_millis(200), Duration::from_secs(8))
}

fn away(random: &mut Random) -> Duration {
    random.between(Duration::from_millis(50), Duration::from_secs(3))
}

fn one_way(random: &mut Random) -> Way {
    random.one(&[Way::Forward, Way::Backward])
}

fn slow(random: &mut Random) -> Fault {
    let wire = random.one(&[Wire::Client(Role::Primary), Wire::Client(Role::Secondary), Wire::Nodes]);
    Fault::Slow {
        wire,
        delay: random.between(Duration::from_millis(1), Duration::from_millis(200)),
        jitter: random.between(Duration::from_millis(1), Duration::from_millis(50)),
        time: random.between(Duration::from_secs(1), Duration::from_secs(6)),
    }
}

/// The kinds' names.
#[must_use]
pub fn names() -> Vec<&'static str> {
    KINDS.iter().map(|kind| kind(&mut Random::new(0)).kind()).collect()
}

impl Plan {
    /// From a seed, of the kinds for which `wanted` says so.
    ///
    /// # Errors
    /// If there are none.
    pub fn new(seed: u64, wanted: impl Fn(Fault) -> bool) -> Result<Self> {
        let example = |kind: usize| KINDS[kind](&mut Random::new(0));
        let kinds: Vec<usize> = (0..KINDS.len()).filter(|&kind| wanted(example(kind))).collect();
        ensure!(!kinds.is_empty(), "no such fault; there are: {}", names().join(", "));
        Ok(Self { random: Random::new(seed), kinds, bag: Vec::new() })
    }

    fn draw(&mut self) -> Fault {
        if self.bag.is_empty() {
            self.bag.clone_from(&self.kinds);
            self.random.shuffle(&mut self.bag);
        }
        let kind = self.bag.pop().expect("just filled");
        KINDS[kind](&mut self.random)
    }
}

impl Iterator for Plan {
    type Item = Round;

    fn next(&mut self) -> Option<Round> {
        let count = if self.random.happens(SINGLE, 10) { 1 } else { 2 + self.random.below(MOST - 1) };
        let mut faults: Vec<(Duration, Fault)> = (0..count)
            .map(|number| {
                let after = if number == 0 { Duration::ZERO } else { SPREAD.mul_f64(self.random.share()) };
                (after, self.draw())
            })
            .collect();
        faults.sort_by_key(|&(after, _)| after);
        Some(Round { faults })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn plan(seed: u64) -> Plan {
        Plan::new(seed, |_| true).unwrap()
    }

    #[test]
    fn only_what_is_wanted_is_drawn_and_nothing_at_all_is_no_plan() {
        let wanted = |fault: Fault| fault.kind().contains("switchover");
        let rounds = Plan::new(1, wanted).unwrap().take(20);
        assert!(rounds.flat_map(|round| round.faults).all(|(_, fault)| fault == Fault::Switchover));
        let none = Plan::new(1, |_| false).unwrap_err().to_string();
        assert!(none.contains("kill primary"), "{none}");
    }

    #[test]
    fn a_seed_gives_the_same_rounds_and_another_one_others() {
        let rounds = |seed| plan(seed).take(50).collect::<Vec<_>>();
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
    }

    #[test]
    fn every_kind_comes_about_as_often_as_another_alone_and_among_others() {
        let mut counts: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        for round in plan(1).take(1000) {
            for (_, fault) in &round.faults {
                let (all, alone) = counts.entry(fault.kind()).or_default();
                *all += 1;
                *alone += u32::from(round.single().is_some());
            }
        }
        assert_eq!(counts.len(), KINDS.len(), "{counts:?}");
        let all = || counts.values().map(|&(all, _)| all);
        assert!(all().max().unwrap() - all().min().unwrap() <= 1, "{counts:?}");
        assert!(counts.values().all(|&(all, alone)| 0 < alone && alone < all), "{counts:?}");
    }

    #[test]
    fn faults_of_a_round_are_in_order_and_overlap_or_follow_soon() {
        for round in plan(2).take(1000) {
            assert!((1..=MOST).contains(&round.faults.len()));
            assert!(round.faults.is_sorted_by_key(|&(after, _)| after));
            assert_eq!(round.faults[0].0, Duration::ZERO);
            assert!(round.faults.iter().all(|&(after, _)| after < SPREAD));
        }
    }
}
