//! A bare queue pair: to measure verbs without a fabric around them, and to be a peer that breaks the rules.
//!
//! No credits, no queues, no events: one buffer, writes and messages as they are posted, completions as they come. It
//! blocks, polling as it is told. Both ends say their buffer's address and key in their private data, unless the caller
//! wants something else there.
//!
//! ```no_run
//! use twinsan_verbs::raw::{RawEnd, RawListener, Shape, Wait};
//! # fn main() -> std::io::Result<()> {
//! // One end:
//! let mut end = RawListener::bind("rdma://10.4.0.1:7472")?.accept()?;
//! while end.answer(Wait::Yield).is_ok() {}
//! // The other, a round trip of a 4 KiB write with its 64-byte immediate, answered by 64 bytes:
//! let mut end = RawEnd::connect("rdma://10.4.0.1:7472")?;
//! let shape = Shape { payload: 4096, answer: 0 };
//! let start = std::time::Instant::now();
//! end.ask(shape, Wait::Yield)?;
//! println!("{:?}", start.elapsed());
//! # Ok(())
//! # }
//! ```

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use twinsan_arena::{Arena, ArenaOptions, PagePolicy};

use crate::address::Address;
use crate::sys::{
    Access, CmEvent, CmEventKind, CmId, Completion, ConnectOptions, Done, EventChannel, MemoryRegion, Op, Post,
    ProtectionDomain, QueuePair, QueueSizes, Receive,
};

/// Bytes of the buffer: the longest payload, and what follows it.
const BUFFER: usize = (1 << 20) + PAGE;
const PAGE: usize = 4096;
/// Where the inline 64 bytes of a write with immediate go, and messages come.
const TAIL: usize = 1 << 20;
/// What a write with immediate carries inline: a descriptor, or a mailbox.
const INLINE: usize = 64;
/// Receives posted, of [`MESSAGE`] bytes each.
const RECEIVES: usize = 16;
/// The longest message.
const MESSAGE: usize = 128;
/// Everything takes at most so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one round trip moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes written by RDMA_WRITE before the 64 inline with the immediate, on one doorbell; at most 1 MiB. 0: none.
    pub payload: u32,
    /// The same in the answer.
    pub answer: u32,
}

/// How to wait for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Poll and nothing else.
    Spin,
    /// Poll, and give way to others in between.
    Yield,
    /// Poll so long, giving way, then sleep on the completion channel: as a fabric does.
    Sleep(Duration),
}

/// Where a peer lets us write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The device's address.
    pub address: u64,
    /// The remote key.
    pub key: u32,
}

/// One that listens.
#[derive(Debug)]
pub struct RawListener {
    listener: CmId,
    channel: EventChannel,
    address: String,
}

/// A connected queue pair.
#[derive(Debug)]
pub struct RawEnd {
    pair: QueuePair,
    buffer: MemoryRegion,
    _domain: Rc<ProtectionDomain>,
    channel: EventChannel,
    peer: Vec<u8>,
    completions: Vec<Completion>,
    /// Receives that were used.
    used: Vec<u64>,
    posted: u64,
    /// The newest send whose completion has come.
    sent: u64,
}

impl RawListener {
    /// Listens at an `rdma://` address.
    ///
    /// # Errors
    /// If the address is bad, or there is no RDMA.
    pub fn bind(address: &str) -> io::Result<Self> {
        let ip = resolve(address)?;
        let channel = EventChannel::new()?;
        let listener = channel.create_id(0)?;
        listener.bind(ip)?;
        listener.listen(8)?;
        let mut bound = ip;
        bound.set_port(listener.local_port());
        let address = format!("rdma://{bound}");
        Ok(Self { listener, channel, address })
    }

    /// The address, with its port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Waits for one peer and lets it in; listens no longer.
    ///
    /// # Errors
    /// The system's, or if nobody comes within ten seconds.
    pub fn accept(self) -> io::Result<RawEnd> {
        let Self { listener, channel, .. } = self;
        let mut request = wait_for(&channel, CmEventKind::ConnectRequest)?;
        let id = request.request.take().ok_or_else(|| io::Error::other("a request without an identifier"))?;
        let mut end = RawEnd::on(id, channel)?;
        end.peer = request.private_data;
        end.pair.accept(&options(&end.greeting()))?;
        wait_for(&end.channel, CmEventKind::Established)?;
        drop(listener);
        Ok(end)
    }
}

impl RawEnd {
    /// Connects to a [`RawListener`].
    ///
    /// # Errors
    /// The system's, or if nobody answers within ten seconds.
    pub fn connect(address: &str) -> io::Result<Self> {
        Self::connect_with(address, None)
    }

    /// Connects to anybody, with private data of the caller's, at most 56 bytes.
    ///
    /// # Errors
    /// As [`RawEnd::connect`].
    pub fn connect_with(address: &str, private_data: Option<&[u8]>) -> io::Result<Self> {
        let mut end = Self::knock(address, private_data)?;
        end.answered()?;
        Ok(end)
    }

