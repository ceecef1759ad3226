//! Tests that need more than one crate, and what they share.
//!
//! `gguf`: a writer of GGUF files; `golden`: the reference data and how it is compared; `golden_run`: its scenarios through
//! executables and evaluator; `binaries`: the `llmc` command and the executables that it makes; `differential`: an executable
//! against the evaluator; `measured`: processes whose time and memory are bounded;
//! `model_copy`: copies of golden models, to be broken or moved; `tokenizer_cases`: golden tokenizers through `llmc tokenize`.

pub mod binaries;
pub mod differential;
pub mod gguf;
pub mod golden;
pub mod golden_run;
pub mod measured;
pub mod model_copy;
pub mod models;
pub mod tokenizer_cases;
