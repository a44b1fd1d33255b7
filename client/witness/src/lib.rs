//! A witness: writes to a volume, reads it back, and remembers all that was promised, so that it can tell a completed
//! write that is missing from one that never completed, and a read that goes back from one that was merely early.
//!
//! * [`pattern`]: what is written; every block carries the number of the write that it came from.
//! * [`register`]: one block as a register: may these reads and writes, at these times, have happened one after the other?
//! * [`ledger`]: all blocks of a volume, for many threads.
//! * [`load`]: threads that write and read, through restarts of the client too.
//! * [`device`]: what they write to. [`nbd`]: an NBD client.
#![forbid(unsafe_code)]

pub mod device;
pub mod ledger;
pub mod load;
pub mod nbd;
pub mod pattern;
pub mod register;
