//! Protection domains, and memory that a device may reach.

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use twinsan_arena::Arena;

use super::bindings::*;
use super::check_number;
use super::id::CmId;

/// What keys and queue pairs belong to: a key works on the queue pairs of its own domain only (IB Architecture
/// 10.2.3). Each connection has one to itself.
#[derive(Debug)]
pub(crate) struct ProtectionDomain {
    domain: NonNull<ibv_pd>,
    id: CmId,
}

impl ProtectionDomain {
    /// On the device that `id` is bound to. Takes the identifier over: it must outlive everything here.
    ///
    /// # Errors
    /// The system's, with the identifier, which may still be used to refuse.
    pub(crate) fn new(id: CmId) -> Result<Rc<Self>, (io::Error, CmId)> {
        let device = match id.device() {
            Ok(device) => device,
            Err(e) => return Err((e, id)),
        };
        // SAFETY: the device's context is live as long as the identifier.
        let domain = unsafe { (id.rdma().ibv_alloc_pd)(device.as_ptr()) };
        match NonNull::new(domain) {
            Some(domain) => Ok(Rc::new(Self { domain, id })),
            None => Err((io::Error::last_os_error(), id)),
        }
    }

    /// Gives the domain up and the identifier back, to refuse with.
    pub(crate) fn into_id(self) -> CmId {
        let domain = ManuallyDrop::new(self);
        domain.free();
        // SAFETY: `domain` is not dropped, so the identifier is moved out once.
        unsafe { std::ptr::read(&raw const domain.id) }
    }

    fn free(&self) {
        // SAFETY: all that was made in the domain holds it, so nothing is left; freed once, by either caller.
        let outcome = check_number(unsafe { (self.id.rdma().ibv_dealloc_pd)(self.as_ptr()) });
        if let Err(error) = outcome {
            tracing::error!(%error, "a protection domain is still in use");
        }
    }

    /// The identifier.
    pub(crate) const fn id(&self) -> &CmId {
        &self.id
    }

    pub(super) const fn as_ptr(&self) -> *mut ibv_pd {
        self.domain.as_ptr()
    }
}

impl Drop for ProtectionDomain {
    fn drop(&mut self) {
        self.free();
    }
}

/// A range of an arena that the device of a domain may reach.
#[derive(Debug)]
pub(crate) struct MemoryRegion {
    region: NonNull<ibv_mr>,
    arena: Arc<Arena>,
    offset: usize,
    len: usize,
    domain: Rc<ProtectionDomain>,
}

/// Who may write into a region. Relaxed ordering is asked for nowhere: a later write must not pass an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nobody: it is only sent from.
    Read,
    /// This side's receives.
    Receive,
    /// The peer, one-sided.
    Remote,
}

impl MemoryRegion {
    /// Registers exactly `len` bytes at `offset`. The first byte gets the device's address `address`, which is equal to
    /// its own address in what is below a page (the kernel demands it).
    ///
    /// # Errors
    /// The system's: `ENOMEM` where RLIMIT_MEMLOCK does not allow so much.
    ///
    /// # Panics
    /// If the range is outside of the arena, or empty.
    pub(crate) fn new(
        domain: &Rc<ProtectionDomain>,
        arena: &Arc<Arena>,
        (offset, len): (usize, usize),
        address: u64,
        access: Access,
    ) -> io::Result<Self> {
        assert!(len > 0 && offset.checked_add(len).is_some_and(|end| end <= arena.len()), "a range of the arena");
        let flags = match access {
            Access::Read => 0,
            Access::Receive => IBV_ACCESS_LOCAL_WRITE,
            Access::Remote => IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE,
        };
        let flags = libc::c_int::try_from(flags).expect("small");
        let first = arena.addr(offset).cast();
        // SAFETY: the domain is live; the range was checked against the arena, whose memory stays mapped until it is
        // dropped, which `self` holds off until the device has let go of it. Nobody has references to its bytes.
        let region = unsafe { (domain.id.rdma().ibv_reg_mr_iova)(domain.as_ptr(), first, len, address, flags) };
        let region = NonNull::new(region).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { region, arena: Arc::clone(arena), offset, len, domain: Rc::clone(domain) })
    }

    /// The key by which this side's work requests name it.
    fn local_key(&self) -> u32 {
        // SAFETY: the region is live; the library does not change the field.
        unsafe { (*self.region.as_ptr()).lkey }
    }

    /// The key by which the peer names it.
    pub(crate) fn remote_key(&self) -> u32 {
        // SAFETY: the region is live; the library does not change the field.
        unsafe { (*self.region.as_ptr()).rkey }
    }

    /// `len` bytes at `offset` of the arena, for a work request. Regions that are used for it have their own addresses.
    ///
    /// # Panics
    /// If they are not in the region.
    pub(super) fn piece(&self, offset: usize, len: usize) -> ibv_sge {
        let inside = offset >= self.offset && offset.checked_add(len).is_some_and(|end| end <= self.offset + self.len);
        assert!(inside, "{len} bytes at {offset} of a region of {} at {}", self.len, self.offset);
        let length = u32::try_from(len).expect("a work request's length has 32 bits");
        ibv_sge { addr: self.arena.addr(offset).addr() as u64, length, lkey: self.local_key() }
    }

    /// The arena.
    pub(crate) const fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }
}

impl Drop for MemoryRegion {
    fn drop(&mut self) {
        // SAFETY: the region is live and deregistered once. When the call has succeeded the device does not reach the
        // memory any more, whatever work is outstanding.
        let outcome = check_number(unsafe { (self.domain.id.rdma().ibv_dereg_mr)(self.region.as_ptr()) });
        if let Err(error) = outcome {
            // The device may still write there: the memory must stay, and what it says can't be trusted.
            panic!("the device does not let go of {} bytes of registered memory: {error}", self.len);
        }
    }
}
