//! The readable record of a run: one line per event and host.

use core::fmt;

/// Where lines go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    /// Off: nothing is even formatted.
    pub(crate) on: bool,
    lines: Vec<String>,
}

impl Trace {
    /// Recording or not.
    #[must_use]
    pub(crate) fn new(on: bool) -> Self {
        Self { on, lines: Vec::new() }
    }

    /// One line, at `now_us`.
    pub(crate) fn line(&mut self, now_us: u64, who: &dyn fmt::Display, what: fmt::Arguments<'_>) {
        self.lines.push(format!("{:>6}.{:03} ms  {who:<5} {what}", now_us / 1000, now_us % 1000));
    }

    /// All lines so far.
    #[must_use]
    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }
}

/// Records a line if tracing is on: `trace!(world, who, "format", …)`.
macro_rules! trace {
    ($world:expr, $who:expr, $($arg:tt)*) => {
        if $world.trace.on {
            let now = $world.now_us;
            $world.trace.line(now, &$who, format_args!($($arg)*));
        }
    };
}
pub(crate) use trace;
