//! The lab: a disk shelf, two SAN hosts and a client as guests on this host, with the kernel's own rxe, iSCSI target,
//! dm-multipath, nbd and ublk, and scenarios that break them. `docs/lab.md` says how it is used and what it is.
#![forbid(unsafe_code)]

pub mod agent;
pub mod ahead;
pub mod cable;
pub mod cache;
pub mod guest;
pub mod load;
pub mod machine;
pub mod message;
pub mod node;
pub mod pair;
pub mod programs;
pub mod report;
pub mod scenario;
pub mod scenarios;
pub mod shell;
pub mod topology;
