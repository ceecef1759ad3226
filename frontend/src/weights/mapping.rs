//! A file of weights in the address space.
//!
//! In: a path. Out: its bytes, read from the disk when they are looked at and given back when they are not needed.
//!
//! Not here: what the bytes mean (`safetensors`, `gguf`).

use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, UncheckedAdvice};

use crate::error::{FrontendError, Result};
use crate::json::open_regular;

/// A page of any machine that the compiler runs on, or a multiple of it.
const PAGE: usize = 64 << 10;

/// A mapped file.
pub struct Mapping {
    path: PathBuf,
    map: Mmap,
}

impl Mapping {
    /// Maps a regular file.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, _) = open_regular(path)?;
        // SAFETY: the mapping is private and read-only. A file that another process cuts while it is mapped
        // raises SIGBUS, as it does for every program that maps its input; no reference outlives the mapping.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| FrontendError::io("map", path, e))?;
        Ok(Self {
            path: path.to_path_buf(),
            map,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Gives the whole pages inside `range` back to the system.
    pub fn release(&self, range: Range<usize>) {
        let start = range.start.next_multiple_of(PAGE);
        let end = range.end.min(self.map.len()) / PAGE * PAGE;
        if start < end {
            // SAFETY: the mapping is read-only and backed by the file, so dropped pages read back the same.
            // Failing is harmless: the pages stay.
            let _ = unsafe {
                self.map
                    .unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start)
            };
        }
    }
}

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())
    }
}
