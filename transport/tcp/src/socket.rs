//! Making sockets, and the system's errors in the fabric's words.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use twinsan_fabric::CloseReason;

use crate::address::Endpoint;

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// What a unix socket's buffers are asked to hold: one longest blob. The system's limit (`net.core.wmem_max`) may
/// make it less. TCP's are left to the kernel's own tuning, which asking for a size would switch off (tcp(7)).
const UNIX_BUFFER: usize = 1 << 20;

/// An idle TCP connection is probed after this long; a peer that crashed with its host is noticed by its heartbeats
/// long before, this only keeps forgotten connections from staying for ever.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A non-blocking stream socket for `endpoint`.
pub(crate) fn new(endpoint: &Endpoint) -> io::Result<OwnedFd> {
    let family = match endpoint {
        Endpoint::Ip(SocketAddr::V4(_)) => AddressFamily::INET,
        Endpoint::Ip(SocketAddr::V6(_)) => AddressFamily::INET6,
        Endpoint::Unix(_) => AddressFamily::UNIX,
    };
    Ok(net::socket_with(family, SocketType::STREAM, FLAGS, None)?)
}

/// connect(2).
pub(crate) fn connect(socket: BorrowedFd<'_>, endpoint: &Endpoint) -> io::Result<()> {
    match endpoint {
        Endpoint::Ip(ip) => net::connect(socket, ip)?,
        Endpoint::Unix(path) => net::connect(socket, &SocketAddrUnix::new(path.as_path())?)?,
    }
    Ok(())
}

/// bind(2).
pub(crate) fn bind(socket: BorrowedFd<'_>, endpoint: &Endpoint) -> io::Result<()> {
    match endpoint {
        Endpoint::Ip(ip) => net::bind(socket, ip)?,
        Endpoint::Unix(path) => net::bind(socket, &SocketAddrUnix::new(path.as_path())?)?,
    }
    Ok(())
}

/// accept4(2).
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(net::accept_with(listener, FLAGS)?)
}

/// Sets a connected socket up for low latency.
pub(crate) fn tune(socket: &OwnedFd) -> io::Result<()> {
    let socket = socket.as_fd();
    if sockopt::socket_domain(socket)? == AddressFamily::UNIX {
        sockopt::set_socket_send_buffer_size(socket, UNIX_BUFFER)?;
    } else {
        sockopt::set_tcp_nodelay(socket, true)?;
        sockopt::set_socket_keepalive(socket, true)?;
        sockopt::set_tcp_keepidle(socket, KEEPALIVE)?;
        sockopt::set_tcp_keepintvl(socket, KEEPALIVE)?;
    }
    Ok(())
}

/// Why a non-blocking connect failed, if it did (connect(2), `EINPROGRESS`).
pub(crate) fn connect_error(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(sockopt::socket_error(socket)??)
}

/// Whether a TCP socket is connected to itself: what connecting to a local port that nobody listens to can do, when
/// the kernel happens to pick that very port for our end (simultaneous open, RFC 9293 section 3.5).
pub(crate) fn is_own_peer(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let ends = (SocketAddr::try_from(net::getsockname(socket)?), net::getpeername(socket)?.map(SocketAddr::try_from));
    Ok(matches!(ends, (Ok(here), Some(Ok(there))) if here == there))
}

/// A system error on a connection, or on the way to one.
pub(crate) fn reason(error: &io::Error) -> CloseReason {
    match Errno::from_io_error(error) {
        // A unix socket's file that is not there is the same news as a port that nobody listens to.
        Some(Errno::CONNREFUSED | Errno::NOENT) => CloseReason::Refused,
        Some(Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED) => CloseReason::Ended,
        _ => CloseReason::no_route(error).unwrap_or_else(|| CloseReason::Unreachable(error.to_string())),
    }
}
