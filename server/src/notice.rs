//! A machine's notices, in words for whoever has to act: which node, which volume, which epoch, and what to do.

use twinsan_replica::{Notice, Obstacle};
use twinsan_wire::{NodeId, Superblock};

use crate::utc::Utc;
use crate::volume::Volume;

/// How loud a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loudness {
    Info,
    Warn,
    Error,
}

/// Logs it.
pub(crate) fn log(volume: &Volume, notice: Notice) {
    let facts = &volume.facts;
    let speaker = Speaker {
        volume: facts.name.as_str(),
        nodes: [&facts.nodes[0], &facts.nodes[1]],
        node: facts.node,
        changed_at: volume.flusher.health().changed_at,
    };
    let (loudness, words) = speaker.word(notice);
    let (volume, node) = (speaker.volume, speaker.own());
    match loudness {
        Loudness::Info => tracing::info!(volume, node, "{words}"),
        Loudness::Warn => tracing::warn!(volume, node, "{words}"),
        Loudness::Error => tracing::error!(volume, node, "{words}"),
    }
}

/// Who speaks, of what.
struct Speaker<'a> {
    volume: &'a str,
    nodes: [&'a str; 2],
    node: NodeId,
    /// When the superblock on the disk was last changed, in seconds since 1970.
    changed_at: Option<u64>,
}

impl Speaker<'_> {
    fn name(&self, node: NodeId) -> &str {
        self.nodes[node.index()]
    }

    fn own(&self) -> &str {
        self.name(self.node)
    }

    fn other(&self) -> &str {
        self.name(self.node.other())
    }

    fn word(&self, notice: Notice) -> (Loudness, String) {
        use Loudness::{Error, Info, Warn};
        let other = self.other();
        match notice {
            Notice::EpochEntered(superblock) => (Info, self.epoch(&superblock)),
            Notice::TakingOver { member: true } => (
                Warn,
                format!("taking over from {other}: fencing it, then writing what is staged here to the disk (rule 5)"),
            ),
            Notice::TakingOver { member: false } => (
                Warn,
                format!(
                    "taking over, with nothing staged here: all that was completed is on the disk (rule 6); \
                         fencing {other} first"
                ),
            ),
            Notice::Serving => (Info, "takeover has ended: serving".to_owned()),
            Notice::Relaying => (
                Warn,
                format!("the client does not reach {other}: this node feeds it, and both stay members (rule 14)"),
            ),
            Notice::RelayEnded => (Info, format!("this node feeds {other} no more")),
            Notice::DroppingSecondary => (
                Warn,
                format!(
                    "{other} is lost: going on alone once everything staged is on the disk (rule 7); writes then \
                         run at the disk's speed until it joins again"
                ),
            ),
            Notice::Joined => (Info, format!("{other} has joined: two copies in RAM from here on (rule 8)")),
            Notice::JoinThrownAway => {
                (Warn, format!("the join of {other} made no progress and was thrown away; it will ask again"))
            }
            Notice::HandingOver
            | Notice::HandOverCalledOff(_)
            | Notice::HandedOver { .. }
            | Notice::HandedTo
            | Notice::NotAccepted(_) => self.handover(notice),
            Notice::Paths { .. } | Notice::OtherPaths { .. } | Notice::Asking => self.paths(notice),
            Notice::SessionAttached => (Info, "a new session is attached; the one before can't come back".to_owned()),
            Notice::Fenced => (
                Warn,
                format!(
                    "fenced out by {other} (rule 9): nothing is served from here; reading the superblock to see \
                         what follows"
                ),
            ),
            Notice::NeedsRecovery(superblock) => (Error, self.needs_recovery(&superblock)),
            Notice::DiskTrouble => (
                Error,
                "the disk fails: everything is kept staged and retried (rule 11); with two nodes writes go on in RAM \
                 until the staging memory is full, a node alone waits. Look at the disk's paths and at the error \
                 logged beside this"
                    .to_owned(),
            ),
            Notice::DiskWell => (Info, "the disk works again".to_owned()),
            Notice::ClientViolation(what) => {
                (Warn, format!("a client broke the protocol and its connection was destroyed: {what}"))
            }
            Notice::SuperblockCorrupt => (
                Error,
                "the superblock can't be used, in neither slot: this volume is not served. See the error logged \
                 beside this; if the disk is the right one, restore its first 8 KiB from a copy"
                    .to_owned(),
            ),
        }
    }

    /// Rule 13.
    fn handover(&self, notice: Notice) -> (Loudness, String) {
        use Loudness::{Info, Warn};
        let other = self.other();
        match notice {
            Notice::HandOverCalledOff(why) => {
                (Warn, format!("the handover is called off and this node goes on: {}", obstacle(why, other)))
            }
            Notice::HandedOver { pause_ms } => {
                (Info, format!("handed over to {other}: it serves, after a pause of {pause_ms} ms"))
            }
            Notice::HandedTo => (Info, format!("{other} has handed over to this node (rule 13)")),
            Notice::NotAccepted(_) => {
                (Warn, format!("what {other} has handed over could not be taken; reading the superblock to see why"))
            }
            _ => (Info, format!("handing over to {other} (rule 13): the disk I/O in flight ends first")),
        }
    }

    /// Rule 11.
    fn paths(&self, notice: Notice) -> (Loudness, String) {
        use Loudness::{Error, Info, Warn};
        let other = self.other();
        match notice {
            Notice::Paths { usable: false } => {
                (Error, "no path to the disk is usable from this node (rule 11)".to_owned())
            }
            Notice::Paths { usable: true } => (Info, "a path to the disk is usable again".to_owned()),
            Notice::OtherPaths { usable: false } => (Warn, format!("{other} has no usable path to the disk")),
            Notice::OtherPaths { usable: true } => (Info, format!("{other} has a usable path to the disk again")),
            _ => (Warn, format!("this node does not reach the disk and {other} does: asking it to take over")),
        }
    }

    fn epoch(&self, superblock: &Superblock) -> String {
        let primary = superblock.primary.map_or("nobody", |node| self.name(node));
        let members: Vec<&str> = NodeId::BOTH
            .into_iter()
            .filter(|&node| superblock.members.of(node).is_some())
            .map(|node| self.name(node))
            .collect();
        let dual = if superblock.members.is_dual() { "dual" } else { "solo" };
        let (epoch, members) = (superblock.epoch.0, members.join(" + "));
        format!("epoch {epoch}: {primary} serves, {dual} (members: {members})")
    }

    fn needs_recovery(&self, superblock: &Superblock) -> String {
        let since = self.changed_at.map_or_else(String::new, |at| format!(" since {}", Utc(at)));
        let volume = self.volume;
        let epoch = superblock.epoch.0;
        format!(
            "volume {volume} has been dual{since} (epoch {epoch}), was not ended in order, and neither process that \
             held its writes in RAM is alive: completed writes may be lost, so it is not served (rule 12). If one of \
             them can still be reached, start the other node or mend the link. Else, to accept the loss: twinsan \
             recover --accept-data-loss {volume}"
        )
    }
}

