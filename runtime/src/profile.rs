//! `profile`: where the time of a step goes.
//!
//! Input: sizes. Output: a line, or a JSON line, for each phase of reading a prompt (`pp512`) and of
//! generating tokens one by one behind it (`tg64`): calls, time, its share, how much of it is waiting
//! for other threads, bytes and GB/s, operations and their rate; before them this machine's peaks.
//! Encoder-decoders read a source (`enc512`) and generate about it. Encoders read one input, with everything that they give out.
//!
//! What steps do not spend in phases (building batches, waking threads) is the phase `outside`.

use crate::engine::{Engine, Rows, Work};
use crate::kv_cache::SeqId;
use crate::peaks::{self, Peaks};
use crate::recorder::{Measured, Recorder};
use crate::session::Session;
use crate::{Error, Result};
use llmc_abi::{Arithmetic, Entry, Kind, Per};
use serde_json::{Value, json};
use std::io::Write;
use std::time::Instant;

/// Arguments of `profile`.
#[derive(Clone, Debug, clap::Args)]
pub struct ProfileArgs {
    /// Prompt tokens [default: 512, or what the context holds]
    #[arg(short = 'p', value_name = "TOKENS")]
    pub prompt: Option<usize>,
    /// New tokens, one a step [default: 64, or what the context holds]
    #[arg(short = 'n', value_name = "TOKENS")]
    pub new: Option<usize>,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
}

/// One measured test.
struct Test {
    name: String,
    tokens: usize,
    seconds: f64,
    phases: Vec<(String, Measured)>,
}

/// Runs `profile`.
pub fn profile(session: &Session<'_>, args: &ProfileArgs, out: &mut dyn Write) -> Result<()> {
    session.need(session.takes_tokens(), "profile")?;
    let m = session.manifest;
    let limit = match m.kind {
        Kind::Decoder | Kind::EncoderDecoder => m.limits.max_context as usize,
        Kind::Encoder => session.max_input(),
    };
    let (prompt, new) = sizes(args, limit, m.kind)?;
    if m.kind == Kind::EncoderDecoder && !(1..=session.max_source()).contains(&prompt) {
        return Err(Error::Usage(format!(
            "-p {prompt}: a source has 1 to {} tokens",
            session.max_source()
        )));
    }
    let peaks = peaks::measure(session.threads);
    let written = |e| Error::io("standard output", e);
    tell_peaks(&peaks, session.threads, args.json, out).map_err(written)?;
    for test in tests(session, prompt, new)? {
        tell(&test, &peaks, session.threads, args.json, out).map_err(written)?;
        out.flush().map_err(written)?;
    }
    Ok(())
}

/// The prompt and the new tokens, which must fit `limit` together.
fn sizes(args: &ProfileArgs, limit: usize, kind: Kind) -> Result<(usize, usize)> {
    if kind == Kind::Encoder && args.new.is_some_and(|n| n > 0) {
        return Err(Error::Usage("-n: this model generates nothing".into()));
    }
    let left = args.prompt.map_or(limit / 2, |p| limit.saturating_sub(p));
    let new = match kind {
        Kind::Encoder => 0,
        Kind::Decoder | Kind::EncoderDecoder => args.new.unwrap_or(left.min(64)),
    };
    let prompt = args.prompt.unwrap_or(limit.saturating_sub(new).min(512));
    match prompt.saturating_add(new) {
        0 => Err(Error::Usage("-p 0 -n 0 leave nothing to measure".into())),
        all if all > limit => Err(Error::Usage(format!(
            "-p {prompt} -n {new}: this model takes {limit} tokens"
        ))),
        _ => Ok((prompt, new)),
    }
}

fn tests(session: &Session<'_>, prompt: usize, new: usize) -> Result<Vec<Test>> {
    let m = session.manifest;
    let decoder = m.kind != Kind::Encoder;
    let head = m.outputs.iter().any(|o| o.per == Per::Row);
    let vocab = m.vocab_size.max(1) as usize;
    let ids: Vec<i32> = (0..prompt + new)
        .map(|i| ((i * 7919 + 13) % vocab) as i32)
        .collect();
    let rows = match (decoder, head) {
        (_, false) => Rows::None,
        (true, true) => Rows::Last,
        (false, true) => Rows::All,
    };
    let mut engine = session.engine(usize::from(decoder), prompt + new, false)?;
    if decoder {
        engine.choose_best();
    }
    let (read, fed) = ids.split_at(prompt);
    let mut tests = Vec::new();
    // The first round warms up.
    for round in 0..2 {
        let seq = if decoder { Some(engine.open()?) } else { None };
        let mut recorded = |name: String, entry, ids: &[i32], step: usize| -> Result<()> {
            if ids.is_empty() {
                return Ok(());
            }
            let (seconds, phases) = measure(session, &mut engine, seq, (entry, ids), step, rows)?;
            if round == 1 {
                tests.push(Test {
                    name,
                    tokens: ids.len(),
                    seconds,
                    phases,
                });
            }
            Ok(())
        };
        match m.other(Entry::Encode) {
            Some(_) => recorded(format!("enc{prompt}"), Entry::Encode, read, read.len())?,
            None => recorded(format!("pp{prompt}"), m.entry, read, read.len())?,
        }
        recorded(format!("tg{new}"), m.entry, fed, 1)?;
        if let Some(seq) = seq {
            engine.close(seq);
        }
    }
    Ok(tests)
}

