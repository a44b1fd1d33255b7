//! Every PR line of the protocol's section 8, on the model; `pr-lab` of `tests/lab` runs the same on a real LUN.

use super::fake::{FakeHost, FakeLun, key};
use super::registrar::{Fenced, Registrar, ReservationError};
use super::spc::{Command, ReservationType};

type Node = Registrar<FakeHost>;

fn node(lun: &FakeLun, name: &'static str) -> Node {
    Registrar::new(lun.host(name))
}

/// Let in with this key, and the ones after it if it takes several.
fn let_in(node: &mut Node, bits: u64) -> Result<(), ReservationError> {
    let mut next = bits;
    node.let_in(&mut || {
        next += 1;
        key(next - 1)
    })
}

fn admitted(lun: &FakeLun, name: &'static str, bits: u64) -> Node {
    let mut node = node(lun, name);
    let_in(&mut node, bits).expect("let in");
    node
}

/// san1 serves with key 1, san2 is let in with key 2.
fn pair() -> (FakeLun, Node, Node) {
    let lun = FakeLun::new();
    let mut one = admitted(&lun, "san1", 1);
    one.fence().expect("alone");
    let mut two = admitted(&lun, "san2", 2);
    // What the reset has left to say is said, so that the tests can count commands.
    assert_eq!((one.mend(true), two.mend(true)), (Ok(true), Ok(true)));
    (lun, one, two)
}

/// san1 of a pair, whose sdb was away, has lost its registration meanwhile, and answers again.
fn with_a_path_that_returns() -> (FakeLun, Node) {
    let (lun, mut one, _) = pair();
    lun.strike("san1", "sdb");
    one.lun().down.insert("sdb".to_owned());
    assert_eq!(one.mend(false), Ok(true));
    one.lun().down.clear();
    (lun, one)
}

fn paths(bits: u64) -> Vec<(String, u64)> {
    vec![("sda".to_owned(), bits), ("sdb".to_owned(), bits)]
}

#[test]
fn a_node_is_let_in_with_one_key_on_all_its_paths() {
    let lun = FakeLun::new();
    let mut one = admitted(&lun, "san1", 1);
    assert_eq!(lun.keys_of("san1"), paths(1));
    assert!(lun.state().holder.is_none(), "being let in reserves nothing");
    assert_eq!(one.fence(), Ok(Fenced { victims: Vec::new() }));
    assert_eq!(lun.holder_key(), Some(key(1)));
    assert_eq!(one.stands(), Ok(true));
    assert_eq!(one.registered().len(), 2);
}

#[test]
fn an_earlier_lifes_key_is_replaced_and_never_taken_for_ones_own() {
    let (lun, mut one, two) = pair();
    drop(two);
    let mut two = node(&lun, "san2");
    two.lun().down.insert("sdb".to_owned());
    assert_eq!(two.stands(), Ok(false), "the key on the LUN is an earlier life's");
    let_in(&mut two, 7).expect("let in");
    assert_eq!(lun.keys_of("san2"), vec![("sda".to_owned(), 7), ("sdb".to_owned(), 2)]);
    // The path comes back with the old key on it.
    two.lun().down.clear();
    assert_eq!(two.mend(false), Ok(true));
    assert_eq!(lun.keys_of("san2"), paths(7));
    assert_eq!(one.stands(), Ok(true));
    // A reservation that hangs on the earlier life's key goes on with the new one.
    drop(one);
    let mut again = admitted(&lun, "san1", 11);
    assert_eq!(lun.holder_key(), Some(key(11)));
    assert_eq!(again.fence(), Ok(Fenced { victims: vec![key(7)] }));
}

