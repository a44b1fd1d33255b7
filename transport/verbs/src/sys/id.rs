//! An identifier of the connection manager: what a socket is to TCP.

use std::io;
use std::net::SocketAddr;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use super::bindings::*;
use super::channel::Channel;
use super::check;

/// How a connection is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectOptions<'a> {
    /// What the other side reads, at most 56 bytes in a request (IB Architecture 12.6.5, less the IP header of annex
    /// A11).
    pub(crate) private_data: &'a [u8],
    /// Sends are repeated so often when no acknowledgement comes.
    pub(crate) retries: u8,
    /// And so often when the other side has no receive posted.
    pub(crate) receiver_retries: u8,
}

/// See the module. Dropping it ends a connection and frees the port of a listener.
#[derive(Debug)]
pub(crate) struct CmId {
    id: NonNull<rdma_cm_id>,
    channel: Rc<Channel>,
}

impl CmId {
    /// # Safety
    /// `id` is a live identifier of `channel`, and nobody else destroys it.
    pub(super) const unsafe fn own(id: NonNull<rdma_cm_id>, channel: Rc<Channel>) -> Self {
        Self { id, channel }
    }

    pub(super) const fn as_ptr(&self) -> *mut rdma_cm_id {
        self.id.as_ptr()
    }

    pub(super) fn rdma(&self) -> &'static Rdma {
        self.channel.rdma()
    }

    /// Gives it a number of the caller's, which its events carry.
    pub(crate) fn set_number(&self, number: u64) {
        // SAFETY: the identifier is live, the field is the caller's (rdma_create_id(3)), and the library does not look
        // at it.
        unsafe { (*self.as_ptr()).context = number as *mut _ }
    }

    /// The device that it is bound to: none before its address is resolved.
    pub(super) fn device(&self) -> io::Result<NonNull<ibv_context>> {
        // SAFETY: the identifier is live.
        let device = unsafe { (*self.as_ptr()).verbs };
        NonNull::new(device).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// Takes an address to listen at.
    ///
    /// # Errors
    /// The system's: `ENODEV` for an address that no RDMA device has.
    pub(crate) fn bind(&self, address: SocketAddr) -> io::Result<()> {
        let mut address = RawAddress::new(address);
        // SAFETY: the identifier is live; the address is copied during the call.
        check(unsafe { (self.rdma().rdma_bind_addr)(self.as_ptr(), address.as_mut_ptr()) })
    }

    /// Begins to listen.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn listen(&self, backlog: i32) -> io::Result<()> {
        // SAFETY: the identifier is live.
        check(unsafe { (self.rdma().rdma_listen)(self.as_ptr(), backlog) })
    }

    /// The port that it is bound to.
    pub(crate) fn local_port(&self) -> u16 {
        // SAFETY: the identifier is live.
        u16::from_be(unsafe { (self.rdma().rdma_get_src_port)(self.as_ptr()) })
    }

    /// Begins to look for the device and the neighbour that lead to `address`.
    ///
    /// # Errors
    /// The system's, if there is none.
    pub(crate) fn resolve_address(&self, address: SocketAddr, timeout_ms: i32) -> io::Result<()> {
        let mut address = RawAddress::new(address);
        // SAFETY: the identifier is live; the address is copied during the call, and a null source means any.
        let outcome = unsafe {
            (self.rdma().rdma_resolve_addr)(self.as_ptr(), ptr::null_mut(), address.as_mut_ptr(), timeout_ms)
        };
        check(outcome)
    }

    /// Begins to look for the way there.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn resolve_route(&self, timeout_ms: i32) -> io::Result<()> {
        // SAFETY: the identifier is live.
        check(unsafe { (self.rdma().rdma_resolve_route)(self.as_ptr(), timeout_ms) })
    }

    /// How long an acknowledgement may take: 4.096 µs times two to the power of this (IB Architecture 9.7.6.1.3).
    ///
    /// # Errors
    /// The system's; kernels before 5.1 don't know the option.
    pub(crate) fn set_ack_timeout(&self, mut exponent: u8) -> io::Result<()> {
        let level = libc::c_int::try_from(RDMA_OPTION_ID).expect("small");
        let name = libc::c_int::try_from(RDMA_OPTION_ID_ACK_TIMEOUT).expect("small");
        // SAFETY: the identifier is live; the option is one byte, which is read during the call.
        check(unsafe { (self.rdma().rdma_set_option)(self.as_ptr(), level, name, (&raw mut exponent).cast(), 1) })
    }

    /// Begins to connect; there must be a queue pair.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn connect(&self, options: &ConnectOptions<'_>) -> io::Result<()> {
        let mut param = param(options);
        // SAFETY: the identifier is live; the parameters and the private data are copied during the call.
        check(unsafe { (self.rdma().rdma_connect)(self.as_ptr(), &raw mut param) })
    }

    /// Accepts a request; there must be a queue pair.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn accept(&self, options: &ConnectOptions<'_>) -> io::Result<()> {
        let mut param = param(options);
        // SAFETY: the identifier is live; the parameters and the private data are copied during the call.
        check(unsafe { (self.rdma().rdma_accept)(self.as_ptr(), &raw mut param) })
    }

    /// Turns a request away.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn reject(&self, private_data: &[u8]) -> io::Result<()> {
        let len = u8::try_from(private_data.len()).expect("private data is short");
        // SAFETY: the identifier is live; the bytes are copied during the call.
        check(unsafe { (self.rdma().rdma_reject)(self.as_ptr(), private_data.as_ptr().cast(), len) })
    }

    /// Stops the queue pair and tells the other side.
    ///
    /// # Errors
    /// The system's: `EINVAL` where there is no connection (any more).
    pub(super) fn disconnect(&self) -> io::Result<()> {
        // SAFETY: the identifier is live.
        check(unsafe { (self.rdma().rdma_disconnect)(self.as_ptr()) })
    }
}

impl Drop for CmId {
    fn drop(&mut self) {
        // SAFETY: owned, so destroyed once; whatever was made of it holds it, so nothing is left; and its events are
        // acknowledged as soon as they are taken, so the call does not wait for any.
        let outcome = check(unsafe { (self.rdma().rdma_destroy_id)(self.as_ptr()) });
        if let Err(error) = outcome {
            tracing::warn!(%error, "the connection manager did not destroy an identifier");
        }
    }
}

/// Reads and atomics are not used, so no resources are asked for them.
fn param(options: &ConnectOptions<'_>) -> rdma_conn_param {
    rdma_conn_param {
        private_data: options.private_data.as_ptr().cast(),
        private_data_len: u8::try_from(options.private_data.len()).expect("private data is short"),
        responder_resources: 0,
        initiator_depth: 0,
        flow_control: 0,
        retry_count: options.retries,
        rnr_retry_count: options.receiver_retries,
        srq: 0,
        qp_num: 0,
    }
}

/// An address as C has it.
enum RawAddress {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl RawAddress {
    fn new(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self::V4(libc::sockaddr_in {
                sin_family: libc::sa_family_t::try_from(libc::AF_INET).expect("small"),
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => Self::V6(libc::sockaddr_in6 {
                sin6_family: libc::sa_family_t::try_from(libc::AF_INET6).expect("small"),
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            }),
        }
    }

    const fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        match self {
            Self::V4(v4) => (&raw mut *v4).cast(),
            Self::V6(v6) => (&raw mut *v6).cast(),
        }
    }
}
