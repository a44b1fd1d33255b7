//! What `twinsan attach --ladder` has written.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use twinsan::attach::LADDER_HEADER;

/// One write, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) bytes: u64,
    pub(crate) receive: u64,
    pub(crate) post: u64,
    pub(crate) flight: u64,
    pub(crate) reply: u64,
    pub(crate) primary_ack: Option<u64>,
    pub(crate) primary_completion: Option<u64>,
    pub(crate) secondary_ack: Option<u64>,
}

/// All writes of a file, in order.
///
/// # Errors
/// If it is not there, or not such a file.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut lines = text.lines();
    ensure!(lines.next() == Some(LADDER_HEADER), "{} does not begin with \"{LADDER_HEADER}\"", path.display());
    let numbered = (2..).zip(lines);
    numbered.map(|(at, line)| parse(line).with_context(|| format!("{}, line {at}", path.display()))).collect()
}

fn parse(line: &str) -> Result<Line> {
    let fields: Vec<&str> = line.split(',').collect();
    let &[_, bytes, receive, post, flight, reply, primary_ack, primary_completion, secondary_ack] = &fields[..] else {
        bail!("{} fields instead of {}", fields.len(), LADDER_HEADER.split(',').count());
    };
    let number = |text: &str| text.parse::<u64>().with_context(|| format!("\"{text}\" is no number"));
    let maybe = |text: &str| if text.is_empty() { Ok(None) } else { number(text).map(Some) };
    Ok(Line {
        bytes: number(bytes)?,
        receive: number(receive)?,
        post: number(post)?,
        flight: number(flight)?,
        reply: number(reply)?,
        primary_ack: maybe(primary_ack)?,
        primary_completion: maybe(primary_completion)?,
        secondary_ack: maybe(secondary_ack)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_was_measured_and_nothing_for_what_was_not() {
        let line = parse("7,4096,1,2,3,4,,6,7").unwrap();
        let expected = Line {
            bytes: 4096,
            receive: 1,
            post: 2,
            flight: 3,
            reply: 4,
            primary_ack: None,
            primary_completion: Some(6),
            secondary_ack: Some(7),
        };
        assert_eq!(line, expected);
        assert!(parse("7,4096,1,2").unwrap_err().to_string().contains("4 fields instead of 9"));
        assert!(format!("{:#}", parse("7,4096,1,2,,4,,,").unwrap_err()).contains("is no number"));
    }
}