#[test]
fn a_fence_leaves_nobody_else_and_takes_the_reservation() {
    let (lun, mut one, mut two) = pair();
    assert!(lun.begin_write("san1", "sda", "late"));
    assert_eq!(two.fence(), Ok(Fenced { victims: vec![key(1)] }), "the holder's writes are aborted");
    lun.end_writes();
    assert!(lun.state().landed.is_empty());
    assert!(lun.keys_of("san1").is_empty());
    assert_eq!(lun.holder_key(), Some(key(2)));
    assert!(!lun.begin_write("san1", "sdb", "later"), "refused");
    assert_eq!(one.stands(), Ok(false));
    assert_eq!(one.mend(true), Ok(false), "a path is not a way back in");
    assert!(lun.keys_of("san1").is_empty());
    assert_eq!(one.fence(), Err(ReservationError::NotIn));
    // Rule 9: it registers anew.
    let_in(&mut one, 3).expect("let in");
    assert_eq!(one.fence(), Ok(Fenced { victims: vec![key(2)] }));
}

#[test]
fn a_victim_that_is_no_holder_is_reset_away() {
    let (lun, mut one, two) = pair();
    // As after a handover: the one that serves is not the one that holds.
    assert!(lun.begin_write("san2", "sdb", "late"));
    assert_eq!(one.fence(), Ok(Fenced { victims: vec![key(2)] }));
    lun.end_writes();
    assert!(lun.state().landed.is_empty(), "the reset has aborted it");
    assert_eq!(lun.state().resets, 2, "one of them san1's first");
    assert_eq!(lun.holder_key(), Some(key(1)));
    drop(two);
}

#[test]
fn half_a_fence_is_made_whole_by_the_next() {
    let (lun, mut one, two) = pair();
    assert!(lun.begin_write("san2", "sda", "late"));
    // san1 dies between PREEMPT AND ABORT, which aborts nothing of a victim that is no holder, and the reset.
    one.lun().before(0, |lun| {
        let mut other = lun.host("san1");
        other.down.insert("sdb".to_owned());
        let preempt = Command::PreemptAndAbort { key: key(1), victim: key(2) };
        let path = super::Lun::live(&mut other).remove(0);
        super::Lun::run(&mut other, &path, preempt).expect("done");
    });
    one.lun().before(1, |_| panic!("dead"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| one.fence())).is_err());
    drop(two);
    assert_eq!(lun.state().in_flight.len(), 1, "it may land any time");
    let mut again = admitted(&lun, "san1", 5);
    assert_eq!(again.fence(), Ok(Fenced { victims: Vec::new() }));
    lun.end_writes();
    assert!(lun.state().landed.is_empty());
}

/// The same, and the node that goes on finds the reservation on its own earlier life's key: removing that one aborts
/// nothing of the other host's.
#[test]
fn an_own_earlier_life_is_no_victim_that_spares_the_reset() {
    let (lun, mut one, two) = pair();
    assert!(lun.begin_write("san2", "sda", "late"));
    one.lun().before(0, |lun| {
        let mut other = lun.host("san1");
        let path = super::Lun::live(&mut other).remove(1);
        let preempt = Command::PreemptAndAbort { key: key(1), victim: key(2) };
        super::Lun::run(&mut other, &path, preempt).expect("done");
    });
    one.lun().before(1, |_| panic!("dead"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| one.fence())).is_err());
    drop(two);
    assert_eq!(lun.state().in_flight.len(), 1, "it may land any time");
    let mut again = node(&lun, "san1");
    again.lun().down.insert("sda".to_owned());
    let_in(&mut again, 5).expect("let in");
    assert_eq!(lun.holder_key(), Some(key(1)), "the reservation hangs on the path that is down");
    assert_eq!(again.fence(), Ok(Fenced { victims: vec![key(1)] }));
    lun.end_writes();
    assert!(lun.state().landed.is_empty(), "the reset has aborted it");
}

