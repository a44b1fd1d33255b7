//! Queue pairs: work requests in, completions out.
//!
//! A connection's queue pair has its completion queue and its completion channel to itself: so the queue's size is that of
//! the work there can be, it can't overflow, no completion outlives its connection, and it costs a poll a look at
//! one cache line more.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::rc::Rc;

use super::bindings::*;
use super::id::ConnectOptions;
use super::memory::{MemoryRegion, ProtectionDomain};
use super::{check, check_number};

/// Completions taken by one call.
pub(crate) const BATCH: usize = 32;

/// How much work a queue pair takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueSizes {
    /// Work requests in the send queue.
    pub(crate) sends: u32,
    /// Work requests in the receive queue.
    pub(crate) receives: u32,
    /// Bytes that a send may carry inline.
    pub(crate) inline: u32,
}

/// What a send does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// A message into the peer's next receive.
    Send,
    /// A one-sided write.
    Write { address: u64, key: u32 },
    /// One that takes a receive of the peer's, for the number alone.
    WriteImm { address: u64, key: u32, imm: u32 },
}

/// A send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Post<'a> {
    /// Comes back with the completion.
    pub(crate) number: u64,
    pub(crate) op: Op,
    /// The bytes: in this region, from here on, so many.
    pub(crate) from: (&'a MemoryRegion, usize, usize),
    /// Copied at the call instead of read by the device.
    pub(crate) inline: bool,
    /// There is to be a completion. A failure has one in any case.
    pub(crate) signal: bool,
}

/// A receive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receive {
    /// Comes back with the completion.
    pub(crate) number: u64,
    /// First byte in the arena.
    pub(crate) offset: usize,
    /// Number of bytes.
    pub(crate) len: usize,
}

/// What has completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// A send, and every send before it.
    Sent,
    /// A message of so many bytes has come.
    Message(usize),
    /// A write with immediate, of so many bytes, has landed.
    Immediate { imm: u32, len: usize },
}

/// Why work failed (IB Architecture 11.6.2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The queue pair had been stopped before it came to this.
    Flushed,
    /// The peer did not let us write there.
    RemoteAccess,
    /// The peer did not take our message.
    RemoteRequest,
    /// No acknowledgement came.
    NoAnswer,
    /// The peer had no receive posted.
    NoReceiver,
    /// The peer's message was longer than the receive.
    TooLong,
    /// Another.
    Other(ibv_wc_status),
}

/// The outcome of one work request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) number: u64,
    pub(crate) outcome: Result<Done, Failure>,
}

/// See the module.
pub(crate) struct QueuePair {
    queue: NonNull<ibv_cq>,
    channel: NonNull<ibv_comp_channel>,
    pair: NonNull<ibv_qp>,
    ops: Ops,
    domain: Rc<ProtectionDomain>,
    /// Kept for their memory; what their pointers point to is good only during a call.
    sends: Vec<ibv_send_wr>,
    receives: Vec<ibv_recv_wr>,
    pieces: Vec<ibv_sge>,
}

/// What the headers have as inline functions over `ibv_context.ops`.
#[derive(Clone, Copy)]
struct Ops {
    post_send: unsafe extern "C" fn(*mut ibv_qp, *mut ibv_send_wr, *mut *mut ibv_send_wr) -> libc::c_int,
    post_recv: unsafe extern "C" fn(*mut ibv_qp, *mut ibv_recv_wr, *mut *mut ibv_recv_wr) -> libc::c_int,
    poll_cq: unsafe extern "C" fn(*mut ibv_cq, libc::c_int, *mut ibv_wc) -> libc::c_int,
    req_notify_cq: unsafe extern "C" fn(*mut ibv_cq, libc::c_int) -> libc::c_int,
}

