//! The table of scenarios.

mod device;
mod disk_paths;
mod fence;
mod files;
mod hosts;
mod huge_pages;
mod lab_itself;
mod links;
mod measures;
mod one_host;
mod parts;
mod peers;
mod processes;
mod running;

use crate::scenario::{Need, Scenario};

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
        name: "rdma-conformance",
        about: "the fabric's conformance suite over rxe",
        run: parts::rdma_conformance,
    },
    Scenario {
        name: "shelf-power-cut",
        about: "registrations and reservation outlive the shelf's power cut (APTPL)",
        run: parts::shelf_power_cut,
    },
    Scenario { name: "paths", about: "dm-multipath: one path lost, all lost, both back", run: parts::paths },
    Scenario {
        name: "fence-holder",
        about: "the reservation's holder is fenced in the middle of writing: nothing of it lands",
        run: fence::holder,
    },
    Scenario {
        name: "fence-no-holder",
        about: "the same for a registrant that does not hold the reservation",
        run: fence::no_holder,
    },
    Scenario {
        name: "fence-path",
        about: "a path returns to a host while the other one fences it",
        run: fence::path_against_fence,
    },
    Scenario { name: "fence-stale-key", about: "the key of a dead process is replaced", run: fence::stale_key },
    Scenario {
        name: "fence-new-ports",
        about: "a host comes back from other initiator ports: paths that LIO forgets are registered anew",
        run: fence::new_ports,
    },
    Scenario {
        name: "fence-queued-write",
        about: "writes queued in dm-multipath outlive their process, and are refused",
        run: fence::queued_write,
    },
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
    Scenario {
        name: "files-ublk",
        about: "/dev/ublkb0 over rxe: fio's verify, ext4 and sqlite, the primary's host killed in the middle",
        run: device::files_on_ublk,
    },
    Scenario { name: "files-nbd", about: "the same on /dev/nbd0", run: device::files_on_nbd },
    Scenario {
        name: "client-killed-ublk",
        about: "`twinsan attach --ublk` is killed under load and started again: no error",
        run: device::client_killed_ublk,
    },
    Scenario { name: "client-killed-nbd", about: "the same for `--nbd-device`", run: device::client_killed_nbd },
    Scenario {
        name: "client-host-killed",
        about: "the client's host loses power: every commit that was reported is there",
        run: device::client_host_killed,
    },
    Scenario {
        name: "kill-primary-host",
        about: "the primary's host loses power under load, then that of its successor",
        run: hosts::kill_primary_host,
    },
    Scenario {
        name: "kill-primary-host-tcp",
        about: "the same over tcp, with nbd-client",
        run: hosts::kill_primary_host_tcp,
    },
    Scenario {
        name: "kill-secondary-host",
        about: "the secondary's host loses power under load",
        run: hosts::kill_secondary_host,
    },
    Scenario {
        name: "kill-solo-host",
        about: "the host that serves alone loses power; the other one, then it, comes back",
        run: hosts::kill_solo_host,
    },
    Scenario {
        name: "kill-both-hosts",
        about: "both hosts lose power while dual: nobody serves until `twinsan recover`",
        run: hosts::kill_both_hosts,
    },
    Scenario {
        name: "freeze-primary",
        about: "the primary's host freezes, is fenced, thaws and joins again",
        run: hosts::freeze_primary,
    },
    Scenario {
        name: "freeze-secondary",
        about: "the secondary's host freezes, is dropped, thaws and joins again",
        run: hosts::freeze_secondary,
    },
    Scenario { name: "cut-nodes", about: "the link between the nodes is cut", run: links::cut_between_nodes },
    Scenario {
        name: "cut-client-primary",
        about: "the link between client and primary is cut",
        run: links::cut_client_primary,
    },
    Scenario {
        name: "cut-client-secondary",
        about: "the link between client and secondary is cut",
        run: links::cut_client_secondary,
    },
    Scenario {
        name: "cut-primary-network",
        about: "all of the primary's links are cut, its disk paths are not",
        run: links::cut_primary_network,
    },
    Scenario {
        name: "cut-secondary-network",
        about: "all of the secondary's links are cut, its disk paths are not: dropped, and it takes over nothing",
        run: links::cut_secondary_network,
    },
    Scenario {
        name: "cut-solo-network",
        about: "all links of a node that serves alone are cut: the one outside takes over by the client's word",
        run: links::cut_solo_network,
    },
    Scenario {
        name: "cut-client-off",
        about: "both of the client's links are cut: requests wait",
        run: links::cut_client_off,
    },
    Scenario {
        name: "lose-one-path",
        about: "a path of the primary is lost, and registered again before it is used",
        run: disk_paths::lose_one_path,
    },
    Scenario {
        name: "lose-primary-paths",
        about: "all paths of the primary are lost: the other one takes over",
        run: disk_paths::lose_primary_paths,
    },
    Scenario {
        name: "lose-secondary-paths",
        about: "all paths of the secondary are lost: it says so and stays",
        run: disk_paths::lose_secondary_paths,
    },
    Scenario {
        name: "lose-all-paths",
        about: "all paths of both are lost for a while: nothing fails",
        run: disk_paths::lose_all_paths,
    },
    Scenario {
        name: "shelf-restart",
        about: "the shelf loses power under load: keys and reservation outlive it",
        run: hosts::shelf_restart,
    },
    Scenario {
        name: "kill-processes",
        about: "the primary's process, then the secondary's, by SIGKILL under load",
        run: processes::kill_processes,
    },
    Scenario { name: "stop-in-turn", about: "SIGTERM to each node in turn under load", run: processes::stop_in_turn },
    Scenario {
        name: "stop-both",
        about: "SIGTERM to both at once under load: either starts again alone",
        run: processes::stop_both,
    },
    Scenario { name: "switchover", about: "`twinsan switchover` four times under load", run: processes::switchover },
    Scenario {
        name: "old-client-back",
        about: "a client thaws after another one has attached: refused, and nothing of it lands",
        run: processes::old_client_back,
    },
    Scenario {
        name: "wire",
        about: "round trips over rxe by our fabric, with bare verbs beside them",
        run: measures::wire,
    },
    Scenario {
        name: "hops",
        about: "a durable 4 KiB write over rxe beside its three raw hops: shown, not judged",
        run: measures::hops,
    },
    Scenario {
        name: "instructions",
        about: "a node's user instructions over rxe for 1 MiB are at most 1.1 times those for 4 KiB",
        run: measures::instructions,
    },
    Scenario {
        name: "chaos",
        about: "cargo chaos's faults by seed, over rxe, iSCSI and multipath, for a minute (docs/testing.md: longer)",
        run: crate::chaos::chaos,
    },
];

