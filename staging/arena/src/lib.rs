//! Placeholder, replaced by the first working version.
/// Placeholder.
#[derive(Debug)]
pub struct Arena;
