//! The golden models as llama.cpp's converter would write them.

use std::path::Path;

use llmc_frontend::weights::safetensors::SafetensorsFile;
use serde_json::Value as Json;

use super::{Gguf, Value, fused, t5};

/// How the elements of matrices are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elements {
    F32,
    F16,
    BF16,
}

impl Gguf {
    /// A golden model as the converter writes it; vectors stay f32, as they do there.
    pub fn of_golden(case: &Path, elements: Elements) -> Self {
        let config = read_json(&case.join("config.json"));
        let mut gguf = Self::default();
        let text = |field: &str| config[field].as_str().unwrap();
        let arch = match text("model_type") {
            "llama" | "mistral" | "mixtral" => "llama",
            "qwen3_moe" => "qwen3moe",
            "gpt_oss" => "gpt-oss",
            "gemma3_text" => "gemma3",
            "gpt_bigcode" => "starcoder",
            "t5" => t5::arch(&config),
            other => other,
        };
        gguf.set("general.architecture", arch);
        gguf.set("general.name", "golden");
        gguf.set("general.file_type", Value::U32(0));
        match arch {
            "t5" | "t5encoder" => gguf.t5_keys(arch, &config),
            _ if fused::has_layer_norms(arch) => gguf.layer_norm_keys(arch, &config),
            _ => gguf.hyperparameters(arch, &config),
        }
        if case.join("tokenizer.json").exists() {
            gguf.tokenizer(case, &config);
        }
        gguf.tensors_of(arch, case, &config, elements);
        gguf
    }

    fn hyperparameters(&mut self, arch: &str, config: &Json) {
        let count = |field: &str| config[field].as_u64().map(|n| Value::U32(n as u32));
        let rope = match config["rope_parameters"].is_object() {
            true => &config["rope_parameters"],
            false => config,
        };
        let real = |field: &str| {
            let value = config[field].as_f64().or(rope[field].as_f64());
            value.map(|x| Value::F32(x as f32))
        };
        let heads = config["num_attention_heads"].as_u64().unwrap();
        let share = config["hidden_size"].as_u64().unwrap() / heads;
        let dim = Value::U32(config["head_dim"].as_u64().unwrap_or(share) as u32);
        let mut keys = vec![
            ("block_count", count("num_hidden_layers")),
            ("context_length", count("max_position_embeddings")),
            ("embedding_length", count("hidden_size")),
            ("feed_forward_length", count("intermediate_size")),
            ("attention.head_count", count("num_attention_heads")),
        ];
        if arch == "bert" {
            keys.push(("attention.layer_norm_epsilon", real("layer_norm_eps")));
            keys.push(("attention.causal", Some(Value::Bool(false))));
        } else {
            keys.push(("attention.head_count_kv", count("num_key_value_heads")));
            keys.push(("attention.layer_norm_rms_epsilon", real("rms_norm_eps")));
            keys.push(("rope.freq_base", real("rope_theta")));
            let window = count("sliding_window").filter(|_| !matches!(arch, "phi3" | "qwen3"));
            keys.push(("attention.sliding_window", window));
        }
        if matches!(
            arch,
            "llama" | "gemma2" | "gemma3" | "gpt-oss" | "qwen3" | "qwen3moe"
        ) {
            keys.push(("attention.key_length", Some(dim.clone())));
            keys.push(("attention.value_length", Some(dim.clone())));
        }
        if arch == "llama" {
            keys.push(("rope.dimension_count", Some(dim)));
            keys.push(("vocab_size", count("vocab_size")));
        }
        let experts = count("num_experts").or(count("num_local_experts"));
        if experts.is_some() {
            keys.push(("expert_count", experts));
            keys.push(("expert_used_count", count("num_experts_per_tok")));
            let width = count("moe_intermediate_size");
            let width = width.or(count("intermediate_size").filter(|_| arch == "gpt-oss"));
            keys.push(("expert_feed_forward_length", width));
        }
        if arch == "gemma2" {
            keys.push(("attn_logit_softcapping", real("attn_logit_softcapping")));
            keys.push(("final_logit_softcapping", real("final_logit_softcapping")));
        }
        if arch == "phi3" {
            self.phi3_keys(config);
        }
        if arch == "gemma3" {
            keys.push((
                "attention.sliding_window_pattern",
                count("sliding_window_pattern"),
            ));
        }
        let scaling = match config["rope_scaling"].is_object() {
            true => &config["rope_scaling"],
            false => rope,
        };
        let kind = scaling["rope_type"].as_str().filter(|_| arch != "phi3");
        if let Some(kind) = kind.filter(|kind| !matches!(*kind, "llama3" | "default")) {
            keys.push(("rope.scaling.type", Some(kind.into())));
            let real = |field: &str| scaling[field].as_f64().map(|x| Value::F32(x as f32));
            keys.push(("rope.scaling.factor", real("factor")));
            keys.push(("rope.scaling.yarn_beta_fast", real("beta_fast")));
            keys.push(("rope.scaling.yarn_beta_slow", real("beta_slow")));
            let original = scaling["original_max_position_embeddings"].as_u64();
            let original = original.map(|n| Value::U32(n as u32));
            keys.push(("rope.scaling.original_context_length", original));
        }
        for (key, value) in keys {
            if let Some(value) = value {
                self.set(&format!("{arch}.{key}"), value);
            }
        }
    }

