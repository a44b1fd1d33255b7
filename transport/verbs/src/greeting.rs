//! The private data of a connection's set-up: what each side says before there is a queue pair to say it by.
//!
//! | offset | bytes | in a request and a reply | in a rejection |
//! | ---: | ---: | --- | --- |
//! | 0 | 4 | magic `TwRv` | the same |
//! | 4 | 1 | version, 1 | the same |
//! | 5 | 1 | length, 12 | 12 |
//! | 6 | 2 | receive credits, at least 1 | 0 |
//! | 8 | 4 | reserved | reserved |
//!
//! Little-endian. The connection manager pads private data with zeros to a size of its own (56 bytes in a request, 196 in
//! a reply, 148 in a rejection), so it says its length. Magic, version and length keep their places in every version.

/// What it takes.
pub(crate) const GREETING_BYTES: usize = 12;

const MAGIC: [u8; 4] = *b"TwRv";
const VERSION: u8 = 1;

/// What the peer has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// Receives that it has posted for our messages and immediates; none in a rejection.
    pub(crate) credits: u16,
}

/// Why it is no greeting.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum GreetingError {
    /// Somebody else's.
    #[error("its private data is not TwinSAN's")]
    Foreign,
    /// Another version's.
    #[error("it speaks version {0} of the RDMA set-up, this is version {VERSION}")]
    Version(u8),
    /// Broken.
    #[error("its private data is broken: {0}")]
    Broken(&'static str),
}

impl Greeting {
    /// Its bytes.
    pub(crate) fn encode(self) -> [u8; GREETING_BYTES] {
        let mut bytes = [0; GREETING_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = u8::try_from(GREETING_BYTES).expect("small");
        bytes[6..8].copy_from_slice(&self.credits.to_le_bytes());
        bytes
    }

    /// From private data with its padding.
    ///
    /// # Errors
    /// See [`GreetingError`].
    pub(crate) fn decode(data: &[u8]) -> Result<Self, GreetingError> {
        let Some((&[m0, m1, m2, m3, version, len], rest)) = data.split_first_chunk::<6>() else {
            return Err(GreetingError::Foreign);
        };
        if [m0, m1, m2, m3] != MAGIC {
            return Err(GreetingError::Foreign);
        }
        if version != VERSION {
            return Err(GreetingError::Version(version));
        }
        if usize::from(len) != GREETING_BYTES {
            return Err(GreetingError::Broken("its length"));
        }
        match rest {
            &[c0, c1, 0, 0, 0, 0, ref padding @ ..] if padding.iter().all(|&byte| byte == 0) => {
                Ok(Self { credits: u16::from_le_bytes([c0, c1]) })
            }
            _ => Err(GreetingError::Broken("reserved bytes that are not zero, or too few")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_pinned() {
        let bytes = Greeting { credits: 0x0102 }.encode();
        assert_eq!(bytes, *b"TwRv\x01\x0c\x02\x01\0\0\0\0");
    }

    #[test]
    fn comes_back_with_any_padding() {
        for padding in [0, 44, 184] {
            let mut bytes = Greeting { credits: 256 }.encode().to_vec();
            bytes.resize(GREETING_BYTES + padding, 0);
            assert_eq!(Greeting::decode(&bytes), Ok(Greeting { credits: 256 }));
        }
    }

    #[test]
    fn others_are_told_apart() {
        let good = Greeting { credits: 1 }.encode();
        assert_eq!(Greeting::decode(&[]), Err(GreetingError::Foreign));
        assert_eq!(Greeting::decode(&[0; 56]), Err(GreetingError::Foreign));
        let with = |at: usize, value: u8| {
            let mut bytes = good;
            bytes[at] = value;
            Greeting::decode(&bytes)
        };
        assert_eq!(with(4, 2), Err(GreetingError::Version(2)));
        assert!(matches!(with(5, 13), Err(GreetingError::Broken(_))));
        assert!(matches!(with(8, 1), Err(GreetingError::Broken(_))));
        assert!(matches!(Greeting::decode(&good[..11]), Err(GreetingError::Broken(_))));
    }
}
