//! On ordinary heap memory, so that Miri can watch: `cargo +nightly miri test -p twinsan-arena racy`.

use std::sync::atomic::AtomicPtr;
use std::thread;

use super::*;

/// Room for every span, and some more behind it.
const ROOM: usize = 512;

/// Every alignment of both ends, and lengths around the word and around the string move.
fn spans() -> impl Iterator<Item = (usize, usize)> {
    (0..9).flat_map(|offset| [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 40, 255, 256, 257, 300].map(|len| (offset, len)))
}

#[test]
fn copies_touch_their_span_and_no_byte_beside_it() {
    for (offset, len) in spans() {
        let mut memory = [0xee_u8; ROOM];
        let bytes: Vec<u8> = (1..=u8::MAX).cycle().take(len).collect();
        let mut expected = memory;
        expected[offset..offset + len].copy_from_slice(&bytes);

        let base = memory.as_mut_ptr();
        let mut back = vec![0; len];
        // SAFETY: `offset + len` is less than ROOM, which nobody else knows of.
        unsafe { copy_in(base.wrapping_add(offset), &bytes) }
        // SAFETY: as above.
        unsafe { copy_out(base.wrapping_add(offset), &mut back) }
        assert_eq!(back, bytes, "{len} at {offset}");
        // SAFETY: as above.
        unsafe { with_copy(base.wrapping_add(offset), len, |copy| assert_eq!(copy, bytes, "{len} at {offset}")) }
        assert_eq!(memory, expected, "{len} at {offset}");
    }
}

#[test]
fn zeros_are_written_and_found_in_their_span_alone() {
    for (offset, len) in spans() {
        let mut memory = [0xee_u8; ROOM];
        let base = memory.as_mut_ptr();
        // SAFETY: `offset + len` is less than ROOM, which nobody else knows of.
        unsafe { fill_zero(base.wrapping_add(offset), len) }
        // SAFETY: as above.
        assert!(unsafe { is_zero(base.wrapping_add(offset), len) });
        for dirty in (offset..offset + len).step_by(if len > 40 { 13 } else { 1 }) {
            memory[dirty] = 1;
            // SAFETY: as above.
            assert!(!unsafe { is_zero(memory.as_mut_ptr().wrapping_add(offset), len) }, "{len} at {offset}: {dirty}");
            memory[dirty] = 0;
        }
        let mut expected = [0xee; ROOM];
        expected[offset..offset + len].fill(0);
        assert_eq!(memory, expected, "{len} at {offset}");
    }
}

#[test]
fn a_race_gives_old_and_new_bytes_and_nothing_else() {
    /// By words, and by a string move.
    const LENGTHS: [usize; 2] = [61, 461];
    let rounds = if cfg!(miri) { 20 } else { 20_000 };
    for len in LENGTHS {
        let mut memory = [0_u64; ROOM / WORD];
        let base = AtomicPtr::new(memory.as_mut_ptr().cast::<u8>());
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..rounds {
                    let fill = if round % 2 == 0 { 0xff } else { 0 };
                    // SAFETY: 3 + `len` is less than ROOM, and both threads use this file's functions only.
                    unsafe { copy_in(base.load(Relaxed).wrapping_add(3), &vec![fill; len]) }
                }
            });
            let mut seen = vec![0; len];
            for _ in 0..rounds {
                // SAFETY: as above.
                unsafe { copy_out(base.load(Relaxed).wrapping_add(3), &mut seen) }
                assert!(seen.iter().all(|&byte| byte == 0 || byte == 0xff), "{seen:?}");
            }
        });
    }
}
