//! Plain operations on memory that somebody else may write at the same time.
//!
//! `memcpy` over such memory is a data race, which the language leaves undefined. Here every access is a relaxed atomic
//! one, of a word where the address allows, or a string move of the machine's, which the compiler does not look into. A
//! race then gives some mixture of old and new bytes, which is what the callers expect of memory that a peer writes.

use std::mem::MaybeUninit;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU64};

const WORD: usize = size_of::<u64>();

/// What [`with_copy`] takes at once: a few pages of the first-level cache.
pub(crate) const CHUNK_BYTES: usize = 16 << 10;

/// From here on a string move beats the loop over words (hot cache: 47 against 12 GB/s at 64 KiB, even at 64 bytes).
#[cfg(all(target_arch = "x86_64", not(miri)))]
const STRING_MOVE_BYTES: usize = 256;

/// `len` bytes by one instruction, in hardware's own pieces.
///
/// # Safety
/// As for a copy from `from` to `to`, but that either may be written by others meanwhile.
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn string_move(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: it reads and writes the caller's bytes and changes nothing else: the direction flag is clear on entry, as
    // the ABI has it, and the three registers are given up. To the language an asm block stands for whatever code could
    // do the same, here a loop of relaxed atomic byte moves; so others' accesses are no undefined race.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Splits `len` bytes at `ptr` into the bytes before the first aligned word, whole words, and the bytes after them.
fn split(ptr: *const u8, len: usize) -> (usize, usize, usize) {
    let head = ptr.align_offset(WORD).min(len);
    let words = (len - head) / WORD;
    (head, words, len - head - words * WORD)
}

/// One byte as an atomic.
///
/// # Safety
/// The byte is mapped for `'a`, readable, and writable if it is written to, and is accessed only by the functions of this
/// file, by other processes or by hardware. (A relaxed load of at most a word may read what can't be written: "Atomic
/// accesses to read-only memory" in `std::sync::atomic`.)
unsafe fn byte<'a>(ptr: *mut u8) -> &'a AtomicU8 {
    // SAFETY: by the caller's promise; a byte needs no alignment.
    unsafe { AtomicU8::from_ptr(ptr) }
}

/// One word as an atomic.
///
/// # Safety
/// As [`byte`], for eight bytes; and `ptr` is aligned to eight.
pub(crate) unsafe fn word<'a>(ptr: *mut u8) -> &'a AtomicU64 {
    // SAFETY: by the caller's promise.
    unsafe { AtomicU64::from_ptr(ptr.cast()) }
}

/// Copies `len` bytes at `src` aside and hands the copy, which nobody writes, to `to`.
///
/// # Safety
/// The bytes are as [`byte`] wants them, for the call's duration.
pub(crate) unsafe fn with_copy<R>(src: *mut u8, len: usize, to: impl FnOnce(&[u8]) -> R) -> R {
    // Not zeroed: that would cost as much as the copy.
    let mut chunk = [const { MaybeUninit::uninit() }; CHUNK_BYTES];
    let chunk = &mut chunk[..len];
    // SAFETY: the caller vouches for `len` bytes.
    unsafe { copy_out_uninit(src, chunk) }
    // SAFETY: `copy_out_uninit` has written every byte.
    to(unsafe { chunk.assume_init_ref() })
}

/// Copies `len` bytes from `from` to `to`.
///
/// # Safety
/// The bytes at `to` are as [`byte`] wants them, for the call's duration; those at `from` too, but that they need not be
/// writable. The two don't overlap.
pub(crate) unsafe fn copy(from: *mut u8, to: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if len >= STRING_MOVE_BYTES {
        // SAFETY: the caller vouches for both.
        return unsafe { string_move(from, to, len) };
    }
    for at in (0..len).step_by(CHUNK_BYTES) {
        let piece = CHUNK_BYTES.min(len - at);
        // SAFETY: within the bytes that the caller vouches for.
        let put = |chunk: &[u8]| unsafe { copy_in(to.wrapping_add(at), chunk) };
        // SAFETY: within the bytes that the caller vouches for.
        unsafe { with_copy(from.wrapping_add(at), piece, put) }
    }
}

/// Copies `dst.len()` bytes from `src`.
///
/// # Safety
/// The bytes at `src` are as [`byte`] wants them, for the call's duration.
pub(crate) unsafe fn copy_out(src: *mut u8, dst: &mut [u8]) {
    let dst: *mut [u8] = dst;
    // SAFETY: the same bytes under a type that allows more; `copy_out_uninit` only writes initialized ones.
    let dst = unsafe { &mut *(dst as *mut [MaybeUninit<u8>]) };
    // SAFETY: the caller vouches for as many bytes.
    unsafe { copy_out_uninit(src, dst) }
}

/// Writes every byte of `dst` with those at `src`.
///
/// # Safety
/// `dst.len()` bytes at `src` are as [`byte`] wants them, for the call's duration.
unsafe fn copy_out_uninit(src: *mut u8, dst: &mut [MaybeUninit<u8>]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if dst.len() >= STRING_MOVE_BYTES {
        // SAFETY: the caller vouches for the source; the destination is borrowed.
        return unsafe { string_move(src, dst.as_mut_ptr().cast(), dst.len()) };
    }
    let (head, words, _) = split(src, dst.len());
    let (dst_head, rest) = dst.split_at_mut(head);
    let (dst_words, dst_tail) = rest.split_at_mut(words * WORD);
    for (i, to) in dst_head.iter_mut().enumerate() {
        // SAFETY: within the bytes that the caller vouches for.
        to.write(unsafe { byte(src.wrapping_add(i)) }.load(Relaxed));
    }
    let src = src.wrapping_add(head);
    for (i, to) in dst_words.as_chunks_mut::<WORD>().0.iter_mut().enumerate() {
        // SAFETY: within the bytes that the caller vouches for; `split` has found the first aligned address.
        let word = unsafe { word(src.wrapping_add(i * WORD)) }.load(Relaxed);
        *to = word.to_ne_bytes().map(MaybeUninit::new);
    }
    let src = src.wrapping_add(words * WORD);
    for (i, to) in dst_tail.iter_mut().enumerate() {
        // SAFETY: within the bytes that the caller vouches for.
        to.write(unsafe { byte(src.wrapping_add(i)) }.load(Relaxed));
    }
}

/// Copies `src` to `dst`.
///
/// # Safety
/// `src.len()` bytes at `dst` are as [`byte`] wants them, for the call's duration.
pub(crate) unsafe fn copy_in(dst: *mut u8, src: &[u8]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if src.len() >= STRING_MOVE_BYTES {
        // SAFETY: the caller vouches for the destination; the source is borrowed.
        return unsafe { string_move(src.as_ptr(), dst, src.len()) };
    }
    let (head, words, _) = split(dst, src.len());
    let (src_head, rest) = src.split_at(head);
    let (src_words, src_tail) = rest.split_at(words * WORD);
    for (i, &from) in src_head.iter().enumerate() {
        // SAFETY: within the bytes that the caller vouches for.
        unsafe { byte(dst.wrapping_add(i)) }.store(from, Relaxed);
    }
    let dst = dst.wrapping_add(head);
    for (i, &from) in src_words.as_chunks::<WORD>().0.iter().enumerate() {
        // SAFETY: within the bytes that the caller vouches for; `split` has found the first aligned address.
        unsafe { word(dst.wrapping_add(i * WORD)) }.store(u64::from_ne_bytes(from), Relaxed);
    }
    let dst = dst.wrapping_add(words * WORD);
    for (i, &from) in src_tail.iter().enumerate() {
        // SAFETY: within the bytes that the caller vouches for.
        unsafe { byte(dst.wrapping_add(i)) }.store(from, Relaxed);
    }
}

/// Zeroes `len` bytes at `dst`.
///
/// # Safety
/// The bytes are as [`byte`] wants them, for the call's duration.
pub(crate) unsafe fn fill_zero(dst: *mut u8, len: usize) {
    let (head, words, tail) = split(dst, len);
    let end = dst.wrapping_add(head + words * WORD);
    for i in 0..head {
        // SAFETY: within the bytes that the caller vouches for.
        unsafe { byte(dst.wrapping_add(i)) }.store(0, Relaxed);
    }
    for i in 0..words {
        // SAFETY: within the bytes that the caller vouches for; `split` has found the first aligned address.
        unsafe { word(dst.wrapping_add(head + i * WORD)) }.store(0, Relaxed);
    }
    for i in 0..tail {
        // SAFETY: within the bytes that the caller vouches for.
        unsafe { byte(end.wrapping_add(i)) }.store(0, Relaxed);
    }
}

/// Whether `len` bytes at `src` are all zero.
///
/// # Safety
/// The bytes are as [`byte`] wants them, for the call's duration.
pub(crate) unsafe fn is_zero(src: *mut u8, len: usize) -> bool {
    let (head, words, tail) = split(src, len);
    let end = src.wrapping_add(head + words * WORD);
    // SAFETY: within the bytes that the caller vouches for.
    let zero_byte = |ptr| unsafe { byte(ptr) }.load(Relaxed) == 0;
    // SAFETY: within the bytes that the caller vouches for; `split` has found the first aligned address.
    let zero_word = |ptr| unsafe { word(ptr) }.load(Relaxed) == 0;
    (0..head).all(|i| zero_byte(src.wrapping_add(i)))
        && (0..words).all(|i| zero_word(src.wrapping_add(head + i * WORD)))
        && (0..tail).all(|i| zero_byte(end.wrapping_add(i)))
}

#[cfg(test)]
mod tests;
