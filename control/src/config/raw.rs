//! The file's tables as they stand there, before any value is judged.

use std::path::PathBuf;

use serde::Deserialize;

use super::{FenceKind, Timing};
use crate::Size;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default = "default_reactors")]
    pub(super) reactors: u64,
    #[serde(default)]
    pub(super) node: Vec<Node>,
    #[serde(default)]
    pub(super) volume: Vec<Volume>,
    #[serde(default)]
    pub(super) timing: Timing,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) listen: Vec<String>,
    pub(super) admin: PathBuf,
    pub(super) metrics: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) disk: PathBuf,
    // No default: the safe choice depends on the hardware, and only the operator knows it.
    pub(super) fence: FenceKind,
    pub(super) multipath: Option<bool>,
    pub(super) key_file: Option<PathBuf>,
    #[serde(default = "default_staging")]
    pub(super) staging: Size,
    #[serde(default = "default_integrity")]
    pub(super) integrity: bool,
}

const fn default_reactors() -> u64 {
    1
}

const fn default_staging() -> Size {
    Size::mib(64)
}

const fn default_integrity() -> bool {
    true
}
