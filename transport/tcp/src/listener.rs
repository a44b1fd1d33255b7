//! Listening sockets.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{SocketType, getsockname, sockopt};
use twinsan_fabric::FabricError;
use twinsan_fabric::parts::SocketFile;

use crate::address::{Address, Endpoint};
use crate::socket;

/// Connections that the kernel keeps for us between two polls; more are refused.
const BACKLOG: i32 = 128;

/// A listening socket; its file, if it has one, goes with it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    /// As bound.
    pub(crate) address: String,
    /// Held for its drop.
    _file: Option<SocketFile>,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Listener {
    /// Listens at `address`.
    ///
    /// # Errors
    /// If it is bad or taken.
    pub(crate) fn open(address: &str) -> Result<Self, FabricError> {
        let bad = |why: String| FabricError::Address { address: address.to_owned(), why };
        let endpoint = Address::parse(address)?.resolve().map_err(bad)?.swap_remove(0);
        let io = |source| FabricError::Io { what: format!("listen at {address}"), source };
        match &endpoint {
            Endpoint::Ip(_) => Self::tcp(&endpoint).map_err(io),
            Endpoint::Unix(path) => {
                let (socket, file) = SocketFile::listen(path, SocketType::STREAM).map_err(io)?.map_err(bad)?;
                Ok(Self { socket, address: endpoint.to_string(), _file: Some(file) })
            }
        }
    }

    fn tcp(endpoint: &Endpoint) -> io::Result<Self> {
        let socket = socket::new(endpoint)?;
        // A restarted node takes its port again while old connections linger in TIME_WAIT.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        socket::bind(socket.as_fd(), endpoint)?;
        rustix::net::listen(&socket, BACKLOG)?;
        let bound = SocketAddr::try_from(getsockname(&socket)?)?;
        Ok(Self { socket, address: Endpoint::Ip(bound).to_string(), _file: None })
    }
}
