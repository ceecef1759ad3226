//! Zeroed memory from the kernel, for the arena, the scratch, the taps and the KV cache.
//!
//! Input: a size. Output: a [`Region`], aligned to 2 MiB, zero, not reserved: a page costs memory
//! only once it is touched, so a region may be as large as the planned bound.
//! Not here: who uses which part; the compiler planned that.

use crate::{Error, Result};
use memmap2::{Advice, MmapMut, MmapOptions};

/// Alignment of every region: one huge page.
const ALIGN: usize = 2 << 20;

/// A zero-initialised anonymous mapping.
pub struct Region {
    map: MmapMut,
    /// Where the aligned part starts within `map`.
    start: usize,
    len: usize,
}

impl Region {
    /// Maps `len` bytes for `purpose` (which the error names).
    pub fn new(len: u64, purpose: &str) -> Result<Region> {
        let failed = |why: &dyn std::fmt::Display| {
            Error::Machine(format!("cannot map {len} bytes for {purpose}: {why}"))
        };
        let bytes = usize::try_from(len).map_err(|e| failed(&e))?.max(64);
        let whole = bytes
            .checked_add(ALIGN)
            .ok_or_else(|| failed(&"too large"))?;
        let map = MmapOptions::new()
            .len(whole)
            .no_reserve_swap()
            .map_anon()
            .map_err(|e| failed(&e))?;
        let start = map.as_ptr().align_offset(ALIGN);
        let region = Region {
            map,
            start,
            len: bytes,
        };
        if bytes >= ALIGN {
            // Only a hint: kernels without transparent huge pages refuse it.
            let _ = region
                .map
                .advise_range(Advice::HugePage, start, bytes & !(ALIGN - 1));
        }
        Ok(region)
    }

    /// First byte. Steps write through it, so it is handed out from a shared reference.
    pub fn ptr(&self) -> *mut u8 {
        self.map.as_ptr().wrapping_add(self.start).cast_mut()
    }

    /// Usable bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if nothing is usable (never: a region has at least 64 bytes).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes, for filling a region from here rather than from a step.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.start..self.start + self.len]
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_aligned_and_zero() {
        for len in [0, 1, 4096, (5 << 20) + 3] {
            let r = Region::new(len, "a test").unwrap();
            assert_eq!(r.ptr() as usize % ALIGN, 0);
            assert!(r.len() >= len as usize && !r.is_empty());
            assert!(r.bytes().iter().all(|&b| b == 0));
        }
    }

    #[test]
    fn impossible_sizes_are_an_error() {
        assert!(Region::new(u64::MAX, "a test").is_err());
        assert!(Region::new(1 << 62, "a test").is_err());
    }
}
