//! Attempts to break the machine with event orders that are odd, and legal.

mod rig;
mod scenarios;
