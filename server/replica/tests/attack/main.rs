//! Attempts to break the machine with event orders that are odd, and legal; and with clients that are hostile.

mod attach;
mod budget;
mod chaos;
mod chaos_steps;
mod disk;
mod ending;
mod evidence;
mod flush;
mod handover;
mod outside;
mod pair;
mod reads;
mod relay;
mod rig;
mod scenarios;
mod serve;
mod sessions;
mod takeover;
mod word;
