//! One target under libFuzzer: `TWINSAN_FUZZ_TARGET=messages fuzz CORPUS… -max_total_time=60`; `.ci/fuzz` builds and runs it.
#![no_main]

use std::sync::LazyLock;

static RUN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("TWINSAN_FUZZ_TARGET").unwrap_or_default();
    let known = twinsan_fuzz::TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    match twinsan_fuzz::target(&name) {
        Some(target) => target.run,
        None => panic!("TWINSAN_FUZZ_TARGET is \"{name}\"; right is one of {known}"),
    }
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (*RUN)(data));
