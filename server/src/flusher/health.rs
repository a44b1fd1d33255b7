//! How the disk is: for `status`, and so that the log says it once and not at every retry.

/// Kinds of operations that fail and work again by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Reading the superblock.
    SuperblockRead,
    /// Writing it.
    SuperblockWrite,
    /// Writing the own heartbeat block.
    HeartbeatWrite,
    /// Reading the other node's.
    HeartbeatRead,
    /// Writing data.
    Write,
    /// Reading data.
    Read,
    /// Whatever the fence does.
    Fence,
}

const KINDS: usize = 7;

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::SuperblockRead => "reading the superblock",
            Self::SuperblockWrite => "writing the superblock",
            Self::HeartbeatWrite => "writing the heartbeat block",
            Self::HeartbeatRead => "reading the other node's heartbeat block",
            Self::Write => "writing data",
            Self::Read => "reading data",
            Self::Fence => "fencing",
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    volume: String,
    failing: [bool; KINDS],
    /// Nothing fails at the moment.
    pub(crate) well: bool,
    /// The last error, in the system's words; it stays.
    pub(crate) last_error: Option<String>,
    /// Operations that have failed.
    pub(crate) errors: u64,
    /// When the superblock last read was written, in seconds since 1970.
    pub(crate) changed_at: Option<u64>,
}

impl Health {
    /// Well, as far as is known.
    pub(crate) fn new(volume: String) -> Self {
        Self { volume, failing: [false; KINDS], well: true, last_error: None, errors: 0, changed_at: None }
    }

    /// An operation has failed; returns whether that is news.
    pub(crate) fn failed(&mut self, kind: Kind, error: &dyn std::fmt::Display) -> bool {
        let text = format!("{}: {error}", kind.word());
        let news = !std::mem::replace(&mut self.failing[kind as usize], true);
        if news {
            tracing::error!(volume = self.volume, "{text}; it is tried again until it works");
        }
        self.errors += 1;
        self.last_error = Some(text);
        self.well = false;
        news
    }

    /// An operation has worked; returns whether that is news.
    pub(crate) fn worked(&mut self, kind: Kind) -> bool {
        let news = std::mem::take(&mut self.failing[kind as usize]);
        if news {
            tracing::info!(volume = self.volume, "{}: it works again", kind.word());
            self.well = !self.failing.contains(&true);
        }
        news
    }

    /// This node writes the disk from now on, or no longer: what only the other role does is not tried again, so whether
    /// it would work is nobody's question any more.
    pub(crate) fn writes(&mut self, writes: bool) {
        const WRITERS: [Kind; 4] = [Kind::SuperblockWrite, Kind::HeartbeatWrite, Kind::Write, Kind::Read];
        let given_up: &[Kind] = if writes { &[Kind::HeartbeatRead] } else { &WRITERS };
        for &kind in given_up {
            self.failing[kind as usize] = false;
        }
        self.well = !self.failing.contains(&true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_no_news_and_well_means_that_nothing_fails() {
        let mut health = Health::new("db".to_owned());
        assert!(!health.worked(Kind::Write));
        assert!(health.failed(Kind::Write, &"EIO"));
        assert!(!health.failed(Kind::Write, &"EIO again"));
        assert!(health.failed(Kind::Fence, &"no path"));
        assert_eq!((health.well, health.errors), (false, 3));
        assert!(health.worked(Kind::Write));
        assert!(!health.worked(Kind::Write));
        assert!(!health.well, "the fence still fails");
        assert!(health.worked(Kind::Fence));
        assert!(health.well);
        assert_eq!(health.last_error.as_deref(), Some("fencing: no path"));
    }

    #[test]
    fn what_a_role_leaves_undone_is_no_trouble() {
        let mut health = Health::new("db".to_owned());
        health.failed(Kind::Write, &"reservation conflict");
        health.failed(Kind::SuperblockRead, &"EIO");
        health.writes(false);
        assert!(!health.well, "reading the superblock is everybody's");
        health.worked(Kind::SuperblockRead);
        assert!(health.well);
        health.failed(Kind::HeartbeatRead, &"EIO");
        health.writes(false);
        assert!(!health.well);
        health.writes(true);
        assert!(health.well);
        assert!(health.failed(Kind::Write, &"EIO"), "news again");
    }
}
