//! What launcher and guest say to each other over a guest's serial line: one JSON object a line.
//!
//! The line is a byte stream that neither loses nor mends anything; each side writes whole lines under a lock.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

/// From the launcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToGuest {
    /// Run `sh -c command` in a process group of its own; its words come back as [`ToLauncher::Output`].
    Run {
        /// Names the job from now on.
        job: u64,
        /// For `sh -c`.
        command: String,
        /// Whether [`ToGuest::Input`] follows; else its standard input is empty.
        input: bool,
    },
    /// More for the job's standard input; empty: its end.
    Input {
        /// Which.
        job: u64,
        /// Bytes, as [`text`] makes them.
        data: String,
    },
    /// A signal for the job's whole process group.
    Signal {
        /// Which.
        job: u64,
        /// Its number.
        signal: i32,
    },
    /// Write a file.
    Put {
        /// Answered by this job's [`ToLauncher::Exit`].
        job: u64,
        /// Where; its folder is made.
        path: String,
        /// Permissions.
        mode: u32,
        /// Bytes, as [`text`] makes them.
        data: String,
    },
}

/// From the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToLauncher {
    /// The first line: the guest is up.
    Hello {
        /// Its name.
        name: String,
    },
    /// What a job said on standard output or error.
    Output {
        /// Which.
        job: u64,
        /// Bytes, as [`text`] makes them.
        data: String,
    },
    /// A job has ended.
    Exit {
        /// Which.
        job: u64,
        /// Its exit status; 128 + n after signal n, as in a shell.
        code: i32,
    },
}

/// Bytes as a string of the characters U+0000 to U+00FF, so that text stays readable on the line.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| char::from(b)).collect()
}

/// The bytes back. Characters beyond U+00FF, which [`text`] never makes, become `?`.
#[must_use]
pub fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect()
}

/// Writes one line.
///
/// # Errors
/// The stream's.
pub fn send(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_and_a_message_is_one_line() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(bytes(&text(&all)), all);
        let mut line = Vec::new();
        let message = ToGuest::Input { job: 7, data: text(&all) };
        send(&mut line, &message).unwrap();
        assert_eq!(line.iter().filter(|&&b| b == b'\n').count(), 1);
        assert_eq!(serde_json::from_slice::<ToGuest>(&line).unwrap(), message);
    }
}
