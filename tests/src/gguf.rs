//! A writer of GGUF files, and the golden models as llama.cpp's converter would write them.
//!
//! Everything can be set, so that broken files can be written too.

use std::path::Path;

use llmc_frontend::weights::safetensors::SafetensorsFile;
use serde_json::Value as Json;

/// A metadata value.
#[derive(Clone, Debug)]
pub enum Value {
    U8(u8),
    U16(u16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(String),
    U64(u64),
    Texts(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
    Bools(Vec<bool>),
    /// Any type and any bytes.
    Raw(u32, Vec<u8>),
}

impl Value {
    fn write(&self, out: &mut Vec<u8>) {
        let ty: u32 = match self {
            Self::U8(_) => 0,
            Self::U16(_) => 2,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::Text(_) => 8,
            Self::Texts(_) | Self::F32s(_) | Self::I32s(_) | Self::Bools(_) => 9,
            Self::U64(_) => 10,
            Self::Raw(ty, _) => *ty,
        };
        out.extend(ty.to_le_bytes());
        let mut array = |ty: u32, len: usize, bytes: Vec<u8>| {
            out.extend(ty.to_le_bytes());
            out.extend((len as u64).to_le_bytes());
            out.extend(bytes);
        };
        match self {
            Self::Texts(texts) => {
                let mut bytes = Vec::new();
                texts
                    .iter()
                    .for_each(|text| string(&mut bytes, text.as_bytes()));
                array(8, texts.len(), bytes);
            }
            Self::F32s(v) => array(6, v.len(), v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Self::I32s(v) => array(5, v.len(), v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Self::Bools(v) => array(7, v.len(), v.iter().map(|x| u8::from(*x)).collect()),
            Self::U8(x) => out.push(*x),
            Self::U16(x) => out.extend(x.to_le_bytes()),
            Self::U32(x) => out.extend(x.to_le_bytes()),
            Self::I32(x) => out.extend(x.to_le_bytes()),
            Self::F32(x) => out.extend(x.to_le_bytes()),
            Self::Bool(x) => out.push((*x).into()),
            Self::U64(x) => out.extend(x.to_le_bytes()),
            Self::Text(text) => string(out, text.as_bytes()),
            Self::Raw(_, bytes) => out.extend(bytes),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}

/// A tensor.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: Vec<u8>,
    /// Innermost first.
    pub dims: Vec<u64>,
    /// ggml's number.
    pub ty: u32,
    pub data: Vec<u8>,
    /// Where the header says that it is; by default where it is.
    pub offset: Option<u64>,
}

/// A file.
#[derive(Clone, Debug)]
pub struct Gguf {
    pub version: u32,
    pub keys: Vec<(Vec<u8>, Value)>,
    pub tensors: Vec<Tensor>,
    /// How the data is aligned, whatever the keys say.
    pub alignment: usize,
    /// What the header says, if not the truth.
    pub tensor_count: Option<u64>,
    pub key_count: Option<u64>,
}

impl Default for Gguf {
    fn default() -> Self {
        Self {
            version: 3,
            keys: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            tensor_count: None,
            key_count: None,
        }
    }
}

/// How the elements of matrices are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elements {
    F32,
    F16,
    BF16,
}

impl Gguf {
    /// Sets a key, which may be there.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.remove(key);
        self.keys.push((key.into(), value.into()));
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &str) {
        self.keys.retain(|(other, _)| other != key.as_bytes());
    }

    /// A tensor that is there.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        let found = self.tensors.iter_mut().find(|t| t.name == name.as_bytes());
        found.unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// The bytes of the header and of the whole file.
    pub fn bytes(&self) -> (usize, Vec<u8>) {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(
            self.tensor_count
                .unwrap_or(self.tensors.len() as u64)
                .to_le_bytes(),
        );
        out.extend(
            self.key_count
                .unwrap_or(self.keys.len() as u64)
                .to_le_bytes(),
        );
        for (key, value) in &self.keys {
            string(&mut out, key);
            value.write(&mut out);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            string(&mut out, &tensor.name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor
                .dims
                .iter()
                .for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.ty.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(offset as u64).to_le_bytes());
            offset += tensor.data.len().next_multiple_of(self.alignment);
        }
        let header = out.len();
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&tensor.data);
        }
        (header, out)
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes().1).unwrap();
    }

