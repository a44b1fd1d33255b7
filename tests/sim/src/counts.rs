//! What happened in a run, and in many.

use std::collections::BTreeMap;

use twinsan_replica::Notice;

use crate::coverage::Coverage;

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Sums of what happened.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
            /// Which rule has fired how often.
            pub rules: Coverage,
            /// Faults, by kind.
            pub faults: BTreeMap<&'static str, u64>,
        }

        impl Counts {
            /// All of them, by name; faults are apart.
            #[must_use]
            pub fn entries(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }

            /// Adds another run's.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
                self.rules.add(&other.rules);
                for (kind, n) in &other.faults {
                    *self.faults.entry(kind).or_default() += n;
                }
            }
        }
    };
}

counts! {
    /// Happenings.
    events,
    /// Simulated time, in ms.
    simulated_ms,
    /// Writes issued.
    writes,
    /// Writes completed.
    writes_completed,
    /// Reads issued.
    reads,
    /// Reads completed.
    reads_completed,
    /// Flush batches.
    batches,
    /// Superblocks that both slots have shown.
    epochs,
    /// Takeovers by a member (rule 5).
    takeovers_rule_5,
    /// Takeovers by another (rule 6).
    takeovers_rule_6,
    /// Of those, from one that serves and lives, and is not heard: by the client's word (rule 15).
    taken_from_the_living,
    /// Completed joins (rule 8).
    joins,
    /// Joins thrown away (rule 8).
    joins_thrown_away,
    /// Happenings after which completed-to-be writes waited for the takeover budget only.
    held_back,
    /// Secondaries dropped (rule 7).
    drops,
    /// Relays begun (rule 14).
    relays,
    /// Blobs that the primary has fed to the other node.
    relayed,
    /// Handovers begun (rule 13).
    handovers,
    /// Of those, called off before anything had happened.
    handovers_called_off,
    /// Handovers that the other node was told of.
    handovers_told,
    /// Of those, the claim could not be taken.
    handovers_not_accepted,
    /// Times that a primary asked the other node to take over (rule 11).
    asked,
    /// Sessions attached (rule 10).
    attaches,
    /// Nodes that found themselves fenced (rule 9).
    fenced,
    /// Holders of the claim killed by a fence.
    fence_kills,
    /// Refusals to serve (rule 12).
    refusals,
    /// Orders to recover.
    recoveries,
    /// Blocks whose completed writes were lost with both nodes' RAM, as an operator accepted.
    blocks_lost_legally,
    /// Sessions that another has replaced.
    superseded,
    /// Disk operations that failed by chance.
    io_errors,
    /// Of those, writes that landed all the same.
    landed_and_failed,
    /// Writes for which the disk had no room.
    writes_without_room,
    /// Superblock slots torn by the death of their writer.
    slots_torn,
    /// Mailboxes that were seen while a newer one landed over them.
    torn_mailboxes,
    /// Blobs whose CRC did not fit.
    corrupt_blobs,
    /// Messages whose CRC did not fit.
    corrupt_messages,
    /// Connections destroyed because a client broke the protocol.
    client_violations,
}

/// In so many runs every rule has fired in each of its ways.
const ALL_RULES_IN: u64 = 10_000;

impl Counts {
    pub(crate) fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::TakingOver { member: true } => self.takeovers_rule_5 += 1,
            Notice::TakingOver { member: false } => self.takeovers_rule_6 += 1,
            Notice::DroppingSecondary => self.drops += 1,
            Notice::Relaying => self.relays += 1,
            Notice::HandingOver => self.handovers += 1,
            Notice::HandOverCalledOff(_) => self.handovers_called_off += 1,
            Notice::HandedTo => self.handovers_told += 1,
            Notice::NotAccepted(_) => self.handovers_not_accepted += 1,
            Notice::Asking => self.asked += 1,
            Notice::Joined => self.joins += 1,
            Notice::JoinThrownAway => self.joins_thrown_away += 1,
            Notice::SessionAttached => self.attaches += 1,
            Notice::Fenced => self.fenced += 1,
            Notice::NeedsRecovery(_) => self.refusals += 1,
            Notice::ClientViolation(_) => self.client_violations += 1,
            _ => {}
        }
    }

    pub(crate) fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// All faults.
    #[must_use]
    pub fn faults_total(&self) -> u64 {
        self.faults.values().sum()
    }

    /// What is below its floor after this many runs; nothing has been tested that did not happen.
    #[must_use]
    pub fn below_floor(&self, runs: u64) -> Vec<String> {
        let floors = [
            ("writes", self.writes, 200_000),
            ("faults", self.faults_total(), 3_000),
            ("takeovers by rule 5", self.takeovers_rule_5, 800),
            ("takeovers by rule 6", self.takeovers_rule_6, 1_200),
            ("takeovers from the living", self.taken_from_the_living, 50),
            ("joins", self.joins, 2_000),
            ("happenings at the takeover budget", self.held_back, 20_000),
            ("drops", self.drops, 700),
            ("attaches", self.attaches, 1_200),
            ("handovers", self.handovers_told, 400),
            ("relays", self.relays, 40),
            ("blobs relayed", self.relayed, 2_000),
            ("asked to take over", self.asked, 100),
            ("fenced", self.fenced, 50),
            ("refusals", self.refusals, 8),
            ("disk operations that fail by chance", self.io_errors, 1_000),
            ("writes that land and fail", self.landed_and_failed, 300),
            ("writes without room", self.writes_without_room, 100),
            ("torn slots", self.slots_torn, 30),
            ("torn mailboxes", self.torn_mailboxes, 5_000),
            ("corrupt blobs", self.corrupt_blobs, 100),
            ("corrupt messages", self.corrupt_messages, 50),
        ];
        let short = floors.into_iter().filter(|(_, n, per_thousand)| *n * 1000 < per_thousand * runs);
        let short = short.map(|(what, n, floor)| format!("{what}: {n} in {runs} runs, {floor} per 1000 are the least"));
        let enough = runs >= ALL_RULES_IN;
        let silent = self.rules.silent().filter(|_| enough);
        short.chain(silent.map(|(rule, way)| format!("rule {rule} has never fired: {way}"))).collect()
    }
}
