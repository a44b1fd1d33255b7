//! Two volumes, two reactors: each has its own thread, addresses and fate, and the node is one.

mod support;

use support::client::Client;
use support::raw::Raw;
use support::{Cluster, PATIENCE, VOLUME, on_disk};
use twinsan_control::admin::{Request, Response, VolumeStatus};
use twinsan_wire::{Purpose, Seq};

const LOG: &str = "log";
const BLOCK: u64 = 4096;

/// Waits until both volumes are as `wanted` on a node.
fn wait(cluster: &Cluster, node: usize, what: &str, wanted: impl Fn(&VolumeStatus) -> bool) -> Vec<VolumeStatus> {
    let begin = std::time::Instant::now();
    while begin.elapsed() < PATIENCE {
        if let Some(status) = cluster.status(node)
            && status.volumes.iter().all(&wanted)
        {
            return status.volumes;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("never {what}:\n{}\n{}", cluster.log(0), cluster.log(1));
}

fn connect(cluster: &Cluster, node: usize, volume: &str) -> Client {
    let config = cluster.config();
    let node = twinsan_wire::NodeId::BOTH[node];
    let address = config.addresses_of(node, config.volume(volume).unwrap())[0].to_string();
    Client::connect(&address, volume, None)
}

#[test]
fn each_reactor_serves_its_own_volumes_and_the_node_answers_for_all() {
    let mut cluster = Cluster::new("staging = \"4 MiB\"\n");
    cluster.add_volume(LOG, 2);
    cluster.start(0);
    wait(&cluster, 0, "primary", |volume| volume.role == "primary");
    cluster.start(1);
    let volumes = wait(&cluster, 0, "dual", |volume| volume.dual);
    assert_eq!(volumes.iter().map(|volume| &*volume.name).collect::<Vec<_>>(), [VOLUME, LOG], "as configured");

    // One is handed over, the other stays.
    let Some(Response::Done { .. }) = cluster.ask(0, &Request::Switchover { volume: LOG.to_owned() }) else {
        panic!("{}", cluster.log(0))
    };
    let moved = |volume: &VolumeStatus| {
        volume.dual && volume.primary.as_deref() == Some(["san1", "san2"][usize::from(volume.name == LOG)])
    };
    wait(&cluster, 0, "each served by its own node", moved);
    let unknown = cluster.ask(0, &Request::Switchover { volume: "tmp".to_owned() });
    assert!(matches!(&unknown, Some(Response::Failed { message }) if message.contains("tmp")), "{unknown:?}");

    // Both take writes, and go on when a node dies that serves one and mirrors the other.
    cluster.kill(1);
    wait(&cluster, 0, "solo", |volume| volume.role == "primary" && !volume.dual);
    for (tag, volume) in [(1_u8, VOLUME), (2, LOG)] {
        let mut client = connect(&cluster, 0, volume);
        client.attach();
        let payload = vec![tag; 2 * usize::try_from(BLOCK).unwrap()];
        let blob = client.blob(7, &payload);
        client.post(&blob);
        client.wait_durable(Seq(1));
        assert_eq!(client.read(7, 2), payload);
        let disk = if volume == LOG { cluster.disk_of(LOG) } else { cluster.disk() };
        assert_eq!(on_disk(&disk, 7 * BLOCK, payload.len()), payload);
    }
    cluster.start(1);
    wait(&cluster, 1, "dual again", |volume| volume.dual);
    for node in [1, 0] {
        assert!(cluster.stop(node).success(), "{}", cluster.log(node));
    }
    assert!(cluster.log(0).matches("ended in order").count() == 1);
}

#[test]
fn a_reactor_knows_no_other_ones_volume() {
    let mut cluster = Cluster::new("staging = \"4 MiB\"\n");
    cluster.add_volume(LOG, 2);
    cluster.start(0);
    wait(&cluster, 0, "primary", |volume| volume.role == "primary");
    let config = cluster.config();
    let wrong = config.addresses(twinsan_wire::NodeId::A, 1)[0].to_string();
    let outcome = Raw::connect(&wrong).prove(Purpose::Client, VOLUME, None);
    assert!(outcome.is_err(), "the second reactor let a client of the first one's volume in");
    assert!(Raw::connect(&wrong).prove(Purpose::Client, LOG, None).is_ok());
    connect(&cluster, 0, VOLUME).attach();
}

#[test]
fn a_node_whose_second_reactor_has_no_address_starts_with_none() {
    let mut cluster = Cluster::new("staging = \"4 MiB\"\n");
    cluster.add_volume(LOG, 2);
    std::fs::create_dir(cluster.path("san1.fabric.1")).unwrap();
    cluster.start(0);
    assert_eq!(cluster.ended(0).code(), Some(1), "{}", cluster.log(0));
    assert!(cluster.log(0).contains("san1.fabric.1"), "{}", cluster.log(0));
}

/// The file is changed, and only one of the nodes is started again: it knocks where the other does not listen, and must not
/// conclude that nobody is there.
#[test]
fn a_node_that_knows_of_more_reactors_than_the_other_does_not_fence_it() {
    let mut cluster = Cluster::new("staging = \"4 MiB\"\n");
    cluster.add_volume(LOG, 1);
    cluster.start(0);
    wait(&cluster, 0, "primary", |volume| volume.role == "primary");
    let file = cluster.path("twinsan.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("reactors = 1", "reactors = 2")).unwrap();
    cluster.start(1);
    // The first one's volume, and the other's by the first one's address.
    wait(&cluster, 1, "dual", |volume| volume.dual);
    assert!(!cluster.has_ended(0), "{}\n{}", cluster.log(0), cluster.log(1));
    let volumes = wait(&cluster, 0, "primary still", |volume| volume.role == "primary" && volume.dual);
    assert!(volumes.iter().all(|volume| volume.counters["fenced"] == 0), "{volumes:#?}");
}
