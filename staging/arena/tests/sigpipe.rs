//! A peer that has gone is an error, not the end of the process. A program of its own, because a signal's disposition
//! is the whole process's: Rust's runtime ignores SIGPIPE, a program that embeds this crate may not.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use twinsan_arena::{IoPart, writev};

#[test]
fn a_gone_peer_raises_no_signal() {
    // SAFETY: the default disposition calls no code of ours.
    let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    assert_ne!(before, libc::SIG_ERR);
    let (near, far) = UnixStream::pair().unwrap();
    drop(far);
    let error = writev(near.as_fd(), &[IoPart::Bytes(b"x")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}
