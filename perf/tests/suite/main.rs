//! What is measured is what was asked for, and a fabric or a volume that only pretends is caught.

mod bench;
mod hops;
mod support;
mod wire;
