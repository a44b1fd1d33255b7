//! The disk itself: descriptions, and the io_uring queue.
//!
//! [`SharedReader`] and [`ClaimedDisk`] are open file descriptions, O_DIRECT, with synchronous page reads and writes
//! for the command line and the fence. [`DiskQueue`] is what the flusher thread drives.

mod batch;
mod buffers;
mod claim;
mod error;
#[cfg(test)]
mod fault;
mod geometry;
mod queue;
mod ring;
mod sys;
mod wake;

pub use batch::{ReadRange, Source, WriteRange};
pub use claim::{ClaimedDisk, SharedReader};
pub use error::{DiskError, Op, OpenError};
pub use geometry::{DeviceKind, Geometry, WriteCache};
pub use queue::{Completion, DiskOp, DiskQueue, Done, QueueOptions};
pub use wake::Waker;
