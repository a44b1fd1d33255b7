//! Host names, resolved on threads of their own: the system's resolver blocks for seconds when its servers are silent.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustix::event::{EventfdFlags, eventfd};

use crate::ConnId;

/// Questions that may be open. A driver that goes on connecting while the name servers are silent must not pile up
/// threads.
const MAX_OPEN: usize = 8;

/// What came of one question: for which connection, and the addresses or why there are none.
pub type Answer<T> = (ConnId, Result<Vec<T>, String>);

/// See the module.
#[derive(Debug)]
pub struct Resolver<T> {
    wake: Arc<OwnedFd>,
    answers: Receiver<Answer<T>>,
    answer: Sender<Answer<T>>,
    open: BTreeSet<ConnId>,
}

impl<T: Send + 'static> Resolver<T> {
    /// Without questions.
    ///
    /// # Errors
    /// If the system gives no eventfd.
    pub fn new() -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let (answer, answers) = channel();
        Ok(Self { wake, answers, answer, open: BTreeSet::new() })
    }

    /// Readable when there are answers.
    #[must_use]
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Asks for `conn`, by a call that may block; the answer comes for sure, though it may be that there is none.
    pub fn ask(&mut self, conn: ConnId, resolve: impl FnOnce() -> Result<Vec<T>, String> + Send + 'static) {
        let (answer, wake) = (self.answer.clone(), Arc::clone(&self.wake));
        let tell = move |result| {
            // Neither fails while the fabric lives, and after that nobody wants to know.
            let _ = answer.send((conn, result));
            let _ = rustix::io::write(&wake, &1_u64.to_ne_bytes());
        };
        self.open.insert(conn);
        if self.open.len() > MAX_OPEN {
            tell(Err(format!("{MAX_OPEN} host names are being resolved already")));
            return;
        }
        let refused = tell.clone();
        let spawned = thread::Builder::new().name("resolve".into()).spawn(move || tell(resolve()));
        if let Err(e) = spawned {
            refused(Err(format!("no thread to resolve a host name: {e}")));
        }
    }

    /// The answers so far.
    pub fn answers(&mut self) -> Vec<Answer<T>> {
        let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
        let answers: Vec<_> = self.answers.try_iter().collect();
        for (conn, _) in &answers {
            self.open.remove(conn);
        }
        answers
    }
}
