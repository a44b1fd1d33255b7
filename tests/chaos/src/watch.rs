//! What the nodes say: a thread for each asks again and again, so that a frozen one holds up nobody.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::guard::Look;
use crate::world::{Eye, San, World};

/// Between two questions.
const REST: Duration = Duration::from_millis(40);

/// Two threads and what they have heard last.
#[derive(Debug)]
pub struct Watch {
    heard: Arc<Mutex<[Option<Look>; 2]>>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Begins.
    ///
    /// # Errors
    /// If there are no threads for it.
    pub fn start(world: &impl World) -> Result<Self> {
        let mut watch = Self { heard: Arc::default(), over: Arc::default(), threads: Vec::new() };
        for san in San::BOTH {
            let (heard, over, mut eye) = (Arc::clone(&watch.heard), Arc::clone(&watch.over), world.eye(san));
            let thread = std::thread::Builder::new().name(format!("watch {san}"));
            watch.threads.push(thread.spawn(move || look(san, &heard, &over, &mut eye))?);
        }
        Ok(watch)
    }

    /// The last answer of each; `None` if its last question had none.
    #[must_use]
    pub fn looks(&self) -> [Option<Look>; 2] {
        lock(&self.heard).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn look(san: San, heard: &Mutex<[Option<Look>; 2]>, over: &AtomicBool, eye: &mut Eye) {
    while !over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let look = eye().map(|status| Look { asked, status });
        lock(heard)[san.index()] = look;
        std::thread::sleep(REST);
    }
}

fn lock(heard: &Mutex<[Option<Look>; 2]>) -> MutexGuard<'_, [Option<Look>; 2]> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}
