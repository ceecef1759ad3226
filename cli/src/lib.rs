//! The compiler as a library: from a model's files to an executable, or to any form between.
//!
//! [`compile`] is what `llmc compile` does, without progress bars and rendering. The other crates
//! are the parts; this one puts them together and contains little.

mod chat_check;
pub mod compile;
pub mod error;
pub mod manifest;

pub use compile::{CompileOptions, Emit, Observer, Outcome, compile};
pub use error::{Error, Result};
