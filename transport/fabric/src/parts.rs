//! What fabrics are made of besides their own transport: waiting for descriptors, and resolving host names.

mod poller;
mod resolver;

pub use poller::{Poller, Readiness, Token, Wait};
pub use resolver::{Answer, Resolver};
