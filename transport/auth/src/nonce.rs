//! Numbers used once.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// 32 random bytes that make a conversation unlike any other.
pub type Nonce = [u8; 32];

/// Fresh bytes from the kernel, for one [`Connector`](crate::Connector) or [`Listener`](crate::Listener).
///
/// # Errors
/// If the kernel has none.
pub fn fresh_nonce() -> io::Result<Nonce> {
    let mut nonce = [0; 32];
    let mut filled = 0;
    while filled < nonce.len() {
        match getrandom(&mut nonce[filled..], GetRandomFlags::empty()) {
            Ok(bytes) => filled += bytes,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(nonce)
}
