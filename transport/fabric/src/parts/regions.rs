//! The registered regions of a fabric, and what is asked of them at every post.

use std::sync::Arc;

use twinsan_arena::Arena;

use crate::{FabricError, LocalSlice, PostError, RegionId};

/// Bytes of a registered region, checked against its length.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Index of the region.
    pub region: usize,
    /// First byte.
    pub offset: usize,
    /// Number of bytes.
    pub len: usize,
}

/// See the module. They are numbered from zero, and stay.
#[derive(Debug, Default)]
pub struct Regions(Vec<Arc<Arena>>);

impl Regions {
    /// One more.
    ///
    /// # Errors
    /// If they are too many for their numbers.
    pub fn register(&mut self, arena: Arc<Arena>) -> Result<RegionId, FabricError> {
        let id = u32::try_from(self.0.len()).map_err(|_| FabricError::Invalid("too many regions"))?;
        self.0.push(arena);
        Ok(RegionId(id))
    }

    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[Arc<Arena>] {
        &self.0
    }

    /// A slice of the caller's.
    ///
    /// # Errors
    /// If it is not inside of a region.
    pub fn span(&self, slice: LocalSlice) -> Result<Span, PostError> {
        let region = slice.region.0 as usize;
        let size = self.0.get(region).ok_or(PostError::OutOfRegion)?.len();
        let offset = usize::try_from(slice.offset).map_err(|_| PostError::OutOfRegion)?;
        let len = slice.len as usize;
        match offset.checked_add(len) {
            Some(end) if end <= size => Ok(Span { region, offset, len }),
            _ => Err(PostError::OutOfRegion),
        }
    }

    /// The region of a range that is to be exposed.
    ///
    /// # Errors
    /// If there is no such region, or the range is not inside of it.
    pub fn to_expose(&self, region: RegionId, offset: u64, len: u64) -> Result<&Arc<Arena>, FabricError> {
        let arena = self.0.get(region.0 as usize).ok_or(FabricError::Invalid("no such region"))?;
        let inside = offset.checked_add(len).is_some_and(|end| end <= arena.len() as u64);
        if inside { Ok(arena) } else { Err(FabricError::Invalid("the range to expose is outside of its region")) }
    }
}

/// Whether `len` bytes may be posted where `limit` may.
///
/// # Errors
/// [`PostError::TooLong`].
pub const fn within(len: usize, limit: usize) -> Result<(), PostError> {
    if len > limit { Err(PostError::TooLong { len, limit }) } else { Ok(()) }
}
