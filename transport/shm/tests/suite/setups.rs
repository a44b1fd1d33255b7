//! Pairs of fabrics.

use std::sync::atomic::{AtomicU64, Ordering};

use twinsan_fabric::Fabric;
use twinsan_fabric::conformance::Setup;
use twinsan_fabric::faulty::{Faults, FaultyFabric};
use twinsan_shm::{ShmFabric, ShmOptions};

/// A fabric with default options.
pub(crate) fn fabric() -> ShmFabric {
    ShmFabric::new(ShmOptions::default()).expect("an epoll")
}

/// Two of them.
pub(crate) fn shm() -> Setup {
    setup(fabric(), fabric())
}

/// With the fault injector on both ends; a seed of its own each time.
pub(crate) fn faulty() -> Setup {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let seed = NEXT.fetch_add(2, Ordering::Relaxed);
    let wrap = |seed| FaultyFabric::new(fabric(), Faults::with_seed(seed));
    setup(wrap(seed), wrap(seed + 1))
}

fn setup(left: impl Fabric + 'static, right: impl Fabric + 'static) -> Setup {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| format!("shm://{}", folder.path().join(name).display());
    let (address, nobody) = (path("fabric.shm"), path("nobody.shm"));
    Setup { left: Box::new(left), right: Box::new(right), address, nobody, keep: Box::new(folder) }
}
