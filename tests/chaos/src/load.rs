//! What a driver needs of the load, wherever that runs; and the one that runs in this process, on NBD connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use twinsan_witness::device::{Device, Failure};
use twinsan_witness::ledger::{Counts, Ledger, UNIT};
use twinsan_witness::load::{self as witness, Settings, fill_all, read_all};

use crate::verdict::Broken;

/// The part of the volume that is written to all the time.
pub const LOAD_BYTES: u64 = 64 << 20;
/// Behind it, parts that are written to for the first time when the disk is full, each once: as much as a lane takes.
const FRESH_BYTES: u64 = 16 << 20;
/// Enough of them for some three hours; all of them fit the disk's filesystem.
const FRESH_PARTS: u64 = 200;
/// The volume that the load wants.
pub const VOLUME_BYTES: u64 = LOAD_BYTES + FRESH_PARTS * FRESH_BYTES;
/// Requests in flight at the most, whatever else is going on: more completions than that began since.
pub const IN_FLIGHT: u64 = (MAIN.threads + THIRST.threads) as u64;

const MAIN: Settings =
    Settings { threads: 4, most_units: 32, reads_percent: 40, rest: Duration::from_millis(1), seed: 0 };
/// What a full disk gets, where it has no blocks.
const THIRST: Settings =
    Settings { threads: 2, most_units: 16, reads_percent: 10, rest: Duration::from_millis(1), seed: 0 };
/// For the threads to notice that their client is gone.
const NOTICE: Duration = Duration::from_secs(20);

/// Reads and writes without end, and remembers what it was promised.
pub trait Load {
    /// Requests completed so far.
    fn completed(&self) -> u64;

    /// The longest that a request has taken since this was asked last, those under way among them.
    fn longest(&self) -> Duration;

    /// What it has found broken so far.
    ///
    /// # Errors
    /// That: [`Broken::Promise`] or [`Broken::Failed`].
    fn judge(&self) -> Result<(), Broken>;

    /// A client has attached in the place of one that has ended.
    ///
    /// # Errors
    /// [`Broken::Stuck`], if requests of the earlier one are still open.
    fn next_session(&mut self) -> Result<(), Broken>;

    /// Whether there is anything left where nothing was written before.
    fn has_fresh(&self) -> bool;

    /// Begins to write there, beside all else.
    ///
    /// # Errors
    /// If it can't begin, or there is nothing left.
    fn thirst(&mut self) -> Result<()>;

    /// Whether that has not been quenched yet.
    fn thirsts(&self) -> bool;

    /// Ends that, when the disk has room again, and reads back what it wrote.
    ///
    /// # Errors
    /// What is broken.
    fn quench(&mut self) -> Result<()>;

    /// Reads everything, beside the load if it can; false: only after [`Load::stop`].
    ///
    /// # Errors
    /// What is broken.
    fn read_back(&mut self, told: &AtomicBool) -> Result<bool>;

    /// Ends the reading and writing, when all is well; the last word comes by [`Load::read_back`].
    fn stop(&mut self);

    /// What it has come to so far, and the requests that were answered with an error.
    fn counts(&self) -> (Counts, u64);
}

/// Opens the volume, once for each thread and session.
pub type Opener = Arc<dyn Fn() -> Result<Box<dyn Device>> + Send + Sync>;

/// A load in this process.
pub struct Witness {
    open: Opener,
    seed: u64,
    main: Part,
    thirst: Option<Part>,
    fills: u64,
    /// Of parts that have ended.
    past: (Counts, u64),
}

/// A part of the volume, and the load on it.
struct Part {
    base: u64,
    ledger: Arc<Ledger>,
    /// Until it is stopped.
    load: Option<witness::Load>,
}

impl Witness {
    /// Writes everything once, and begins.
    ///
    /// # Errors
    /// If a request fails, or there are no threads.
    pub fn start(open: Opener, seed: u64) -> Result<Self> {
        let main = Part::new(0, LOAD_BYTES, u32::try_from(seed & 0xffff)? + 1);
        fill_all(&main.ledger, open()?.as_mut(), |_| Ok(()))?;
        let main = main.start(&open, Settings { seed, ..MAIN })?;
        Ok(Self { open, seed, main, thirst: None, fills: 0, past: Default::default() })
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        [&self.main].into_iter().chain(&self.thirst)
    }
}

