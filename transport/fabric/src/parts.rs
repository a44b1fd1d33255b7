//! What fabrics are made of besides their own transport: waiting for descriptors, resolving host names, remembering what
//! was registered and exposed, socket files.

mod exposures;
mod listeners;
mod payloads;
mod poller;
mod regions;
mod resolver;
mod socket_file;
mod spin;
mod ticks;
mod waiting;
mod watches;

pub use exposures::Exposures;
pub use listeners::Listeners;
pub use payloads::Payloads;
pub use poller::{Poller, Readiness, Token, Wait};
pub use regions::{Regions, Span, within};
pub use resolver::{Answer, Resolver};
pub use socket_file::{SocketFile, socket_path};
pub use spin::Spin;
pub use ticks::Ticks;
pub use waiting::{Queues, Waiting, poll_until};
pub use watches::Watches;
