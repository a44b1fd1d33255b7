//! What a run of seeds came to, for people and for programs.

use std::io::Write;
use std::time::Duration;

use serde_json::json;
use twinsan_sim::{Case, Counts, Coverage, Weakness, What, World};

use crate::{Args, Failure};

/// The options that a replay needs beside the seed.
pub(crate) fn how_to_replay(args: &Args) -> String {
    args.weak.map_or_else(String::new, |w| format!(" --weak {}", w.name()))
}

/// For people.
pub(crate) fn words(args: &Args, counts: &Counts, failures: &[Failure], short: &[String], took: Duration) {
    let seconds = took.as_secs_f64();
    println!("{} seeds from {} in {seconds:.1} s", args.seeds, args.from);
    for (name, n) in counts.entries() {
        println!("  {:<24} {n:>12}", name.replace('_', " "));
    }
    println!("  rules of the protocol's section 4");
    for (rule, way, n) in counts.rules.entries() {
        println!("    {rule:>2}  {way:<58} {n:>9}");
    }
    for (rule, way, why) in Coverage::not_by_seeds() {
        println!("    {rule:>2}  {way}: not to be had from seeds: {why}");
    }
    println!("  {:<24} {:>12}", "faults", counts.faults_total());
    for (kind, n) in &counts.faults {
        println!("    {kind:<30} {n:>8}");
    }
    for line in short {
        println!("too few: {line}");
    }
    for failure in failures {
        let how = how_to_replay(args);
        println!("seed {}: {}: {}", failure.seed, failure.violation.checker, failure.violation.message);
        println!("  replay: cargo sim -- --seed {} --trace{how}", failure.seed);
    }
}

fn rules(counts: &Counts) -> Vec<serde_json::Value> {
    counts.rules.entries().map(|(rule, way, n)| json!({"rule": rule, "way": way, "fired": n})).collect()
}

/// For programs.
pub(crate) fn json(args: &Args, counts: &Counts, failures: &[Failure], short: &[String], took: Duration) {
    let failures: Vec<_> = failures
        .iter()
        .map(|f| json!({"seed": f.seed, "checker": f.violation.checker, "message": f.violation.message}))
        .collect();
    let sums: serde_json::Map<String, serde_json::Value> =
        counts.entries().into_iter().map(|(name, n)| (name.to_owned(), json!(n))).collect();
    let object = json!({
        "seeds": args.seeds,
        "from": args.from,
        "weak": args.weak.map(Weakness::name),
        "seconds": took.as_secs_f64(),
        "counts": sums,
        "rules": rules(counts),
        "faults": counts.faults,
        "below_floor": short,
        "failures": failures,
    });
    println!("{object}");
}

/// What is done to the cluster, and to which.
pub(crate) fn list(case: &Case) {
    let c = &case.config;
    println!(
        "the shortest that was found: {} blocks, fence {:?}, network {}-{} us, disk {}-{} us, noise {}",
        c.volume_blocks, c.fence, c.net.low, c.net.high, c.disk.low, c.disk.high, c.noise
    );
    for deed in &case.deeds {
        let (ms, us) = (deed.at_us / 1000, deed.at_us % 1000);
        match deed.what {
            What::Fault { fault, dice } => println!("  {ms:>6}.{us:03} ms  fault: {} (dice {dice})", fault.name()),
            What::Request { client, request } => println!("  {ms:>6}.{us:03} ms  C{client}: {request}"),
        }
    }
}

/// The run, line by line. Who reads may have seen enough.
pub(crate) fn story(world: &World) {
    let mut out = std::io::stdout().lock();
    let _ = world.story().iter().try_for_each(|line| writeln!(out, "{line}"));
}
