//! One file a command, and what several of them share.

mod checkpoint_weights;
pub mod compile;
mod divergence;
pub mod inspect;
mod inspect_table;
mod module_text;
pub mod opt;
mod pass_report;
pub mod run;
mod run_pictures;
mod stdout;
pub mod targets;
pub mod tokenize;
pub mod verify;
