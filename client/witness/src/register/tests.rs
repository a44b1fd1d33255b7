use proptest::prelude::*;

use super::*;

/// An operation with its beginning and end.
#[derive(Clone, Copy, Debug)]
enum Op {
    Write {
        stamp: u64,
        from: Time,
        to: Time,
    },
    /// It may have happened before `by`, or never.
    Unknown {
        stamp: u64,
        from: Time,
        by: Time,
    },
    Read {
        found: u64,
        from: Time,
        to: Time,
    },
}

impl Op {
    fn span(self) -> (Time, Time) {
        match self {
            Self::Write { from, to, .. } | Self::Read { from, to, .. } | Self::Unknown { from, by: to, .. } => {
                (from, to)
            }
        }
    }
}

/// By definition: tries every order.
fn has_an_order(left: &[Op], value: u64) -> bool {
    let first_end = left.iter().filter(|op| !matches!(op, Op::Unknown { .. })).map(|op| op.span().1).min();
    let Some(first_end) = first_end else { return true };
    (0..left.len()).any(|i| {
        let mut rest = left.to_vec();
        let op = rest.remove(i);
        // What ends before this one begins must come first, or, if nobody knows of it, be left out.
        if op.span().0 > first_end {
            return false;
        }
        rest.retain(|other| !matches!(other, Op::Unknown { by, .. } if *by < op.span().0));
        match op {
            Op::Write { stamp, .. } | Op::Unknown { stamp, .. } => has_an_order(&rest, stamp),
            Op::Read { found, .. } => found == value && has_an_order(&rest, value),
        }
    })
}

/// Tells the register what happens in the order of time.
fn witness(ops: &[Op], settled: Option<Time>) -> Result<(), Wrong> {
    let mut register = Register::default();
    let last = ops.iter().map(|op| op.span().1).max().unwrap_or(0);
    for now in 0..=last {
        if settled == Some(now) {
            register.settle(now);
        }
        for &op in ops {
            let (from, to) = op.span();
            match op {
                Op::Write { stamp, .. } if now == from => register.write_begins(stamp, now),
                Op::Unknown { stamp, .. } if now == from => {
                    register.write_begins(stamp, now);
                    register.write_is_unknown(now);
                }
                Op::Read { .. } if now == from => register.read_begins(now),
                Op::Write { stamp, .. } if now == to => register.write_completes(stamp, from, now)?,
                Op::Read { found, .. } if now == to => register.read_finds(found, from, now)?,
                _ => {}
            }
        }
    }
    Ok(())
}

/// Operations at times of their own; the middle of time may be where a new session begins.
fn histories() -> impl Strategy<Value = (Vec<Op>, Option<Time>)> {
    (2_usize..=6, any::<bool>())
        .prop_flat_map(|(n, settles)| {
            let times: Vec<Time> = (1..=2 * n as u64).map(|t| 2 * t).collect();
            let kinds = proptest::collection::vec((0_u8..5, 0..=n as u64), n);
            (Just(times).prop_shuffle(), kinds, Just(settles.then_some(2 * n as u64 + 1)))
        })
        .prop_map(|(times, kinds, settled)| {
            let ops = kinds.iter().enumerate().map(|(i, &(kind, found))| {
                let (a, b) = (times[2 * i], times[2 * i + 1]);
                let (from, to, stamp) = (a.min(b), a.max(b), i as u64 + 1);
                match kind {
                    0 | 1 => Op::Write { stamp, from, to },
                    2 => {
                        let by = settled.filter(|&at| from < at).unwrap_or(NEVER - 1);
                        Op::Unknown { stamp, from, by }
                    }
                    _ => Op::Read { found, from, to },
                }
            });
            // A session ends with all that it has under way: no other request spans its end.
            let ops: Vec<Op> = ops.collect();
            let spans = |op: &Op, at| op.span().0 < at && at < op.span().1 && !matches!(op, Op::Unknown { .. });
            let settled = settled.filter(|&at| !ops.iter().any(|op| spans(op, at)));
            let unknown_for_ever = |op: Op| match op {
                Op::Unknown { stamp, from, .. } if settled.is_none() => Op::Unknown { stamp, from, by: NEVER - 1 },
                same => same,
            };
            (ops.into_iter().map(unknown_for_ever).collect(), settled)
        })
}

/// `NEVER` stands for "for ever": the loop over time must not go there.
fn bounded(ops: &[Op]) -> Vec<Op> {
    let bound = |op: Op| match op {
        Op::Unknown { stamp, from, by } => Op::Unknown { stamp, from, by: by.min(from) },
        same => same,
    };
    ops.iter().copied().map(bound).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn it_agrees_with_the_definition((ops, settled) in histories()) {
        let told = witness(&bounded(&ops), settled);
        prop_assert_eq!(told.is_ok(), has_an_order(&ops, FIRST), "{:?}", told);
    }
}

#[test]
fn a_completed_write_that_is_missing_is_told() {
    let lost = [
        Op::Write { stamp: 1, from: 1, to: 2 },
        Op::Write { stamp: 2, from: 3, to: 4 },
        Op::Read { found: 1, from: 5, to: 6 },
    ];
    assert_eq!(witness(&lost, None), Err(Wrong::Lost { completed: 2, found: 1 }));
    let overlapping = [
        Op::Write { stamp: 1, from: 1, to: 2 },
        Op::Read { found: 2, from: 3, to: 5 },
        Op::Write { stamp: 2, from: 4, to: 6 },
        Op::Read { found: 2, from: 8, to: 9 },
        Op::Read { found: 1, from: 7, to: 10 },
    ];
    assert_eq!(witness(&overlapping, None), Err(Wrong::Lost { completed: 2, found: 1 }));
}

#[test]
fn a_read_that_goes_back_is_told() {
    let back = [
        Op::Unknown { stamp: 1, from: 1, by: 1 },
        Op::Read { found: 1, from: 2, to: 4 },
        Op::Read { found: FIRST, from: 3, to: 7 },
        Op::Read { found: 1, from: 5, to: 8 },
        Op::Read { found: FIRST, from: 6, to: 9 },
    ];
    assert_eq!(witness(&back, None), Err(Wrong::WentBack { before: 1, found: FIRST }));
}

#[test]
fn an_old_session_s_write_that_comes_late_is_told() {
    let late = [
        Op::Unknown { stamp: 1, from: 1, by: 1 },
        Op::Write { stamp: 2, from: 4, to: 5 },
        Op::Read { found: 1, from: 6, to: 7 },
    ];
    assert_eq!(witness(&late, Some(3)), Err(Wrong::Lost { completed: 2, found: 1 }));
    assert_eq!(witness(&late, None), Ok(()), "without a new session nobody knows when it happens");
}

#[test]
fn it_remembers_no_more_than_may_be_found() {
    let mut register = Register::default();
    for n in 1..1000 {
        register.write_begins(n, 10 * n);
        register.write_completes(n, 10 * n, 10 * n + 5).unwrap();
        assert_eq!(register.remembered(), 1);
    }
}
