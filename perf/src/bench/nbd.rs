//! NBD connections, pipelined, on one thread.
//!
//! Requests of a batch leave in one gathered system call, and replies are read through a buffer. With one request in flight
//! that is what a simple client does: send, poll, receive. With more, nothing blocks while something is left to send: a server that
//! does not read before its answers are taken finds somebody who takes them.
//!
//! With two connections every write goes to both, and has ended when both have answered; reads go to one.

use std::fmt;
use std::io::{IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};
use twinsan_witness::nbd::proto::{self, Command, FUA, HEADER_BYTES, REPLY_BYTES};

use super::target::{Buffers, Done, Kind, Request, Target, sleep_for};

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket file.
    Unix(PathBuf),
    /// A host and a port.
    Tcp(String, u16),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(host, port) => write!(f, "{host}, port {port}"),
        }
    }
}

/// Replies are read into so many bytes; what is longer goes to its slot directly.
const INBOX: usize = 64 << 10;
/// Pieces of one gathered write at most.
const PIECES: usize = 128;

/// One export, by one connection to each of its servers.
#[derive(Debug)]
pub struct Nbd {
    connections: Vec<Connection>,
    bytes: u64,
    /// By slot: answers to come.
    awaited: Vec<u8>,
    in_flight: usize,
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    /// To be sent; what is before `sent` has left.
    out: Vec<Out>,
    sent: usize,
    /// Bytes of `out[sent]` that have left.
    part: usize,
    /// By slot: the request in flight.
    pending: Vec<Option<Pending>>,
    in_flight: usize,
    sequence: u64,
    inbox: Box<[u8]>,
    /// What of the inbox is not used up.
    from: usize,
    to: usize,
    /// The slot whose bytes come now, and how many of them are there.
    reading: Option<(usize, usize)>,
}

#[derive(Debug)]
struct Out {
    header: [u8; HEADER_BYTES],
    slot: usize,
    /// Of the payload.
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    cookie: u64,
    request: Request,
}

impl Nbd {
    /// Opens the export `name` at every address.
    ///
    /// # Errors
    /// If a server is not there or refuses, or sizes differ.
    pub fn connect(addresses: &[Address], name: &str) -> Result<Self> {
        let mut connections = Vec::with_capacity(addresses.len());
        let mut sizes = Vec::with_capacity(addresses.len());
        for address in addresses {
            let (socket, export) =
                dial(address, name).with_context(|| format!("NBD export \"{name}\" at {address}"))?;
            ensure!(
                export.flags & proto::SEND_FUA != 0 && export.flags & proto::SEND_FLUSH != 0,
                "NBD export \"{name}\" at {address} does not know FUA and FLUSH, so nothing there is known to be durable"
            );
            sizes.push(export.size);
            connections.push(Connection::new(socket));
        }
        ensure!(sizes.len() <= 2, "{} servers: one or two, please", sizes.len());
        let bytes = *sizes.first().context("no server at all")?;
        ensure!(sizes.iter().all(|&size| size == bytes), "the exports' sizes differ: {sizes:?}");
        Ok(Self { connections, bytes, awaited: Vec::new(), in_flight: 0 })
    }

    fn send(&mut self, buffers: &Buffers) -> Result<()> {
        self.connections.iter_mut().try_for_each(|c| c.send(buffers))
    }

    /// Takes what is there; if `wait`, waits until something is. Whether anything was.
    fn receive(&mut self, place: usize, wait: bool, buffers: &mut Buffers, done: &mut Vec<Done>) -> Result<bool> {
        let Some(at) = self.connections[place].receive(wait, buffers)? else { return Ok(false) };
        while let Some(slot) = self.connections[place].next(buffers)? {
            self.awaited[slot] -= 1;
            if self.awaited[slot] == 0 {
                self.in_flight -= 1;
                done.push(Done { slot, began: None, at });
            }
        }
        Ok(true)
    }

    /// Sleeps until a socket is ready for what is to be done there, or `until`.
    fn sleep(&self, until: Option<Instant>) -> Result<()> {
        let timeout = match until {
            None => None,
            Some(until) => match sleep_for(until) {
                Some(long) => Some(Timespec::try_from(long)?),
                None => return Ok(()),
            },
        };
        let fd = |i: usize| {
            let connection = &self.connections[i];
            PollFd::from_borrowed_fd(connection.socket.as_fd(), connection.interest())
        };
        let count = self.connections.len();
        let mut fds = [fd(0), fd(count - 1)];
        match poll(&mut fds[..count], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("poll"),
        }
    }
}