/// Runs `ids` through an entry, `step` of them at a time: seconds, and the phases.
fn measure(
    session: &Session<'_>,
    engine: &mut Engine<'_>,
    seq: Option<SeqId>,
    (entry, ids): (Entry, &[i32]),
    step: usize,
    rows: Rows<'_>,
) -> Result<(f64, Vec<(String, Measured)>)> {
    let m = session.manifest;
    engine.record(Some(Recorder::new(m, session.threads)));
    let start = Instant::now();
    for ids in ids.chunks(step) {
        let work = Work {
            seq,
            ids,
            types: &[],
            rows: if entry == m.entry { rows } else { Rows::None },
        };
        engine.run_of(entry, &[work], &[], &mut |_| Ok(()))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let measured = engine.record(None).map_or(Vec::new(), |r| r.measured());
    let names = m.phases.iter().map(|p| p.name.clone());
    let mut phases: Vec<_> = names
        .zip(measured)
        .filter(|(_, sum)| sum.calls > 0)
        .collect();
    let inside: f64 = phases.iter().map(|(_, sum)| sum.seconds).sum();
    let outside = Measured {
        seconds: (seconds - inside).max(0.0),
        ..Measured::default()
    };
    phases.push(("outside".into(), outside));
    Ok((seconds, phases))
}

fn tell_peaks(peaks: &Peaks, threads: u32, json: bool, out: &mut dyn Write) -> std::io::Result<()> {
    if json {
        let line = json!({"peaks": {"threads": threads, "read_gb_s": peaks.read,
            "f32_gop_s": peaks.f32, "bf16_gop_s": peaks.bf16, "int8_gop_s": peaks.int8}});
        return writeln!(out, "{line}");
    }
    write!(
        out,
        "this machine, {threads} threads: {:.1} GB/s read",
        peaks.read
    )?;
    for (name, rate) in [
        ("f32", peaks.f32),
        ("bf16", peaks.bf16),
        ("int8", peaks.int8),
    ] {
        if let Some(rate) = rate {
            write!(out, ", {rate:.0} {name} GOP/s")?;
        }
    }
    writeln!(out)
}

/// The kind of most of a phase's operations, and all of them.
fn operations(sum: &Measured) -> (Option<Arithmetic>, u64) {
    let most = sum.operations.iter().max_by_key(|(_, count)| **count);
    (most.map(|m| *m.0), sum.operations.values().sum())
}

fn name(arithmetic: Arithmetic) -> &'static str {
    match arithmetic {
        Arithmetic::F32 => "f32",
        Arithmetic::Bf16 => "bf16",
        Arithmetic::Int8 => "int8",
    }
}

fn tell(
    test: &Test,
    peaks: &Peaks,
    threads: u32,
    json: bool,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let rate = test.tokens as f64 / test.seconds;
    if !json {
        writeln!(
            out,
            "\n{}: {:.2} ms, {rate:.1} tok/s\n{:<28} {:>6} {:>10} {:>6} {:>6} {:>14} {:>22}",
            test.name,
            test.seconds * 1e3,
            "phase",
            "calls",
            "ms",
            "share",
            "waits",
            "GB/s",
            "GOP/s"
        )?;
    }
    for (phase, sum) in &test.phases {
        let share = sum.seconds / test.seconds;
        let waiting = if sum.seconds > 0.0 {
            sum.waiting / sum.seconds
        } else {
            0.0
        };
        let per_second = |count: u64| count as f64 / sum.seconds.max(1e-9) * 1e-9;
        let (kind, count) = operations(sum);
        if json {
            let mut line = json!({"test": test.name, "threads": threads, "phase": phase,
                "calls": sum.calls, "ms": sum.seconds * 1e3, "share": share, "waiting": waiting,
                "bytes": sum.bytes, "gb_s": per_second(sum.bytes), "operations": count,
                "gop_s": per_second(count)});
            line["arithmetic"] = kind.map_or(Value::Null, |k| json!(name(k)));
            writeln!(out, "{line}")?;
            continue;
        }
        let bytes = match sum.bytes {
            0 => String::new(),
            bytes => {
                let rate = per_second(bytes);
                format!("{rate:.1} ({:.0} %)", 100.0 * rate / peaks.read)
            }
        };
        let products = kind.map_or(String::new(), |kind| {
            let rate = per_second(count);
            let peak = match kind {
                Arithmetic::F32 => peaks.f32,
                Arithmetic::Bf16 => peaks.bf16,
                Arithmetic::Int8 => peaks.int8,
            };
            let share = peak.map_or(String::new(), |p| format!(" ({:.0} %)", 100.0 * rate / p));
            format!("{rate:.1} {}{share}", name(kind))
        });
        writeln!(
            out,
            "{phase:<28} {:>6} {:>10.3} {:>4.1} % {:>4.1} % {bytes:>14} {products:>22}",
            sum.calls,
            sum.seconds * 1e3,
            100.0 * share,
            100.0 * waiting
        )?;
    }
    if json {
        let line = json!({"test": test.name, "threads": threads, "ms": test.seconds * 1e3,
            "tok_s": rate});
        writeln!(out, "{line}")?;
    }
    Ok(())
}
