//! Differential tests of the kernels: emitted code against naive loops in Rust.
//!
//! Every kernel is compiled for each feature level that this machine has, linked into a shared
//! object, loaded, and run over a sweep of shapes with 1, 2 and 3 threads (one after another; the
//! kernels are free of barriers). Besides the values, the bits are compared: across threads,
//! across feature levels, and a row alone against the row in company.

mod arg_max;
mod attend;
mod attend_world;
mod blocks;
mod buffer;
mod disentangled;
mod elementwise;
mod emission;
mod experts;
mod gather;
mod harness;
mod kv_append;
mod linear;
mod math;
mod norm;
mod pool;
mod rope;
