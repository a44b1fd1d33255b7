//! Every state of the real machines within bounds: the simulator's world, driven by choices in place of chance.
//!
//! A [`Scenario`] says where it begins, what the client asks for, and how often each fault may strike. [`search`] goes
//! breadth first through all that may follow, and knows a state again when it comes to it by another way. In each step the
//! simulator's checkers look; in the end, over the whole graph, there must be a way from every state with a healthy node
//! that reaches disk and client to one in which the client has got all that it asked for, without any fault's help.
//!
//! What is left out, so that this ends (also in `docs/testing.md`):
//!
//! - **Time** passes only when nothing else is left to come but what a fault holds back (a freeze, a cut, a late disk
//!   write). Then all clocks go on together: heartbeats and retries are due each time, timeouts each second time. That a
//!   timeout ends too early is a fault ([`Budget::hasten`]). There are no random waits.
//! - **Words** (Status, View, mailboxes, heartbeats) that have not been heard give way to newer ones of their kind, and
//!   those that would change nothing at their hearer are heard at once (`nothing_new.rs`).
//! - **Disk heartbeats** go to the disk and back at once, and so does an attempt to connect to who can't be reached.
//! - **A frozen process** gets what was sent to it when it thaws; one-sided writes don't land in its memory before that.
//! - **Mailboxes** are never torn, and a process that dies never tears a superblock slot.
//! - **Prompt** scenarios ([`Scenario::prompt`]) have one order of events beside their faults, instead of all.
//!
//! What is *not* left out, two states being one by their canonical form only if the same may follow from them, is looked
//! at by [`Limits::verify`].

mod canonical;
mod census;
mod choice;
mod nothing_new;
mod order;
mod scenario;
mod search;
mod situation;
mod step;
mod sum;
mod trace;

pub use census::Part;
pub use scenario::{Budget, Request, SCENARIOS, Scenario};
pub use search::{Found, Limits, Outcome, search};
