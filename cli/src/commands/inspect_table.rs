//! The facts of `llmc inspect` as a table for people.
//!
//! In: the JSON object that `--json` prints. Out: text, one line a subject, then the weights.

use llmc_runtime::info::size;
use serde_json::Value;

/// The table.
pub fn table(facts: &Value) -> String {
    let text = |key: &str| word(&facts[key]);
    let mut lines = vec![
        (
            "model",
            format!(
                "{} ({}, {}), {}",
                text("name"),
                text("family"),
                text("architecture"),
                text("kind")
            ),
        ),
        (
            "size",
            format!(
                "{} parameters, {} layers of width {}, vocabulary {}",
                text("parameters"),
                text("layers"),
                text("hidden_size"),
                text("vocab_size")
            ),
        ),
        ("context", format!("{} tokens", text("max_context"))),
    ];
    lines.extend(list(&facts["layer_classes"]).map(|class| ("layers", layer_class(class))));
    lines.extend(list(&facts["kv_cache"]).map(|state| ("kv cache", kv_cache(state))));
    let outputs =
        list(&facts["outputs"]).map(|o| format!("{} {}", word(&o["name"]), word(&o["type"])));
    lines.push(("outputs", outputs.collect::<Vec<_>>().join(", ")));
    lines.push(("weights", weights(facts)));
    lines.push(("tokenizer", tokenizer(&facts["tokenizer"])));
    lines.extend(
        facts["sentence"]
            .is_object()
            .then(|| ("pooling", pooling(&facts["sentence"]))),
    );
    let tokens = &facts["tokens"];
    let eos: Vec<String> = list(&tokens["eos"]).map(word).collect();
    let eos = if eos.is_empty() {
        "none".into()
    } else {
        eos.join(", ")
    };
    let (bos, pad) = (word(&tokens["bos"]), word(&tokens["pad"]));
    lines.push(("tokens", format!("bos {bos}; eos {eos}; pad {pad}")));
    let unused: Vec<String> = list(&facts["unused"]).take(5).map(word).collect();
    if !unused.is_empty() {
        let count = list(&facts["unused"]).count();
        let more = if count > unused.len() { ", …" } else { "" };
        lines.push((
            "unused",
            format!("{count} tensors: {}{more}", unused.join(", ")),
        ));
    }
    let mut out: String = lines
        .iter()
        .map(|(k, v)| format!("{k:>10}  {v}\n"))
        .collect();
    out.push('\n');
    out += &weight_rows(&facts["weights"]);
    if list(&facts["quant_notes"]).next().is_some() {
        out += &format!("\nquantised to {}:\n", text("quant"));
        out.extend(list(&facts["quant_notes"]).map(|note| format!("  {}\n", word(note))));
    }
    out
}

/// A string without its quotes, `none` for null, else JSON.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn layer_class(class: &Value) -> String {
    let layers: Vec<u64> = list(&class["layers"]).filter_map(Value::as_u64).collect();
    format!(
        "{} × {} ({}): {} heads, mask {}",
        word(&class["name"]),
        layers.len(),
        ranges(&layers),
        word(&class["heads"]),
        word(&class["mask"])
    )
}

/// `0-4, 6-10`.
fn ranges(numbers: &[u64]) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &n in numbers {
        match runs.last_mut() {
            Some((_, end)) if *end + 1 == n => *end = n,
            _ => runs.push((n, n)),
        }
    }
    let run = |(a, b): &(u64, u64)| {
        if a == b {
            a.to_string()
        } else {
            format!("{a}-{b}")
        }
    };
    runs.iter().map(run).collect::<Vec<_>>().join(", ")
}

fn kv_cache(state: &Value) -> String {
    let window = match &state["window"] {
        Value::Null => String::new(),
        tokens => format!(", window {tokens}"),
    };
    format!(
        "@{}: {} heads, keys of {} and values of {}, in {} layers{window}",
        word(&state["name"]),
        state["kv_heads"],
        state["k_dim"],
        state["v_dim"],
        word(&state["layers"])
    )
}

fn weights(facts: &Value) -> String {
    let types = facts["weight_types"].as_object().into_iter().flatten();
    let types: Vec<String> = types
        .map(|(name, bytes)| format!("{name} {}", size(bytes.as_u64().unwrap_or(0))))
        .collect();
    let found = if facts["weights_found"] == true {
        ""
    } else {
        " (none found: as the configuration says)"
    };
    types.join(", ") + found
}

fn tokenizer(tokenizer: &Value) -> String {
    if tokenizer.is_null() {
        return "none".into();
    }
    let special: Vec<String> = list(&tokenizer["special"])
        .map(|s| {
            format!(
                "{} {} ({})",
                word(&s["role"]),
                word(&s["text"]),
                word(&s["id"])
            )
        })
        .collect();
    let templates: Vec<String> = list(&tokenizer["chat_templates"]).map(word).collect();
    let templates = if templates.is_empty() {
        "none".into()
    } else {
        templates.join(", ")
    };
    format!(
        "{}, {} tokens; {}; chat templates: {templates}",
        word(&tokenizer["kind"]),
        tokenizer["size"],
        special.join(", ")
    )
}

fn pooling(sentence: &Value) -> String {
    let normalize = if sentence["normalize"] == true {
        ", L2-normalised"
    } else {
        ""
    };
    let most = match &sentence["max_tokens"] {
        Value::Null => String::new(),
        tokens => format!(", at most {tokens} tokens"),
    };
    format!("{}{normalize}{most}", word(&sentence["pooling"]))
}

/// Name, type and tensors of every weight, in columns.
fn weight_rows(weights: &Value) -> String {
    let rows: Vec<[String; 3]> = list(weights)
        .map(|w| {
            let slots = w["layers"]
                .as_u64()
                .map_or(String::new(), |n| format!("[{n}]"));
            let from: Vec<String> = list(&w["from"]).map(word).collect();
            let shape: Vec<String> = list(&w["shape"]).map(word).collect();
            [
                format!("@{}{slots}", word(&w["name"])),
                format!("{}[{}]", word(&w["type"]), shape.join(", ")),
                from.join(" + "),
            ]
        })
        .collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    rows.iter()
        .map(|[name, ty, from]| format!("{name:<first$}  {ty:<second$}  {from}\n"))
        .collect()
}