#[test]
fn a_target_port_without_the_lun_bars_nobody_from_the_other() {
    for unmapped in ["sda", "sdb"] {
        let (lun, one, mut two) = pair();
        drop(one);
        // A registered path turns bad, and a fence goes by the other.
        two.lun().unmapped.insert(unmapped.to_owned());
        assert_eq!(two.stands(), Ok(true));
        assert_eq!(two.fence(), Ok(Fenced { victims: vec![key(1)] }));
        // One that never was any good.
        let mut again = node(&lun, "san1");
        again.lun().unmapped.insert(unmapped.to_owned());
        let_in(&mut again, 9).expect("let in");
        assert_eq!(again.fence(), Ok(Fenced { victims: vec![key(2)] }));
        again.lun().unmapped.extend(["sda".to_owned(), "sdb".to_owned()]);
        assert!(matches!(again.stands(), Err(ReservationError::Refused { .. })), "nobody is left to ask");
    }
}

#[test]
fn a_preempt_that_finds_nobody_is_a_conflict_and_no_fence() {
    let (lun, mut one, two) = pair();
    drop(two);
    // READ KEYS shows key 2; before it is pre-empted, its host is let in anew.
    one.lun().before(2, |lun| drop(admitted(lun, "san2", 9)));
    let fenced = one.fence().expect("not fenced");
    assert_eq!(fenced, Fenced { victims: vec![key(2), key(9)] });
    assert_eq!(one.stands(), Ok(true));
    assert!(lun.keys_of("san2").is_empty());
}

/// Lets san2 fence at every single command of a path's return.
#[test]
fn a_path_that_returns_against_a_fence_stays_out() {
    let mut fences = 0;
    for nth in 0..12 {
        let (lun, mut one) = with_a_path_that_returns();
        one.lun().before(nth, |lun| drop(admitted(lun, "san2", 9).fence().expect("fences")));
        let outcome = one.mend(false).expect("paths answer");
        if lun.holder_key() == Some(key(9)) {
            fences += 1;
            assert!(lun.keys_of("san1").is_empty(), "fence before command {nth}");
            // It has seen it, or a moment before it came.
            assert_eq!(one.stands(), Ok(false), "fence before command {nth}, {outcome}");
        } else {
            assert!(outcome);
            assert_eq!(lun.keys_of("san1"), paths(1));
        }
    }
    assert_eq!(fences, 4, "REGISTER, READ KEYS, REGISTER AND IGNORE EXISTING KEY, READ KEYS");
}

/// Two fences at once, one inside the other at every command: the later one wins, and the loser knows. The inner one,
/// where it has been fenced itself, registers anew (rule 9).
#[test]
fn of_two_fences_one_gets_through() {
    let mut won = 0;
    for nth in 0..16 {
        let (lun, mut one, two) = pair();
        let two = std::cell::RefCell::new(Some(two));
        one.lun().before(nth, move |_| {
            let Some(mut two) = two.borrow_mut().take() else { return };
            if two.fence().is_err() {
                let_in(&mut two, 30).expect("let in");
                two.fence().expect("nobody disturbs it now");
            }
        });
        match one.fence() {
            Ok(_) => {
                won += 1;
                if one.stands() == Ok(true) {
                    assert!(lun.keys_of("san2").is_empty() && lun.holder_key() == Some(key(1)), "{nth}");
                }
            }
            Err(error) => {
                assert!(error.is_lost(), "{error}");
                assert_eq!(one.stands(), Ok(false));
                assert!(lun.keys_of("san1").is_empty() && !lun.keys_of("san2").is_empty(), "{nth}");
                assert!(lun.holder_key() == Some(key(2)) || lun.holder_key() == Some(key(30)), "{nth}");
            }
        }
    }
    assert!((1..16).contains(&won), "{won}: both ends were seen");
}

