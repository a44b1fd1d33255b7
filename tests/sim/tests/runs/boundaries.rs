//! A node killed and started again after each of its actions: a short run here, more with `cargo sim -- --boundaries`.

use twinsan_sim::{FenceKind, TALES, at_each_boundary};

#[test]
fn a_handover_at_each_boundary() {
    let tale = TALES.iter().find(|tale| tale.name.starts_with("handover")).expect("there is one");
    let mut gone_through = 0;
    for case in at_each_boundary(&tale.case(FenceKind::Pr)) {
        let world = case.run(false);
        assert_eq!(world.violation(), None, "{:?}", case.config.boundary);
        gone_through += u64::from(!world.boundary_left_out());
    }
    assert!(gone_through > 500, "{gone_through} boundaries");
}

/// What a tale is called, it shows.
#[test]
fn every_tale_can_be_told() {
    for fence in [FenceKind::Pr, FenceKind::Lock] {
        for tale in TALES {
            assert_eq!(tale.case(fence).run(false).violation(), None, "{}", tale.name);
        }
    }
}
