//! The connection manager's event channel.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::rc::Rc;

use super::bindings::*;
use super::id::CmId;
use super::library::library;
use super::{bindings, check};

/// What the connection manager says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CmEventKind {
    AddressResolved,
    AddressError,
    RouteResolved,
    RouteError,
    ConnectRequest,
    Established,
    Rejected,
    Unreachable,
    ConnectError,
    Disconnected,
    DeviceRemoval,
    /// Another, which needs no answer.
    Other,
}

/// The private data of the longest kind, a reply (IB Architecture 12.6.8: 196 bytes).
pub(crate) const MAX_PRIVATE_DATA: usize = 196;

/// One event, copied out; the library's own is acknowledged already.
#[derive(Debug)]
pub(crate) struct CmEvent {
    pub(crate) kind: CmEventKind,
    /// Zero, a negative errno, or for [`CmEventKind::Rejected`] the reason (IB Architecture 12.6.7.2).
    pub(crate) status: i32,
    /// The number that the identifier was given; a request's is its listener's.
    pub(crate) number: u64,
    /// Of a request: the identifier that was made for it.
    pub(crate) request: Option<CmId>,
    pub(crate) private_data: Vec<u8>,
}

/// See the module. Its descriptor is readable when there are events.
#[derive(Debug)]
pub(crate) struct EventChannel(Rc<Channel>);

/// The channel itself, which lives as long as one of its identifiers.
#[derive(Debug)]
pub(super) struct Channel(NonNull<rdma_event_channel>);

impl EventChannel {
    /// A channel that never blocks.
    ///
    /// # Errors
    /// The system's; on a host whose kernel knows no RDMA that is `ENODEV` or `ENOENT`. A missing library is an
    /// `Unsupported` that says so.
    pub(crate) fn new() -> io::Result<Self> {
        let rdma = library().map_err(|why| io::Error::new(io::ErrorKind::Unsupported, why))?;
        // SAFETY: it takes nothing; null is handled.
        let channel = unsafe { (rdma.rdma_create_event_channel)() };
        let channel = Self(Rc::new(Channel(NonNull::new(channel).ok_or_else(io::Error::last_os_error)?)));
        super::set_nonblocking(channel.as_fd())?;
        Ok(channel)
    }

    /// An identifier with a number of the caller's, to connect or listen with.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn create_id(&self, number: u64) -> io::Result<CmId> {
        let mut id = ptr::null_mut();
        // SAFETY: the channel is live; the library writes the new identifier to `id` and keeps the number as it is.
        let outcome =
            unsafe { (self.0.rdma().rdma_create_id)(self.0.0.as_ptr(), &raw mut id, number as *mut _, RDMA_PS_TCP) };
        check(outcome)?;
        let id = NonNull::new(id).expect("a made identifier");
        // SAFETY: it is fresh, and nobody else has it.
        Ok(unsafe { CmId::own(id, Rc::clone(&self.0)) })
    }

    /// The next event, if there is one.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn next(&self) -> io::Result<Option<CmEvent>> {
        let mut event = ptr::null_mut();
        // SAFETY: the channel is live; on success the library writes an event to `event`.
        let outcome = unsafe { (self.0.rdma().rdma_get_cm_event)(self.0.0.as_ptr(), &raw mut event) };
        match check(outcome) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(None),
            other => other?,
        }
        let event = NonNull::new(event).expect("an event");
        // SAFETY: the library has just handed it out, and it is acknowledged below, after its last use.
        let copied = unsafe { self.copy(event.as_ref()) };
        // SAFETY: handed out once, acknowledged once; its identifier lives, as only this thread destroys any.
        unsafe { (self.0.rdma().rdma_ack_cm_event)(event.as_ptr()) };
        Ok(Some(copied))
    }

    /// # Safety
    /// `event` is one that the library has handed out, and the caller makes one copy of it.
    unsafe fn copy(&self, event: &rdma_cm_event) -> CmEvent {
        let kind = kind(event.event);
        let of = if kind == CmEventKind::ConnectRequest { event.listen_id } else { event.id };
        // SAFETY: an event's identifiers are live until it is acknowledged and the caller destroys them.
        let number = unsafe { (*of).context } as u64;
        let request = (kind == CmEventKind::ConnectRequest).then(|| {
            let id = NonNull::new(event.id).expect("a request's identifier");
            // SAFETY: the library made it for this event, and leaves it to whoever takes the event.
            unsafe { CmId::own(id, Rc::clone(&self.0)) }
        });
        // SAFETY: all ids here are of the connected kind (RDMA_PS_TCP), for which `conn` is the member that is set; for
        // events without private data the library has zeroed it.
        let conn = unsafe { &event.param.conn };
        let len = usize::from(conn.private_data_len).min(MAX_PRIVATE_DATA);
        let private_data = if conn.private_data.is_null() || len == 0 {
            Vec::new()
        } else {
            // SAFETY: the library says that so many bytes are there, within the event, until it is acknowledged.
            unsafe { std::slice::from_raw_parts(conn.private_data.cast::<u8>(), len) }.to_vec()
        };
        CmEvent { kind, status: event.status, number, request, private_data }
    }
}

impl AsFd for EventChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the live channel's and stays open as long as `self`.
        unsafe { BorrowedFd::borrow_raw((*self.0.0.as_ptr()).fd) }
    }
}

impl Channel {
    #[expect(clippy::unused_self, reason = "whoever has a channel has the library")]
    pub(super) fn rdma(&self) -> &'static Rdma {
        library().expect("open, or there were no channel")
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: every identifier holds the channel, so none is left; destroyed once.
        unsafe { (self.rdma().rdma_destroy_event_channel)(self.0.as_ptr()) }
    }
}

const fn kind(event: bindings::rdma_cm_event_type) -> CmEventKind {
    match event {
        RDMA_CM_EVENT_ADDR_RESOLVED => CmEventKind::AddressResolved,
        RDMA_CM_EVENT_ADDR_ERROR => CmEventKind::AddressError,
        RDMA_CM_EVENT_ROUTE_RESOLVED => CmEventKind::RouteResolved,
        RDMA_CM_EVENT_ROUTE_ERROR => CmEventKind::RouteError,
        RDMA_CM_EVENT_CONNECT_REQUEST => CmEventKind::ConnectRequest,
        RDMA_CM_EVENT_ESTABLISHED => CmEventKind::Established,
        RDMA_CM_EVENT_REJECTED => CmEventKind::Rejected,
        RDMA_CM_EVENT_UNREACHABLE => CmEventKind::Unreachable,
        RDMA_CM_EVENT_CONNECT_ERROR => CmEventKind::ConnectError,
        RDMA_CM_EVENT_DISCONNECTED => CmEventKind::Disconnected,
        RDMA_CM_EVENT_DEVICE_REMOVAL => CmEventKind::DeviceRemoval,
        _ => CmEventKind::Other,
    }
}
