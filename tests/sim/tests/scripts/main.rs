//! Scripted scenarios: each interleaving is exact. One program, so that it is linked once.

mod attach;
mod clocks;
mod common;
mod daggers;
mod fabric;
mod handover;
mod join_by_relay;
mod matrix;
mod moves;
mod paths;
mod relay;
mod section6;
mod section8;
mod storage;
mod word;