impl Load for Witness {
    fn completed(&self) -> u64 {
        self.main.load.as_ref().map_or(0, witness::Load::completed)
    }

    fn longest(&self) -> Duration {
        self.parts().filter_map(|part| part.load.as_ref()).map(witness::Load::longest).max().unwrap_or_default()
    }

    fn judge(&self) -> Result<(), Broken> {
        self.parts().try_for_each(Part::judge)
    }

    fn next_session(&mut self) -> Result<(), Broken> {
        let loads = || self.parts().filter_map(|part| part.load.as_ref());
        if !loads().all(|load| load.wait_parked(NOTICE)) {
            return Err(Broken::Stuck("requests of a client that has ended are still open".into()));
        }
        loads().for_each(witness::Load::next_session);
        Ok(())
    }

    fn has_fresh(&self) -> bool {
        self.fills < FRESH_PARTS
    }

    fn thirst(&mut self) -> Result<()> {
        ensure!(self.has_fresh(), "all {FRESH_PARTS} parts have been written to");
        let base = LOAD_BYTES + self.fills * FRESH_BYTES;
        self.fills += 1;
        let part = Part::new(base, FRESH_BYTES, u32::try_from(self.fills & 0xffff)? + (1 << 16));
        let settings = Settings { seed: self.seed ^ self.fills, ..THIRST };
        self.thirst = Some(part.start(&self.open, settings)?);
        Ok(())
    }

    fn thirsts(&self) -> bool {
        self.thirst.is_some()
    }

    fn quench(&mut self) -> Result<()> {
        let Some(mut part) = self.thirst.take() else { return Ok(()) };
        let outcome = part.end(&self.open);
        let (counts, failed) = part.counts();
        self.past = (add(self.past.0, counts), self.past.1 + failed);
        outcome
    }

    fn read_back(&mut self, told: &AtomicBool) -> Result<bool> {
        self.main.read_all(&self.open, told).map(|()| true)
    }

    fn stop(&mut self) {
        self.main.stop();
    }

    fn counts(&self) -> (Counts, u64) {
        self.parts().map(Part::counts).fold(self.past, |sum, more| (add(sum.0, more.0), sum.1 + more.1))
    }
}

impl Part {
    fn new(base: u64, bytes: u64, run: u32) -> Self {
        Self { base, ledger: Arc::new(Ledger::new(bytes / UNIT as u64, run)), load: None }
    }

    fn start(self, open: &Opener, settings: Settings) -> Result<Self> {
        let (open, base) = (Arc::clone(open), self.base);
        let open_part = move || -> Result<Box<dyn Device>> {
            // A client that was killed again before anybody could connect is one that is gone.
            let device = open().unwrap_or_else(|error| Box::new(Absent(format!("{error:#}"))));
            Ok(Box::new(Shifted { device, base }))
        };
        let load = witness::Load::start(Arc::clone(&self.ledger), Box::new(open_part), settings)?;
        Ok(Self { load: Some(load), ..self })
    }

    fn judge(&self) -> Result<(), Broken> {
        if !self.ledger.counts().all_kept() {
            return Err(Broken::promise(&self.ledger));
        }
        match self.load.as_ref().map_or(0, witness::Load::failed) {
            0 => Ok(()),
            failed => Err(Broken::Failed(failed)),
        }
    }

    fn counts(&self) -> (Counts, u64) {
        (self.ledger.counts(), self.load.as_ref().map_or(0, witness::Load::failed))
    }

    fn stop(&mut self) {
        if let Some(load) = self.load.take() {
            let _ = load.stop();
        }
    }

    fn end(&mut self, open: &Opener) -> Result<()> {
        self.judge()?;
        self.stop();
        self.read_all(open, &AtomicBool::new(false))
    }