/// A fence at every command of being let in: it is as if it had come before or after.
#[test]
fn a_fence_while_a_node_is_let_in() {
    for nth in 0..10 {
        let (lun, one, two) = pair();
        drop(two);
        let mut two = node(&lun, "san2");
        let one = std::cell::RefCell::new(Some(one));
        two.lun().before(nth, move |_| {
            if let Some(mut one) = one.borrow_mut().take() {
                one.fence().expect("nobody disturbs it");
            }
        });
        match let_in(&mut two, 20) {
            Ok(()) => {
                let stands = two.stands().expect("paths answer");
                let here = lun.keys_of("san2");
                assert_eq!(stands, !here.is_empty(), "{nth}");
                assert!(here.is_empty() || here == paths(20), "{nth}: {here:?}");
            }
            Err(error) => assert!(error.is_lost() && lun.keys_of("san2").is_empty(), "{nth}: {error}"),
        }
        assert_eq!(lun.holder_key(), Some(key(1)));
    }
}

#[test]
fn a_registration_of_another_does_not_make_a_path_look_fenced() {
    let (lun, mut one, mut two) = pair();
    lun.strike("san2", "sdb");
    two.lun().down.insert("sdb".to_owned());
    assert_eq!(two.mend(false), Ok(true));
    two.lun().down.clear();
    two.lun().before(2, |lun| drop(admitted(lun, "san3", 9)));
    assert_eq!(two.mend(false), Ok(true));
    assert_eq!(lun.keys_of("san2"), paths(2));
    let back = two.lun().commands.iter().any(|(_, c)| *c == Command::Register { old: Some(key(2)), new: None });
    assert!(back, "it was taken back, and added again");
    assert_eq!(one.stands(), Ok(true));
}

#[test]
fn the_path_that_may_hold_the_reservation_is_never_unregistered() {
    let (lun, mut one, two) = pair();
    drop(two);
    // An earlier life held by sdb, which was down when the next one was let in.
    lun.state().holder = Some((("san1", "sdb".to_owned()), ReservationType::REGISTRANTS_ONLY));
    drop(std::mem::replace(&mut one, node(&lun, "san1")));
    one.lun().down.insert("sdb".to_owned());
    let_in(&mut one, 5).expect("let in");
    one.lun().down.clear();
    one.lun().commands.clear();
    // READ KEYS, then somebody registers, then REGISTER: the generation does not fit.
    one.lun().before(2, |lun| drop(admitted(lun, "san2", 9)));
    assert_eq!(one.mend(false), Ok(true));
    assert_eq!(lun.holder_key(), Some(key(5)), "nobody else may write in the meantime");
    let unregistered = |(_, c): &(String, Command)| matches!(c, Command::Register { new: None, .. });
    assert!(!one.lun().commands.iter().any(unregistered));
    assert_eq!(lun.keys_of("san1"), paths(5));
}

#[test]
fn a_path_that_goes_away_while_it_is_added_is_asked_about_by_another() {
    for fence_too in [false, true] {
        let (_, mut one) = with_a_path_that_returns();
        if fence_too {
            one.lun().before(2, |lun| drop(admitted(lun, "san2", 9).fence().expect("fences")));
        }
        // REGISTER AND IGNORE is done, and nobody hears it.
        one.lun().swallow(2);
        assert_eq!(one.mend(false), Ok(!fence_too));
    }
}

/// What others register is no fence: a path that is asked says so, and rule 9 is spared.
#[test]
fn a_path_that_goes_away_while_others_register_is_no_fence() {
    let (_, mut one) = with_a_path_that_returns();
    one.lun().before(2, |lun| drop(admitted(lun, "san2", 9)));
    one.lun().swallow(2);
    assert_eq!(one.mend(false), Ok(true));
    assert_eq!(one.key(), Some(key(1)));
    assert!(!one.registered().iter().any(|path| path.name == "sdb"), "nobody knows of that one");
}

/// san1 comes back, at `ports` from other initiator ports than before. The removal of its earlier life's key makes the
/// LUN refuse what it has just registered; nothing that READ KEYS shows says so.
fn come_back(lun: &FakeLun, one: Node, ports: &[&str]) -> Node {
    drop(one);
    ports.iter().for_each(|port| lun.new_initiator_port("san1", port));
    admitted(lun, "san1", 11)
}

