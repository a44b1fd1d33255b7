//! Why a connection ended, or was not made.

use std::{fmt, io};

use rustix::io::Errno;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Nobody listens there: the process is not running.
    Refused,
    /// The peer closed, or its process died.
    Ended,
    /// No answer in time.
    Unreachable(String),
    /// This host knows no way to there, so nobody was asked: that says nothing about the peer.
    NoRoute(String),
    /// The peer broke the protocol: wrong key, out of range, too long.
    Violation(String),
}

impl CloseReason {
    /// If a system error on the way to an address says that there is no way to it: that.
    #[must_use]
    pub fn no_route(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error) {
            Some(Errno::NETUNREACH | Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT) => {
                Some(Self::NoRoute(error.to_string()))
            }
            _ => None,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Ended => f.write_str("closed by the peer"),
            Self::Unreachable(why) => write!(f, "unreachable: {why}"),
            Self::NoRoute(why) => write!(f, "no way to there: {why}"),
            Self::Violation(why) => write!(f, "the peer broke the protocol: {why}"),
        }
    }
}

/// What several addresses of one peer come to, when none of them has worked.
///
/// Refused means that nobody runs there, and others act on it at once; so it must not be said of a host that is silent at
/// one of its addresses. Where there is no way to an address at all, the others' word stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    heaviest: Option<CloseReason>,
}

impl Verdict {
    /// Of no address yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { heaviest: None }
    }

    /// One more address has failed.
    pub fn add(&mut self, why: CloseReason) {
        if self.heaviest.as_ref().is_none_or(|heaviest| weight(&why) >= weight(heaviest)) {
            self.heaviest = Some(why);
        }
    }

    /// The heaviest reason, the last of several; `None` if no address has failed.
    #[must_use]
    pub const fn reason(&self) -> Option<&CloseReason> {
        self.heaviest.as_ref()
    }

    /// Whether the process is known not to run.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.heaviest == Some(CloseReason::Refused)
    }
}

const fn weight(why: &CloseReason) -> u8 {
    match why {
        CloseReason::NoRoute(_) => 0,
        CloseReason::Refused => 1,
        CloseReason::Ended | CloseReason::Unreachable(_) | CloseReason::Violation(_) => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_is_said_only_where_nobody_is_silent() {
        let silent = || CloseReason::Unreachable("no answer".into());
        let no_route = || CloseReason::NoRoute("network is unreachable".into());
        let told = |reasons: Vec<CloseReason>| {
            let mut verdict = Verdict::new();
            for why in reasons {
                verdict.add(why);
            }
            verdict
        };
        assert!(told(vec![CloseReason::Refused, CloseReason::Refused]).is_refused());
        assert!(told(vec![no_route(), CloseReason::Refused]).is_refused());
        assert!(told(vec![CloseReason::Refused, no_route()]).is_refused());
        for heavy in [silent(), CloseReason::Ended, CloseReason::Violation("key".into())] {
            assert_eq!(told(vec![CloseReason::Refused, heavy.clone()]).reason(), Some(&heavy));
            assert_eq!(told(vec![heavy.clone(), CloseReason::Refused]).reason(), Some(&heavy));
        }
        assert_eq!(told(vec![no_route()]).reason(), Some(&no_route()));
        assert_eq!(told(vec![]).reason(), None);
    }
}