impl QueuePair {
    /// A reliable connected one, on the identifier of `domain`, not connected yet: receives may be posted.
    ///
    /// # Errors
    /// The system's: `EINVAL` or `ENOMEM` where the device can't do so much.
    pub(crate) fn new(domain: &Rc<ProtectionDomain>, sizes: QueueSizes) -> io::Result<Self> {
        let rdma = domain.id().rdma();
        let device = domain.id().device()?;
        // SAFETY: the context is live as long as the domain's identifier.
        let ops =
            Ops::of(unsafe { &(*device.as_ptr()).ops }).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSYS))?;
        // SAFETY: as above.
        let channel = unsafe { (rdma.ibv_create_comp_channel)(device.as_ptr()) };
        let channel = Guard::new(channel, rdma.ibv_destroy_comp_channel)?;
        // SAFETY: the channel is live for the whole of this function, and its descriptor with it.
        super::set_nonblocking(unsafe { BorrowedFd::borrow_raw((*channel.as_ptr()).fd) })?;
        let entries = libc::c_int::try_from(sizes.sends + sizes.receives).expect("a queue's size");
        // SAFETY: context and channel are live; the queue's own context pointer is not used.
        let queue = unsafe { (rdma.ibv_create_cq)(device.as_ptr(), entries, ptr::null_mut(), channel.as_ptr(), 0) };
        let queue = Guard::new(queue, rdma.ibv_destroy_cq)?;
        let mut init = init(queue.as_ptr(), sizes);
        // SAFETY: identifier, domain and queue are live; the library reads `init` and writes the real sizes into it.
        check(unsafe { (rdma.rdma_create_qp)(domain.id().as_ptr(), domain.as_ptr(), &raw mut init) })?;
        // SAFETY: the identifier is live, and has the queue pair now.
        let pair = unsafe { (*domain.id().as_ptr()).qp };
        let pair = NonNull::new(pair).expect("a made queue pair");
        Ok(Self {
            queue: queue.release(),
            channel: channel.release(),
            pair,
            ops,
            domain: Rc::clone(domain),
            sends: Vec::with_capacity(sizes.sends as usize),
            receives: Vec::with_capacity(sizes.receives as usize),
            pieces: Vec::with_capacity(sizes.sends.max(sizes.receives) as usize),
        })
    }

    /// Begins to connect.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn connect(&self, options: &ConnectOptions<'_>) -> io::Result<()> {
        self.domain.id().connect(options)
    }

    /// Accepts the request that the identifier was made for.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn accept(&self, options: &ConnectOptions<'_>) -> io::Result<()> {
        self.domain.id().accept(options)
    }

    /// Tells the peer that it is over, as far as that goes.
    pub(crate) fn disconnect(&self) {
        if let Err(error) = self.domain.id().disconnect() {
            tracing::trace!(%error, "nobody to disconnect from");
        }
    }

    /// Posts sends, in order, with one doorbell.
    ///
    /// # Errors
    /// The device's: then some may have been posted, and the queue pair is no good any more.
    pub(crate) fn post<'a>(&mut self, posts: impl Iterator<Item = Post<'a>>) -> io::Result<()> {
        self.sends.clear();
        self.pieces.clear();
        for post in posts {
            let (region, offset, len) = post.from;
            self.pieces.push(region.piece(offset, len));
            self.sends.push(send(&post, len));
        }
        // Linked only now: pushing may have moved them.
        let Self { sends, pieces, .. } = self;
        let mut next = ptr::null_mut();
        for (send, piece) in sends.iter_mut().zip(pieces.iter_mut()).rev() {
            send.sg_list = &raw mut *piece;
            send.next = next;
            next = &raw mut *send;
        }
        if next.is_null() {
            return Ok(());
        }
        let mut bad = ptr::null_mut();
        // SAFETY: the queue pair is live; list and pieces are well-formed and are copied during the call, as are the
        // inline bytes, which lie in live arenas. What the device reads later is registered memory, which it loses with
        // its registration.
        check_number(unsafe { (self.ops.post_send)(self.pair.as_ptr(), next, &raw mut bad) })
    }

    /// Posts receives into `region`.
    ///
    /// # Errors
    /// The device's, as for [`QueuePair::post`].
    pub(crate) fn post_receives(
        &mut self,
        region: &MemoryRegion,
        receives: impl Iterator<Item = Receive>,
    ) -> io::Result<()> {
        self.receives.clear();
        self.pieces.clear();
        for receive in receives {
            self.pieces.push(region.piece(receive.offset, receive.len));
            let wr = ibv_recv_wr { wr_id: receive.number, next: ptr::null_mut(), sg_list: ptr::null_mut(), num_sge: 1 };
            self.receives.push(wr);
        }
        let Self { receives, pieces, .. } = self;
        let mut next = ptr::null_mut();
        for (receive, piece) in receives.iter_mut().zip(pieces.iter_mut()).rev() {
            receive.sg_list = &raw mut *piece;
            receive.next = next;
            next = &raw mut *receive;
        }
        if next.is_null() {
            return Ok(());
        }
        let mut bad = ptr::null_mut();
        // SAFETY: the queue pair is live; the list is copied during the call. The device writes into registered memory
        // only, which nobody has references to, and loses it with its registration.
        check_number(unsafe { (self.ops.post_recv)(self.pair.as_ptr(), next, &raw mut bad) })
    }

    /// Takes up to [`BATCH`] completions.
    ///
    /// # Errors
    /// The device's.
    pub(crate) fn completions(&mut self, into: &mut Vec<Completion>) -> io::Result<usize> {
        let mut entries = [const { MaybeUninit::<ibv_wc>::uninit() }; BATCH];
        let most = libc::c_int::try_from(BATCH).expect("small");
        // SAFETY: the queue is live; the call writes at most `most` entries from the first on.
        let count = unsafe { (self.ops.poll_cq)(self.queue.as_ptr(), most, entries.as_mut_ptr().cast()) };
        let count = usize::try_from(count).map_err(|_| io::Error::other("the completion queue can't be polled"))?;
        for entry in &entries[..count] {
            // SAFETY: the call has written `count` entries.
            into.push(completion(unsafe { entry.assume_init_ref() }));
        }
        Ok(count)
    }

    /// The next completion makes the descriptor readable. Those that are there already may not: look again.
    ///
    /// # Errors
    /// The device's.
    pub(crate) fn arm(&self) -> io::Result<()> {
        // SAFETY: the queue is live.
        check_number(unsafe { (self.ops.req_notify_cq)(self.queue.as_ptr(), 0) })
    }

    /// Takes what made the descriptor readable, if it was: one event at most, as each takes an [`QueuePair::arm`].
    pub(crate) fn hush(&self) {
        let rdma = self.domain.id().rdma();
        let (mut queue, mut context) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the channel is live and does not block; the call writes to both on success.
        let taken = unsafe { (rdma.ibv_get_cq_event)(self.channel.as_ptr(), &raw mut queue, &raw mut context) };
        if taken == 0 {
            // SAFETY: the channel's only queue is ours, which is live; each event is acknowledged once.
            unsafe { (rdma.ibv_ack_cq_events)(queue, 1) };
        }
    }

    /// Whether it has been stopped, by the peer's fault or a failure.
    pub(crate) fn is_stopped(&self) -> bool {
        let mut attr = MaybeUninit::<ibv_qp_attr>::zeroed();
        let mut init = MaybeUninit::<ibv_qp_init_attr>::zeroed();
        let mask = libc::c_int::try_from(IBV_QP_STATE).expect("small");
        // SAFETY: the queue pair is live; the call writes to both structures, which are integers and pointers, for all
        // of which zero is a value.
        let outcome = unsafe {
            (self.domain.id().rdma().ibv_query_qp)(self.pair.as_ptr(), attr.as_mut_ptr(), mask, init.as_mut_ptr())
        };
        // SAFETY: zeroed, and written where the call has succeeded.
        outcome == 0 && unsafe { attr.assume_init_ref() }.qp_state == IBV_QPS_ERR
    }
}