fn writes(lun: &FakeLun, host: &'static str) -> bool {
    let both = ["sda", "sdb"].map(|path| lun.begin_write(host, path, "new"));
    lun.end_writes();
    both == [true, true]
}

#[test]
fn a_registered_path_whose_writes_are_refused_is_registered_anew() {
    for ports in [&["sda"][..], &["sdb"], &["sda", "sdb"]] {
        let (lun, one, two) = pair();
        drop(two);
        let mut one = come_back(&lun, one, ports);
        one.fence().expect("fences");
        assert_eq!((one.stands(), lun.keys_of("san1")), (Ok(true), paths(11)));
        let mut asked = 0;
        while !writes(&lun, "san1") {
            asked += 1;
            assert!(asked < 4, "{ports:?}: refused for ever, with the own key in place");
            assert_eq!(one.refused(), Ok(true), "nobody has fenced it");
            assert_eq!(lun.holder_key(), Some(key(11)), "the reservation never goes");
        }
        assert_eq!((lun.keys_of("san1"), one.registered().len()), (paths(11), 2));
    }
}

/// The same, and the reservation is the other one's: as after a handover.
#[test]
fn a_registered_path_of_one_that_holds_nothing_is_registered_anew() {
    for port in ["sda", "sdb"] {
        let (lun, one, mut two) = pair();
        two.fence().expect("fences");
        let mut one = {
            let mut one = one;
            let_in(&mut one, 7).expect("let in");
            come_back(&lun, one, &[port])
        };
        // The earlier life's key goes; san1's new one stays.
        let preempt = Command::PreemptAndAbort { key: key(2), victim: key(7) };
        let path = super::Lun::live(two.lun()).remove(0);
        while super::Lun::run(two.lun(), &path, preempt).expect("answers") != super::Status::Good(Vec::new()) {}
        assert_eq!(one.accept(), Ok(()));
        assert!(!writes(&lun, "san1"), "{port}: refused");
        assert_eq!((one.refused(), one.refused()), (Ok(true), Ok(true)));
        assert!(writes(&lun, "san1"), "{port}");
        assert_eq!((lun.holder_key(), lun.keys_of("san1")), (Some(key(2)), paths(11)));
    }
}

/// With one path and another's reservation the own key would be gone for a moment, and a fence that looks then would find
/// nobody: that path is left as it is.
#[test]
fn the_last_registered_path_is_never_unregistered() {
    let (lun, mut one, mut two) = pair();
    two.lun().down.insert("sdb".to_owned());
    assert_eq!(two.accept(), Ok(()));
    lun.strike("san2", "sdb");
    two.lun().commands.clear();
    assert_eq!((two.refused(), two.refused(), two.refused(), two.refused()), (Ok(true), Ok(true), Ok(true), Ok(true)));
    let unregistered = |(_, c): &(String, Command)| matches!(c, Command::Register { new: None, .. });
    assert!(!two.lun().commands.iter().any(unregistered));
    assert_eq!(one.stands(), Ok(true));
}

/// The other node fences at every command of registering anew: no key is left behind, and nobody misses it.
#[test]
fn a_fence_while_paths_are_registered_anew() {
    for holds in [true, false] {
        let mut fences = 0;
        for nth in 0..20 {
            let (lun, mut one, two) = pair();
            if !holds {
                // The reservation is san2's, and san1 serves under it.
                drop(std::mem::replace(&mut one, node(&lun, "san1")));
                let mut two = two;
                two.fence().expect("fences");
                let_in(&mut one, 5).expect("let in");
            }
            assert_eq!(one.refused(), Ok(true));
            let before = lun.generation();
            one.lun().before(nth, |lun| drop(admitted(lun, "san2", 9).fence().expect("fences")));
            let outcome = one.refused().expect("paths answer");
            assert_ne!(lun.generation(), before);
            if lun.holder_key() == Some(key(9)) {
                fences += 1;
                assert!(
                    lun.keys_of("san1").is_empty(),
                    "{holds}: fence before command {nth}: {:?}",
                    lun.keys_of("san1")
                );
                assert_eq!(one.stands(), Ok(false), "{holds}: fence before command {nth}, {outcome}");
            } else {
                assert!(outcome, "{holds}: {nth}");
                assert_eq!(lun.keys_of("san1").len(), 2);
            }
        }
        assert!(fences >= 7, "{holds}: {fences}");
    }
}

