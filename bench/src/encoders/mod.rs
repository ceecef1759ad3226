//! A sentence encoder next to onnxruntime: sentences a second, and each side's share of what the machine's FMA units
//! do at that moment.
//!
//! Neither side is measured before its embeddings agree with the reference. Not here: the ONNX graphs
//! (`ort_minilm.py`).

mod case;
mod peer;
mod report;

use std::path::{Path, PathBuf};

use crate::compiled::Compiled;
use crate::encoders::case::{Case, Encoder};
use crate::encoders::peer::Peer;
use crate::encoders::report::Row;
use crate::error::Error;
use crate::limits;
use crate::limits::compute::{self, Peak};
use crate::median::median;
use crate::record::Record;

/// Sentences per second of a compiled sentence encoder next to onnxruntime.
#[derive(clap::Args)]
pub struct Options {
    /// A BERT sentence encoder's directory
    model: PathBuf,
    /// The compiler
    #[arg(long, default_value = "target/release/llmc")]
    llmc: PathBuf,
    /// A Python interpreter that has numpy, onnx, onnxruntime and safetensors
    #[arg(long)]
    python: PathBuf,
    /// The script that builds and runs the ONNX graphs
    #[arg(long, default_value = "bench/ort_minilm.py")]
    script: PathBuf,
    /// Reference results, without the extensions .json (sentences) and .safetensors (embeddings)
    #[arg(long)]
    golden: PathBuf,
    /// Where graphs and the executable are kept
    #[arg(long)]
    cache: PathBuf,
    /// BATCHxTOKENS, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1x16,1x128,1x256,32x128")]
    cases: Vec<Case>,
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Rounds; the figures are medians over them
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Options for `llmc compile`, separated by spaces
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    compile: String,
    /// Measure onnxruntime alone
    #[arg(long)]
    peer_only: bool,
    /// The file for JSON lines
    #[arg(long)]
    record: PathBuf,
}

pub fn run(o: &Options) -> Result<(), Error> {
    let mut record = Record::create(&o.record)?;
    let encoder = Encoder::read(&o.model)?;
    let mut peer = Peer::prepare(&o.python, &o.script, &o.model, &o.cache, &o.golden)?;
    eprintln!(
        "onnxruntime {}: graphs {}",
        peer.version,
        peer.names().join(", ")
    );
    let ours = if o.peer_only {
        None
    } else {
        let ours = Compiled::new(&o.llmc, &o.model, o.cache.join("minilm"), &o.compile)?;
        let embeddings = ours.run(&["embed", "-", "--quiet"], &sentences(&o.golden)?)?;
        let cosine = peer.compare(&o.golden, &embeddings)?;
        eprintln!(
            "llmc: compiled in {:.1} s, lowest cosine with the reference {cosine:.6}",
            ours.compile_seconds
        );
        Some(ours)
    };

    let mut rows = Vec::new();
    for threads in limits::possible_threads(&o.threads) {
        for &case in &o.cases {
            let row = measure(case, threads, o.repeats, &encoder, &mut peer, ours.as_ref())?;
            record.add(&row.json())?;
            rows.push(row);
        }
    }
    print!("{}", report::table(&rows));
    eprintln!("JSON lines: {}", o.record.display());
    Ok(())
}

/// The reference's sentences, one a line. A line break inside a sentence becomes a space, which is the same to a BERT
/// tokenizer.
fn sentences(golden: &Path) -> Result<String, Error> {
    let path = golden.with_extension("json");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::Io(path.clone(), e))?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| Error::Json(path.clone(), e))?;
    let sentences = json["sentences"]
        .as_array()
        .ok_or_else(|| Error::Missing(path.clone(), "sentences"))?;
    Ok(sentences
        .iter()
        .filter_map(|s| s.as_str())
        .map(|s| s.replace(['\n', '\r'], " ") + "\n")
        .collect())
}

/// All rounds of one case. Every other round runs in reverse order.
fn measure(
    case: Case,
    threads: usize,
    rounds: u32,
    encoder: &Encoder,
    peer: &mut Peer,
    ours: Option<&Compiled>,
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
                0 => peak.extend(compute::giga_ops(Peak::F32, threads)),
                1 => {
                    if let Some(ours) = ours {
                        mine.push(sentences_per_second(ours, case, threads, runs)?);
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
        .zip(theirs.iter().map(|v| median(v)))
        .collect();
    Ok(Row {
        case,
        threads,
        gflop: flops / 1e9 / case.batch as f64,
        peak: median(&peak),
        graphs,
        ours: ours.map(|_| median(&mine)),
    })
}

fn sentences_per_second(
    ours: &Compiled,
    case: Case,
    threads: usize,
    runs: usize,
) -> Result<f64, Error> {
    let options = [
        "-b",
        &case.batch.to_string(),
        "-s",
        &case.seq.to_string(),
        "-r",
        &runs.to_string(),
    ];
    let lines = ours.bench(threads, &options.map(String::from))?;
    lines
        .iter()
        .find_map(|line| line["sent_s"].as_f64())
        .ok_or_else(|| Error::Answer("the executable's bench", format!("{lines:?}")))
}
