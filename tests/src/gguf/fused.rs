//! What llama.cpp's converter does to decoders with layer norms and to fused projections: keys, names, and the
//! order of rows.

use serde_json::Value as Json;

use super::{Gguf, Value};

/// Whether the architecture's decoders have layer norms.
pub(super) fn has_layer_norms(arch: &str) -> bool {
    matches!(arch, "bloom" | "falcon" | "gpt2" | "stablelm" | "starcoder")
}

/// The first of these fields that is there.
fn either(config: &Json, fields: &[&str]) -> Option<usize> {
    let mut found = fields.iter().filter_map(|field| config[*field].as_u64());
    found.next().map(|n| n as usize)
}

fn heads(config: &Json) -> usize {
    either(config, &["num_attention_heads", "n_head"]).unwrap()
}

/// Key and value heads of a fused projection.
fn key_heads(arch: &str, config: &Json) -> usize {
    match arch {
        "starcoder" => 1,
        "falcon" if config["new_decoder_architecture"] == true => {
            either(config, &["num_kv_heads"]).unwrap()
        }
        "falcon" => 1,
        "stablelm" => either(config, &["num_key_value_heads"]).unwrap(),
        _ => heads(config),
    }
}

/// Dimensions of a head that are rotated.
fn rotated(config: &Json) -> u32 {
    let dim = either(config, &["hidden_size"]).unwrap() / heads(config);
    let within = |section: &Json| section["partial_rotary_factor"].as_f64();
    let part = within(config)
        .or(within(&config["rope_parameters"]))
        .unwrap_or(1.0);
    (dim as f64 * part) as u32
}

impl Gguf {
    /// The keys of decoders with layer norms.
    pub(super) fn layer_norm_keys(&mut self, arch: &str, config: &Json) {
        let size = |fields: &[&str]| either(config, fields);
        let hidden = size(&["hidden_size", "n_embd", "n_embed"]).unwrap();
        let inner =
            size(&["intermediate_size", "ffn_hidden_size", "n_inner"]).unwrap_or(4 * hidden);
        let context = size(&["max_position_embeddings", "n_positions", "seq_length"]).unwrap();
        let layers = size(&["num_hidden_layers", "n_layer"]).unwrap();
        let count = |n: usize| Value::U32(n as u32);
        let epsilon = config["layer_norm_epsilon"]
            .as_f64()
            .or(config["layer_norm_eps"].as_f64());
        let mut keys = vec![
            ("context_length", count(context)),
            ("embedding_length", count(hidden)),
            ("feed_forward_length", count(inner)),
            ("block_count", count(layers)),
            ("attention.head_count", count(heads(config))),
            (
                "attention.layer_norm_epsilon",
                Value::F32(epsilon.unwrap() as f32),
            ),
        ];
        if arch != "gpt2" {
            keys.push(("attention.head_count_kv", count(key_heads(arch, config))));
        }
        if arch == "falcon" {
            keys.push(("tensor_data_layout", "jploski".into()));
        }
        if arch == "stablelm" {
            keys.push(("rope.dimension_count", Value::U32(rotated(config))));
            let parallel = config["use_parallel_residual"].as_bool().unwrap_or(false);
            keys.push(("use_parallel_residual", Value::Bool(parallel)));
        }
        for (key, value) in keys {
            self.set(&format!("{arch}.{key}"), value);
        }
    }

    /// What Phi-3 has besides, the factors of its longrope among it.
    pub(super) fn phi3_keys(&mut self, config: &Json) {
        let count = |field: &str| config[field].as_u64().map(|n| n as u32);
        self.set("phi3.rope.dimension_count", Value::U32(rotated(config)));
        let window = count("sliding_window").unwrap_or(0);
        self.set("phi3.attention.sliding_window", Value::U32(window));
        let context = count("max_position_embeddings").unwrap();
        let original = count("original_max_position_embeddings").unwrap_or(context);
        self.set(
            "phi3.rope.scaling.original_context_length",
            Value::U32(original),
        );
        let scaling = match config["rope_scaling"].is_object() {
            true => &config["rope_scaling"],
            false => &config["rope_parameters"],
        };
        if !scaling["long_factor"].is_array() {
            return;
        }
        let scale = f64::from(context) / f64::from(original);
        let factor = (1.0 + scale.ln() / f64::from(original).ln()).sqrt();
        self.set("phi3.rope.scaling.attn_factor", Value::F32(factor as f32));
        for kind in ["long", "short"] {
            let factors = scaling[format!("{kind}_factor")].as_array().unwrap();
            let bytes = factors
                .iter()
                .flat_map(|f| (f.as_f64().unwrap() as f32).to_le_bytes());
            let name = format!("rope_factors_{kind}.weight");
            self.add(&name, &[factors.len() as u64], 0, bytes.collect());
        }
    }
}

/// The converter's name for a part of a layer, and for a tensor of the whole model.
pub(super) fn name(part: &str) -> Option<&'static str> {
    Some(match part {
        "wte" | "word_embeddings" => "token_embd",
        "wpe" => "position_embd",
        "word_embeddings_layernorm" => "token_embd_norm",
        "ln_f" => "output_norm",
        "ln_1" | "ln_mlp" => "attn_norm",
        "ln_attn" => "attn_norm_2",
        "attn.c_attn" | "self_attention.query_key_value" | "self_attn.qkv_proj" => "attn_qkv",
        "attn.c_proj" | "self_attention.dense" => "attn_output",
        "ln_2" => "ffn_norm",
        "mlp.c_fc" | "mlp.dense_h_to_4h" | "mlp.gate_up_proj" => "ffn_up",
        "mlp.c_proj" | "mlp.dense_4h_to_h" => "ffn_down",
        _ => return None,
    })
}

/// The tensor as the converter stores it: Conv1D transposed, fused projections of BLOOM and Falcon apart.
pub(super) fn stored(
    arch: &str,
    config: &Json,
    own: &str,
    (shape, values): (Vec<usize>, Vec<f32>),
) -> (Vec<usize>, Vec<f32>) {
    let part = own.split('.').nth(2).unwrap_or_default();
    let is_linear = matches!(part, "attn_qkv" | "attn_output" | "ffn_up" | "ffn_down");
    if arch == "gpt2" && is_linear && shape.len() == 2 {
        let (rows, columns) = (shape[0], shape[1]);
        let order = (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c));
        let values = order.map(|i| values[i]).collect();
        return (vec![columns, rows], values);
    }
    if part != "attn_qkv" || !matches!(arch, "bloom" | "falcon") {
        return (shape, values);
    }
    let (query, key) = (heads(config), key_heads(arch, config));
    let (group, dim) = (query / key + 2, shape[0] / (query + 2 * key));
    let width = values.len() / shape[0];
    // Heads of every group: queries, then the key, then the value.
    let of = |members: std::ops::Range<usize>| {
        (0..key).flat_map(move |g| members.clone().map(move |m| g * group + m))
    };
    let all = of(0..group - 2)
        .chain(of(group - 2..group - 1))
        .chain(of(group - 1..group));
    let rows = all.flat_map(|head| head * dim..(head + 1) * dim);
    let values = rows.flat_map(|row| values[row * width..(row + 1) * width].to_vec());
    (shape, values.collect())
}