    /// What `tokenizer.json` says, in GGUF's terms.
    fn tokenizer(&mut self, case: &Path, config: &Json) {
        let file = read_json(&case.join("tokenizer.json"));
        let settings = read_json(&case.join("tokenizer_config.json"));
        self.tokenizer_of(
            &file,
            &settings,
            config["vocab_size"].as_u64().unwrap() as usize,
        );
    }

    /// The same, of a tokenizer that may not belong to a model; `size` tokens, the last ones unused.
    pub fn tokenizer_of(&mut self, file: &Json, settings: &Json, size: usize) {
        let model = &file["model"];
        let mut tokens: Vec<Option<String>> = vec![None; size];
        let mut types = vec![5; size];
        let ids = model["vocab"].as_object().into_iter().flatten();
        let ids = ids.map(|(token, id)| (token.clone(), id.as_u64().unwrap() as usize));
        // Unigram has pieces and scores instead.
        let pieces = model["vocab"].as_array().map_or(&[][..], Vec::as_slice);
        let places = pieces.iter().enumerate();
        let places = places.map(|(id, piece)| (piece[0].as_str().unwrap().to_owned(), id));
        for (token, id) in ids.chain(places) {
            let is_byte = token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
            (tokens[id], types[id]) = (Some(token), if is_byte { 6 } else { 1 });
        }
        for added in file["added_tokens"].as_array().unwrap() {
            let id = added["id"].as_u64().unwrap() as usize;
            if id >= size {
                continue;
            }
            tokens[id] = added["content"].as_str().map(str::to_owned);
            types[id] = if added["special"].as_bool().unwrap() {
                3
            } else {
                4
            };
        }
        let id_of = |text: &str| {
            tokens
                .iter()
                .position(|token| token.as_deref() == Some(text))
        };
        for (role, key) in [
            ("bos", "bos"),
            ("eos", "eos"),
            ("unk", "unknown"),
            ("pad", "padding"),
            ("cls", "cls"),
            ("sep", "seperator"),
            ("mask", "mask"),
        ] {
            let token = &settings[format!("{role}_token")];
            let text = token.as_str().or(token["content"].as_str());
            if let Some(id) = text.and_then(id_of) {
                self.set(
                    &format!("tokenizer.ggml.{key}_token_id"),
                    Value::U32(id as u32),
                );
            }
        }
        if let Some(template) = settings["chat_template"].as_str() {
            self.set("tokenizer.chat_template", template);
        }
        let processor = file["post_processor"].to_string();
        let adds = |role: &str| {
            let text = settings[format!("{role}_token")].as_str().unwrap_or("\n");
            Value::Bool(processor.contains(&format!("{{\"SpecialToken\":{{\"id\":\"{text}\"")))
        };
        let merges: Vec<String> = model["merges"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|merge| match merge.as_array() {
                Some(pair) => format!(
                    "{} {}",
                    pair[0].as_str().unwrap(),
                    pair[1].as_str().unwrap()
                ),
                None => merge.as_str().unwrap().to_owned(),
            })
            .collect();
        if model["type"] == "Unigram" {
            self.unigram_keys(file);
            let score = |piece: &Json| piece[1].as_f64().unwrap() as f32;
            let mut scores: Vec<f32> = pieces.iter().map(score).collect();
            scores.resize(size, -10000.0);
            self.set("tokenizer.ggml.scores", Value::F32s(scores));
            types[model["unk_id"].as_u64().unwrap() as usize] = 2;
        } else if model["type"] == "WordPiece" {
            self.set("tokenizer.ggml.model", "bert");
            for (token, ty) in tokens.iter_mut().zip(&types).filter(|(_, ty)| **ty == 1) {
                debug_assert_eq!(*ty, 1);
                let text = token.take().unwrap();
                *token = Some(match text.strip_prefix("##") {
                    Some(rest) => rest.to_owned(),
                    None => format!("▁{text}"),
                });
            }
        } else if model["byte_fallback"] == true {
            self.set("tokenizer.ggml.model", "llama");
            self.set("tokenizer.ggml.add_bos_token", adds("bos"));
            self.set("tokenizer.ggml.add_eos_token", adds("eos"));
            let prefix = file["normalizer"].to_string().contains("Prepend");
            self.set("tokenizer.ggml.add_space_prefix", Value::Bool(prefix));
            // The score of a token is the place of the first merge that makes it.
            let score = |token: &Option<String>| {
                let whole = |merge: &String| token.as_deref() == Some(&merge.replacen(' ', "", 1));
                merges.iter().position(whole).unwrap_or(merges.len()) as f32
            };
            let scores = tokens.iter().map(|token| -score(token)).collect();
            self.set("tokenizer.ggml.scores", Value::F32s(scores));
            types[id_of(model["unk_token"].as_str().unwrap()).unwrap()] = 2;
        } else {
            let pre = file["pre_tokenizer"].to_string();
            let name = match () {
                _ if pre.contains(r"\\p{Lu}") => "gpt-4o",
                _ if pre.contains("{1,3}") => "llama-bpe",
                _ if pre.contains(r"\\p{N}|") => "qwen2",
                _ if pre.contains("Digits") => "starcoder",
                _ => "gpt-2",
            };
            self.set("tokenizer.ggml.model", "gpt2");
            self.set("tokenizer.ggml.pre", name);
            self.set("tokenizer.ggml.add_bos_token", adds("bos"));
            self.set("tokenizer.ggml.merges", Value::Texts(merges));
        }
        let tokens = tokens.into_iter().enumerate();
        let tokens = tokens.map(|(id, token)| token.unwrap_or_else(|| format!("[PAD{id}]")));
        self.set("tokenizer.ggml.tokens", Value::Texts(tokens.collect()));
        self.set("tokenizer.ggml.token_type", Value::I32s(types));
    }

