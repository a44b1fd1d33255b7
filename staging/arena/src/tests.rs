use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;

use super::*;

fn arena(bytes: usize, pages: PagePolicy) -> Arena {
    Arena::new(&ArenaOptions { name: "test".to_owned(), bytes, pages, lock: false }).expect("memory for a test")
}

#[test]
fn it_begins_with_zeros_and_keeps_what_is_put_in() {
    for pages in [PagePolicy::Auto, PagePolicy::Transparent, PagePolicy::Small] {
        let arena = arena(3 << 20, pages);
        assert!(arena.is_zero(0, arena.len()), "{pages:?}");
        let last = arena.len() - 5;
        arena.copy_in(last, b"hello");
        let mut back = [0; 5];
        arena.copy_out(last, &mut back);
        assert_eq!(&back, b"hello", "{pages:?}");
        assert!(arena.is_zero(0, last) && !arena.is_zero(0, last + 1), "{pages:?}");
    }
}

#[test]
fn no_bytes_make_no_arena() {
    let options = ArenaOptions { name: "vol0".to_owned(), bytes: 0, pages: PagePolicy::Auto, lock: false };
    let error = Arena::new(&options).expect_err("nothing to map");
    assert_eq!(error.to_string(), "arena \"vol0\" of 0 bytes: give it at least 1");
}

#[test]
fn more_than_the_host_has_is_refused_before_it_hurts() {
    for (pages, bytes) in [(PagePolicy::Auto, 1 << 46), (PagePolicy::Small, 1 << 46), (PagePolicy::Auto, usize::MAX)] {
        let error =
            Arena::new(&ArenaOptions { name: "vol0".to_owned(), bytes, pages, lock: true }).expect_err("64 TiB");
        assert!(matches!(&error, ArenaError::NoMemory { bytes: asked, .. } if *asked == bytes), "{error}");
    }
}

