//! `info`: what this executable is and what it will need.
//!
//! Input: the manifest and the chosen level. Output: a table, or one JSON object: the model, its
//! limits, the arithmetic, the KV cache, the memory foretold, the CPU levels and the chosen one.

use crate::cpu::has_feature;
use crate::kv_cache::{KvPlan, reserved_bytes};
use crate::rewrite;
use crate::session::Session;
use crate::{Error, Result};
use llmc_abi::{HeadTask, Kind, PAGE_TOKENS};
use serde_json::{Value, json};
use std::io::Write;

/// Arguments of `info`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct InfoArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Bytes of memory that a run touches, by purpose.
struct Memory {
    weights: u64,
    activations: u64,
    scratch: u64,
    /// One sequence with a full context; encoders: one step.
    kv: u64,
}

fn memory(session: &Session<'_>) -> Memory {
    let m = session.manifest;
    let plan = KvPlan {
        sequences: 1,
        tokens: m.limits.max_context as usize,
        source: m.longest_source() as usize,
    };
    Memory {
        weights: m.weight_bytes,
        activations: m.arena_bytes,
        scratch: m.scratch_bytes * u64::from(session.threads),
        kv: m
            .kv
            .iter()
            .map(|c| reserved_bytes(c, &m.widest(), plan))
            .sum(),
    }
}

