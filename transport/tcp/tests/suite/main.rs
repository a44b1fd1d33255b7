//! All that is tested of the socket fabric from outside, in one binary.

mod conformance;
mod faulty;
mod peers;
mod setups;
mod sockets;