/// Those that not every machine can show, and what they need.
pub const PARTICULAR: &[(Need, Scenario)] = &[(
    Need::HugePages,
    Scenario {
        name: "hugepages",
        about: "both nodes' staging lies on huge pages, pinned by rxe, and is what the verified load went through (--qemu)",
        run: huge_pages::staging,
    },
)];

/// Those that are run only when `--only` names them: too long for every run, and they judge nothing.
pub const BY_NAME: &[(Need, Scenario)] = &[(
    Need::Peers,
    Scenario {
        name: "peers",
        about: "synchronous writes beside iSCSI, iSER, NVMe over fabrics and drbd on RAM: a table (only by its name; two minutes)",
        run: peers::peers,
    },
)];

/// Those that measure: no hosts boot while one of these runs.
pub const ALONE: [&str; 4] = ["wire", "hops", "instructions", "peers"];

/// Those that run when nothing is named.
pub fn usual() -> impl Iterator<Item = (Option<Need>, Scenario)> {
    let common = SCENARIOS.iter().map(|&scenario| (None, scenario));
    common.chain(PARTICULAR.iter().map(|&(need, scenario)| (Some(need), scenario)))
}

/// All of the tables.
pub fn all() -> impl Iterator<Item = (Option<Need>, Scenario)> {
    usual().chain(BY_NAME.iter().map(|&(need, scenario)| (Some(need), scenario)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_those_that_run_alone_are_among_them() {
        let names: Vec<&str> = all().map(|(_, scenario)| scenario.name).collect();
        for (i, name) in names.iter().enumerate() {
            assert!(!names[..i].contains(name), "{name} twice");
        }
        assert!(ALONE.iter().all(|name| names.contains(name)), "{ALONE:?}");
    }

    #[test]
    fn what_is_run_by_name_is_not_run_without() {
        for (_, scenario) in BY_NAME {
            assert!(usual().all(|(_, usual)| usual.name != scenario.name), "{}", scenario.name);
            assert!(all().any(|(_, any)| any.name == scenario.name), "{}", scenario.name);
        }
    }
}
