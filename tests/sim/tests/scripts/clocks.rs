//! Clocks are never part of safety: they leap and stand still, and decide at most who tries when.

use crate::common::*;
use twinsan_sim::Process;

#[test]
fn a_clock_that_leaps() {
    for fence in [FenceKind::Pr, FenceKind::Lock] {
        for host in [NODE_A, NODE_B, Host::Client(0)] {
            passes(fence, |w| {
                let client = dual(w)?;
                complete(w, client, 0)?;
                for _ in 0..3 {
                    w.leap_clock(host, 10_000);
                    complete(w, client, 0)?;
                    w.run_for(100);
                }
                Ok(())
            });
        }
    }
}

/// Whoever's clock stands still believes nobody dead: the secondary is dropped when it goes on.
#[test]
fn a_primary_whose_clock_stands_still() {
    passes(FenceKind::Pr, |w| {
        let client = dual(w)?;
        w.stop_clock(NODE_A);
        complete(w, client, 0)?;
        w.cut(NODE_A, NODE_B);
        w.cut(Host::Client(client), NODE_B);
        let seq = write(w, client, 0)?;
        w.run_for(500);
        w.start_clock(NODE_A);
        reach(w, "it completes, alone", |w| w.completed(client) >= seq)?;
        w.mend_all();
        Ok(())
    });
}

/// Suspended with its host, a primary has no idea that time has passed.
#[test]
fn a_suspended_primary() {
    for fence in [FenceKind::Pr, FenceKind::Lock] {
        passes(fence, |w| {
            let client = dual(w)?;
            complete(w, client, 0)?;
            w.stop_clock(NODE_A);
            w.freeze(NODE_A);
            reach(w, "B serves", |w| w.role(B) == Some(Role::Primary))?;
            complete(w, client, 0)?;
            w.start_clock(NODE_A);
            w.thaw(NODE_A);
            complete(w, client, 0)?;
            if w.process(NODE_A) == Process::Up {
                reach(w, "A has found out", |w| w.role(A) != Some(Role::Primary))?;
            }
            Ok(())
        });
    }
}