#[test]
fn every_access_outside_is_a_panic_and_changes_nothing() {
    let arena = arena(10_000, PagePolicy::Small);
    let other = self::arena(20_000, PagePolicy::Small);
    other.copy_in(0, &[7; 20_000]);
    type Access<'a> = &'a dyn Fn(usize, usize);
    let accesses: [(&str, Access<'_>); 8] = [
        ("copy_in", &|offset, len| arena.copy_in(offset, &vec![1; len.min(10_001)])),
        ("copy_out", &|offset, len| arena.copy_out(offset, &mut vec![1; len.min(10_001)])),
        ("fill_zero", &|offset, len| arena.fill_zero(offset, len)),
        ("copy_from, to", &|offset, len| arena.copy_from(offset, &other, 0, len)),
        ("copy_from, from", &|offset, len| other.copy_from(0, &arena, offset, len)),
        ("is_zero", &|offset, len| assert!(arena.is_zero(offset, len))),
        ("crc32c", &|offset, len| assert_eq!(arena.crc32c(offset, len), 0)),
        ("addr", &|offset, len| assert!(!arena.addr(offset.saturating_add(len)).is_null())),
    ];
    for (name, access) in accesses {
        for (offset, len) in [(0, 10_001), (10_000, 1), (9_999, 2), (10_001, 0), (usize::MAX, 1), (5, usize::MAX)] {
            let what = format!("{name} of {len} bytes at {offset}");
            let panic = catch_unwind(AssertUnwindSafe(|| access(offset, len))).expect_err(&what);
            let text = panic.downcast_ref::<String>().expect("an assert with a message");
            assert!(text.contains("of arena \"test\", which has"), "{what}: {text}");
        }
        access(10_000, 0);
    }
    assert!(arena.is_zero(0, 10_000), "a refused access has written");
}

#[test]
fn a_copy_over_itself_is_refused_and_beside_itself_is_not() {
    let arena = arena(8192, PagePolicy::Small);
    arena.copy_in(0, &[9; 100]);
    arena.copy_from(100, &arena, 0, 100);
    arena.copy_from(0, &arena, 0, 0);
    let mut back = [0; 200];
    arena.copy_out(0, &mut back);
    assert_eq!(back, [9; 200]);
    for (to, from) in [(50, 0), (0, 50), (0, 0)] {
        let copy = || arena.copy_from(to, &arena, from, 100);
        assert!(catch_unwind(AssertUnwindSafe(copy)).is_err(), "from {from} to {to}");
    }
}

#[test]
fn addresses_are_the_bytes() {
    let arena = arena(4096, PagePolicy::Small);
    arena.copy_in(17, &[0xa5]);
    assert_eq!(arena.addr(17).addr() - arena.as_ptr().addr(), 17);
    assert_eq!(arena.as_ptr().addr() % 4096, 0, "O_DIRECT wants it aligned");
    // SAFETY: offset 17 is inside, and nobody writes to it now.
    assert_eq!(unsafe { arena.addr(17).read_volatile() }, 0xa5);
}

#[test]
fn the_checksum_is_crc32c_whatever_the_pieces() {
    let arena = arena(3 * CHUNK_BYTES, PagePolicy::Small);
    arena.copy_in(5, b"123456789");
    // The check value of CRC-32C (iSCSI, RFC 3720 appendix B.4 gives the polynomial's other vectors).
    assert_eq!(arena.crc32c(5, 9), 0xe306_9283);
    assert_eq!(arena.crc32c(5, 0), 0);
    let bytes: Vec<u8> = (0..3 * CHUNK_BYTES).map(|i| (i * 31 % 251).to_le_bytes()[0]).collect();
    arena.copy_in(0, &bytes);
    for (offset, len) in [(0, bytes.len()), (1, CHUNK_BYTES), (7, CHUNK_BYTES + 1), (3, 2 * CHUNK_BYTES - 1)] {
        assert_eq!(arena.crc32c(offset, len), crc32c::crc32c(&bytes[offset..offset + len]), "{len} at {offset}");
    }
}

/// One access, as offsets and lengths that are cut to the arena's size.
#[derive(Clone, Debug)]
enum Op {
    In(usize, Vec<u8>),
    Zero(usize, usize),
    Own(usize, usize, usize),
    Other(usize, usize, usize),
}

const MODEL_BYTES: usize = 3 * CHUNK_BYTES + 11;

fn op() -> impl Strategy<Value = Op> {
    let at = || 0..MODEL_BYTES;
    let len = || prop_oneof![0..64_usize, 0..MODEL_BYTES];
    prop_oneof![
        3 => (at(), prop::collection::vec(any::<u8>(), 0..600)).prop_map(|(to, bytes)| Op::In(to, bytes)),
        1 => (at(), len()).prop_map(|(to, len)| Op::Zero(to, len)),
        1 => (at(), at(), len()).prop_map(|(to, from, len)| Op::Own(to, from, len)),
        1 => (at(), at(), len()).prop_map(|(to, from, len)| Op::Other(to, from, len)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_agrees_with_ordinary_memory(ops in prop::collection::vec(op(), 1..20), from in 0..MODEL_BYTES, len in 0..MODEL_BYTES) {
        let arena = arena(MODEL_BYTES, PagePolicy::Small);
        let other = self::arena(MODEL_BYTES, PagePolicy::Small);
        let pattern: Vec<u8> = (0..MODEL_BYTES).map(|i| (i % 253 + 1).to_le_bytes()[0]).collect();
        other.copy_in(0, &pattern);
        let mut model = vec![0; MODEL_BYTES];
        for op in ops {
            match op {
                Op::In(to, bytes) => {
                    let bytes = &bytes[..bytes.len().min(MODEL_BYTES - to)];
                    arena.copy_in(to, bytes);
                    model[to..to + bytes.len()].copy_from_slice(bytes);
                }
                Op::Zero(to, len) => {
                    let len = len.min(MODEL_BYTES - to);
                    arena.fill_zero(to, len);
                    model[to..to + len].fill(0);
                }
                Op::Own(to, from, len) => {
                    let len = len.min(to.abs_diff(from)).min(MODEL_BYTES - to.max(from));
                    arena.copy_from(to, &arena, from, len);
                    model.copy_within(from..from + len, to);
                }
                Op::Other(to, from, len) => {
                    let len = len.min(MODEL_BYTES - to.max(from));
                    arena.copy_from(to, &other, from, len);
                    model[to..to + len].copy_from_slice(&pattern[from..from + len]);
                }
            }
        }
        let mut back = vec![0xff; MODEL_BYTES];
        arena.copy_out(0, &mut back);
        prop_assert_eq!(&back, &model);
        let len = len.min(MODEL_BYTES - from);
        let part = &mut back[..len];
        arena.copy_out(from, part);
        prop_assert_eq!(&*part, &model[from..from + len]);
        prop_assert_eq!(arena.is_zero(from, len), part.iter().all(|&byte| byte == 0));
        prop_assert_eq!(arena.crc32c(from, len), crc32c::crc32c(part));
    }
}
