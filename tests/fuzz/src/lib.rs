//! Fuzz targets: everything that comes from outside of a process, fed with anything.
//!
//! A target is a function that takes any bytes and panics if a promise is broken. `.ci/fuzz` runs them under libFuzzer;
//! `cargo test -p twinsan-fuzz` gives each the files of its corpus, so that what was found once is a test for ever
//! (`README.md`).
#![forbid(unsafe_code)]

pub mod input;
pub mod seal;
mod targets;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its corpus's folder too.
    pub name: &'static str,
    /// Panics if a promise is broken.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "config", run: targets::config::run },
    Target { name: "disk", run: targets::disk::run },
    Target { name: "framing", run: targets::framing::run },
    Target { name: "host", run: targets::host::run },
    Target { name: "memory", run: targets::memory::run },
    Target { name: "messages", run: targets::messages::run },
    Target { name: "nbd", run: targets::nbd::run },
    Target { name: "replica", run: targets::replica::run },
    Target { name: "session", run: targets::session::run },
    Target { name: "setup", run: targets::setup::run },
];

/// Not a promise but a needle: only a fuzzer that is led by coverage and comparisons finds it (`.ci/fuzz` makes sure).
pub const NEEDLE: Target = Target { name: "needle", run: needle };

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().chain([NEEDLE]).find(|target| target.name == name)
}

fn needle(data: &[u8]) {
    // Eight bytes at once can only be guessed by who sees what they are compared with; the rest, a step at a time.
    let Some((word, rest)) = data.split_first_chunk() else { return };
    if u64::from_le_bytes(*word) == 0x7477_696e_5341_4e21 && rest.first() == Some(&b'f') && rest.get(1) == Some(&b'z') {
        panic!("found the needle");
    }
}
