//! `bench`: how fast this executable is on this machine.
//!
//! Input: sizes. Output: a line, or a JSON line, for each measure: for decoders tokens a second of
//! reading a prompt into an empty cache (`pp512`) and of one token after another behind that prompt
//! (`tg128`, `depth` being the prompt), for encoder-decoders of reading a source (`enc512`) and of one token
//! after another about it (`tg128`), for encoders sequences a second (`embed b32 s128`). A run is
//! done once to warm up, then `-r` times; the mean is told. The head computes one row a sequence and
//! step, as when text is generated.
//! Not here: sampling and text, which are no part of the measure.

use crate::decode_loop::rate;
use crate::engine::{Engine, Rows, Work};
use crate::kv_cache::SeqId;
use crate::session::Session;
use crate::{Error, Result};
use llmc_abi::{Entry, Kind, Per};
use serde_json::json;
use std::io::Write;
use std::time::Instant;

/// Arguments of `bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// Prompt tokens, which the new ones follow [default: 512, or what the context holds]
    #[arg(short = 'p', value_name = "TOKENS")]
    pub prompt: Option<usize>,
    /// New tokens, one a step [default: 128, or what the context holds]
    #[arg(short = 'n', value_name = "TOKENS")]
    pub new: Option<usize>,
    /// Sequences at once [default: 1, encoders 32]
    #[arg(short = 'b', value_name = "BATCH", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch: Option<u32>,
    /// Tokens of a sequence, for encoders; several are taken in turn [default: 128, or what the model takes]
    #[arg(short = 's', value_name = "SEQ[,SEQ…]", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..))]
    pub seq: Vec<u32>,
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
    /// Tokens in the cache of each sequence when the measure starts.
    depth: usize,
    /// One rate a run.
    rates: Vec<f64>,
}

/// Runs `bench`.
pub fn bench(session: &Session<'_>, args: &BenchArgs, out: &mut dyn Write) -> Result<()> {
    session.need(session.takes_tokens(), "bench")?;
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
            if m.kind != Kind::Encoder {
                line["depth"] = json!(measure.depth);
            }
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
        Kind::Decoder | Kind::EncoderDecoder => {
            let context = m.limits.max_context as usize;
            let (prompt, new) = match m.kind {
                Kind::EncoderDecoder => apart(args, session.max_source(), context)?,
                _ => sizes(args, context)?,
            };
            decode(session, args, prompt, new)?
                .into_iter()
                .try_for_each(tell)
        }
    }
}

/// The prompt and the new tokens, which must fit the context together.
fn sizes(args: &BenchArgs, context: usize) -> Result<(usize, usize)> {
    let left = args
        .prompt
        .map_or(context / 2, |p| context.saturating_sub(p));
    let new = args.new.unwrap_or(left.min(128));
    let prompt = args.prompt.unwrap_or(context.saturating_sub(new).min(512));
    match prompt.saturating_add(new) {
        0 => Err(Error::Usage("-p 0 -n 0 leave nothing to measure".into())),
        all if all > context => Err(Error::Usage(format!(
            "-p {prompt} -n {new}: the context is {context} tokens"
        ))),
        _ => Ok((prompt, new)),
    }
}