    fn read_all(&self, open: &Opener, told: &AtomicBool) -> Result<()> {
        let request =
            |error: anyhow::Error| if error.is::<Broken>() { error } else { Broken::Request(error.to_string()).into() };
        let ended = |_| if told.load(Ordering::Relaxed) { Err(Broken::Told.into()) } else { Ok(()) };
        let device = open().map_err(request)?;
        read_all(&self.ledger, &mut Shifted { device, base: self.base }, ended).map_err(request)?;
        Ok(self.judge()?)
    }
}

fn add(a: Counts, b: Counts) -> Counts {
    Counts {
        writes: a.writes + b.writes,
        reads: a.reads + b.reads,
        unknown: a.unknown + b.unknown,
        lost: a.lost + b.lost,
        gone_back: a.gone_back + b.gone_back,
        corrupt: a.corrupt + b.corrupt,
    }
}

/// A part of a volume.
struct Shifted {
    device: Box<dyn Device>,
    base: u64,
}

impl Device for Shifted {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Failure> {
        self.device.write(self.base + offset, data)
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), Failure> {
        self.device.read(self.base + offset, data)
    }
}

/// A client that is gone.
struct Absent(String);

impl Device for Absent {
    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Failure> {
        Err(Failure::Gone(self.0.clone()))
    }

    fn read(&mut self, _: u64, _: &mut [u8]) -> Result<(), Failure> {
        Err(Failure::Gone(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A volume that forgets a write of a block that was there before, if it is told to.
    #[derive(Clone, Default)]
    struct Volume(Arc<Mutex<Vec<u8>>>, Arc<AtomicBool>);

    impl Device for Volume {
        fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Failure> {
            if !self.1.swap(false, Ordering::Relaxed) {
                let at = usize::try_from(offset).unwrap();
                self.0.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
            }
            Ok(())
        }

        fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), Failure> {
            let at = usize::try_from(offset).unwrap();
            data.copy_from_slice(&self.0.lock().unwrap()[at..at + data.len()]);
            Ok(())
        }
    }

    fn witness() -> (Volume, Witness) {
        let volume = Volume(Arc::new(Mutex::new(vec![0; usize::try_from(VOLUME_BYTES).unwrap()])), Arc::default());
        let opened = volume.clone();
        (volume, Witness::start(Arc::new(move || Ok(Box::new(opened.clone()))), 1).unwrap())
    }

    fn until_completed(witness: &Witness, count: u64) {
        while witness.completed() < count {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn what_is_kept_is_well_in_both_parts() {
        let (_, mut witness) = witness();
        witness.thirst().unwrap();
        until_completed(&witness, 50);
        witness.quench().unwrap();
        witness.stop();
        witness.read_back(&AtomicBool::new(false)).unwrap();
        let (counts, failed) = witness.counts();
        assert!(counts.all_kept() && failed == 0 && counts.writes > 0 && counts.reads > 0, "{counts:?}");
    }

    /// What an earlier one wrote there would be nobody's.
    #[test]
    fn each_part_is_written_to_once() {
        let (_, mut witness) = witness();
        for _ in 0..FRESH_PARTS {
            assert!(witness.has_fresh());
            witness.thirst().unwrap();
            witness.quench().unwrap();
        }
        assert!(!witness.has_fresh());
        assert!(witness.thirst().is_err());
        assert!(witness.counts().0.all_kept());
    }

    #[test]
    fn one_forgotten_write_is_found() {
        let (volume, mut witness) = witness();
        until_completed(&witness, 20);
        witness.stop();
        // The last write to the first blocks, by the ledger's own way to write.
        volume.1.store(true, Ordering::Relaxed);
        let main = &witness.main;
        fill_all(&main.ledger, &mut Shifted { device: Box::new(volume.clone()), base: 0 }, |_| Ok(())).unwrap();
        let found = witness.read_back(&AtomicBool::new(false)).unwrap_err();
        assert!(matches!(found.downcast_ref(), Some(Broken::Promise(_))), "{found}");
        assert!(witness.counts().0.lost > 0);
    }
}