#[test]
fn with_no_path_left_nobody_knows_and_the_node_counts_as_fenced() {
    let (_, mut one) = with_a_path_that_returns();
    one.lun().down.insert("sda".to_owned());
    one.lun().swallow(2);
    assert_eq!(one.mend(false), Ok(false));
    assert_eq!(one.key(), None);
}

#[test]
fn a_registration_without_an_answer_is_not_relied_upon() {
    let lun = FakeLun::new();
    let mut one = node(&lun, "san1");
    // REPORT CAPABILITIES, REGISTER on sda, REGISTER on sdb: done, and the answer lost.
    one.lun().swallow(2);
    let_in(&mut one, 1).expect("by the other path");
    assert_eq!(one.key(), Some(key(2)), "a new key: the first may appear later where it says nothing");
    assert_eq!(lun.keys_of("san1"), vec![("sda".to_owned(), 2), ("sdb".to_owned(), 1)]);
    assert_eq!(one.fence().expect("alone"), Fenced { victims: vec![key(1)] });
}

#[test]
fn a_handover_moves_nothing() {
    let (lun, one, mut two) = pair();
    let before = lun.generation();
    assert_eq!(two.accept(), Ok(()));
    assert_eq!((lun.generation(), lun.holder_key()), (before, Some(key(1))));
    assert_eq!(lun.keys_of("san1"), paths(1), "the old primary stays registered");
    // Only who is registered, and only under a reservation.
    assert_eq!(node(&lun, "san2").accept(), Err(ReservationError::NotIn));
    lun.state().holder = None;
    assert_eq!(two.accept(), Err(ReservationError::Unreserved));
    lun.state().holder = Some((("san1", "sda".to_owned()), ReservationType(1)));
    assert_eq!(two.accept(), Err(ReservationError::Foreign(ReservationType(1))));
    lun.state().keys.retain(|(host, _), _| *host != "san2");
    assert_eq!(two.accept(), Err(ReservationError::Gone(key(2))));
    drop(one);
}

#[test]
fn another_programs_reservation_is_left_alone() {
    let lun = FakeLun::new();
    let mut one = admitted(&lun, "san1", 1);
    lun.state().holder = Some((("backup", "sda".to_owned()), ReservationType(7)));
    let error = one.fence().expect_err("not ours");
    assert_eq!(error, ReservationError::Foreign(ReservationType(7)));
    assert!(error.to_string().contains("type 7 (Write Exclusive, All Registrants)"), "{error}");
}

#[test]
fn what_the_lun_must_be_able_to_do() {
    let mut one = node(&FakeLun::forgetful(), "san1");
    let error = let_in(&mut one, 1).expect_err("no PTPL");
    assert!(matches!(error, ReservationError::NotCapable(_)) && !error.is_lost(), "{error}");
    let mut one = node(&FakeLun::new(), "san1");
    one.lun().down.extend(["sda", "sdb"].map(str::to_owned));
    assert_eq!(let_in(&mut one, 1), Err(ReservationError::NoPath(None)));
}

#[test]
fn the_generation_wraps() {
    let (lun, mut one) = with_a_path_that_returns();
    lun.state().generation = u32::MAX;
    assert_eq!(one.mend(false), Ok(true));
    assert_eq!((lun.generation(), lun.keys_of("san1")), (0, paths(1)));
}