/// Why a handover can't be, in words that go on a sentence.
pub(crate) fn obstacle(why: Obstacle, other: &str) -> String {
    match why {
        Obstacle::NotPrimary => "this node does not serve".to_owned(),
        Obstacle::Alone => format!("this node serves alone; start {other} and wait until the pair is dual"),
        Obstacle::UnderWay => "a handover is under way already".to_owned(),
        Obstacle::Attaching => "a client is attaching; try again in a moment".to_owned(),
        Obstacle::NoPath => "this node has no usable path to the disk; the other one is asked to take over".to_owned(),
        Obstacle::NoLink => format!("there is no link to {other}"),
        Obstacle::OtherLeaves => format!("{other} is ending"),
        Obstacle::OtherHasNoPath => format!("{other} has no usable path to the disk"),
        Obstacle::OtherNotReady => format!("{other} is not ready: it has just joined, or the client does not reach it"),
        Obstacle::Slow => "the disk I/O in flight has taken longer than a takeover timeout".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsan_wire::{Epoch, Generation, Incarnation, Members};

    const SPEAKER: Speaker<'_> =
        Speaker { volume: "db", nodes: ["san1", "san2"], node: NodeId::A, changed_at: Some(1_000_000_000) };

    fn superblock() -> Superblock {
        let incarnation = |bits| Some(Incarnation::from_random(bits));
        Superblock {
            counter: 9,
            epoch: Epoch(7),
            primary: Some(NodeId::B),
            members: Members([incarnation(1), incarnation(2)]),
            generation: Generation(1),
            clean: false,
        }
    }

    #[test]
    fn an_epoch_names_who_serves_and_who_counts() {
        let dual = Notice::EpochEntered(superblock());
        assert_eq!(SPEAKER.word(dual).1, "epoch 7: san2 serves, dual (members: san1 + san2)");
        let members = Members([None, superblock().members.0[1]]);
        let solo = Notice::EpochEntered(Superblock { members, ..superblock() });
        assert_eq!(SPEAKER.word(solo).1, "epoch 7: san2 serves, solo (members: san2)");
    }

    #[test]
    fn a_refusal_says_since_when_and_what_to_do() {
        let (loudness, words) = SPEAKER.word(Notice::NeedsRecovery(superblock()));
        assert_eq!(loudness, Loudness::Error);
        assert!(words.contains("dual since 2001-09-09 01:46:40 UTC (epoch 7)"), "{words}");
        assert!(words.ends_with("twinsan recover --accept-data-loss db"), "{words}");
    }

    #[test]
    fn what_concerns_the_other_node_names_it() {
        for notice in [
            Notice::TakingOver { member: true },
            Notice::TakingOver { member: false },
            Notice::Relaying,
            Notice::RelayEnded,
            Notice::DroppingSecondary,
            Notice::Joined,
            Notice::JoinThrownAway,
            Notice::Fenced,
            Notice::HandingOver,
            Notice::HandedOver { pause_ms: 7 },
            Notice::HandedTo,
            Notice::HandOverCalledOff(Obstacle::OtherHasNoPath),
            Notice::OtherPaths { usable: false },
            Notice::Asking,
        ] {
            let (_, words) = SPEAKER.word(notice);
            assert!(words.contains("san2"), "{words}");
        }
    }
}
