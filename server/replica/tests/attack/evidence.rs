//! What is gathered of the other node while nobody hears it: what its address answers, and its heartbeat on the disk (rule 15).

use twinsan_replica::{Action, Event, LinkId, Probe};
use twinsan_wire::Role;

use crate::rig::{Rig, is_fence, other};

fn is_probe(action: &Action) -> bool {
    *action == Action::Probe
}

/// A mirror whose link is gone. What its primary's address answers, the test says; the disk heartbeat stands still.
fn without_link() -> Rig {
    let mut rig = Rig::secondary();
    rig.hold(|a| is_probe(a) || is_fence(a));
    rig.event(Event::LinkDown { link: LinkId(1) });
    rig.said();
    rig
}

/// Each probe comes back as `probe`.
fn probed(rig: &mut Rig, ms: u64, probe: Probe) {
    for _ in 0..ms / 50 {
        rig.wait(50);
        while rig.pending.iter().any(is_probe) {
            rig.end(is_probe, Event::Probed(probe));
        }
    }
}

/// No link comes up, and it does not write its heartbeat either: who answers lives all the same.
#[test]
fn who_answers_at_its_address_lives() {
    let mut rig = without_link();
    probed(&mut rig, 5000, Probe::Alive(other(1)));
    assert!(!rig.said().iter().any(is_fence));
    assert_eq!(rig.status().role, Role::Secondary);
    probed(&mut rig, 900, Probe::Silent);
    assert!(!rig.said().iter().any(is_fence), "it was alive a moment ago");
    probed(&mut rig, 300, Probe::Silent);
    assert!(rig.said().iter().any(is_fence));
}

/// The process of before has died: at once.
#[test]
fn who_is_another_at_the_same_address_has_not_served() {
    let mut rig = without_link();
    probed(&mut rig, 100, Probe::Alive(other(2)));
    assert!(rig.said().iter().any(is_fence));
}

/// Twice as often as it is written, so that no beat is missed.
#[test]
fn the_disk_heartbeat_of_a_silent_node_is_read_ten_times_a_second() {
    let mut rig = without_link();
    probed(&mut rig, 200, Probe::Silent);
    rig.said();
    probed(&mut rig, 800, Probe::Silent);
    let reads = rig.said().iter().filter(|a| **a == Action::ReadHeartbeat).count();
    assert!((7..=9).contains(&reads), "{reads}");
}
