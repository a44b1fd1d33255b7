//! Synthetic events.
