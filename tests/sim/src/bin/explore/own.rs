//! A scenario of one's own, from the command line.

use clap::Args;
use twinsan_sim::FenceKind;
use twinsan_sim::explore::{Budget, Request, SCENARIOS, Scenario};

/// A scenario of one's own.
#[derive(Args)]
pub(crate) struct Own {
    /// What the client asks for: w0 writes block 0, r1 reads block 1.
    #[arg(long, value_name = "REQUESTS", value_parser = program)]
    program: Option<Program>,
    /// How often each fault may strike: crash=1,hold=2.
    #[arg(long, value_name = "FAULT=N,...", value_parser = faults, requires = "program")]
    faults: Option<Budget>,
    /// Begins with node A alone.
    #[arg(long, requires = "program")]
    solo: bool,
    /// With the fence `local-lock`.
    #[arg(long, requires = "program")]
    lock: bool,
    /// One order of events beside the faults.
    #[arg(long, requires = "program")]
    prompt: bool,
    /// The most blocks of a flush batch.
    #[arg(long, requires = "program", default_value_t = 8)]
    batch_blocks: u64,
    /// The clean mark comes when nothing has happened for a while.
    #[arg(long, requires = "program")]
    clean: bool,
}

/// Requests that last as long as the program.
#[derive(Clone)]
struct Program(&'static [Request]);

impl Own {
    pub(crate) fn scenario(&self) -> Option<Scenario> {
        let Program(program) = *self.program.as_ref()?;
        Some(Scenario {
            name: "own",
            fence: if self.lock { FenceKind::Lock } else { FenceKind::Pr },
            dual: !self.solo,
            program,
            budget: self.faults.unwrap_or_default(),
            prompt: self.prompt,
            batch_blocks: self.batch_blocks,
            clean: self.clean,
            ..SCENARIOS[0]
        })
    }
}

fn program(words: &str) -> Result<Program, String> {
    let request = |word: &str| match word {
        "w0" => Ok(Request::Write(0)),
        "w1" => Ok(Request::Write(1)),
        "r0" => Ok(Request::Read(0)),
        "r1" => Ok(Request::Read(1)),
        _ => Err(format!("{word:?} is no request: w0, w1, r0 or r1")),
    };
    let requests: Result<Vec<Request>, String> = words.split_whitespace().map(request).collect();
    Ok(Program(Vec::leak(requests?)))
}

fn faults(words: &str) -> Result<Budget, String> {
    let mut budget = Budget::NONE;
    for word in words.split(',').filter(|word| !word.is_empty()) {
        let (name, count) = word.split_once('=').unwrap_or((word, "1"));
        let known = || format!("no fault is called {name:?}: there are {}", Budget::NAMES.join(", "));
        *budget.by_name(name).ok_or_else(known)? =
            count.parse().map_err(|_| format!("{word:?}: how often must be a number from 0 to 255"))?;
    }
    Ok(budget)
}