    /// The file in parts: `NAME-00001-of-00003.gguf`; the first has the keys and no tensors, as gguf-split does it
    /// on request. Returns their paths.
    pub fn write_parts(&self, folder: &Path, name: &str, count: usize) -> Vec<std::path::PathBuf> {
        let share = self.tensors.len().div_ceil(count - 1);
        let paths = (0..count).map(|number| {
            let mut part = Gguf {
                tensors: Vec::new(),
                ..self.clone()
            };
            if number > 0 {
                part.keys.clear();
                let tensors = self.tensors.iter().skip((number - 1) * share).take(share);
                part.tensors = tensors.cloned().collect();
            }
            part.set("split.no", Value::U16(number as u16));
            part.set("split.count", Value::U16(count as u16));
            part.set("split.tensors.count", Value::I32(self.tensors.len() as i32));
            let path = folder.join(format!("{name}-{:05}-of-{count:05}.gguf", number + 1));
            part.write(&path);
            path
        });
        paths.collect()
    }

    /// A golden model as the converter writes it; vectors stay f32, as they do there.
    pub fn of_golden(case: &Path, elements: Elements) -> Self {
        let config = read_json(&case.join("config.json"));
        let mut gguf = Self::default();
        let text = |field: &str| config[field].as_str().unwrap();
        let arch = match text("model_type") {
            "llama" | "mistral" => "llama",
            "gemma3_text" => "gemma3",
            other => other,
        };
        gguf.set("general.architecture", arch);
        gguf.set("general.name", "golden");
        gguf.set("general.file_type", Value::U32(0));
        gguf.hyperparameters(arch, &config);
        gguf.tokenizer(case, &config);
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
            keys.push(("attention.sliding_window", count("sliding_window")));
        }
        if matches!(arch, "llama" | "gemma3") {
            keys.push(("attention.key_length", Some(dim.clone())));
            keys.push(("attention.value_length", Some(dim.clone())));
        }
        if arch == "llama" {
            keys.push(("rope.dimension_count", Some(dim)));
            keys.push(("vocab_size", count("vocab_size")));
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
        let kind = scaling["rope_type"].as_str();
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
        for (token, id) in model["vocab"].as_object().unwrap() {
            let id = id.as_u64().unwrap() as usize;
            let is_byte = token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
            (tokens[id], types[id]) = (Some(token.clone()), if is_byte { 6 } else { 1 });
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
        if model["type"] == "WordPiece" {
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
        for name in file.names() {
            let Some(own) = gguf_name(arch, name) else {
                continue;
            };
            let info = file.info(name).unwrap();
            let mut values: Vec<f32> = file
                .data(name)
                .unwrap()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect();
            let shape: Vec<usize> = info.shape.iter().map(|dim| *dim as usize).collect();
            if arch == "gemma3" && name.ends_with("norm.weight") {
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
            let (ty, data) = match elements {
                _ if shape.len() == 1 => (0, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
                Elements::F32 => (0, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
                Elements::F16 => (
                    1,
                    values
                        .iter()
                        .flat_map(|x| half::f16::from_f32(*x).to_le_bytes())
                        .collect(),
                ),
                Elements::BF16 => (
                    30,
                    values
                        .iter()
                        .flat_map(|x| half::bf16::from_f32(*x).to_le_bytes())
                        .collect(),
                ),
            };
            self.add(
                &own,
                &shape
                    .iter()
                    .rev()
                    .map(|dim| *dim as u64)
                    .collect::<Vec<_>>(),
                ty,
                data,
            );
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

    /// Adds a tensor; dimensions are innermost first.
    pub fn add(&mut self, name: &str, dims: &[u64], ty: u32, data: Vec<u8>) {
        self.tensors.push(Tensor {
            name: name.into(),
            dims: dims.to_vec(),
            ty,
            data,
            offset: None,
        });
    }
}

fn read_json(path: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// What the converter calls a tensor; none for those that it drops.
fn gguf_name(arch: &str, name: &str) -> Option<String> {
    let (stem, kind) = name.rsplit_once('.').unwrap();
    let stem = stem
        .trim_start_matches("model.")
        .trim_start_matches("bert.");
    let whole = match stem {
        "embed_tokens" | "embeddings.word_embeddings" => "token_embd",
        "norm" => "output_norm",
        "lm_head" => "output",
        "embeddings.position_embeddings" => "position_embd",
        "embeddings.token_type_embeddings" => "token_types",
        "embeddings.LayerNorm" => "token_embd_norm",
        "pooler.dense" => return None,
        _ => "",
    };
    if !whole.is_empty() {
        return Some(format!("{whole}.{kind}"));
    }
    let rest = stem
        .trim_start_matches("encoder.layer.")
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
        ("post_attention_layernorm", "gemma3") => "post_attention_norm",
        ("post_attention_layernorm", _) => "ffn_norm",
        ("pre_feedforward_layernorm", _) => "ffn_norm",
        ("post_feedforward_layernorm", _) => "post_ffw_norm",
        ("mlp.gate_proj", _) => "ffn_gate",
        ("mlp.up_proj" | "intermediate.dense", _) => "ffn_up",
        ("mlp.down_proj" | "output.dense", _) => "ffn_down",
        ("output.LayerNorm", _) => "layer_output_norm",
        other => panic!("{name}: {other:?}"),
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

/// Hyperparameters of [`Gguf::tiny`].
const TINY: TinySizes = TinySizes {
    hidden: 32,
    heads: 2,
    key_heads: 1,
    inner: 64,
    context: 64,
};

struct TinySizes {
    hidden: u64,
    heads: u64,
    key_heads: u64,
    inner: u64,
    context: u64,
}

impl Gguf {
    /// The smallest model of an architecture that has everything: one layer, a dozen tokens, weights of `ty`
    /// (ggml's number, with the elements and bytes of its blocks) that are all zero.
    pub fn tiny(arch: &str, (ty, block_len, block_bytes): (u32, u64, u64)) -> Self {
        let mut gguf = Self::default();
        let TinySizes {
            hidden,
            heads,
            key_heads,
            inner,
            context,
        } = TINY;
        let dim = hidden / heads;
        let mut set = |key: &str, value: Value| gguf.set(key, value);
        set("general.architecture", arch.into());
        for (key, value) in [
            ("block_count", 1),
            ("context_length", context),
            ("embedding_length", hidden),
            ("feed_forward_length", inner),
            ("attention.head_count", heads),
        ] {
            set(&format!("{arch}.{key}"), Value::U32(value as u32));
        }
        let epsilon = match arch {
            "bert" => "layer_norm_epsilon",
            _ => "layer_norm_rms_epsilon",
        };
        set(&format!("{arch}.attention.{epsilon}"), Value::F32(1e-6));
        if arch == "bert" {
            set("bert.pooling_type", Value::U32(1));
        } else {
            set(
                &format!("{arch}.attention.head_count_kv"),
                Value::U32(key_heads as u32),
            );
            set(&format!("{arch}.rope.freq_base"), Value::F32(10_000.0));
        }
        if arch == "gemma3" {
            set("gemma3.attention.key_length", Value::U32(dim as u32));
            set("gemma3.attention.sliding_window", Value::U32(8));
        }
        let tokens = gguf.tiny_tokenizer(arch);

        let mut matrix = |name: &str, rows: u64, columns: u64| {
            let bytes = rows * columns / block_len * block_bytes;
            gguf.add(name, &[columns, rows], ty, vec![0; bytes as usize]);
        };
        let (queries, keys) = (
            heads * dim,
            if arch == "bert" {
                hidden
            } else {
                key_heads * dim
            },
        );
        matrix("token_embd.weight", tokens, hidden);
        matrix("blk.0.attn_q.weight", queries, hidden);
        matrix("blk.0.attn_k.weight", keys, hidden);
        matrix("blk.0.attn_v.weight", keys, hidden);
        matrix("blk.0.attn_output.weight", hidden, queries);
        matrix("blk.0.ffn_up.weight", inner, hidden);
        matrix("blk.0.ffn_down.weight", hidden, inner);
        if arch == "bert" {
            matrix("position_embd.weight", context, hidden);
            matrix("token_types.weight", 2, hidden);
        } else {
            matrix("blk.0.ffn_gate.weight", inner, hidden);
        }
        let vectors: &[(&str, u64)] = match arch {
            "bert" => &[
                ("token_embd_norm.weight", hidden),
                ("token_embd_norm.bias", hidden),
                ("blk.0.attn_output_norm.weight", hidden),
                ("blk.0.attn_output_norm.bias", hidden),
                ("blk.0.layer_output_norm.weight", hidden),
                ("blk.0.layer_output_norm.bias", hidden),
                ("blk.0.attn_q.bias", hidden),
                ("blk.0.attn_k.bias", hidden),
                ("blk.0.attn_v.bias", hidden),
                ("blk.0.attn_output.bias", hidden),
                ("blk.0.ffn_up.bias", inner),
                ("blk.0.ffn_down.bias", hidden),
            ],
            "gemma3" => &[
                ("blk.0.attn_norm.weight", hidden),
                ("blk.0.attn_q_norm.weight", dim),
                ("blk.0.attn_k_norm.weight", dim),
                ("blk.0.post_attention_norm.weight", hidden),
                ("blk.0.ffn_norm.weight", hidden),
                ("blk.0.post_ffw_norm.weight", hidden),
                ("output_norm.weight", hidden),
            ],
            "qwen2" => &[
                ("blk.0.attn_norm.weight", hidden),
                ("blk.0.attn_q.bias", queries),
                ("blk.0.attn_k.bias", keys),
                ("blk.0.attn_v.bias", keys),
                ("blk.0.ffn_norm.weight", hidden),
                ("output_norm.weight", hidden),
            ],
            _ => &[
                ("blk.0.attn_norm.weight", hidden),
                ("blk.0.ffn_norm.weight", hidden),
                ("output_norm.weight", hidden),
            ],
        };
        for (name, length) in vectors {
            gguf.add(name, &[*length], 0, vec![0; *length as usize * 4]);
        }
        gguf
    }

    /// The tokenizer that the architecture usually has; the number of its tokens.
    fn tiny_tokenizer(&mut self, arch: &str) -> u64 {
        let (model, tokens, types): (&str, &[&str], &[i32]) = match arch {
            "bert" => (
                "bert",
                &["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁a", "▁b", "c", "▁ab"],
                &[3, 3, 3, 3, 1, 1, 1, 1],
            ),
            "qwen2" => (
                "gpt2",
                &["a", "b", "Ġ", "Ġa", "ab", "<|im_end|>", "<tool>", "[PAD7]"],
                &[1, 1, 1, 1, 1, 3, 4, 5],
            ),
            _ => (
                "llama",
                &[
                    "<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "b", "▁a", "ab", "  ",
                ],
                &[2, 3, 3, 6, 1, 1, 1, 1, 1, 4],
            ),
        };
        self.set("tokenizer.ggml.model", model);
        self.set(
            "tokenizer.ggml.tokens",
            Value::Texts(tokens.iter().map(|t| t.to_string()).collect()),
        );
        self.set("tokenizer.ggml.token_type", Value::I32s(types.to_vec()));
        match model {
            "bert" => {
                for (key, id) in [("padding", 0), ("unknown", 1), ("cls", 2), ("seperator", 3)] {
                    self.set(&format!("tokenizer.ggml.{key}_token_id"), Value::U32(id));
                }
            }
            "gpt2" => {
                let merges = ["Ġ a", "a b"].map(str::to_owned);
                self.set("tokenizer.ggml.pre", "qwen2");
                self.set("tokenizer.ggml.merges", Value::Texts(merges.into()));
                self.set("tokenizer.ggml.eos_token_id", Value::U32(5));
                self.set("tokenizer.chat_template", "{{ messages }}");
            }
            _ => {
                let scores = (0..tokens.len()).map(|id| -(id as f32)).collect();
                self.set("tokenizer.ggml.scores", Value::F32s(scores));
                for (key, id) in [("unknown", 0), ("bos", 1), ("eos", 2)] {
                    self.set(&format!("tokenizer.ggml.{key}_token_id"), Value::U32(id));
                }
                self.set(
                    "tokenizer.ggml.add_space_prefix",
                    Value::Bool(arch != "gemma3"),
                );
            }
        }
        tokens.len() as u64
    }
}
