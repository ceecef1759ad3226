//! Tests of the whole runtime around a step function written in Rust (`fake`): no compiler needed.

mod allocation;
mod compiled_tokenizer;
mod engine;
mod faces;
mod fake;
mod golden_sampling;
mod golden_tokenizers;
mod infer;
mod process;
mod sampler_reference;
