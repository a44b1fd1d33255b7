//! The client host's side: `twinsan attach` makes a replicated volume a block device for NBD clients; the other
//! commands are the administrator's.
#![forbid(unsafe_code)]

pub mod attach;
pub mod cli;
pub mod commands;
pub mod device;
pub mod front;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod memory;

/// Prints a line, or several. A reader that has seen enough (`twinsan status | head -1`) is no trouble: what it does not
/// read is not said, and the command ends as it would have.
///
/// # Errors
/// Standard output can't be written for another reason.
pub fn say(words: &dyn std::fmt::Display) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{words}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}
