//! Two processes, one disk: who serves, who takes over, how they end.

mod support;

use rustix::process::Signal;
use support::{Cluster, NODES};
use twinsan_control::admin::{HandoverState, Request, Response};

#[test]
fn two_nodes_become_a_pair_and_each_takes_over_from_the_other() {
    let mut cluster = Cluster::new("");
    cluster.start(0);
    cluster.wait(0, "primary", |volume| volume.role == "primary");
    cluster.start(1);
    assert_eq!(cluster.wait_dual(), 0);
    let before = cluster.wait(1, "a secondary", |volume| volume.role == "secondary");

    cluster.kill(0);
    let after = cluster.wait(1, "primary", |volume| volume.role == "primary");
    assert!(after.epoch > before.epoch);
    assert_eq!(after.members.len(), 1);
    assert!(cluster.log(1).contains("taking over from san1"), "{}", cluster.log(1));

    cluster.start(0);
    assert_eq!(cluster.wait_dual(), 1);
    cluster.kill(1);
    cluster.wait(0, "primary again", |volume| volume.role == "primary");
}

#[test]
fn both_killed_while_dual_refuse_until_recovered() {
    let mut cluster = Cluster::new("");
    cluster.start(0);
    cluster.start(1);
    cluster.wait_dual();
    // Frozen first, so that neither sees the other die and goes on alone.
    for node in [0, 1] {
        cluster.signal(node, Signal::STOP);
    }
    for node in [0, 1] {
        cluster.kill(node);
    }
    let recover = |accept_data_loss| Request::Recover { volume: support::VOLUME.to_owned(), accept_data_loss };
    cluster.start(0);
    cluster.wait(0, "refusing", |volume| volume.role == "refusing");
    assert!(cluster.log(0).contains("recover --accept-data-loss db"), "{}", cluster.log(0));
    assert!(matches!(cluster.ask(0, &recover(false)), Some(Response::Failed { .. })));
    assert!(matches!(cluster.ask(0, &recover(true)), Some(Response::Done { .. })));
    cluster.wait(0, "primary", |volume| volume.role == "primary");
    assert!(matches!(cluster.ask(0, &recover(true)), Some(Response::Failed { .. })), "nothing to recover");
}

#[test]
fn sigterm_ends_each_in_order() {
    let mut cluster = Cluster::new("");
    cluster.start(0);
    cluster.start(1);
    let primary = cluster.wait_dual();
    let secondary = 1 - primary;
    // The secondary leaves; the primary goes on alone.
    assert!(cluster.stop(secondary).success(), "{}", cluster.log(secondary));
    cluster.wait(primary, "solo", |volume| volume.role == "primary" && !volume.dual);
    cluster.start(secondary);
    assert_eq!(cluster.wait_dual(), primary);
    // The primary hands over and leaves.
    assert!(cluster.stop(primary).success(), "{}", cluster.log(primary));
    cluster.wait(secondary, "primary", |volume| volume.role == "primary" && !volume.dual);
    assert!(cluster.log(secondary).contains("has handed over to this node"), "{}", cluster.log(secondary));
    assert!(!cluster.log(secondary).contains("taking over from"), "{}", cluster.log(secondary));
    // The last one marks the volume clean.
    assert!(cluster.stop(secondary).success(), "{}", cluster.log(secondary));
    cluster.start(primary);
    cluster.wait(primary, "primary without the other", |volume| volume.role == "primary");
}

#[test]
fn an_order_hands_over_and_the_secondary_says_whom_to_ask() {
    let mut cluster = Cluster::new("");
    let switchover = Request::Switchover { volume: support::VOLUME.to_owned() };
    let refused = |cluster: &Cluster, node, words: &str| match cluster.ask(node, &switchover) {
        Some(Response::Failed { message }) => assert!(message.contains(words), "{message}"),
        other => panic!("{other:?}"),
    };
    cluster.start(0);
    cluster.wait(0, "primary", |volume| volume.role == "primary");
    refused(&cluster, 0, "this node serves alone; start san2");
    cluster.start(1);
    let mut serving = cluster.wait_dual();
    for _ in 0..4 {
        refused(&cluster, 1 - serving, &format!("is not served by this node; ask {}", NODES[serving]));
        let before = cluster.wait(serving, "ready", |volume| volume.peer.role.as_deref() == Some("secondary"));
        assert!(matches!(cluster.ask(serving, &switchover), Some(Response::Done { .. })));
        let old = cluster.wait(serving, "handed over", |volume| volume.handover.state == HandoverState::Done);
        assert!(old.handover.pause_ms.is_some() && old.handover.epoch > Some(before.epoch), "{:?}", old.handover);
        cluster.wait(1 - serving, "primary, dual", |volume| volume.role == "primary" && volume.dual);
        cluster.wait(serving, "secondary", |volume| volume.role == "secondary");
        serving = 1 - serving;
        cluster.wait(serving, "told", |volume| volume.peer.role.as_deref() == Some("secondary"));
    }
    let other = Request::Switchover { volume: "other".to_owned() };
    assert!(matches!(cluster.ask(0, &other), Some(Response::Failed { message }) if message.contains("\"other\"")));
}

#[test]
fn a_pair_with_a_key_joins_and_one_without_is_kept_out() {
    let mut cluster = Cluster::new("key_file = \"db.key\"");
    cluster.write_key("0123456789abcdef0123456789abcdef");
    cluster.start(0);
    cluster.start(1);
    cluster.wait_dual();
    cluster.kill(1);
    cluster.wait(0, "solo", |volume| !volume.dual);
    cluster.write_key("another key, as long as it has to be");
    cluster.start(1);
    let volume = cluster.wait(1, "kept out", |volume| volume.peer.trouble.is_some());
    let trouble = volume.peer.trouble.unwrap();
    assert!(trouble.contains("key"), "{trouble}");
    assert_eq!(volume.role, "waiting");
    assert!(cluster.wait(0, "still serving", |volume| volume.role == "primary").counters["probes"] > 0);
}

#[test]
fn a_wrong_setup_ends_with_code_3_and_says_what_is_wrong() {
    let mut cluster = Cluster::new("");
    let refused = |cluster: &mut Cluster, words: &[&str]| {
        cluster.start(0);
        assert_eq!(cluster.ended(0).code(), Some(3), "{}", cluster.log(0));
        let log = cluster.log(0);
        for word in words {
            assert!(log.contains(word), "\"{word}\" is not in:\n{log}");
        }
    };
    cluster.format("web", NODES);
    refused(&mut cluster, &["disk.img", "the disk holds volume \"web\", not \"db\""]);
    cluster.format("db", ["san2", "san1"]);
    refused(&mut cluster, &["disk.img", "formatted for the nodes \"san2\" and \"san1\""]);
    cluster.format("db", NODES);
    cluster.configure("key_file = \"db.key\"");
    refused(&mut cluster, &["volume \"db\"", "db.key"]);
    cluster.configure("staging = \"1 MiB\"");
    refused(&mut cluster, &["twinsan.toml", "staging", "from 4 MiB"]);
    std::fs::write(cluster.disk(), vec![0; 4 << 20]).unwrap();
    cluster.configure("");
    refused(&mut cluster, &["disk.img", "twinsan format"]);
}