impl Target for Nbd {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn prepare(&mut self, depth: usize) -> Result<()> {
        ensure!(self.in_flight == 0, "{} requests are still in flight", self.in_flight);
        self.awaited.resize(depth.max(self.awaited.len()), 0);
        for connection in &mut self.connections {
            connection.pending.resize(self.awaited.len(), None);
            connection.out.reserve(self.awaited.len());
        }
        Ok(())
    }

    fn copies(&self) -> usize {
        self.connections.len()
    }

    fn submit(&mut self, request: Request) {
        let slot = request.slot;
        self.in_flight += 1;
        if request.kind == Kind::Read {
            self.awaited[slot] = 1;
            self.connections[request.copy].submit(request);
        } else {
            self.awaited[slot] = u8::try_from(self.connections.len()).expect("one or two");
            for connection in &mut self.connections {
                connection.submit(request);
            }
        }
    }

    fn wait(&mut self, buffers: &mut Buffers, until: Option<Instant>, done: &mut Vec<Done>) -> Result<()> {
        loop {
            self.send(buffers)?;
            let all_sent = self.connections.iter().all(Connection::all_sent);
            let busy = self.connections.iter().filter(|c| c.in_flight > 0).count();
            // Of one connection, or if all have to answer before anything else can happen.
            let may_block = all_sent && until.is_none() && (busy == 1 || self.in_flight == 1);
            let mut progress = false;
            for place in 0..self.connections.len() {
                if self.connections[place].in_flight > 0 {
                    progress |= self.receive(place, may_block, buffers, done)?;
                }
            }
            if !done.is_empty() || until.is_some_and(|until| Instant::now() >= until) {
                return Ok(());
            }
            if !progress {
                self.sleep(until)?;
            }
        }
    }
}

