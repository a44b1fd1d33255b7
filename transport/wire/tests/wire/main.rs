//! The encodings from outside: round trips, every byte pinned, and whatever a hostile or broken peer may send.

mod hostile;
mod layout;
mod pinned;
mod roundtrip;
mod strategy;