impl AsFd for QueuePair {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the live channel's and stays open as long as `self`.
        unsafe { BorrowedFd::borrow_raw((*self.channel.as_ptr()).fd) }
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        let rdma = self.domain.id().rdma();
        // SAFETY: each is live, owned, and destroyed once, users first. When the first call returns the device has
        // stopped working for the queue pair: nothing of the peer's lands any more.
        unsafe { (rdma.rdma_destroy_qp)(self.domain.id().as_ptr()) };
        // SAFETY: as above; its events were acknowledged when they were taken, so the call does not wait for any.
        let queue = unsafe { (rdma.ibv_destroy_cq)(self.queue.as_ptr()) };
        // SAFETY: as above.
        let channel = unsafe { (rdma.ibv_destroy_comp_channel)(self.channel.as_ptr()) };
        if let Err(error) = check_number(queue).and(check_number(channel)) {
            tracing::error!(%error, "a completion queue is still in use");
        }
    }
}

impl fmt::Debug for QueuePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePair").field("pair", &self.pair).finish_non_exhaustive()
    }
}

impl Ops {
    fn of(ops: &ibv_context_ops) -> Option<Self> {
        Some(Self {
            post_send: ops.post_send?,
            post_recv: ops.post_recv?,
            poll_cq: ops.poll_cq?,
            req_notify_cq: ops.req_notify_cq?,
        })
    }
}