    fn tensors_of(&mut self, arch: &str, case: &Path, config: &Json, elements: Elements) {
        let file = SafetensorsFile::open(&case.join("model.safetensors")).unwrap();
        let count = |field: &str| config[field].as_u64().unwrap_or(0) as usize;
        let experts = count("num_experts").max(count("num_local_experts"));
        self.experts_of(&file, (count("num_hidden_layers"), experts), elements);
        for name in file.names().filter(|name| !name.contains(".experts.")) {
            let Some(own) = gguf_name(arch, name) else {
                continue;
            };
            let tensor = floats(&file, name).unwrap();
            let (shape, mut values) = fused::stored(arch, config, &own, tensor);
            if matches!(arch, "gemma2" | "gemma3") && name.ends_with("norm.weight") {
                values.iter_mut().for_each(|value| *value += 1.0);
            }
            let heads = match own.split('.').nth(2) {
                Some("attn_q") => count("num_attention_heads"),
                Some("attn_k") => count("num_key_value_heads"),
                _ => 0,
            };
            if arch == "llama" && heads > 0 {
                values = interleave(&values, shape[0], heads);
            }
            let elements = match shape.len() {
                1 => Elements::F32,
                _ => elements,
            };
            self.matrix(&own, &shape, values, elements);
        }
        let scaling = &config["rope_scaling"];
        if scaling["rope_type"] == "llama3" {
            let factors = llama3_factors(
                config["rope_theta"].as_f64().unwrap(),
                count("head_dim"),
                scaling,
            );
            let data = factors.iter().flat_map(|x| x.to_le_bytes()).collect();
            self.add("rope_freqs.weight", &[factors.len() as u64], 0, data);
        }
    }
}

