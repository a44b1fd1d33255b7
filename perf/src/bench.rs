//! One and the same client for every contestant: jobs, targets, the loop that times them, and what came out.
//!
//! * [`job`]: what is asked for. [`target`]: of whom: [`nbd`] connections, [files](mod@file), and how a target is named on the
//!   command line ([`place`]).
//! * [`engine`]: the loop. [`recorder`]: histograms and throughput over time. [`cpu`]: what it costs, and what others took.
//! * [`result`](mod@result): what came out, with units. [`table`]: the same for people.
//! * [`run`]: one target. [`compare`]: contestants in turns, [`contestants`], [`mission`] and [`idle`].

pub mod args;
pub mod compare;
pub mod contestants;
pub mod cpu;
pub mod engine;
pub mod file;
pub mod idle;
pub mod job;
pub mod mission;
pub mod nbd;
pub mod place;
pub mod recorder;
pub mod result;
pub mod run;
pub mod table;
pub mod target;
