//! Tests that need more than one crate, and what they share.
//!
//! `golden`: the reference data and how it is compared; `binaries`: the `llmc` command and the
//! executables that it makes.

pub mod binaries;
pub mod golden;