/// Destroys what was made if what follows fails.
struct Guard<T> {
    made: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T) -> libc::c_int,
}

impl<T> Guard<T> {
    fn new(made: *mut T, destroy: unsafe extern "C" fn(*mut T) -> libc::c_int) -> io::Result<Self> {
        Ok(Self { made: NonNull::new(made).ok_or_else(io::Error::last_os_error)?, destroy })
    }

    const fn as_ptr(&self) -> *mut T {
        self.made.as_ptr()
    }

    fn release(self) -> NonNull<T> {
        std::mem::ManuallyDrop::new(self).made
    }
}

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        // SAFETY: made and not released, so it is nobody else's; its only users are guards made later, which go first.
        let _ = unsafe { (self.destroy)(self.as_ptr()) };
    }
}

fn init(queue: *mut ibv_cq, sizes: QueueSizes) -> ibv_qp_init_attr {
    ibv_qp_init_attr {
        qp_context: ptr::null_mut(),
        send_cq: queue,
        recv_cq: queue,
        srq: ptr::null_mut(),
        cap: ibv_qp_cap {
            max_send_wr: sizes.sends,
            max_recv_wr: sizes.receives,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline_data: sizes.inline,
        },
        qp_type: IBV_QPT_RC,
        sq_sig_all: 0,
    }
}

fn send(post: &Post<'_>, len: usize) -> ibv_send_wr {
    let (opcode, address, key, imm) = match post.op {
        Op::Send => (IBV_WR_SEND, 0, 0, 0),
        Op::Write { address, key } => (IBV_WR_RDMA_WRITE, address, key, 0),
        Op::WriteImm { address, key, imm } => (IBV_WR_RDMA_WRITE_WITH_IMM, address, key, imm),
    };
    let signal = if post.signal { IBV_SEND_SIGNALED } else { 0 };
    let inline = if post.inline { IBV_SEND_INLINE } else { 0 };
    // SAFETY: a work request is integers and pointers, for all of which zero is a value.
    let mut send: ibv_send_wr = unsafe { MaybeUninit::zeroed().assume_init() };
    send.wr_id = post.number;
    send.num_sge = libc::c_int::from(len > 0);
    send.opcode = opcode;
    send.send_flags = signal | inline;
    // The field is raw and big-endian by agreement (ibv_post_send(3)).
    send.__bindgen_anon_1.imm_data = imm.to_be();
    send.wr.rdma = ibv_send_wr__bindgen_ty_2__bindgen_ty_1 { remote_addr: address, rkey: key };
    send
}

fn completion(entry: &ibv_wc) -> Completion {
    let outcome = match entry.status {
        // Only of successful entries are the other fields set.
        IBV_WC_SUCCESS => Ok(match entry.opcode {
            IBV_WC_RECV => Done::Message(entry.byte_len as usize),
            IBV_WC_RECV_RDMA_WITH_IMM => {
                // SAFETY: the opcode says that it is this member; and any four bytes are a number.
                let imm = u32::from_be(unsafe { entry.__bindgen_anon_1.imm_data });
                // The payload's length (IB Architecture 11.4.2.1).
                Done::Immediate { imm, len: entry.byte_len as usize }
            }
            _ => Done::Sent,
        }),
        IBV_WC_WR_FLUSH_ERR => Err(Failure::Flushed),
        IBV_WC_REM_ACCESS_ERR => Err(Failure::RemoteAccess),
        IBV_WC_REM_INV_REQ_ERR | IBV_WC_REM_OP_ERR => Err(Failure::RemoteRequest),
        IBV_WC_RETRY_EXC_ERR => Err(Failure::NoAnswer),
        IBV_WC_RNR_RETRY_EXC_ERR => Err(Failure::NoReceiver),
        IBV_WC_LOC_LEN_ERR => Err(Failure::TooLong),
        other => Err(Failure::Other(other)),
    };
    Completion { number: entry.wr_id, outcome }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flushed => f.write_str("the queue pair was stopped"),
            Self::RemoteAccess => f.write_str("remote access error"),
            Self::RemoteRequest => f.write_str("remote invalid request"),
            Self::NoAnswer => f.write_str("no acknowledgement (transport retry counter exceeded)"),
            Self::NoReceiver => f.write_str("receiver not ready"),
            Self::TooLong => f.write_str("a message longer than its receive"),
            Self::Other(status) => write!(f, "work completion status {status}"),
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
