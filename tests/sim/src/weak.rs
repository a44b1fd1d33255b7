//! Old, wrong wordings of the protocol's † rules, switched on one at a time to show that the checkers catch them.
//!
//! The two machines carry those that are theirs; the five here are a driver's or a fence provider's duty, which in
//! this crate the simulator fulfils.

/// A duty of drivers and fence providers, neglected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DriverWeakness {
    /// Rule 8: a host registers again while an earlier process's writes can still land.
    AdmitTooEarly,
    /// Section 5: a fence comes back while a victim's writes can still land.
    FenceWithoutAbort,
    /// Section 5: a path that came back is registered without a look at the generation of the keys.
    PathAddedBlindly,
    /// Section 7: a superblock change writes one slot only, in turn.
    SlotsInTurn,
    /// Section 3: a mailbox is believed while a newer one lands over it.
    BelieveTornMailboxes,
}

impl DriverWeakness {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::AdmitTooEarly,
        Self::FenceWithoutAbort,
        Self::PathAddedBlindly,
        Self::SlotsInTurn,
        Self::BelieveTornMailboxes,
    ];
}

/// One wrong wording, of whoever's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Weakness {
    /// The simulator's.
    Driver(DriverWeakness),
    /// The node machine's.
    Replica(twinsan_replica::Weakness),
    /// The client machine's.
    Session(twinsan_session::Weakness),
}

impl Weakness {
    /// All that there are.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let driver = DriverWeakness::ALL.into_iter().map(Self::Driver);
        let replica = twinsan_replica::Weakness::ALL.into_iter().map(Self::Replica);
        let session = twinsan_session::Weakness::ALL.into_iter().map(Self::Session);
        driver.chain(replica).chain(session).collect()
    }

    /// What a client has switched on with it. A primary that answers a read before what it shows is durable is covered by
    /// its client, which counts the answer later (rule 1): so that one does not either.
    pub(crate) const fn of_the_client(self) -> Option<twinsan_session::Weakness> {
        use twinsan_replica::Weakness::{FlushBeforeDurable, ReadBeforeDurable};
        match self {
            Self::Session(weakness) => Some(weakness),
            Self::Replica(FlushBeforeDurable | ReadBeforeDurable) => {
                Some(twinsan_session::Weakness::CountAnswersAtOnce)
            }
            Self::Replica(_) | Self::Driver(_) => None,
        }
    }

    /// As `--weak` takes it, in kebab case.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Driver(w) => kebab(&format!("{w:?}")),
            Self::Replica(w) => kebab(&format!("{w:?}")),
            Self::Session(w) => kebab(&format!("{w:?}")),
        }
    }

    /// By its name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|w| w.name() == name)
    }
}

fn kebab(camel: &str) -> String {
    let mut out = String::new();
    for c in camel.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
