//! Measures what llmc compiles next to what people use today, in one run: sentence encoders next to onnxruntime and
//! OpenVINO, decoders next to llama.cpp.
//!
//! In: models, the compiler, a Python that has the peer. Out: a Markdown table of medians and ratios on standard
//! output, and the same as JSON lines in a file; notes and progress on standard error.
//!
//! Rounds alternate between the machine's limits, the peer and the executable, in turning order, so that a
//! neighbour's load falls on all of them; only ratios of one run are worth quoting.
//!
//! Not here: fetching models and Python packages (`run.sh`), the peers themselves (`*.py`).

mod compiled;
mod decoders;
mod encoders;
mod error;
mod limits;
mod median;
mod process;
mod record;

use std::process::ExitCode;

use clap::Parser;

/// Compiled models next to their peers, in one run.
#[derive(Parser)]
enum Part {
    Decoders(decoders::Options),
    Encoders(encoders::Options),
}

fn main() -> ExitCode {
    limits::tell_load();
    let done = match Part::parse() {
        Part::Decoders(options) => decoders::run(&options),
        Part::Encoders(options) => encoders::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("llmc-bench: {e}");
            ExitCode::FAILURE
        }
    }
}
