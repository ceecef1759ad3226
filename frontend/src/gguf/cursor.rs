//! Numbers and strings of a GGUF header, one after another.
//!
//! In: the mapped bytes. Out: little-endian values and the places of strings.
//!
//! Invariants: nothing outside the bytes is read; a length is compared with what is left before it is used, so no
//! addition can wrap and nothing is allocated by it.

use std::ops::Range;
use std::path::Path;

use crate::error::{Excerpt, FrontendError, Problem, Result};

/// A place in a header.
pub struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The beginning of `bytes`; `path` is named in errors.
    pub fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Self { path, bytes, at: 0 }
    }

    /// Where the next value begins.
    pub fn at(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The place of the next `count` bytes, and past them. `what` is named if they are not there.
    pub fn skip(&mut self, count: u64, what: &str) -> Result<Range<usize>> {
        if count > self.left() {
            return Err(self.ended(what, count));
        }
        let start = self.at;
        self.at += count as usize;
        Ok(start..self.at)
    }

    /// The bytes of a place that was skipped.
    pub fn slice(&self, place: &Range<usize>) -> &'a [u8] {
        &self.bytes[place.clone()]
    }

    /// The next `N` bytes.
    pub fn take<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let place = self.skip(N as u64, what)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.bytes[place]);
        Ok(bytes)
    }

    /// The next 32-bit number.
    pub fn u32(&mut self, what: &str) -> Result<u32> {
        self.take(what).map(u32::from_le_bytes)
    }

    /// The next 64-bit number.
    pub fn u64(&mut self, what: &str) -> Result<u64> {
        self.take(what).map(u64::from_le_bytes)
    }

    /// The place of the next string: its length, then its bytes.
    pub fn string(&mut self, what: &str) -> Result<Range<usize>> {
        let length = self.u64(what)?;
        self.skip(length, what)
    }

    /// The next string as a name: UTF-8, not empty, at most `limit` bytes.
    pub fn name(&mut self, limit: usize, what: &str) -> Result<&'a str> {
        let length = self.u64(what)?;
        if length == 0 || length > limit as u64 {
            let what = format!("{what}: found {length} bytes, expected 1 to {limit}");
            return Err(Problem::of(self.path, what).input());
        }
        let bytes = self.skip(length, what)?;
        let bytes = &self.bytes[bytes];
        std::str::from_utf8(bytes).map_err(|_| {
            let found = String::from_utf8_lossy(bytes);
            let what = format!("{what}: \"{}\" is not valid UTF-8", Excerpt(&found));
            Problem::of(self.path, what).input()
        })
    }

    fn ended(&self, what: &str, count: u64) -> FrontendError {
        let what = format!(
            "{what}: found {} bytes at {}, expected {count}",
            self.left(),
            self.at
        );
        Problem::of(self.path, what)
            .help("is the download complete?")
            .input()
    }
}
