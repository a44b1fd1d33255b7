//! The hosts of the next scenario, switched on while those of another one are in use: they get what processors those leave.
//!
//! Every scenario has hosts of its own all the same, so none sees anything of another one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cache::Parts;
use crate::machine::{Kind, Pace, may_hurry};
use crate::scenario::switch_on;
use crate::topology::{Lab, ensure_memory};

/// For so long those that boot are a step behind. Where nothing is left for them, somebody's patience would end in them later:
/// iSCSI's, udev's, ours.
const BEHIND: Duration = Duration::from_secs(20);

/// Boots a lab at a time.
#[derive(Debug)]
pub struct Ahead {
    orders: Sender<Order>,
    booted: Receiver<Result<Lab>>,
    /// Of what was ordered last and has not been taken.
    pace: Option<Arc<Pace>>,
}

#[derive(Debug)]
struct Order {
    parts: Parts,
    logs: PathBuf,
    pace: Arc<Pace>,
}

impl Ahead {
    /// Why hosts can't be booted ahead here; `None`: they can.
    #[must_use]
    pub fn lacking(kind: Kind) -> Option<&'static str> {
        if kind == Kind::Qemu {
            // Four emulated hosts are more than two processors have time for.
            Some("QEMU's hosts leave no time for others")
        } else if !may_hurry() {
            Some("it takes root to give a process its priority back")
        } else if ensure_memory(kind, 2).is_err() {
            Some("there is no memory for two labs")
        } else {
            None
        }
    }

    /// Nothing is ordered yet.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub fn new() -> Result<Self> {
        let (orders, taken) = channel();
        let (give, booted) = channel();
        thread::Builder::new().name("ahead".into()).spawn(move || serve(&taken, &give))?;
        Ok(Self { orders, booted, pace: None })
    }

    /// Begins to boot a lab, whose logs go to `logs`. What was ordered before has to be taken.
    ///
    /// # Errors
    /// If its thread is gone.
    pub fn order(&mut self, parts: &Parts, logs: &Path) -> Result<()> {
        let pace = Arc::new(Pace::behind());
        self.pace = Some(Arc::clone(&pace));
        self.orders
            .send(Order { parts: parts.clone(), logs: logs.to_path_buf(), pace })
            .ok()
            .context("nobody boots ahead")
    }

    /// The lab that was ordered, as one that has just been switched on; `None` if none was.
    pub fn take(&mut self) -> Option<Result<Lab>> {
        self.pace.take()?.hurry();
        let lab = self.booted.recv().context("nobody boots ahead").flatten();
        Some(lab.and_then(|lab| lab.until_ready().map(|()| lab)))
    }
}

fn serve(orders: &Receiver<Order>, booted: &Sender<Result<Lab>>) {
    for Order { parts, logs, pace } in orders {
        let late = Arc::clone(&pace);
        thread::spawn(move || {
            thread::sleep(BEHIND);
            late.hurry();
        });
        let lab = switch_on(&parts, &logs, &pace);
        pace.hurry();
        // Whoever ordered it may have given up.
        let _ = booted.send(lab);
    }
    // A guest ends with the thread that has started it (prctl(2), PR_SET_PDEATHSIG), and the last one may be in use.
    loop {
        thread::park();
    }
}
