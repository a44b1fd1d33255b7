//! The conformance suite over RDMA, for a machine that has it: `rdma link add rxe0 type rxe netdev eth0` is enough.
//!
//! ```text
//! TWINSAN_RDMA_ADDRESS=rdma://10.4.0.1:0 rdma-conformance [NAME ...]
//! ```
//!
//! The address is one of this machine's own RDMA devices. Each test runs in a process of its own, so that one which hangs
//! or panics is one failure, once with the verbs fabric itself (`verbs/…`) and once through the composite that programs use
//! (`network/…`); names choose those that contain them. Ends non-zero unless all have passed, and there was one.
#![forbid(unsafe_code)]

mod flood;
mod hostile;
mod lanes;

use std::io::Write;
use std::process::{Command, ExitCode};
use std::time::Instant;

use twinsan_fabric::Fabric;
use twinsan_fabric::conformance::{self, Setup, TESTS, Test};
use twinsan_network::{Network, NetworkOptions};
use twinsan_verbs::{VerbsFabric, VerbsOptions};

const VARIABLE: &str = "TWINSAN_RDMA_ADDRESS";

/// Tests of what is this fabric's own.
const OWN: &[(&str, Test)] = &[
    ("a_client_reaches_its_own_lane_and_nothing_else", lanes::a_client_reaches_its_own_lane_and_nothing_else),
    ("sent_needs_no_receiver", conformance::sent_needs_no_receiver),
    ("a_flood_meets_no_receiver_that_is_not_ready", flood::a_flood_meets_no_receiver_that_is_not_ready),
    ("what_makes_no_event_hides_nothing", flood::what_makes_no_event_hides_nothing),
    ("requests_without_end_are_turned_away", hostile::requests_without_end_are_turned_away),
    ("many_connections_leave_nothing_behind", lanes::many_connections_leave_nothing_behind),
    ("strangers_are_turned_away", hostile::strangers_are_turned_away),
    ("rule_breakers_are_shown_the_door", hostile::rule_breakers_are_shown_the_door),
    ("who_has_no_credits_is_stopped", hostile::who_has_no_credits_is_stopped),
    ("bare_round_trips", hostile::bare_round_trips),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Ok(address) = std::env::var(VARIABLE) else {
        eprintln!("{VARIABLE} is not set: say rdma://ADDRESS:0, with the address of an RDMA device of this machine");
        return ExitCode::from(2);
    };
    if let [flag, name] = &arguments[..]
        && flag == "--run"
    {
        run(name, &address);
        return ExitCode::SUCCESS;
    }
    all(&arguments)
}

/// Runs one test in this process.
fn run(name: &str, address: &str) {
    let (kind, name) = name.split_once('/').expect("verbs/NAME or network/NAME");
    let setup = setup(kind, address);
    match OWN.iter().find(|(own, _)| *own == name) {
        Some((_, test)) => test(setup),
        None => conformance::run(name, setup),
    }
}

/// Runs each test that is asked for in a process of its own.
fn all(wanted: &[String]) -> ExitCode {
    let tests = || TESTS.iter().chain(OWN).map(|(name, _)| name);
    let names = ["verbs", "network"].into_iter().flat_map(|kind| tests().map(move |name| format!("{kind}/{name}")));
    let chosen = names.filter(|name| wanted.is_empty() || wanted.iter().any(|want| name.contains(want.as_str())));
    let this = std::env::current_exe().expect("the name of this program");
    let (mut passed, mut failed, begin) = (0, Vec::new(), Instant::now());
    for name in chosen {
        print!("test {name} ... ");
        std::io::stdout().flush().expect("somebody reads this");
        let start = Instant::now();
        let output = Command::new(&this).args(["--run", &name]).output().expect("this program again");
        let outcome = if output.status.success() { "ok" } else { "FAILED" };
        println!("{outcome}, {} ms", start.elapsed().as_millis());
        if output.status.success() {
            passed += 1;
        } else {
            println!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
            failed.push(name);
        }
    }
    println!("{passed} passed, {} failed {failed:?}, {} s", failed.len(), begin.elapsed().as_secs());
    if failed.is_empty() && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn setup(kind: &str, address: &str) -> Setup {
    let host = address.strip_prefix("rdma://").and_then(|rest| rest.rsplit_once(':'));
    let (host, _) = host.unwrap_or_else(|| panic!("{VARIABLE} is {address:?}: say rdma://ADDRESS:0"));
    let fabric = || -> Box<dyn Fabric> {
        match kind {
            "verbs" => Box::new(VerbsFabric::new(VerbsOptions::default()).unwrap_or_else(|e| panic!("{e}"))),
            _ => Box::new(Network::new(NetworkOptions::default()).expect("an epoll")),
        }
    };
    Setup {
        left: fabric(),
        right: fabric(),
        address: format!("rdma://{host}:0"),
        // The discard port: nobody listens there for RDMA.
        nobody: format!("rdma://{host}:9"),
        keep: Box::new(()),
    }
}
