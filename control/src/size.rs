//! Byte counts as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes. Text: a whole number and a binary unit, `64MiB` or `64 MiB`; no unit means bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// Why a text is no [`Size`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a whole number with a known unit.
    #[error("\"{0}\" is not a size: write a whole number and a unit of B, KiB, MiB, GiB or TiB, like \"64 MiB\"")]
    Malformed(String),
    /// More than 2^64 − 1 bytes.
    #[error("\"{0}\" is more bytes than fit in 64 bits")]
    TooLarge(String),
}

/// Largest first, as `Display` takes the first that divides.
const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Size {
    /// So many bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// So many MiB.
    #[must_use]
    pub const fn mib(count: u32) -> Self {
        Self((count as u64) << 20)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) =
            UNITS.into_iter().find(|&(_, scale)| self.0 >= scale && self.0.is_multiple_of(scale)).unwrap_or(("B", 1));
        write!(f, "{} {unit}", self.0 / scale)
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (number, unit) = (&trimmed[..digits], trimmed[digits..].trim_start());
        let scale = match unit {
            "" => 1,
            _ => {
                UNITS
                    .into_iter()
                    .find(|(name, _)| *name == unit)
                    .ok_or_else(|| SizeError::Malformed(text.to_owned()))?
                    .1
            }
        };
        if number.is_empty() {
            return Err(SizeError::Malformed(text.to_owned()));
        }
        let count: u64 = number.parse().map_err(|_| SizeError::TooLarge(text.to_owned()))?;
        count.checked_mul(scale).map(Self).ok_or_else(|| SizeError::TooLarge(text.to_owned()))
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_unit_with_and_without_a_space() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("1 B", 1),
            ("4KiB", 4096),
            ("64 MiB", 64 << 20),
            (" 1GiB ", 1 << 30),
            ("2 TiB", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn refuses_what_it_would_have_to_guess() {
        for text in ["", "MiB", "-1", "1.5 GiB", "64 MB", "64m", "1 GiB extra", "0x10"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError::Malformed(text.to_owned())), "{text}");
        }
        for text in ["18446744073709551616", "16777216 TiB"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError::TooLarge(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn shows_the_largest_unit_that_loses_nothing_and_reads_it_back() {
        for (bytes, text) in
            [(0, "0 B"), (1, "1 B"), (1025, "1025 B"), (4096, "4 KiB"), (1 << 30, "1 GiB"), (3 << 29, "1536 MiB")]
        {
            assert_eq!(Size(bytes).to_string(), text);
            assert_eq!(text.parse(), Ok(Size(bytes)));
        }
    }
}
