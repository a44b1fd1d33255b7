//! One process per kernel device: an abstract unix socket's name, which the kernel frees with the process that has it.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Held as long as the process serves the device.
#[derive(Debug)]
pub(crate) struct Claim(#[expect(dead_code, reason = "the name is taken as long as it is open")] UnixDatagram);

impl Claim {
    /// Claims the device `name`, like `nbd0`.
    ///
    /// # Errors
    /// If another process of this host has claimed it.
    pub(crate) fn take(name: &str) -> anyhow::Result<Self> {
        let address = SocketAddr::from_abstract_name(format!("twinsan/{name}"))?;
        match UnixDatagram::bind_addr(&address) {
            Ok(socket) => Ok(Self(socket)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                anyhow::bail!("another `twinsan attach` of this host serves it: stop that one first, or take another")
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_claimed_once_and_let_go_with_its_claim() {
        let name = format!("test-{}", std::process::id());
        let claim = Claim::take(&name).unwrap();
        assert!(Claim::take(&name).unwrap_err().to_string().contains("another `twinsan attach`"));
        drop(claim);
        assert!(Claim::take(&name).is_ok());
    }
}
