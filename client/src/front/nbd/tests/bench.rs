//! The front end on real sockets, over a volume in RAM whose every step the test decides.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use twinsan_fabric::Interest;
use twinsan_nbd::Export;
use twinsan_nbd::proto::{REQUEST_MAGIC, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, cmd};
use twinsan_wire::Seq;

use crate::front::testing::Model;
pub(super) use crate::front::testing::{BLOCK, RING, SIZE, memory, pattern, shape};
use crate::front::{NbdFront, NbdOptions, Watcher};

const FIRST_TOKEN: u64 = 7;

/// Which sockets are watched for what.
#[derive(Default)]
struct Watched(BTreeMap<u64, (OwnedFd, Interest)>);

impl Watcher for Watched {
    fn watch(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<(), String> {
        let fd = fd.try_clone_to_owned().map_err(|error| error.to_string())?;
        self.0.insert(token, (fd, interest));
        Ok(())
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        let inode = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).unwrap().st_ino;
        self.0.retain(|_, (watched, _)| inode(watched.as_fd()) != inode(fd));
    }
}

impl Watched {
    fn ready(&self) -> Vec<u64> {
        let events = |interest| match interest {
            Interest::Readable => PollFlags::IN,
            Interest::Writable => PollFlags::OUT,
            Interest::ReadableWritable => PollFlags::IN | PollFlags::OUT,
        };
        let mut fds: Vec<_> = self.0.values().map(|(fd, interest)| PollFd::new(fd, events(*interest))).collect();
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
        self.0.keys().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty()).map(|(token, _)| *token).collect()
    }
}

pub(super) struct Bench {
    pub(super) front: NbdFront,
    pub(super) model: Model,
    watched: Watched,
    pub(super) now_ms: u64,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with_io_timeout(None)
    }

    pub(super) fn with_io_timeout(io_timeout_ms: Option<u64>) -> Self {
        let export = Export { name: "db".into(), description: String::new(), size: SIZE, block_bytes: BLOCK };
        let options = NbdOptions { export, shape: shape(), io_timeout_ms, first_token: FIRST_TOKEN };
        Self { front: NbdFront::new(options, memory()), model: Model::new(), watched: Watched::default(), now_ms: 0 }
    }

    /// The kernel, with one end of a socket pair.
    pub(super) fn kernel(&mut self) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        self.front.accept_kernel(theirs.into());
        Client { socket: Some(ours), inbox: Vec::new(), unsent: Vec::new(), cookie: 0 }
    }

    pub(super) fn close_hung_up(&mut self) {
        self.front.close_hung_up(&mut self.watched);
    }

    /// One that has connected and said nothing; `None`: it was turned away.
    pub(super) fn silent(&mut self) -> Option<Client> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let taken = self.front.accept(theirs.into());
        taken.then(|| Client { socket: Some(ours), inbox: Vec::new(), unsent: Vec::new(), cookie: 0 })
    }

    /// A client that has gone through the handshake.
    pub(super) fn client(&mut self, structured: bool) -> Client {
        let mut client = self.silent().expect("there is a place");
        client.queue(b"\x00\x00\x00\x03");
        let mut greeting = 18;
        if structured {
            client.queue(b"IHAVEOPT\x00\x00\x00\x08\x00\x00\x00\x00");
            greeting += 20;
        }
        client.queue(b"IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x02db");
        self.exchange(&mut client);
        assert_eq!(client.inbox.len(), greeting + 10);
        client.inbox.clear();
        client
    }

    /// Everything that can happen without the volume's completing anything.
    pub(super) fn run(&mut self) {
        // Every pass does something or is the last; so many passes mean that it spins.
        for _ in 0..10_000 {
            let before = (self.model.log.len(), self.model.reads.len());
            self.front.work(&mut self.model, self.now_ms);
            self.front.send(&mut self.watched);
            let after = (self.model.log.len(), self.model.reads.len());
            let ready = self.watched.ready();
            if ready.is_empty() && !self.front.has_work() && before == after {
                return;
            }
            for token in ready {
                self.front.ready(token);
            }
        }
        panic!("the front end spins");
    }

    /// Sends what the client has to send, and receives what comes of it.
    pub(super) fn exchange(&mut self, client: &mut Client) {
        loop {
            let left = client.unsent.len();
            client.send(usize::MAX);
            self.run();
            client.receive();
            if client.unsent.is_empty() || client.unsent.len() == left {
                return;
            }
        }
    }

    /// The volume has done everything that was asked of it: writes are durable, released, and reads are answered.
    pub(super) fn complete_all(&mut self) {
        loop {
            self.release(self.model.written);
            self.front.writes_completed(self.model.written);
            while !self.model.reads.is_empty() {
                self.complete_read(0);
            }
            self.run();
            if self.model.reads.is_empty() && self.model.window.is_empty() {
                return;
            }
        }
    }

    pub(super) fn release(&mut self, upto: Seq) {
        self.model.window.free(upto);
    }

    pub(super) fn open_reads(&self) -> usize {
        self.model.reads.len()
    }

    pub(super) fn complete_read(&mut self, at: usize) {
        let slot = self.model.answer_read(at);
        self.front.read_completed(slot);
    }

    /// Everything up to the answer of one request.
    pub(super) fn request(&mut self, client: &mut Client, bytes: &[u8]) -> Reply {
        client.queue(bytes);
        for _ in 0..1000 {
            self.exchange(client);
            self.complete_all();
            client.receive();
            if let Some(reply) = client.reply(bytes) {
                return reply;
            }
        }
        panic!("no reply");
    }
}

