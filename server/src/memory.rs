//! A volume's arena.

use std::sync::Arc;

use anyhow::Context;
use twinsan_arena::{Arena, ArenaOptions, PagePolicy, Pages};

use crate::layout::Layout;

/// Maps it, on the best pages there are; what was not to be had is logged by the arena, with the remedy. If it is to be
/// `lent`, peers on this host can be given it to read.
///
/// # Errors
/// If there is not enough memory of any kind.
pub(crate) fn arena(volume: &str, layout: &Layout, lent: bool) -> anyhow::Result<Arc<Arena>> {
    let bytes = usize::try_from(layout.bytes()).context("the staging memory is larger than this host can address")?;
    let name = format!("volume {volume}");
    let options = ArenaOptions { name, bytes, pages: PagePolicy::Auto, lock: true };
    let arena = if lent { Arena::lendable(&options) } else { Arena::new(&options) }?;
    let report = arena.report();
    let (pages, locked) = (page_word(report.pages), report.locked);
    tracing::info!(volume, mib = bytes >> 20, pages, locked, "staging memory");
    Ok(Arc::new(arena))
}

/// The word for `status`.
pub(crate) const fn page_word(pages: Pages) -> &'static str {
    match pages {
        Pages::Huge => "huge",
        Pages::Transparent { .. } => "transparent-huge",
        Pages::Small => "small",
    }
}
