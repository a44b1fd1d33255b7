//! Chaos: real programs on hosts of their own, a load that remembers what it was promised, and faults by seed.
//!
//! * [`world`]: what a driver needs of the hosts. [`namespaces`]: those of this machine, and [`enclosure`], which sees to it
//!   that nothing of them is left.
//! * [`fault`]: what may happen. [`plan`]: when, by seed.
//! * [`guard`] and [`strike`]: who may be struck without losing both members' RAM.
//! * [`driver`]: carries a plan out, and looks whether the volume comes back each time. [`watch`]: what the nodes say.
//! * [`load`]: what writes and reads meanwhile, and remembers what it was promised.
//! * [`verdict`], [`report`]: what it came to. [`memory`]: whether the programs grow.
#![deny(unsafe_code)]

pub mod driver;
pub mod enclosure;
pub mod fault;
pub mod guard;
pub mod load;
pub mod memory;
pub mod namespaces;
pub mod plan;
pub mod random;
pub mod report;
pub mod strike;
pub mod verdict;
pub mod watch;
pub mod world;
