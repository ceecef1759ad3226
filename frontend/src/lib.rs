//! Model files (configurations, weights, tokenizers) to Transformer IR.
//!
//! In: what a user has: a Hugging Face directory, a GGUF file or a configuration. Out: a module of stage `model`, and a lazy
//! source of the weights that it names.
//!
//! Reading order: [`source`] decides what the input is, [`model_dir`] reads its small files ([`config`],
//! [`generation`], [`tokenizer`], [`sentence`]), [`weights`] maps the large ones; [`gguf`] says the same of a file
//! that holds all of them. [`model`] asks [`models`] for
//! the family's blueprint, which [`blocks`] write as IR.
//!
//! Invariants: no input makes this crate panic, hang or allocate without bound; every complaint names the file
//! and the field ([`error`]); nothing depends on the order of a hash map or on the environment.
//!
//! Not here: arithmetic on weights, rendering of errors, any format that can run code.

pub mod blocks;
pub mod config;
pub mod error;
pub mod generation;
pub mod gguf;
pub mod json;
pub mod labels;
pub mod limits;
pub mod model;
pub mod model_dir;
pub mod models;
pub mod preprocessor;
pub mod rope;
pub mod sentence;
pub mod source;
pub mod tokenizer;
pub mod weights;

pub use config::Config;
pub use error::{FrontendError, Result};
pub use gguf::Gguf;
pub use labels::{Labels, Scores};
pub use model::{BuildOptions, Kind, Model};
pub use model_dir::{ModelDir, Overrides};
pub use source::Input;
pub use weights::WeightSource;