    /// Asks anybody for a connection and leaves it at that: the other side's answer is confirmed by
    /// [`RawEnd::answered`] only.
    ///
    /// # Errors
    /// The system's.
    pub fn knock(address: &str, private_data: Option<&[u8]>) -> io::Result<Self> {
        let ip = resolve(address)?;
        let channel = EventChannel::new()?;
        let id = channel.create_id(0)?;
        let patience = i32::try_from(PATIENCE.as_millis()).expect("seconds");
        id.resolve_address(ip, patience)?;
        wait_for(&channel, CmEventKind::AddressResolved)?;
        id.resolve_route(patience)?;
        wait_for(&channel, CmEventKind::RouteResolved)?;
        let end = Self::on(id, channel)?;
        let greeting = end.greeting();
        end.pair.connect(&options(private_data.unwrap_or(&greeting)))?;
        Ok(end)
    }

    /// Waits for the answer to [`RawEnd::knock`], and confirms it.
    ///
    /// # Errors
    /// If it is none, or does not come within ten seconds.
    pub fn answered(&mut self) -> io::Result<()> {
        self.peer = wait_for(&self.channel, CmEventKind::Established)?.private_data;
        Ok(())
    }

    fn on(id: CmId, channel: EventChannel) -> io::Result<Self> {
        let domain = ProtectionDomain::new(id).map_err(|(error, _)| error)?;
        let pages = ArenaOptions { name: "raw".into(), bytes: BUFFER, pages: PagePolicy::Auto, lock: false };
        let arena = Arc::new(Arena::new(&pages).map_err(io::Error::other)?);
        let own = arena.as_ptr().addr() as u64;
        let buffer = MemoryRegion::new(&domain, &arena, (0, BUFFER), own, Access::Remote)?;
        let inline = u32::try_from(MESSAGE).expect("small");
        let receives = u32::try_from(RECEIVES).expect("small");
        let pair = QueuePair::new(&domain, QueueSizes { sends: 64, receives, inline })?;
        let mut end = Self {
            pair,
            buffer,
            _domain: domain,
            channel,
            peer: Vec::new(),
            completions: Vec::new(),
            used: (0..RECEIVES as u64).collect(),
            posted: 0,
            sent: 0,
        };
        end.post_receives()?;
        Ok(end)
    }