/// The source and the new tokens, each of which has a bound of its own.
fn apart(args: &BenchArgs, source: usize, context: usize) -> Result<(usize, usize)> {
    let prompt = args.prompt.unwrap_or(source.min(512));
    let new = args.new.unwrap_or(context.min(128));
    if prompt == 0 || prompt > source || new > context {
        return Err(Error::Usage(format!(
            "-p {prompt} -n {new}: a source has 1 to {source} tokens, a text up to {context}"
        )));
    }
    Ok((prompt, new))
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

fn encode(session: &Session<'_>, args: &BenchArgs) -> Result<Measure> {
    let m = session.manifest;
    let limit = session.max_input();
    if let Some(s) = args.seq.iter().find(|&&s| s as usize > limit) {
        return Err(Error::Usage(format!(
            "-s {s}: this model takes {limit} tokens"
        )));
    }
    let seqs: Vec<usize> = match args.seq.as_slice() {
        [] => vec![limit.min(128)],
        list => list.iter().map(|&s| s as usize).collect(),
    };
    let batch = args.batch.unwrap_or(32) as usize;
    let lengths = seqs.iter().copied().cycle().take(batch);
    let texts: Vec<Vec<i32>> = lengths
        .enumerate()
        .map(|(i, seq)| ids(session, seq, i))
        .collect();
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
    engine.run(&works, &mut |_| Ok(()))?;
    let mut rates = Vec::new();
    for _ in 0..args.runs {
        let start = Instant::now();
        engine.run(&works, &mut |_| Ok(()))?;
        rates.push(rate(batch, start.elapsed()));
    }
    let seqs: Vec<String> = seqs.iter().map(usize::to_string).collect();
    Ok(Measure {
        test: format!("embed b{batch} s{}", seqs.join(",")),
        unit: "sent_s",
        depth: 0,
        rates,
    })
}

/// Rows of the model's head for one token a sequence; none for models without a head.
fn last_row(session: &Session<'_>) -> Rows<'static> {
    let head = session.manifest.outputs.iter().any(|o| o.per == Per::Row);
    if head { Rows::Last } else { Rows::None }
}

/// Prompts into an empty cache, then one token after another behind them; of an encoder-decoder the
/// prompts are sources.
fn decode(
    session: &Session<'_>,
    args: &BenchArgs,
    prompt: usize,
    new: usize,
) -> Result<Vec<Measure>> {
    let batch = args.batch.unwrap_or(1) as usize;
    let prompts: Vec<Vec<i32>> = (0..batch).map(|i| ids(session, prompt, i)).collect();
    let fed = ids(session, new * batch, batch);
    let rows = last_row(session);
    let has_source = session.manifest.kind == Kind::EncoderDecoder;
    let mut engine = session.engine(batch, prompt + new, false)?;
    let (mut pp, mut tg) = (Vec::new(), Vec::new());
    for run in 0..=args.runs {
        let seqs: Vec<SeqId> = (0..batch).map(|_| engine.open()).collect::<Result<_>>()?;
        let start = Instant::now();
        if has_source {
            let works = works(&seqs, prompts.iter().map(Vec::as_slice), Rows::None);
            engine.run_of(Entry::Encode, &works, &[], &mut |_| Ok(()))?;
        } else if prompt > 0 {
            feed(&mut engine, &seqs, prompts.iter().map(Vec::as_slice), rows)?;
        }
        let read = start.elapsed();
        for step in fed.chunks(batch) {
            feed(&mut engine, &seqs, step.chunks(1), rows)?;
        }
        let written = start.elapsed() - read;
        seqs.into_iter().for_each(|seq| engine.close(seq));
        if run > 0 {
            pp.push(rate(batch * prompt, read));
            tg.push(rate(batch * new, written));
        }
    }
    let measure = |test: String, depth, rates| Measure {
        test: named(test, batch),
        unit: "tok_s",
        depth,
        rates,
    };
    let (read, depth) = if has_source {
        ("enc", 0)
    } else {
        ("pp", prompt)
    };
    let measures = [
        (prompt, measure(format!("{read}{prompt}"), 0, pp)),
        (new, measure(format!("tg{new}"), depth, tg)),
    ];
    Ok(measures
        .into_iter()
        .filter_map(|(tokens, measure)| (tokens > 0).then_some(measure))
        .collect())
}

/// Runs one more piece of every sequence.
fn feed<'a>(
    engine: &mut Engine<'_>,
    seqs: &[SeqId],
    pieces: impl Iterator<Item = &'a [i32]>,
    rows: Rows<'a>,
) -> Result<()> {
    engine.run(&works(seqs, pieces, rows), &mut |_| Ok(()))
}

fn works<'a>(
    seqs: &[SeqId],
    pieces: impl Iterator<Item = &'a [i32]>,
    rows: Rows<'a>,
) -> Vec<Work<'a>> {
    let work = |(ids, &seq)| Work {
        seq: Some(seq),
        ids,
        types: &[],
        rows,
    };
    pieces.zip(seqs).map(work).collect()
}
