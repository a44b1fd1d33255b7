//! What runs inside a guest.

pub mod agent;
pub mod load;