    /// What we say of our buffer: address and key, little-endian.
    fn greeting(&self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&(self.buffer.arena().as_ptr().addr() as u64).to_le_bytes());
        bytes[8..].copy_from_slice(&self.buffer.remote_key().to_le_bytes());
        bytes
    }

    /// The peer's private data, with its padding.
    #[must_use]
    pub fn peer_data(&self) -> &[u8] {
        &self.peer
    }

    /// The buffer of a peer of this kind.
    ///
    /// # Errors
    /// If it has said nothing of one.
    pub fn target(&self) -> io::Result<Target> {
        let all = self.peer.first_chunk::<12>().ok_or_else(|| io::Error::other("the peer tells of no buffer"))?;
        let (address, key) = all.split_first_chunk::<8>().expect("twelve bytes");
        let key = key.try_into().expect("four bytes");
        Ok(Target { address: u64::from_le_bytes(*address), key: u32::from_le_bytes(key) })
    }

    // ---- round trips ----------------------------------------------------------------------------------------------

    /// One round trip: returns when the answer's immediate has come.
    ///
    /// # Errors
    /// The device's, or if nobody answers.
    pub fn ask(&mut self, shape: Shape, wait: Wait) -> io::Result<()> {
        self.post_shape(shape.payload, shape.answer)?;
        self.immediate(wait).map(drop)
    }

    /// The other end of [`RawEnd::ask`]: waits for one, and answers it.
    ///
    /// # Errors
    /// The device's, or if nobody asks.
    pub fn answer(&mut self, wait: Wait) -> io::Result<()> {
        // The immediate says how much is wanted.
        let payload = self.immediate(wait)?;
        self.post_shape(payload.min(1 << 20), 0)
    }

    /// The payload, then 64 bytes inline with the immediate: one list, one doorbell, one completion in sixteen.
    fn post_shape(&mut self, payload: u32, imm: u32) -> io::Result<()> {
        let Target { address, key } = self.target()?;
        self.posted += 2;
        let number = self.posted;
        let payload = payload as usize;
        let first = Post {
            number: number - 1,
            op: Op::Write { address, key },
            from: (&self.buffer, 0, payload),
            inline: false,
            signal: false,
        };
        let second = Post {
            number,
            op: Op::WriteImm { address: address + TAIL as u64, key, imm },
            from: (&self.buffer, TAIL, INLINE),
            inline: true,
            signal: (number / 2).is_multiple_of(16),
        };
        let posts = [(payload > 0).then_some(first), Some(second)];
        self.pair.post(posts.into_iter().flatten())
    }

    /// Waits for an immediate.
    fn immediate(&mut self, wait: Wait) -> io::Result<u32> {
        loop {
            if let Done::Immediate { imm, .. } = self.completion(wait)? {
                return Ok(imm);
            }
        }
    }

    // ---- whatever one likes ---------------------------------------------------------------------------------------

    /// A message of at most 128 bytes, whatever they are.
    ///
    /// # Errors
    /// The device's.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.arena().copy_in(TAIL, bytes);
        self.posted += 1;
        let (number, from) = (self.posted, (&self.buffer, TAIL, bytes.len()));
        self.pair.post(std::iter::once(Post { number, op: Op::Send, from, inline: true, signal: true }))
    }

    /// A write of `len` bytes, at most 1 MiB, anywhere, with or without an immediate.
    ///
    /// # Errors
    /// The device's.
    pub fn write(&mut self, to: Target, len: usize, imm: Option<u32>) -> io::Result<()> {
        let Target { address, key } = to;
        let op = match imm {
            None => Op::Write { address, key },
            Some(imm) => Op::WriteImm { address, key, imm },
        };
        self.posted += 1;
        let (number, from) = (self.posted, (&self.buffer, 0, len));
        self.pair.post(std::iter::once(Post { number, op, from, inline: false, signal: true }))
    }

    /// Waits until all that was posted has completed.
    ///
    /// # Errors
    /// The device's: a write or message that the peer did not take is one.
    pub fn flush(&mut self, wait: Wait) -> io::Result<()> {
        while self.sent < self.posted {
            self.completion(wait)?;
        }
        Ok(())
    }

    /// Waits for a completion.
    fn completion(&mut self, wait: Wait) -> io::Result<Done> {
        let start = Instant::now();
        loop {
            if let Some(completion) = self.completions.pop() {
                return self.take(completion);
            }
            if self.pair.completions(&mut self.completions)? > 0 {
                // The oldest last, to be popped first.
                self.completions.reverse();
                continue;
            }
            let waited = start.elapsed();
            if waited > PATIENCE {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match wait {
                Wait::Spin => std::hint::spin_loop(),
                Wait::Sleep(spin) if waited >= spin => self.sleep()?,
                Wait::Yield | Wait::Sleep(_) => std::thread::yield_now(),
            }
        }
    }

    fn take(&mut self, completion: Completion) -> io::Result<Done> {
        let done = completion.outcome.map_err(|failure| io::Error::other(failure.to_string()))?;
        match done {
            Done::Sent => self.sent = completion.number,
            Done::Message(_) | Done::Immediate { .. } => {
                self.used.push(completion.number);
                if self.used.len() >= RECEIVES / 2 {
                    self.post_receives()?;
                }
            }
        }
        Ok(done)
    }

    fn post_receives(&mut self) -> io::Result<()> {
        let Self { pair, buffer, used, .. } = self;
        let room = PAGE / RECEIVES;
        let receives = used.drain(..).map(|number| {
            let slot = usize::try_from(number).expect("a receive's slot");
            Receive { number, offset: TAIL + slot * room, len: MESSAGE.min(room) }
        });
        pair.post_receives(buffer, receives)
    }

    /// Until the next completion, or the end of the connection.
    fn sleep(&mut self) -> io::Result<()> {
        self.pair.arm()?;
        if self.pair.completions(&mut self.completions)? > 0 {
            self.completions.reverse();
            return Ok(());
        }
        if readable(&[self.pair.as_fd(), self.channel.as_fd()], PATIENCE)?[0] {
            self.pair.hush();
        }
        match self.channel.next()? {
            Some(event) if event.kind == CmEventKind::Disconnected => Err(io::ErrorKind::ConnectionReset.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for RawEnd {
    fn drop(&mut self) {
        self.pair.disconnect();
    }
}

fn resolve(address: &str) -> io::Result<std::net::SocketAddr> {
    let parsed = Address::parse(address).map_err(io::Error::other)?;
    Ok(parsed.resolve().map_err(io::Error::other)?[0])
}

const fn options(private_data: &[u8]) -> ConnectOptions<'_> {
    ConnectOptions { private_data, retries: 3, receiver_retries: 3 }
}

/// Waits for an event of a kind; another one is an error.
fn wait_for(channel: &EventChannel, kind: CmEventKind) -> io::Result<CmEvent> {
    let start = Instant::now();
    loop {
        match channel.next()? {
            Some(event) if event.kind == kind => return Ok(event),
            Some(event) if event.kind == CmEventKind::Other => {}
            Some(event) => {
                return Err(io::Error::other(format!(
                    "{:?} (status {}) instead of {kind:?}",
                    event.kind, event.status
                )));
            }
            None => {
                let left = PATIENCE.saturating_sub(start.elapsed());
                if !readable(&[channel.as_fd()], left)?[0] && start.elapsed() >= PATIENCE {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }
}

/// Which of up to two descriptors are readable, after waiting for that.
fn readable(fds: &[std::os::fd::BorrowedFd<'_>], patience: Duration) -> io::Result<[bool; 2]> {
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let mut ready = [false; 2];
    for (ready, fd) in ready.iter_mut().zip(&polled) {
        *ready = !fd.revents().is_empty();
    }
    Ok(ready)
}
