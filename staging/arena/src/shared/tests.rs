use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::*;
use crate::{Arena, ArenaOptions, PagePolicy};

const BYTES: usize = 3 << 20;

fn options(bytes: usize, pages: PagePolicy) -> ArenaOptions {
    ArenaOptions { name: "test".to_owned(), bytes, pages, lock: false }
}

fn lendable(bytes: usize) -> Arena {
    Arena::lendable(&options(bytes, PagePolicy::Small)).expect("memory for a test")
}

fn file(arena: &Arena) -> OwnedFd {
    arena.file().expect("it is shared").try_clone_to_owned().expect("a descriptor")
}

/// As a stranger would make it.
fn strange(bytes: usize, seals: SealFlags, filled: bool) -> OwnedFd {
    let file = memfd_create("strange", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a memfd");
    ftruncate(&file, bytes as u64).expect("its size");
    if filled {
        fallocate(&file, FallocateFlags::empty(), 0, bytes as u64).expect("its pages");
    }
    fcntl_add_seals(&file, seals).expect("seals");
    file
}

#[test]
fn a_private_arena_is_known_to_nobody() {
    let arena = Arena::new(&options(BYTES, PagePolicy::Auto)).expect("memory for a test");
    assert!(arena.file().is_none());
}

#[test]
fn what_the_owner_writes_is_read_by_whom_it_is_lent_to() {
    for pages in [PagePolicy::Auto, PagePolicy::Transparent, PagePolicy::Small] {
        let owner = Arena::lendable(&options(BYTES, pages)).expect("memory for a test");
        assert!(owner.is_zero(0, BYTES));
        let mut lent = Lent::open(owner.file().expect("lendable"), BYTES).expect("it is as it should be");
        let own = Arena::new(&options(BYTES, PagePolicy::Small)).expect("memory for a test");
        // Over a part's end, from and to places that are not aligned; short and long.
        for (from, to, len) in [(0, 0, 1), (PART - 3, 5, 7), (PART - 100, 1, 300), (1, 2, PART + 4000), (BYTES, 0, 0)] {
            let bytes: Vec<u8> = (0..=250).cycle().skip(len % 100).take(len).collect();
            owner.copy_in(from, &bytes);
            own.copy_from_lent(to, &mut lent, from, len).expect("pages that are there");
            let mut back = vec![0; len];
            own.copy_out(to, &mut back);
            assert!(back == bytes, "{len} bytes from {from} to {to}, {pages:?}");
        }
    }
}

#[test]
fn lent_memory_outlives_its_owner() {
    let owner = lendable(BYTES);
    owner.copy_in(12_345, b"last words");
    let mut lent = Lent::open(owner.file().expect("lendable"), BYTES).expect("it is as it should be");
    drop(owner);
    let own = lendable(100);
    own.copy_from_lent(0, &mut lent, 12_345, 10).expect("pages that are there");
    let mut back = [0; 10];
    own.copy_out(0, &mut back);
    assert_eq!(&back, b"last words");
}

#[test]
#[should_panic(expected = "2 bytes at 3145727 of 3145728 lent ones")]
fn nothing_is_read_outside() {
    let owner = lendable(BYTES);
    let mut lent = Lent::open(owner.file().expect("lendable"), BYTES).expect("it is as it should be");
    drop(lendable(100).copy_from_lent(0, &mut lent, BYTES - 1, 2));
}

/// Who is lent memory can't write it, in whatever way, nor take pages out of it, nor change its size.
#[test]
fn whoever_is_lent_memory_can_only_read() {
    let owner = lendable(BYTES);
    let file = file(&owner);
    assert!(MmapOptions::new().len(BYTES).map_raw(&file).is_err(), "a mapping to write by");
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert_eq!(fallocate(&file, punch, 0, 4096), Err(Errno::PERM));
    assert_eq!(ftruncate(&file, 4096), Err(Errno::PERM));
    assert_eq!(ftruncate(&file, 2 * BYTES as u64), Err(Errno::PERM));
    assert!(std::fs::File::from(file).write_all(b"x").is_err());
    assert!(owner.is_zero(0, BYTES));
}

#[test]
fn both_ends_of_common_memory_write_it() {
    let one = Arena::common(&options(8192, PagePolicy::Small)).expect("memory for a test");
    let two = Arena::join("two", file(&one), 8192).expect("it is as it should be");
    one.word(4096).store(7, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(two.word(4096).load(std::sync::atomic::Ordering::Relaxed), 7);
    two.copy_in(1, b"here");
    assert!(!one.is_zero(0, 8));
}

#[test]
#[should_panic(expected = "the word at 4 is not aligned")]
fn words_are_aligned() {
    let _ = lendable(100).word(4);
}

/// Whatever might make its reader fall, or fill up at its reader's cost, is not taken.
#[test]
fn memory_of_strangers_is_looked_at_before_it_is_mapped() {
    let (size, whole) = (SealFlags::SHRINK | SealFlags::GROW, BYTES as u64);
    let all = size | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
    assert!(Lent::open(strange(BYTES, all, true).as_fd(), BYTES).is_ok());
    let refused = |file: OwnedFd, bytes: usize, word: &str| {
        let told = Lent::open(file.as_fd(), bytes).expect_err(word).to_string();
        assert!(told.contains(word), "{told}");
    };
    refused(strange(BYTES, SealFlags::empty(), true), BYTES, "not sealed");
    refused(strange(BYTES, size, true), BYTES, "not sealed");
    refused(strange(BYTES, all.difference(SealFlags::SHRINK), true), BYTES, "not sealed");
    refused(strange(BYTES, all.difference(SealFlags::FUTURE_WRITE), true), BYTES, "not sealed");
    refused(strange(BYTES, all, false), BYTES, "of its 3145728 bytes 0 are there");
    refused(strange(BYTES, all, true), BYTES + 1, "3145728 bytes of memory were given, 3145729 were said");
    refused(strange(BYTES, all, true), 0, "0 were said");
    refused(tempfile::tempfile().expect("a file").into(), 1, "no memfd");
    refused(std::io::pipe().expect("a pipe").0.into(), 1, "no memfd");
    // Common memory has to stay mapped as well.
    assert!(Arena::join("x", strange(BYTES, size | SealFlags::SEAL, true), BYTES).is_ok());
    for (file, bytes) in [
        (strange(BYTES, SealFlags::GROW | SealFlags::SEAL, true), BYTES),
        (strange(BYTES, size | SealFlags::SEAL, true), BYTES + 1),
    ] {
        assert!(Arena::join("x", file, bytes).is_err());
    }
    assert_eq!(whole, 3 << 20);
}
