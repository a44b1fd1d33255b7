//! The fabric over shared memory, by what its callers and its peers see.

mod conformance;
mod hostile;
mod setups;
mod waking;
