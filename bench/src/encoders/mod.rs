//! Sentence encoders next to onnxruntime and OpenVINO: sentences a second, in f32 and with 8 bits, and each side's share
//! of what the machine's units do at that moment.
//!
//! No side is measured before its embeddings agree with the reference. Not here: the ONNX graphs (`onnx_encoder.py`).

mod case;
mod peer;
mod report;

use std::path::{Path, PathBuf};

use crate::compiled::Compiled;
use crate::encoders::case::{Case, Encoder, Precision};
use crate::encoders::peer::Peer;
use crate::encoders::report::Row;
use crate::error::Error;
use crate::limits;
use crate::limits::compute;
use crate::median::median;
use crate::record::Record;

/// Sentences per second of compiled sentence encoders next to their peers.
#[derive(clap::Args)]
pub struct Options {
    /// Directories of sentence encoders of the families BERT and MPNet
    #[arg(required = true)]
    models: Vec<PathBuf>,
    /// The compiler
    #[arg(long, default_value = "target/release/llmc")]
    llmc: PathBuf,
    /// A Python interpreter that has numpy, onnx, onnxruntime, openvino and safetensors
    #[arg(long)]
    python: PathBuf,
    /// The script that builds and runs the ONNX graphs
    #[arg(long, default_value = "bench/onnx_encoder.py")]
    script: PathBuf,
    /// The folder of reference results: MODEL.json (sentences) and MODEL.safetensors (embeddings)
    #[arg(long)]
    golden: PathBuf,
    /// Where graphs and executables are kept
    #[arg(long)]
    cache: PathBuf,
    /// Batches: BATCHxTOKENS[+BATCHxTOKENS…], separated by commas
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1x16,1x128,1x256,32x128,1x256+31x16"
    )]
    cases: Vec<Case>,
    /// Classes of arithmetic
    #[arg(long, value_delimiter = ',', default_value = "f32,int8")]
    precisions: Vec<Precision>,
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Rounds; the figures are medians over them
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// More options for `llmc compile`, separated by spaces
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    compile: String,
    /// Measure the peers alone
    #[arg(long)]
    peer_only: bool,
    /// The file for JSON lines
    #[arg(long)]
    record: PathBuf,
}

pub fn run(o: &Options) -> Result<(), Error> {
    let mut record = Record::create(&o.record)?;
    let mut rows = Vec::new();
    for model in &o.models {
        let name = model.file_name().unwrap_or(model.as_os_str());
        let name = name.to_string_lossy().into_owned();
        let (golden, cache) = (o.golden.join(&name), o.cache.join(&name));
        let encoder = Encoder::read(model)?;
        let mut peer = Peer::prepare(&o.python, &o.script, model, &cache, &golden)?;
        for &precision in &o.precisions {
            let ours = match o.peer_only {
                true => None,
                false => Some(compile(o, model, &golden, &cache, precision, &peer)?),
            };
            for threads in limits::possible_threads(&o.threads) {
                for case in &o.cases {
                    let subject = (name.as_str(), precision, case, threads);
                    let row = measure(subject, o.repeats, &encoder, &mut peer, ours.as_ref())?;
                    record.add(&row.json())?;
                    rows.push(row);
                }
            }
        }
    }
    print!("{}", report::table(&rows));
    eprintln!("JSON lines: {}", o.record.display());
    Ok(())
}

/// The executable of one precision, whose embeddings agree with the reference.
fn compile(
    o: &Options,
    model: &Path,
    golden: &Path,
    cache: &Path,
    precision: Precision,
    peer: &Peer,
) -> Result<Compiled, Error> {
    let options = format!("--quant {} {}", precision.quant(), o.compile);
    let executable = cache.join(format!("model-{}", precision.name()));
    let ours = Compiled::new(&o.llmc, model, executable, &options)?;
    let embeddings = ours.run(&["embed", "-", "--quiet"], &sentences(golden)?)?;
    let cosine = peer.compare(golden, &embeddings, precision.least_cosines()[0])?;
    eprintln!(
        "llmc, {}: compiled in {:.1} s, lowest cosine with the reference {cosine:.6}",
        precision.name(),
        ours.compile_seconds
    );
    Ok(ours)
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
    (model, precision, case, threads): (&str, Precision, &Case, usize),
    rounds: u32,
    encoder: &Encoder,
    peer: &mut Peer,
    ours: Option<&Compiled>,
) -> Result<Row, Error> {
    let flops = encoder.flops(case);
    let runs = case::runs(flops, threads);
    let mut graphs = peer.graphs(precision);
    let (mut peak, mut mine) = (Vec::new(), Vec::new());
    let mut theirs = vec![Vec::new(); graphs.len()];
    for round in 0..rounds {
        // 0 is the peak, 1 is ours, then the peers' graphs.
        let mut order: Vec<usize> = (0..graphs.len() + 2).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for what in order {
            match what {
                0 => peak.extend(compute::giga_ops(precision.peak(), threads)),
                1 => {
                    if let Some(ours) = ours {
                        mine.push(sentences_per_second(ours, case, threads, runs)?);
                    }
                }
                graph => {
                    let ms = graphs[graph - 2].milliseconds(case, threads, runs)?;
                    theirs[graph - 2].push(case.batch() as f64 * 1e3 / ms);
                }
            }
        }
    }
    eprintln!(
        "measured {model}, {}, {case}, {threads} thread(s), {rounds} rounds",
        precision.name()
    );
    let names = graphs.iter().map(|g| g.name.clone());
    Ok(Row {
        model: model.into(),
        precision: precision.name(),
        graphs: names.zip(theirs.iter().map(|v| median(v))).collect(),
        case: case.clone(),
        threads,
        gflop: flops / 1e9 / case.batch() as f64,
        peak: median(&peak),
        ours: ours.map(|_| median(&mine)),
    })
}

fn sentences_per_second(
    ours: &Compiled,
    case: &Case,
    threads: usize,
    runs: usize,
) -> Result<f64, Error> {
    let options = [
        "-b",
        &case.batch().to_string(),
        "-s",
        &case.list(","),
        "-r",
        &runs.to_string(),
    ];
    let lines = ours.bench(threads, &options.map(String::from))?;
    lines
        .iter()
        .find_map(|line| line["sent_s"].as_f64())
        .ok_or_else(|| Error::Answer("the executable's bench", format!("{lines:?}")))
}
