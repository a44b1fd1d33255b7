//! The table of scenarios.

mod files;
mod lab_itself;
mod one_host;
mod parts;

use crate::scenario::Scenario;

/// All, in the order in which they run: what others rest on comes first.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "topology", about: "two disk paths a node, rxe both ways over every link", run: parts::topology },
    Scenario {
        name: "power-and-cables",
        about: "the lab's own hands: what is killed, frozen or cut off is, and comes back",
        run: lab_itself::power_and_cables,
    },
    Scenario {
        name: "reservations",
        about: "type 5 by sg_persist on every path: who is not registered, or was pre-empted, writes nothing",
        run: parts::reservations,
    },
    Scenario {
        name: "shelf-power-cut",
        about: "registrations and reservation outlive the shelf's power cut (APTPL)",
        run: parts::shelf_power_cut,
    },
    Scenario { name: "paths", about: "dm-multipath: one path lost, all lost, both back", run: parts::paths },
    Scenario {
        name: "one-host-kill",
        about: "a pair on one host, tcp, local-lock on the multipath disk, kernel nbd: both nodes' processes killed in turn",
        run: one_host::kill,
    },
    Scenario {
        name: "one-host-path",
        about: "the same pair: a disk path is lost under load and comes back",
        run: one_host::path,
    },
    Scenario {
        name: "one-host-ext4",
        about: "the same pair: ext4, fio's verify and sqlite on kernel nbd, with a takeover in the middle",
        run: one_host::ext4,
    },
];