/// Tasks of the command line that this model has.
pub fn tasks(session: &Session<'_>) -> Vec<&'static str> {
    let m = session.manifest;
    let text = m.has_tokenizer;
    let head = |task| text && m.head.as_ref().is_some_and(|h| h.task == task);
    let sequence = head(HeadTask::SequenceClassification);
    let reads = m.pictures.as_ref().is_some_and(|p| p.steps.is_some());
    let pictures = reads
        && m.head
            .as_ref()
            .is_some_and(|h| h.task == HeadTask::ImageClassification);
    let both = m.pictures.as_ref().is_some_and(|p| p.similarity.is_some());
    let told = reads && text && m.pictures.as_ref().is_some_and(|p| p.told.is_some());
    let one = m.head.as_ref().is_some_and(|h| h.labels.len() == 1);
    [
        ("generate", session.generates() && text),
        (
            "chat",
            session.continues_texts() && text && m.chat_template.is_some(),
        ),
        ("embed", (m.embeds || both) && text),
        ("classify", sequence || pictures),
        ("tag", head(HeadTask::TokenClassification)),
        ("fill-mask", head(HeadTask::MaskedLm)),
        ("rerank", sequence && one),
        ("answer", head(HeadTask::QuestionAnswering) || told),
        ("caption", told),
        ("infer", true),
        ("tokenize", text),
        ("detokenize", text),
        ("bench", session.takes_tokens()),
        ("perplexity", session.continues_texts() && text),
        ("translate", rewrite::tasks(m).0 && text),
        ("summarize", rewrite::tasks(m).1 && text),
        ("verify", true),
    ]
    .into_iter()
    .filter_map(|(name, has)| has.then_some(name))
    .collect()
}

fn describe(session: &Session<'_>) -> Value {
    let m = session.manifest;
    let mem = memory(session);
    let levels: Vec<Value> = m
        .levels
        .iter()
        .enumerate()
        .map(|(i, l)| {
            json!({
                "name": l.name,
                "features": l.features,
                "runs_here": l.features.iter().all(|f| has_feature(f)),
                "chosen": i == session.level,
            })
        })
        .collect();
    let kv: Vec<Value> =
        m.kv.iter()
            .map(|c| {
                json!({
                    "name": c.name,
                    "dtype": c.dtype,
                    "layers": c.slots,
                    "kv_heads": c.kv_heads,
                    "k_width": c.k_width,
                    "v_width": c.v_width,
                    "window": c.window,
                    "scratch": c.scratch,
                    "source": c.source,
                    "page_tokens": PAGE_TOKENS,
                    "bytes_per_token": c.page_bytes * u64::from(c.slots) / PAGE_TOKENS as u64,
                })
            })
            .collect();
    json!({
        "name": m.name,
        "family": m.family,
        "architecture": m.architecture,
        "kind": m.kind,
        "producer": m.producer,
        "target": m.target,
        "parameters": m.parameters,
        "layers": m.num_layers,
        "hidden_size": m.hidden_size,
        "vocab_size": m.vocab_size,
        "limits": {
            "context": m.limits.max_context,
            "step_tokens": m.limits.max_tokens,
            "step_sequences": m.limits.max_seqs,
            "step_rows": m.limits.max_rows,
            "input_tokens": session.max_input(),
        },
        "arithmetic": {"activations": m.activations, "quant": m.quant, "weights": m.weight_types},
        "traffic": m.traffic,
        "kv": kv,
        "memory": {
            "weights": mem.weights,
            "activations": mem.activations,
            "scratch": mem.scratch,
            "kv_full_context": mem.kv,
            "total": mem.weights + mem.activations + mem.scratch + mem.kv,
        },
        "entries": m.entries().iter().map(|e| json!({
            "entry": e.entry,
            "layers": e.layers,
            "step_tokens": e.limits.max_tokens,
            "context": e.limits.max_context,
            "inputs": e.inputs.iter().map(|i| json!({"name": i.name, "width": i.width})).collect::<Vec<_>>(),
            "outputs": e.outputs.iter().map(|o| json!({"name": o.name, "per": o.per, "width": o.width})).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "outputs": m.outputs.iter().map(|o| json!({"name": o.name, "per": o.per, "width": o.width})).collect::<Vec<_>>(),
        "tokens": {"bos": m.tokens.bos, "eos": m.tokens.eos, "pad": m.tokens.pad},
        "chat_template": m.chat_template.is_some(),
        "tasks": tasks(session),
        "levels": levels,
        "level": m.levels.get(session.level).map(|l| &l.name),
        "threads": session.threads,
    })
}

/// A size for people.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// Runs `info`.
pub fn info(session: &Session<'_>, args: &InfoArgs, out: &mut dyn Write) -> Result<()> {
    let text = if args.json {
        describe(session).to_string()
    } else {
        table(session)
    };
    writeln!(out, "{}", text.trim_end()).map_err(|e| Error::io("standard output", e))
}

fn table(session: &Session<'_>) -> String {
    let m = session.manifest;
    let mem = memory(session);
    let mut lines: Vec<(&str, String)> = vec![
        (
            "model",
            format!("{} ({}, {})", m.name, m.family, m.architecture),
        ),
        ("compiled by", format!("{} for {}", m.producer, m.target)),
        (
            "size",
            format!(
                "{} parameters, {} layers of width {}, vocabulary {}",
                m.parameters, m.num_layers, m.hidden_size, m.vocab_size
            ),
        ),
        (
            "limits",
            format!(
                "context {} tokens; a step: {} tokens, {} sequences, {} rows",
                m.limits.max_context, m.limits.max_tokens, m.limits.max_seqs, m.limits.max_rows
            ),
        ),
        ("activations", m.activations.clone()),
        ("quantised", m.quant.clone()),
        (
            "weights",
            m.weight_types
                .iter()
                .map(|(t, b)| format!("{t} {}", size(*b)))
                .collect::<Vec<_>>()
                .join(", "),
        ),
    ];
    lines.push((
        "a token",
        format!(
            "reads {} of weights, multiplies with {} parameters and for its logits with {}",
            size(m.traffic.step_bytes),
            m.traffic.token_parameters,
            m.traffic.row_parameters
        ),
    ));
    for c in &m.kv {
        let per_token = c.page_bytes * u64::from(c.slots) / PAGE_TOKENS as u64;
        let window = c.window.map_or(String::new(), |w| format!(", window {w}"));
        let kind = match (c.scratch, c.source) {
            (true, _) => ", for one step only",
            (false, true) => ", of the source",
            (false, false) => "",
        };
        let layers = format!("{} layers × {} heads", c.slots, c.kv_heads);
        lines.push((
            "kv cache",
            format!(
                "{}: {}, {layers}, {} a token{window}{kind}",
                c.name,
                c.dtype,
                size(per_token)
            ),
        ));
    }
    let full = match m.kind {
        Kind::Decoder => "KV cache of one full context",
        Kind::Encoder => "attention",
        Kind::EncoderDecoder => "KV caches of one full source and context",
    };
    lines.push((
        "memory",
        format!(
            "{} = weights {} + activations {} + scratch {} + {full} {}",
            size(mem.weights + mem.activations + mem.scratch + mem.kv),
            size(mem.weights),
            size(mem.activations),
            size(mem.scratch),
            size(mem.kv)
        ),
    ));
    for (i, l) in m.levels.iter().enumerate() {
        let runs = l.features.iter().all(|f| has_feature(f));
        let state = match (i == session.level, runs) {
            (true, _) => "chosen",
            (false, true) => "runs here",
            (false, false) => "not on this CPU",
        };
        lines.push((
            "level",
            format!("{} ({state}): {}", l.name, l.features.join(" ")),
        ));
    }
    lines.push(("threads", session.threads.to_string()));
    lines.push(("tasks", tasks(session).join(", ")));
    lines
        .iter()
        .map(|(k, v)| format!("{k:>12}  {v}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_readable() {
        let check = |bytes, expected: &str| assert_eq!(size(bytes), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1536, "1.5 KiB");
        check(3 << 30, "3.0 GiB");
        check(5 << 40, "5.0 TiB");
    }
}
