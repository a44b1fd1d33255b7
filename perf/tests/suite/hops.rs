//! `twinsan-perf hops`: the durable write and its hops from a real pair, and a completion that means nothing is caught.

use std::cell::Cell;
use std::path::Path;

use crate::support::{Lie, Lying};
use anyhow::Result;
use twinsan_fabric::{Fabric, WaitPolicy};
use twinsan_perf::cluster::VOLUME;
use twinsan_perf::fabric::open;
use twinsan_perf::hops::report::Hops;
use twinsan_perf::hops::{Settings, hops};
use twinsan_perf::local::{Kind, Local, Setup};

const SIZES: [u32; 2] = [4096, 1 << 20];
const ROUNDS: usize = 4;

fn measured<F: Fabric>(kind: Kind, integrity: bool, maker: impl Fn(WaitPolicy) -> Result<F>) -> Result<Hops> {
    let setup = Setup { kind, integrity, spin_us: 20, patient: false };
    let local = Local::start(&setup, Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    let wire = local.wire.clone();
    let settings =
        Settings { volume: VOLUME.into(), wire, sizes: SIZES.into(), rounds: ROUNDS, writes: 10, quiet: true };
    hops(&maker, &local.config()?, &settings)
}

#[test]
fn a_durable_write_and_its_three_hops() {
    for (kind, integrity) in [(Kind::File("shm"), true), (Kind::File("unix"), true), (Kind::tcp(), false)] {
        let hops = measured(kind, integrity, open).unwrap();
        assert_eq!((hops.integrity, hops.spin_us), (integrity, 20));
        assert_ne!(hops.primary, hops.secondary);
        assert_eq!(hops.sizes.iter().map(|size| size.bytes).collect::<Vec<_>>(), SIZES);
        for size in &hops.sizes {
            let ways: Vec<String> = size.hops.iter().map(|hop| format!("{} {}", hop.row, hop.way)).collect();
            let Hops { primary, secondary, .. } = &hops;
            let expected = [
                format!("write+imm client → {secondary}"),
                format!("ack {secondary} → {primary}"),
                format!("ack {primary} → client"),
            ];
            assert_eq!(ways, expected);
            assert!(
                size.durable.count >= ROUNDS as u64 && size.hops.iter().all(|hop| hop.one_way_us > 0.0),
                "{size:?}"
            );
            let sum: f64 = size.hops.iter().map(|hop| hop.one_way_us).sum();
            assert!((size.sum_us - sum).abs() < 1e-6 && (size.ratio - size.durable.p50_us / sum).abs() < 1e-6);
        }
    }
}

#[test]
fn a_completed_write_that_is_not_there_is_no_fast_write() {
    // The two that measure the hops are honest; the third is the session's, and without CRCs no node notices.
    let made = Cell::new(0);
    let maker = |wait| {
        made.set(made.get() + 1);
        Lying::open(wait, if made.get() == 3 { Lie::OldPayload } else { Lie::None })
    };
    let error = format!("{:#}", measured(Kind::File("unix"), false, maker).unwrap_err());
    assert!(error.contains("completed writes do not read back"), "{error}");
}

#[test]
fn a_listener_that_waits_otherwise_is_no_measure() {
    let setup = Setup { kind: Kind::File("unix"), integrity: true, spin_us: 20, patient: false };
    let local = Local::start(&setup, Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let mut config = local.config().unwrap();
    config.timing.spin_us = 70;
    let wire = local.wire.clone();
    let settings = Settings { volume: VOLUME.into(), wire, sizes: SIZES.into(), rounds: 1, writes: 1, quiet: true };
    let error = format!("{:#}", hops(&open, &config, &settings).unwrap_err());
    assert!(error.contains("--spin-us 70"), "{error}");
}
