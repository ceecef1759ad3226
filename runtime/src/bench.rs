//! `bench`: how fast this executable is on this machine.
//!
//! Input: sizes. Output: a line, or a JSON line, for each measure: prompt processing (`pp512`) and
//! text generation (`tg128`) in tokens a second for decoders, `embed b32 s128` in sequences a
//! second for encoders. Each is run once to warm up, then `-r` times; the mean is told.
//! Not here: sampling and text, which are no part of the measure.

use crate::decode_loop::rate;
use crate::engine::{Engine, Rows, Work};
use crate::kv_cache::SeqId;
use crate::session::Session;
use crate::{Error, Result};
use llmc_abi::{Kind, Per};
use serde_json::json;
use std::io::Write;
use std::time::Instant;

/// Arguments of `bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// Prompt tokens [default: 512, or what the context holds]
    #[arg(short = 'p', value_name = "TOKENS")]
    pub prompt: Option<usize>,
    /// New tokens [default: 128, or what the context holds]
    #[arg(short = 'n', value_name = "TOKENS")]
    pub new: Option<usize>,
    /// Sequences at once [default: 1, encoders 32]
    #[arg(short = 'b', value_name = "BATCH", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch: Option<u32>,
    /// Tokens of a sequence, for encoders [default: 128, or what the model takes]
    #[arg(short = 's', value_name = "SEQ", value_parser = clap::value_parser!(u32).range(1..))]
    pub seq: Option<u32>,
    /// Runs of each measure
    #[arg(short = 'r', default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Print a JSON line for each measure
    #[arg(long)]
    pub json: bool,
}

/// A finished measure.
struct Measure {
    test: String,
    unit: &'static str,
    /// One rate a run.
    rates: Vec<f64>,
}

/// Runs `bench`.
pub fn bench(session: &Session<'_>, args: &BenchArgs, out: &mut dyn Write) -> Result<()> {
    let m = session.manifest;
    let mut tell = |measure: Measure| -> Result<()> {
        let runs = measure.rates.len() as f64;
        let mean = measure.rates.iter().sum::<f64>() / runs;
        let spread = (measure
            .rates
            .iter()
            .map(|r| (r - mean).powi(2))
            .sum::<f64>()
            / runs)
            .sqrt();
        let (test, unit) = (measure.test, measure.unit);
        let wrote = if args.json {
            let mut line = json!({"test": test, "threads": session.threads});
            line[unit] = json!(mean);
            line["stddev"] = json!(spread);
            line["runs"] = json!(measure.rates.len());
            writeln!(out, "{line}")
        } else {
            let unit = unit.replace("_s", "/s");
            writeln!(
                out,
                "{test:>16}  {mean:10.2} ± {spread:.2} {unit}  ({} threads)",
                session.threads
            )
        };
        wrote
            .and_then(|()| out.flush())
            .map_err(|e| Error::io("standard output", e))
    };
    match m.kind {
        Kind::Encoder => tell(encode(session, args)?),
        Kind::Decoder => {
            let context = m.limits.max_context as usize;
            let size = |flag: &str, given: Option<usize>, default: usize| match given {
                Some(n) if n > context => Err(Error::Usage(format!(
                    "{flag} {n}: the context is {context} tokens"
                ))),
                Some(n) => Ok(n),
                None => Ok(default.min(context)),
            };
            let prompt = size("-p", args.prompt, 512)?;
            let new = size("-n", args.new, 128)?;
            if prompt > 0 {
                tell(prefill(session, args, prompt)?)?;
            }
            if new > 0 {
                tell(decode(session, args, new)?)?;
            }
            Ok(())
        }
    }
}

/// Ids that differ from place to place, the same in every run.
fn ids(session: &Session<'_>, count: usize, salt: usize) -> Vec<i32> {
    let vocab = session.manifest.vocab_size.max(1) as usize;
    (0..count)
        .map(|i| ((i * 7919 + salt * 104_729 + 13) % vocab) as i32)
        .collect()
}

fn named(test: String, batch: usize) -> String {
    if batch == 1 {
        test
    } else {
        format!("{test} b{batch}")
    }
}

