//! Decoders next to llama.cpp: tokens a second of reading a prompt and of writing behind it.
//!
//! Both sides do the same: the prompt goes into an empty cache in one piece, then single tokens follow it; the head
//! computes the last token's row; nothing is sampled. llama.cpp runs with and without flash attention first, and the
//! faster of the two is measured. A side that cannot be measured is an error in its lines of the table, and at the end.
//!
//! Shares: while writing, the bytes of weights that a token needs, at the measured rate, of the read bandwidth; while
//! reading, the operations of the matrix products of the int8 peak. Both limits are measured in the same rounds.

mod case;
mod engine;
mod report;

use std::path::{Path, PathBuf};

use crate::compiled::Compiled;
use crate::decoders::case::{Case, Times};
use crate::decoders::engine::{Engine, Traffic};
use crate::decoders::report::{Row, Side};
use crate::error::Error;
use crate::limits::{self, Limits, memory::Stream};
use crate::record::Record;

/// Tokens per second of compiled decoders next to llama.cpp.
#[derive(clap::Args)]
pub struct Options {
    /// GGUF files; what else `llmc compile` takes is measured without llama.cpp
    #[arg(required = true)]
    models: Vec<PathBuf>,
    /// The compiler
    #[arg(long, default_value = "target/release/llmc")]
    llmc: PathBuf,
    /// A Python interpreter that has llama-cpp-python
    #[arg(long)]
    python: PathBuf,
    /// The script that runs llama.cpp
    #[arg(long, default_value = "bench/llama_decoder.py")]
    script: PathBuf,
    /// Where the executables are kept
    #[arg(long)]
    cache: PathBuf,
    /// PROMPT+NEW tokens, or PROMPT alone, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "512+128,128")]
    cases: Vec<Case>,
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Rounds; the figures are medians over them
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Options for `llmc compile`, separated by spaces
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    compile: String,
    /// Measure llama.cpp alone
    #[arg(long, conflicts_with = "llmc_only")]
    peer_only: bool,
    /// Measure the executable alone
    #[arg(long)]
    llmc_only: bool,
    /// The file for JSON lines
    #[arg(long)]
    record: PathBuf,
}

/// A side of one model, while it can be measured; None where it was not asked for.
type Runner = Option<Result<(Engine, Traffic), Error>>;

pub fn run(o: &Options) -> Result<(), Error> {
    let mut record = Record::create(&o.record)?;
    let stream = Stream::new().map_err(|e| Error::Io("the buffer for bandwidth".into(), e))?;
    let threads = limits::possible_threads(&o.threads);
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for model in &o.models {
        let name = name(model);
        let gguf = model.extension().is_some_and(|e| e == "gguf");
        let mut peer: Runner = (gguf && !o.llmc_only)
            .then(|| Engine::llama_cpp(&o.python, &o.script, model, &o.cases));
        let mut ours: Runner = (!o.peer_only).then(|| {
            let compiled = Compiled::new(&o.llmc, model, o.cache.join(&name), &o.compile)?;
            eprintln!("{name}: compiled in {:.1} s", compiled.compile_seconds);
            Engine::llmc(compiled)
        });
        for &threads in &threads {
            for &case in &o.cases {
                let lines = measure(
                    &name, case, threads, o.repeats, &stream, &mut peer, &mut ours,
                );
                eprintln!("{name}: measured {case}, {threads} thread(s)");
                for row in lines {
                    record.add(&row.json())?;
                    rows.push(row);
                }
            }
        }
        for (who, side) in [("llama.cpp", &peer), ("llmc", &ours)] {
            if let Some(Err(e)) = side {
                eprintln!("{name}: {who}: {e}");
                failed.push(format!("{name} by {who}"));
            }
        }
    }
    print!("{}", report::table(&rows));
    eprintln!("JSON lines: {}", o.record.display());
    match failed.as_slice() {
        [] => Ok(()),
        failed => Err(Error::Unmeasured(failed.join(", "))),
    }
}

/// What a model is called: its file's or directory's name.
fn name(model: &Path) -> String {
    let name = if model.is_dir() {
        model.file_name()
    } else {
        model.file_stem()
    };
    name.unwrap_or(model.as_os_str())
        .to_string_lossy()
        .into_owned()
}

/// All rounds of one case, every other one in reverse order. A side that fails is not run again.
fn measure(
    model: &str,
    case: Case,
    threads: usize,
    rounds: u32,
    stream: &Stream,
    peer: &mut Runner,
    ours: &mut Runner,
) -> Vec<Row> {
    let (mut all, mut theirs, mut mine) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let mut order = [0, 1, 2];
        if round % 2 == 1 {
            order.reverse();
        }
        for what in order {
            match what {
                0 => all.push(Limits::measure(stream, threads)),
                1 => once(peer, case, threads, &mut theirs),
                _ => once(ours, case, threads, &mut mine),
            }
        }
    }
    let limits = Limits::median(&all);
    let load = limits::load();
    let side = |runner: &Runner, times: &[Times]| {
        runner.as_ref().map(|side| match side {
            Ok((engine, traffic)) => Side::Measured {
                traffic: *traffic,
                flash: engine.flash(),
                times: times.to_vec(),
            },
            Err(e) => Side::Failed(e.to_string()),
        })
    };
    let (theirs, mine) = (side(peer, &theirs), side(ours, &mine));
    case.halves()
        .map(|half| Row {
            model: model.into(),
            threads,
            case,
            half,
            peer: theirs.clone(),
            ours: mine.clone(),
            limits,
            load,
        })
        .collect()
}

fn once(side: &mut Runner, case: Case, threads: usize, times: &mut Vec<Times>) {
    if let Some(Ok((engine, _))) = side {
        match engine.run(case, threads) {
            Ok(time) => times.push(time),
            Err(e) => *side = Some(Err(e)),
        }
    }
}
