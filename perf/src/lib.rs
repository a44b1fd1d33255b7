//! Workloads, a cluster of real processes to run them on, and the race against the disk.
//!
//! `tests/system` drives the same [`cluster`].
#![forbid(unsafe_code)]

pub mod bench;
pub mod cluster;
pub mod count;
pub mod demo;
pub mod fabric;
pub mod failover;
pub mod hops;
pub mod instructions;
pub mod ladder;
pub mod local;
pub mod page;
pub mod pages;
pub mod program;
pub mod quorum;
pub mod race;
pub mod report;
pub mod wire;
pub mod workload;