/// An NBD client: the bytes that it has sent and received.
pub(super) struct Client {
    pub(super) socket: Option<UnixStream>,
    pub(super) inbox: Vec<u8>,
    pub(super) unsent: Vec<u8>,
    cookie: u64,
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) cookie: u64,
    pub(super) error: u32,
    pub(super) data: Vec<u8>,
}

impl Client {
    pub(super) fn queue(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    /// Sends up to so many bytes, as far as the socket takes them.
    pub(super) fn send(&mut self, most: usize) {
        let Some(socket) = &mut self.socket else { return };
        let most = most.min(self.unsent.len());
        match socket.write(&self.unsent[..most]) {
            Ok(n) => drop(self.unsent.drain(..n)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Receives all that is there; `false`: the server has closed.
    pub(super) fn receive(&mut self) -> bool {
        let Some(socket) = &mut self.socket else { return false };
        match socket.read_to_end(&mut self.inbox) {
            Ok(_) => false,
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            Err(error) => panic!("{error}"),
        }
    }

    pub(super) fn read(&mut self, offset: u64, len: u32) -> Vec<u8> {
        self.make(cmd::READ, 0, offset, len, &[])
    }

    pub(super) fn write(&mut self, offset: u64, payload: &[u8]) -> Vec<u8> {
        self.make(cmd::WRITE, 0, offset, u32::try_from(payload.len()).unwrap(), payload)
    }

    /// A request of any kind.
    pub(super) fn make(&mut self, command: u16, flags: u16, offset: u64, len: u32, payload: &[u8]) -> Vec<u8> {
        self.cookie += 1;
        let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(command.to_be_bytes());
        bytes.extend(self.cookie.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// The next reply, if it is there in full; `request` is what it answers, for a simple reply's length.
    pub(super) fn reply(&mut self, request: &[u8]) -> Option<Reply> {
        let word = |at: usize| Some(u32::from_be_bytes(self.inbox.get(at..at + 4)?.try_into().unwrap()));
        let cookie = |at: usize| Some(u64::from_be_bytes(self.inbox.get(at..at + 8)?.try_into().unwrap()));
        let (reply, used) = match word(0)? {
            SIMPLE_REPLY_MAGIC => {
                let (error, cookie) = (word(4)?, cookie(8)?);
                let read = request[6..8] == cmd::READ.to_be_bytes() && error == 0;
                let len = if read { u32::from_be_bytes(request[24..28].try_into().unwrap()) as usize } else { 0 };
                let data = self.inbox.get(16..16 + len)?.to_vec();
                (Reply { cookie, error, data }, 16 + len)
            }
            STRUCTURED_REPLY_MAGIC => {
                let kind = word(4)? & 0xffff;
                assert_eq!(word(4)? >> 16, u32::from(chunk::DONE));
                let (cookie, len) = (cookie(8)?, word(16)? as usize);
                let body = self.inbox.get(20..20 + len)?;
                let (error, data) = if kind == u32::from(chunk::OFFSET_DATA) {
                    assert_eq!(body[..8], request[16..24], "the data's offset");
                    (0, body[8..].to_vec())
                } else {
                    assert_eq!(kind, u32::from(chunk::ERROR));
                    (u32::from_be_bytes(body[..4].try_into().unwrap()), Vec::new())
                };
                (Reply { cookie, error, data }, 20 + len)
            }
            magic => panic!("reply magic {magic:#x}"),
        };
        self.inbox.drain(..used);
        Some(reply)
    }
}
