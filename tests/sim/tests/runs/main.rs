//! The simulator's and the search's own runs: what they find, and that they would find it.

mod boundaries;
mod explore;
mod seeds;
mod shrink;
