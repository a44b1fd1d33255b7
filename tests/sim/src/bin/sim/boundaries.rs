//! `cargo sim -- --boundaries`: every node killed and started again after each of its actions.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use twinsan_sim::{Case, FenceKind, SimConfig, TALES, Violation, World, at_each_boundary};

use crate::{Args, Failure, tell_short};

/// What one tale came to.
#[derive(Default)]
struct Sum {
    gone_through: u64,
    left_out: u64,
    failures: Vec<(Case, Violation)>,
}

/// All tales; or the run of one seed, faults and all.
pub(crate) fn run(args: &Args) -> ExitCode {
    let begun = Instant::now();
    let cases: Vec<(String, Case)> = match args.seed {
        Some(seed) => {
            let mut world = World::new(SimConfig::from_seed(seed).weakened(args.weak));
            world.run_guarded();
            vec![(format!("seed {seed}"), Case::of(&world))]
        }
        None => [FenceKind::Pr, FenceKind::Lock]
            .into_iter()
            .flat_map(|fence| TALES.iter().map(move |tale| (format!("{} ({fence:?})", tale.name), tale.case(fence))))
            .map(|(name, case)| (name, Case { config: case.config.clone().weakened(args.weak), ..case }))
            .collect(),
    };
    let (mut all, mut left_out) = (0, 0);
    for (name, case) in cases {
        let mut sum = go_through(&case, args);
        println!("{name:<48} {:>6} boundaries, {:>5} left out", sum.gone_through, sum.left_out);
        all += sum.gone_through;
        left_out += sum.left_out;
        if !sum.failures.is_empty() {
            let (case, violation) = sum.failures.swap_remove(0);
            let boundary = case.config.boundary.expect("each has one");
            println!(
                "broken {} times; {} killed after action {}, down for {} us: {}: {}",
                sum.failures.len() + 1,
                boundary.node,
                boundary.action,
                boundary.down_us,
                violation.checker,
                violation.message
            );
            tell_short(&Failure { seed: 0, violation, case }, args.shrink);
            return ExitCode::FAILURE;
        }
    }
    println!("{all} boundaries in {:.1} s, every promise was kept", begun.elapsed().as_secs_f64());
    println!("{left_out} left out: the only RAM that held something would have been lost, or the run was over before");
    if all > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn go_through(case: &Case, args: &Args) -> Sum {
    let cases = at_each_boundary(case);
    let (next, sum) = (AtomicUsize::new(0), Mutex::new(Sum::default()));
    std::thread::scope(|scope| {
        for _ in 0..args.jobs() {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let world = case.run(false);
                    let mut sum = sum.lock().expect("no thread panics while it holds this");
                    if world.boundary_left_out() {
                        sum.left_out += 1;
                    } else {
                        sum.gone_through += 1;
                    }
                    if let Some(violation) = world.violation() {
                        sum.failures.push((case.clone(), violation.clone()));
                    }
                }
            });
        }
    });
    let mut sum = sum.into_inner().expect("no thread panicked");
    sum.failures.sort_by_key(|(case, _)| case.config.boundary.map(|b| (b.action, b.down_us)));
    sum
}