fn read_json(path: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Shape and values of a tensor, if the file has it.
pub(super) fn floats(file: &SafetensorsFile, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
    let info = file.info(name)?;
    let values = llmc_ir::source::to_f32(info.stored.dtype()?, file.data(name)?);
    Some((info.shape.iter().map(|dim| *dim as usize).collect(), values))
}

/// What the converter calls a tensor; none for those that it drops.
fn gguf_name(arch: &str, name: &str) -> Option<String> {
    let name = match name.strip_suffix(".sinks") {
        Some(stem) => format!("{stem}.sinks.weight"),
        None => name.to_owned(),
    };
    let (stem, kind) = name.rsplit_once('.').unwrap();
    if matches!(arch, "t5" | "t5encoder") {
        return Some(format!("{}.{kind}", t5::name(stem)));
    }
    let stem = stem
        .trim_start_matches("model.")
        .trim_start_matches("transformer.")
        .trim_start_matches("bert.");
    let whole = match stem {
        "embed_tokens" | "embeddings.word_embeddings" => "token_embd",
        "norm" => "output_norm",
        "lm_head" => "output",
        "embeddings.position_embeddings" => "position_embd",
        "embeddings.token_type_embeddings" => "token_types",
        "embeddings.LayerNorm" => "token_embd_norm",
        "pooler.dense" => return None,
        // Masks.
        _ if stem.ends_with(".attn") => return None,
        other => fused::name(other).unwrap_or_default(),
    };
    if !whole.is_empty() {
        return Some(format!("{whole}.{kind}"));
    }
    let rest = stem
        .trim_start_matches("encoder.layer.")
        .trim_start_matches("h.")
        .trim_start_matches("layers.");
    let (layer, part) = rest.split_once('.').unwrap();
    let part = match (part, arch) {
        ("self_attn.q_proj" | "attention.self.query", _) => "attn_q",
        ("self_attn.k_proj" | "attention.self.key", _) => "attn_k",
        ("self_attn.v_proj" | "attention.self.value", _) => "attn_v",
        ("self_attn.o_proj" | "attention.output.dense", _) => "attn_output",
        ("self_attn.q_norm", _) => "attn_q_norm",
        ("self_attn.k_norm", _) => "attn_k_norm",
        ("attention.output.LayerNorm", _) => "attn_output_norm",
        ("input_layernorm", _) => "attn_norm",
        ("self_attn.sinks", _) => "attn_sinks",
        ("block_sparse_moe.gate" | "mlp.gate" | "mlp.router", _) => "ffn_gate_inp",
        ("post_attention_layernorm", "gemma2" | "gemma3" | "gpt-oss") => "post_attention_norm",
        ("post_attention_layernorm", _) => "ffn_norm",
        ("pre_feedforward_layernorm", _) => "ffn_norm",
        ("post_feedforward_layernorm", _) => "post_ffw_norm",
        ("mlp.gate_proj", _) => "ffn_gate",
        ("mlp.up_proj" | "intermediate.dense", _) => "ffn_up",
        ("mlp.down_proj" | "output.dense", _) => "ffn_down",
        ("output.LayerNorm", _) => "layer_output_norm",
        (other, _) => fused::name(other).unwrap_or_else(|| panic!("{name}: {other:?}")),
    };
    Some(format!("blk.{layer}.{part}.{kind}"))
}

/// Rows of each head from halves to pairs: `[heads, 2, dim/2]` → `[heads, dim/2, 2]`.
fn interleave(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let (width, dim) = (values.len() / rows, rows / heads);
    let mut out = Vec::with_capacity(values.len());
    for head in 0..heads {
        for pair in 0..dim / 2 {
            for side in 0..2 {
                let row = head * dim + side * (dim / 2) + pair;
                out.extend(&values[row * width..(row + 1) * width]);
            }
        }
    }
    out
}

/// What the `llama3` scaling divides each frequency by, as the converter computes it.
fn llama3_factors(theta: f64, dim: usize, scaling: &Json) -> Vec<f32> {
    let of = |field: &str| scaling[field].as_f64().unwrap();
    let (factor, low, high) = (of("factor"), of("low_freq_factor"), of("high_freq_factor"));
    let context = of("original_max_position_embeddings");
    let factors = (0..dim / 2).map(|pair| {
        let frequency = 1.0 / theta.powf(2.0 * pair as f64 / dim as f64);
        let wavelength = std::f64::consts::TAU / frequency;
        if wavelength < context / high {
            1.0
        } else if wavelength > context / low {
            factor as f32
        } else {
            let smooth = (context / wavelength - low) / (high - low);
            (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
        }
    });
    factors.collect()
}