impl Connection {
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            out: Vec::new(),
            sent: 0,
            part: 0,
            pending: Vec::new(),
            in_flight: 0,
            sequence: 0,
            inbox: vec![0; INBOX].into(),
            from: 0,
            to: 0,
            reading: None,
        }
    }

    fn submit(&mut self, request: Request) {
        let Request { slot, kind, offset, len, fua, .. } = request;
        let (command, payload) = match kind {
            Kind::Read => (Command::Read, 0),
            Kind::Write => (Command::Write, len),
            Kind::Flush => (Command::Flush, 0),
        };
        self.sequence += 1;
        let cookie = self.sequence << 16 | slot as u64;
        let flags = if fua { FUA } else { 0 };
        let len = u32::try_from(len).expect("a job's request");
        self.out.push(Out { header: proto::header(command, flags, cookie, offset, len), slot, len: payload });
        self.pending[slot] = Some(Pending { cookie, request });
        self.in_flight += 1;
    }

    fn all_sent(&self) -> bool {
        self.out.is_empty()
    }

    fn interest(&self) -> PollFlags {
        let out = if self.all_sent() { PollFlags::empty() } else { PollFlags::OUT };
        // A connection that nothing is awaited of says nothing but that it is gone, which is heard at the next request.
        let replies = if self.in_flight > 0 { PollFlags::IN } else { PollFlags::empty() };
        out | replies
    }

    /// As much as the socket takes.
    fn send(&mut self, buffers: &Buffers) -> Result<()> {
        // The only request there is: no answer can be in the way of its end.
        let alone = if self.in_flight == 1 { SendFlags::empty() } else { SendFlags::DONTWAIT };
        while self.sent < self.out.len() {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            for (i, out) in self.out[self.sent..].iter().take(PIECES / 2).enumerate() {
                let part = if i == 0 { self.part } else { 0 };
                let in_payload = part.saturating_sub(HEADER_BYTES);
                if part < HEADER_BYTES {
                    pieces[count] = IoSlice::new(&out.header[part..]);
                    count += 1;
                }
                if out.len > in_payload {
                    pieces[count] = IoSlice::new(&buffers.get(out.slot)[in_payload..out.len]);
                    count += 1;
                }
            }
            let flags = alone | SendFlags::NOSIGNAL;
            match sendmsg(&self.socket, &pieces[..count], &mut SendAncillaryBuffer::default(), flags) {
                Ok(bytes) => self.have_left(bytes),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("NBD connection: send"),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    fn have_left(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let left = HEADER_BYTES + self.out[self.sent].len - self.part;
            if bytes < left {
                self.part += bytes;
                return;
            }
            bytes -= left;
            self.sent += 1;
            self.part = 0;
        }
    }

    /// Until there is something to receive, by poll(2) as libnbd does it and so fio, nbdcopy and qemu: who sleeps in recv(2) on
    /// a unix socket is woken for nothing when the server takes the payload.
    fn sleep(&self) -> Result<()> {
        let mut fds = [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("NBD connection: poll"),
        }
    }

    /// What there is, by one more system call; if `wait`, as soon as there is something. When it returned, unless there was
    /// nothing.
    fn receive(&mut self, wait: bool, buffers: &mut Buffers) -> Result<Option<Instant>> {
        if wait {
            self.sleep()?;
        }
        let flags = RecvFlags::DONTWAIT;
        let direct = match self.reading {
            Some((slot, got)) if self.from == self.to => {
                let len = self.pending[slot].map_or(0, |p| p.request.len);
                Some((slot, got, len))
            }
            _ => None,
        };
        let received = loop {
            let result = if let Some((slot, got, len)) = direct {
                recv(&self.socket, &mut buffers.of(slot)[got..len], flags)
            } else {
                if self.from > 0 {
                    self.inbox.copy_within(self.from..self.to, 0);
                    (self.from, self.to) = (0, self.to - self.from);
                }
                recv(&self.socket, &mut self.inbox[self.to..], flags)
            };
            match result {
                Ok((_, bytes)) => break bytes,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("NBD connection: receive"),
            }
        };
        let at = Instant::now();
        ensure!(received > 0, "the server has ended the NBD connection with {} requests in flight", self.in_flight);
        match direct {
            Some((slot, got, _)) => self.reading = Some((slot, got + received)),
            None => self.to += received,
        }
        Ok(Some(at))
    }

    /// The next slot whose answer is complete.
    fn next(&mut self, buffers: &mut Buffers) -> Result<Option<usize>> {
        loop {
            if let Some((slot, got)) = self.reading {
                let len = self.pending[slot].map_or(0, |p| p.request.len);
                let take = (len - got).min(self.to - self.from);
                buffers.of(slot)[got..got + take].copy_from_slice(&self.inbox[self.from..self.from + take]);
                self.from += take;
                if got + take < len {
                    self.reading = Some((slot, got + take));
                    return Ok(None);
                }
                self.reading = None;
                return Ok(Some(self.ended(slot)));
            }
            let Some(bytes) = self.inbox[self.from..self.to].first_chunk::<REPLY_BYTES>() else { return Ok(None) };
            let reply = proto::reply(bytes)?;
            self.from += REPLY_BYTES;
            let slot = usize::try_from(reply.cookie & 0xffff)?;
            let pending = self.pending.get(slot).copied().flatten().filter(|p| p.cookie == reply.cookie);
            let Some(Pending { request, .. }) = pending else { bail!("NBD: a reply to no request: {reply:?}") };
            let Request { kind, offset, len, .. } = request;
            ensure!(reply.code == 0, "{kind:?} of {len} bytes at byte {offset}: NBD error {}", reply.code);
            if kind != Kind::Read {
                return Ok(Some(self.ended(slot)));
            }
            self.reading = Some((slot, 0));
        }
    }

    fn ended(&mut self, slot: usize) -> usize {
        self.pending[slot] = None;
        self.in_flight -= 1;
        slot
    }
}

impl Drop for Connection {
    /// NBD asks for a DISC before the connection ends; nobody is left to tell of its failure.
    fn drop(&mut self) {
        if self.out.is_empty() {
            let header = proto::header(Command::Disc, 0, 0, 0, 0);
            let _ = rustix::net::send(&self.socket, &header, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
    }
}

fn dial(address: &Address, name: &str) -> Result<(OwnedFd, proto::Export)> {
    fn open<S: Read + Write + Into<OwnedFd>>(mut stream: S, name: &str) -> Result<(OwnedFd, proto::Export)> {
        let export = proto::open(&mut stream, name)?;
        Ok((stream.into(), export))
    }
    match address {
        Address::Unix(path) => open(UnixStream::connect(path)?, name),
        Address::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port))?;
            stream.set_nodelay(true)?;
            open(stream, name)
        }
    }
}
