//! What every compiled model carries besides its generated code.
//!
//! Input: the payload behind the executable, a command line, texts and tensor files. Output: text,
//! ids, vectors, tensor files. From the inside out: [`memory`], [`barrier`], [`threads`],
//! [`kv_cache`] and [`engine`] run steps; [`tokenizer`], [`chat_template`], [`text_stream`] and
//! [`sampler`] stand between tokens and text; [`decode_loop`] and [`beam_search`] choose texts; one
//! file for each task of the command line; [`entry`] starts it all and is the only one that prints
//! errors and chooses exit codes.
//!
//! Deliberately not here: model formats, anything about layers or kernels (the generated code
//! knows those), and the network.

pub mod answer;
pub mod barrier;
pub mod beam_search;
pub mod beam_sequences;
pub mod beam_text;
pub mod bench;
pub mod caption;
pub mod chat;
pub mod chat_template;
pub mod classify;
pub mod cli;
pub mod cpu;
pub mod decode_loop;
pub mod embed;
pub mod engine;
pub mod entry;
pub mod error;
pub mod fill_mask;
pub mod generate;
pub mod generation_flags;
pub mod image;
pub mod infer;
pub mod infer_input;
pub mod infer_pair;
pub mod infer_pictures;
pub mod infer_told;
pub mod info;
pub mod interrupt;
pub mod kv_cache;
pub mod memory;
pub mod payload;
pub mod peaks;
pub mod perplexity;
pub mod pictures;
pub mod profile;
pub mod prompt_lookup;
pub mod recorder;
pub mod rerank;
pub mod rewrite;
pub mod sampler;
pub mod sampling_params;
pub mod scores;
pub mod session;
pub mod source_text;
pub mod spans;
pub mod tag;
pub mod tensor_file;
pub mod text_stream;
pub mod text_tools;
pub mod texts;
pub mod threads;
pub mod timings;
pub mod tokenizer;
pub mod told;
pub mod writer;

pub use error::{Error, Result};