/// Times `run` once to warm up, then as often as asked; `count` things are done each time.
fn measure(
    runs: u32,
    count: usize,
    mut run: impl FnMut() -> Result<std::time::Duration>,
) -> Result<Vec<f64>> {
    run()?;
    (0..runs).map(|_| Ok(rate(count, run()?))).collect()
}

fn encode(session: &Session<'_>, args: &BenchArgs) -> Result<Measure> {
    let m = session.manifest;
    let limit = session.max_input();
    let seq = match args.seq {
        Some(s) if s as usize > limit => {
            return Err(Error::Usage(format!(
                "-s {s}: this model takes {limit} tokens"
            )));
        }
        Some(s) => s as usize,
        None => limit.min(128),
    };
    let batch = args.batch.unwrap_or(32) as usize;
    let texts: Vec<Vec<i32>> = (0..batch).map(|i| ids(session, seq, i)).collect();
    let rows = if m.outputs.iter().any(|o| o.per == Per::Row) {
        Rows::All
    } else {
        Rows::None
    };
    let works: Vec<Work<'_>> = texts
        .iter()
        .map(|ids| Work {
            seq: None,
            ids,
            types: &[],
            rows,
        })
        .collect();
    let mut engine = session.engine(0, 0, false)?;
    let rates = measure(args.runs, batch, || {
        let start = Instant::now();
        engine.run(&works, &mut |_| Ok(()))?;
        Ok(start.elapsed())
    })?;
    Ok(Measure {
        test: format!("embed b{batch} s{seq}"),
        unit: "sent_s",
        rates,
    })
}

fn open_all(engine: &mut Engine<'_>, batch: usize) -> Result<Vec<SeqId>> {
    (0..batch).map(|_| engine.open()).collect()
}

/// Rows of the model's head for one token a sequence; none for models without a head.
fn last_row(session: &Session<'_>) -> Rows {
    let head = session.manifest.outputs.iter().any(|o| o.per == Per::Row);
    if head { Rows::Last } else { Rows::None }
}

fn prefill(session: &Session<'_>, args: &BenchArgs, tokens: usize) -> Result<Measure> {
    let batch = args.batch.unwrap_or(1) as usize;
    let prompts: Vec<Vec<i32>> = (0..batch).map(|i| ids(session, tokens, i)).collect();
    let rows = last_row(session);
    let mut engine = session.engine(batch, tokens, false)?;
    let rates = measure(args.runs, batch * tokens, || {
        let seqs = open_all(&mut engine, batch)?;
        let works: Vec<Work<'_>> = prompts
            .iter()
            .zip(&seqs)
            .map(|(ids, &seq)| Work {
                seq: Some(seq),
                ids,
                types: &[],
                rows,
            })
            .collect();
        let start = Instant::now();
        engine.run(&works, &mut |_| Ok(()))?;
        let time = start.elapsed();
        seqs.into_iter().for_each(|seq| engine.close(seq));
        Ok(time)
    })?;
    Ok(Measure {
        test: named(format!("pp{tokens}"), batch),
        unit: "tok_s",
        rates,
    })
}

fn decode(session: &Session<'_>, args: &BenchArgs, tokens: usize) -> Result<Measure> {
    let batch = args.batch.unwrap_or(1) as usize;
    let fed = ids(session, tokens * batch, 1);
    let rows = last_row(session);
    let mut engine = session.engine(batch, tokens, false)?;
    let rates = measure(args.runs, batch * tokens, || {
        let seqs = open_all(&mut engine, batch)?;
        let start = Instant::now();
        for step in fed.chunks(batch) {
            let works: Vec<Work<'_>> = step
                .chunks(1)
                .zip(&seqs)
                .map(|(ids, &seq)| Work {
                    seq: Some(seq),
                    ids,
                    types: &[],
                    rows,
                })
                .collect();
            engine.run(&works, &mut |_| Ok(()))?;
        }
        let time = start.elapsed();
        seqs.into_iter().for_each(|seq| engine.close(seq));
        Ok(time)
    })?;
    Ok(Measure {
        test: named(format!("tg{tokens}"), batch),
        unit: "tok_s",
        rates,
    })
}
