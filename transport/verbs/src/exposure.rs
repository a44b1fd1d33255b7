//! What a connection's peer may write to.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use twinsan_arena::Arena;
use twinsan_fabric::{RemoteAddr, RemoteKey};

use crate::sys::{Access, MemoryRegion, Op, ProtectionDomain};

/// Device addresses are equal to real ones below this, so that a device can use its largest pages.
const HUGE_PAGE: u64 = 2 << 20;

#[derive(Debug)]
struct Exposure {
    key: RemoteKey,
    len: u64,
    /// None for a range without bytes, which can't be registered.
    _region: Option<MemoryRegion>,
}

/// All of one connection.
#[derive(Debug, Default)]
pub(crate) struct Exposures {
    all: Vec<Exposure>,
}

impl Exposures {
    /// Opens a range, which the caller has checked.
    ///
    /// # Errors
    /// The system's, if it can't be registered.
    pub(crate) fn open(
        &mut self,
        domain: &Rc<ProtectionDomain>,
        arena: &Arc<Arena>,
        (offset, len): (usize, usize),
    ) -> io::Result<RemoteKey> {
        let (key, region) = if len == 0 {
            // No device key is zero with an address beyond 4 MiB: it opens nothing, and is like no other.
            (RemoteKey((HUGE_PAGE * 2 + self.all.len() as u64) << 32), None)
        } else {
            let address = arena.addr(offset).addr() as u64 % HUGE_PAGE + HUGE_PAGE;
            let region = MemoryRegion::new(domain, arena, (offset, len), address, Access::Remote)?;
            (RemoteKey(address << 32 | u64::from(region.remote_key())), Some(region))
        };
        self.all.push(Exposure { key, len: len as u64, _region: region });
        Ok(key)
    }

    /// Whether a write of no bytes may go there.
    pub(crate) fn allow_empty(&self, to: RemoteAddr) -> bool {
        self.all.iter().any(|exposure| exposure.key == to.key && to.offset <= exposure.len)
    }
}

/// The work request for a write to a place of the peer's. Whatever the offset, it is the peer's device that judges it.
pub(crate) const fn operation(to: RemoteAddr, imm: Option<u32>) -> Op {
    let address = (to.key.0 >> 32).wrapping_add(to.offset);
    let key = (to.key.0 & 0xffff_ffff) as u32;
    match imm {
        None => Op::Write { address, key },
        Some(imm) => Op::WriteImm { address, key, imm },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_carries_the_devices_key_and_address() {
        let to = RemoteAddr { key: RemoteKey(0x0020_1000_dead_beef), offset: 0x40 };
        assert_eq!(operation(to, None), Op::Write { address: 0x20_1040, key: 0xdead_beef });
        assert_eq!(operation(to, Some(7)), Op::WriteImm { address: 0x20_1040, key: 0xdead_beef, imm: 7 });
        // An offset that wraps comes out before the range, where the device refuses it.
        let wrapped = RemoteAddr { offset: u64::MAX, ..to };
        assert_eq!(operation(wrapped, None), Op::Write { address: 0x20_0fff, key: 0xdead_beef });
    }
}
