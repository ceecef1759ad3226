//! Measures a compiled sentence encoder next to onnxruntime, in one run.
//!
//! In: a model directory, the compiler, a Python that has onnxruntime. Out: a table (or JSON lines) of medians,
//! the ratio of the two, and each one's share of what the machine's FMA units do at that moment.
//!
//! Rounds alternate between the peak, onnxruntime and the executable, in turning order, so that a neighbour's load
//! falls on all of them; only ratios of one run are worth quoting. Neither side is measured before its embeddings
//! agree with the reference.
//!
//! Not here: fetching the model and Python packages (`run.sh`), the ONNX graphs (`ort_minilm.py`).

mod case;
mod error;
mod ours;
mod peak;
mod peer;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::case::{Case, Encoder};
use crate::error::Error;
use crate::ours::Ours;
use crate::peer::Peer;
use crate::report::Row;

/// Sentences per second of a compiled sentence encoder next to onnxruntime.
#[derive(Parser)]
struct Options {
    /// The compiler
    #[arg(long, default_value = "target/release/llmc")]
    llmc: PathBuf,
    /// A Python interpreter that has numpy, onnx, onnxruntime and safetensors
    #[arg(long, default_value = "target/bench-venv/bin/python")]
    python: PathBuf,
    /// The script that builds and runs the ONNX graphs
    #[arg(long, default_value = "bench/ort_minilm.py")]
    script: PathBuf,
    /// A BERT sentence encoder's directory
    #[arg(long)]
    model: PathBuf,
    /// Reference results, without the extensions .json (sentences) and .safetensors (embeddings)
    #[arg(long)]
    golden: PathBuf,
    /// Where graphs and the executable are kept [default: `bench` beside the model's directory]
    #[arg(long)]
    cache: Option<PathBuf>,
    /// BATCHxTOKENS, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1x16,1x128,1x256,32x128")]
    cases: Vec<Case>,
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Rounds; the figures are medians over them
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Options for `llmc compile`, separated by spaces
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    compile: String,
    /// Measure onnxruntime alone
    #[arg(long)]
    peer_only: bool,
    /// One JSON object a line in place of the table
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("llmc-bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(o: &Options) -> Result<(), Error> {
    let encoder = Encoder::read(&o.model)?;
    if let Some(load) = load().filter(|&l| l > 0.5) {
        eprintln!(
            "note: load average {load}: other processes are running, and only ratios mean anything"
        );
    }
    let cache = o
        .cache
        .clone()
        .unwrap_or_else(|| o.model.with_file_name("bench"));
    let mut peer = Peer::prepare(&o.python, &o.script, &o.model, &cache, &o.golden)?;
    eprintln!(
        "onnxruntime {}: graphs {}",
        peer.version,
        peer.names().join(", ")
    );
    let ours = if o.peer_only {
        None
    } else {
        let ours = Ours::compile(&o.llmc, &o.model, &cache, &o.compile)?;
        let cosine = peer.compare(&o.golden, &ours.embed(&o.golden)?)?;
        eprintln!(
            "llmc: compiled in {:.1} s, lowest cosine with the reference {cosine:.6}",
            ours.compile_seconds
        );
        Some(ours)
    };

    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut rows = Vec::new();
    for &threads in o.threads.iter().filter(|&&t| t >= 1 && t <= cores) {
        for &case in &o.cases {
            let row = measure(
                case,
                threads,
                o.repeats.max(1),
                &encoder,
                &mut peer,
                ours.as_ref(),
            )?;
            if o.json {
                println!("{}", row.json());
            }
            rows.push(row);
        }
    }
    if !o.json {
        print!("{}", report::table(&rows));
    }
    Ok(())
}

/// The load average of the last minute, where the system tells.
fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg")
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// All rounds of one case. Every other round runs in reverse order.
fn measure(
    case: Case,
    threads: usize,
    rounds: usize,
    encoder: &Encoder,
    peer: &mut Peer,
    ours: Option<&Ours>,
) -> Result<Row, Error> {
    let flops = encoder.flops(case);
    let runs = case::runs(flops, threads);
    let graphs = peer.names().len();
    let (mut peak, mut mine) = (Vec::new(), Vec::new());
    let mut theirs = vec![Vec::new(); graphs];
    for round in 0..rounds {
        // 0 is the peak, 1 is ours, then the peer's graphs.
        let mut order: Vec<usize> = (0..graphs + 2).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for what in order {
            match what {
                0 => peak.push(peak::gflops(threads)),
                1 => {
                    if let Some(ours) = ours {
                        mine.push(ours.sentences_per_second(case, threads, runs)?);
                    }
                }
                graph => theirs[graph - 2].push(
                    case.batch as f64 * 1e3 / peer.milliseconds(graph - 2, case, threads, runs)?,
                ),
            }
        }
    }
    eprintln!("measured {case}, {threads} thread(s), {rounds} rounds");
    let graphs = peer
        .names()
        .into_iter()
        .zip(theirs.iter().map(|v| case::median(v)))
        .collect();
    Ok(Row {
        case,
        threads,
        gflop: flops / 1e9 / case.batch as f64,
        peak: case::median(&peak),
        graphs,
        ours: ours.map(|_| case::median(&mine)),
    })
}
