//! What the fuzzer found worth keeping, and what once broke a promise: each file again, without the fuzzer.

use std::fs;
use std::path::{Path, PathBuf};

use twinsan_fuzz::{NEEDLE, TARGETS, target};

/// All of it goes into every clone.
const MOST_BYTES: usize = 1 << 20;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.expect("readable").path())
        .map(|path| (path.clone(), fs::read(path).expect("readable")))
        .collect();
    files.sort();
    files
}

fn replay(name: &str) {
    let files = corpus(name);
    assert!(files.len() >= 5, "{name}: a corpus of {} files shows nothing", files.len());
    let run = target(name).expect("one of TARGETS").run;
    for (path, bytes) in files {
        // A panic says what was broken; this, by which file.
        let told = Told(&path);
        run(&bytes);
        std::mem::forget(told);
    }
    // And the two that every fuzzer begins with.
    run(&[]);
    run(&[0; 4096]);
}

/// Names the file if it is dropped, which only a panic does.
struct Told<'a>(&'a Path);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        eprintln!("broken by {}", self.0.display());
    }
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), replayed);
            let bytes: usize = replayed.iter().flat_map(|name| corpus(name)).map(|(_, bytes)| bytes.len()).sum();
            assert!(bytes <= MOST_BYTES, "{bytes} bytes of corpora: minimise them (README.md)");
        }
    };
}

replays! { config disk framing host memory messages nbd replica session setup }

#[test]
#[should_panic(expected = "found the needle")]
fn there_is_a_needle() {
    (NEEDLE.run)(b"!NASniwtfz");
}
