//! A node's reactors, each on a thread of its own with a fabric of its own: they share no volume and no connection. The first
//! one's is the main thread.
//!
//! ```text
//! build: memory, disks ──▶ listen: addresses ──▶ run, until all of its volumes have ended
//! ```
//!
//! Each step is taken by all of them before the next, so that a node that can't start has let nobody in.

use std::thread::{self, JoinHandle};

use anyhow::Context;
use crossbeam_channel::{Receiver, Sender, bounded};
use twinsan_network::Network;

use crate::reactor::{Ending, Reactor};

/// See the module.
pub(crate) struct Node {
    first: Reactor<Network>,
    addresses: Vec<String>,
    others: Vec<Other>,
}

/// A reactor on a thread of its own.
struct Other {
    thread: JoinHandle<Ending>,
    /// Has it take the next step; when this is gone, it ends.
    go: Sender<()>,
    /// What came of a step: where it listens.
    done: Receiver<anyhow::Result<Vec<String>>>,
}

impl Node {
    /// Of reactors, at least one, each with its addresses and what makes it.
    ///
    /// # Errors
    /// If one can't be made.
    pub(crate) fn build<M>(parts: impl IntoIterator<Item = (Vec<String>, M)>) -> anyhow::Result<Self>
    where
        M: FnOnce() -> anyhow::Result<Reactor<Network>> + Send + 'static,
    {
        let mut parts = parts.into_iter();
        let (addresses, make) = parts.next().context("a node without reactors")?;
        let first = make()?;
        let others = parts.enumerate().map(|(at, (addresses, make))| Other::build(at + 1, addresses, make));
        let others = others.collect::<anyhow::Result<_>>()?;
        Ok(Self { first, addresses, others })
    }

    /// Lets others in. Where they are let in.
    ///
    /// # Errors
    /// If an address is taken, or none of this host's.
    pub(crate) fn listen(&mut self) -> anyhow::Result<Vec<String>> {
        let mut bound = listen(&mut self.first, &self.addresses)?;
        for other in &self.others {
            other.go_on()?;
            bound.extend(other.outcome()?);
        }
        Ok(bound)
    }

    /// Runs until all have ended, or the first has by a second signal, which they all hear.
    pub(crate) fn run(self) -> Ending {
        for other in &self.others {
            other.go_on().expect("its thread waits for it");
        }
        let mut ending = self.first.run();
        for other in self.others {
            if ending == Ending::Orderly {
                ending = other.thread.join().expect("a panic ends the process");
            }
        }
        ending
    }
}

impl Other {
    fn build(
        number: usize,
        addresses: Vec<String>,
        make: impl FnOnce() -> anyhow::Result<Reactor<Network>> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (go, gone_on) = bounded(1);
        let (done, outcome) = bounded(1);
        let work = move || on_its_thread(&addresses, make, &gone_on, &done);
        let thread = thread::Builder::new().name(format!("reactor {number}")).spawn(work)?;
        let other = Self { thread, go, done: outcome };
        other.outcome()?;
        Ok(other)
    }

    fn go_on(&self) -> anyhow::Result<()> {
        self.go.send(()).context("a reactor's thread has ended")
    }

    fn outcome(&self) -> anyhow::Result<Vec<String>> {
        self.done.recv().context("a reactor's thread has ended")?
    }
}

/// All steps.
fn on_its_thread(
    addresses: &[String],
    make: impl FnOnce() -> anyhow::Result<Reactor<Network>>,
    go: &Receiver<()>,
    done: &Sender<anyhow::Result<Vec<String>>>,
) -> Ending {
    // Whoever does not want to know any more ends the process.
    let tell = |outcome| drop(done.send(outcome));
    let mut reactor = match make() {
        Ok(reactor) => reactor,
        Err(error) => {
            tell(Err(error));
            return Ending::Orderly;
        }
    };
    tell(Ok(Vec::new()));
    if go.recv().is_err() {
        return Ending::Orderly;
    }
    tell(listen(&mut reactor, addresses));
    if go.recv().is_err() {
        return Ending::Orderly;
    }
    reactor.run()
}

fn listen(reactor: &mut Reactor<Network>, addresses: &[String]) -> anyhow::Result<Vec<String>> {
    addresses.iter().map(|address| reactor.listen(address)).collect()
}
