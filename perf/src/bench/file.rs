//! A file or a block device, past the page cache: `O_DIRECT`, and `O_DSYNC` unless durability comes by FLUSH (`fdatasync`).
//!
//! One request at a time is a call of the measuring thread. More have a thread each, as programs without an event loop have
//! it: a request's time is that of the call in its thread, and handing it over is not in it, but bounds requests a second.

use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use twinsan_witness::device::Aligned;

use super::job::MOST_DEPTH;
use super::target::{Buffers, Done, Kind, Request, Target, sleep_for};

/// An open file or device.
#[derive(Debug)]
pub struct DirectIo {
    file: Arc<File>,
    path: PathBuf,
    bytes: u64,
    /// Submitted, and not begun.
    waiting: Vec<Request>,
    workers: Vec<Worker>,
    results: (SyncSender<Outcome>, Receiver<Outcome>),
    handed_over: usize,
    depth: usize,
}

#[derive(Debug)]
struct Worker {
    /// None: it is to end.
    requests: Option<SyncSender<(Request, Aligned)>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Outcome {
    slot: usize,
    memory: Aligned,
    began: Instant,
    at: Instant,
    result: std::io::Result<()>,
}

impl DirectIo {
    /// Opens what is there; `synchronous`: every write is durable when it ends.
    ///
    /// # Errors
    /// If it is no file and no block device, or has no direct I/O.
    pub fn open(path: &Path, synchronous: bool) -> Result<Self> {
        let name = || path.display().to_string();
        let sync = if synchronous { libc::O_DSYNC } else { 0 };
        let kind = path.metadata().with_context(name)?.file_type();
        ensure!(kind.is_file() || kind.is_block_device(), "{} is neither a file nor a block device", name());
        // A block device that is mounted, or part of another one, is refused then.
        let alone = if kind.is_block_device() { libc::O_EXCL } else { 0 };
        let mut options = File::options();
        let file = options.read(true).write(true).custom_flags(libc::O_DIRECT | sync | alone).open(path);
        let file = file.with_context(|| format!("{}, with O_DIRECT", name()))?;
        // A device's metadata say nothing of its size.
        let bytes = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0)).with_context(name)?;
        Ok(Self {
            file: Arc::new(file),
            path: path.to_owned(),
            bytes,
            waiting: Vec::with_capacity(MOST_DEPTH),
            workers: Vec::new(),
            results: sync_channel(MOST_DEPTH),
            handed_over: 0,
            depth: 1,
        })
    }

    fn worker(&self, slot: usize) -> Result<Worker> {
        let (send, requests) = sync_channel::<(Request, Aligned)>(1);
        let (file, results) = (Arc::clone(&self.file), self.results.0.clone());
        let work = move || {
            while let Ok((request, mut memory)) = requests.recv() {
                let began = Instant::now();
                let result = call(&file, request, memory.bytes());
                let outcome = Outcome { slot: request.slot, memory, began, at: Instant::now(), result };
                if results.send(outcome).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name(format!("slot {slot}")).spawn(work)?;
        Ok(Worker { requests: Some(send), thread: Some(thread) })
    }

    fn failed(&self, error: std::io::Error) -> anyhow::Error {
        anyhow!(error).context(self.path.display().to_string())
    }

    fn accept(&mut self, outcome: Outcome, buffers: &mut Buffers, done: &mut Vec<Done>) -> Result<()> {
        let Outcome { slot, memory, began, at, result } = outcome;
        buffers.0[slot] = Some(memory);
        self.handed_over -= 1;
        result.map_err(|error| self.failed(error))?;
        done.push(Done { slot, began: Some(began), at });
        Ok(())
    }
}

fn call(file: &File, request: Request, memory: &mut [u8]) -> std::io::Result<()> {
    match request.kind {
        Kind::Write => file.write_all_at(&memory[..request.len], request.offset),
        Kind::Read => file.read_exact_at(&mut memory[..request.len], request.offset),
        Kind::Flush => file.sync_data(),
    }
}

impl Target for DirectIo {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn prepare(&mut self, depth: usize) -> Result<()> {
        self.depth = depth;
        let wanted = if depth > 1 { depth } else { 0 };
        for slot in self.workers.len()..wanted {
            self.workers.push(self.worker(slot)?);
        }
        Ok(())
    }

    fn submit(&mut self, request: Request) {
        self.waiting.push(request);
    }

    fn wait(&mut self, buffers: &mut Buffers, until: Option<Instant>, done: &mut Vec<Done>) -> Result<()> {
        if self.depth == 1 {
            let Some(request) = self.waiting.pop() else {
                if let Some(long) = until.and_then(sleep_for) {
                    thread::sleep(long);
                }
                return Ok(());
            };
            call(&self.file, request, buffers.of(request.slot)).map_err(|error| self.failed(error))?;
            done.push(Done { slot: request.slot, began: None, at: Instant::now() });
            return Ok(());
        }
        for request in self.waiting.drain(..) {
            let memory = buffers.0[request.slot].take().context("a slot that is in flight already")?;
            let worker = self.workers[request.slot].requests.as_ref().context("a thread that is to end")?;
            worker.send((request, memory)).map_err(|_| anyhow!("a thread has ended"))?;
            self.handed_over += 1;
        }
        let first = match until {
            None if self.handed_over == 0 => return Ok(()),
            None => self.results.1.recv()?,
            Some(until) => match self.results.1.recv_timeout(sleep_for(until).unwrap_or_default()) {
                Ok(outcome) => outcome,
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => bail!("all threads have ended"),
            },
        };
        self.accept(first, buffers, done)?;
        while let Ok(outcome) = self.results.1.try_recv() {
            self.accept(outcome, buffers, done)?;
        }
        Ok(())
    }
}

impl Drop for DirectIo {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.requests = None;
        }
        for thread in self.workers.iter_mut().filter_map(|w| w.thread.take()) {
            let _ = thread.join();
        }
    }
}
