//! What this crate's tests share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use twinsan_arena::{Arena, ArenaOptions, PagePolicy};
use twinsan_wire::Incarnation;
use twinsan_wire::message::VolumeName;

use crate::format::{FormatOptions, FormatReport};
use crate::superblock::{NodeName, Uuid, VolumeIdentity};

/// A directory on a real disk: beside the test program, as /tmp may be a tmpfs without direct I/O.
pub(crate) fn scratch() -> TempDir {
    let program = std::env::current_exe().expect("own path");
    tempfile::tempdir_in(program.parent().expect("a directory")).expect("scratch directory")
}

pub(crate) fn name(text: &str) -> VolumeName {
    VolumeName::new(text).expect("legal")
}

pub(crate) fn node_names() -> [NodeName; 2] {
    ["san1", "san2"].map(|name| NodeName::new(name).expect("legal"))
}

pub(crate) fn incarnation(bits: u64) -> Incarnation {
    Incarnation::from_random(bits)
}

pub(crate) fn identity() -> VolumeIdentity {
    VolumeIdentity {
        uuid: Uuid::from_random(*b"0123456789abcdef"),
        name: name("vol0"),
        blocks: 2048,
        block_bytes: 4096,
        data_offset: 1 << 20,
        nodes: node_names(),
    }
}

pub(crate) fn format_options(path: PathBuf, bytes: Option<u64>) -> FormatOptions {
    FormatOptions {
        path,
        name: name("vol0"),
        bytes,
        block_bytes: Some(4096),
        nodes: node_names(),
        force: false,
        zero: false,
    }
}

/// A fresh volume in a file.
pub(crate) fn volume(dir: &TempDir, bytes: u64) -> (PathBuf, FormatReport) {
    let path = dir.path().join("disk");
    let report = crate::format::format(&format_options(path.clone(), Some(bytes))).expect("format");
    (path, report)
}

pub(crate) fn arena(bytes: usize) -> Arc<Arena> {
    let options = ArenaOptions { name: "test".into(), bytes, pages: PagePolicy::Small, lock: false };
    Arc::new(Arena::new(&options).expect("memory"))
}

/// For waiting on what must come: long enough for any machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
