//! Random configurations of decoders: what is compiled is what the evaluator computes.
//!
//! Heads, key and value heads, head sizes, windows, patterns of layers, sparse patterns, ALiBi, ropes, tied or
//! untied heads, biases, experts. Seeds count up from 0, and a failure names the one that makes it again.
//!
//! `LLMC_SEED=17 cargo test --test random_configs` runs one.

use llmc_passes::{Kv, Precision};
use llmc_tests::differential::{Compared, F32};
use serde_json::{Value, json};

/// Configurations of every run.
const FEW: u64 = 12;
/// Configurations of the long run.
const MANY: u64 = 60;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// One of `low..=high`.
    fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.within(0, all.len() as u64 - 1) as usize].clone()
    }

    fn flag(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }

    /// `n` of these words.
    fn words(&mut self, n: u64, all: &[&str]) -> Vec<String> {
        (0..n).map(|_| self.pick(all).to_string()).collect()
    }
}

/// The families that a configuration may be of.
const FAMILIES: [(&str, &str); 14] = [
    ("bloom", "BloomForCausalLM"),
    ("falcon", "FalconForCausalLM"),
    ("gemma2", "Gemma2ForCausalLM"),
    ("gemma3_text", "Gemma3ForCausalLM"),
    ("gpt3", "GPT3LMHeadModel"),
    ("gpt_neo", "GPTNeoForCausalLM"),
    ("gpt_oss", "GptOssForCausalLM"),
    ("llama", "LlamaForCausalLM"),
    ("mixtral", "MixtralForCausalLM"),
    ("mistral", "MistralForCausalLM"),
    ("phi3", "Phi3ForCausalLM"),
    ("qwen2", "Qwen2ForCausalLM"),
    ("qwen3", "Qwen3ForCausalLM"),
    ("stablelm", "StableLmForCausalLM"),
];

/// A configuration, and rows of ids for it.
fn random(seed: u64) -> (Value, Vec<Vec<i64>>) {
    let mut r = Random::new(seed);
    // Every family comes up, in turns.
    let (family, class) = FAMILIES[(seed % FAMILIES.len() as u64) as usize];
    let layers = r.within(1, 4);
    let (group, kv) = (r.within(1, 4), r.within(1, 3));
    let dim = 2 * r.within(2, 24);
    let heads = group * kv;
    let vocab = r.within(40, 200);
    let context = 256;
    let equal_share = ["bloom", "falcon", "gpt3", "gpt_neo", "stablelm", "phi3"].contains(&family);
    let hidden = if equal_share {
        heads * dim
    } else {
        r.within(8, 90)
    };
    let window = r.within(1, 150);
    // Wide rows of weights this large would make scores of hundreds (GPT-Neo does not scale them), where
    // rounding decides who wins.
    let deviation = if equal_share {
        (1.0 / hidden as f64).sqrt().min(0.2)
    } else {
        0.2
    };
    let mut c = json!({
        "architectures": [class], "model_type": family,
        "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": r.within(8, 120),
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv,
        "max_position_embeddings": context, "initializer_range": deviation, "torch_dtype": "float32",
        "tie_word_embeddings": r.flag(), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "rms_norm_eps": 1e-5, "layer_norm_eps": 1e-5, "layer_norm_epsilon": 1e-5,
        "rope_theta": r.pick(&[100.0, 10_000.0, 1e6]),
        "torch_dtype": r.pick(&["float32", "float32", "bfloat16"]),
    });
    if !equal_share {
        c["head_dim"] = dim.into();
    }
    let mut set = |fields: Value| {
        for (key, value) in fields.as_object().unwrap() {
            c[key] = value.clone();
        }
    };
    let (rotated, scaling) = (dim, r.within(0, 5));
    match family {
        "bloom" => set(json!({"n_head": heads, "n_layer": layers, "num_attention_heads": heads})),
        "falcon" => {
            let new = r.flag();
            set(json!({
                "new_decoder_architecture": new, "num_kv_heads": kv, "multi_query": r.flag(),
                "parallel_attn": r.flag(), "bias": r.flag(), "num_ln_in_parallel_attn": r.pick(&[1, 2]),
            }));
        }
        "gemma2" | "gemma3_text" => set(json!({
            "sliding_window": window, "query_pre_attn_scalar": r.within(4, 60),
            "sliding_window_pattern": r.within(1, 3), "hidden_activation": "gelu_pytorch_tanh",
            "attn_logit_softcapping": r.pick(&[5.0, 50.0]), "final_logit_softcapping": 20.0,
            "rope_local_base_freq": 1000.0,
        })),
        "gpt3" => {
            let span = r.within(1, 90);
            set(json!({
                "n_embd": hidden, "n_head": heads, "n_layer": layers, "n_positions": context,
                "attention_layers": r.words(layers, &["dense", "banded", "strided", "fixed"]),
                "window_size": window, "attention_stride": r.within(1, 80),
                "attention_block": r.pick(&[1, 1, 3, 16]), "attention_span": span,
                "attention_summary": r.within(1, span),
            }));
        }
        "gpt_neo" => set(json!({
            "num_heads": heads, "num_layers": layers, "window_size": window,
            "attention_layers": r.words(layers, &["global", "local"]),
        })),
        "gpt_oss" => set(json!({
            "num_local_experts": r.within(2, 7), "num_experts_per_tok": r.within(1, 2),
            "sliding_window": window, "swiglu_limit": 7.0, "attention_bias": true,
            "layer_types": r.words(layers, &["full_attention", "sliding_attention"]),
            "rope_scaling": {
                "rope_type": "yarn", "factor": 4.0, "truncate": r.flag(),
                "original_max_position_embeddings": 64,
            },
        })),
        "llama" => set(json!({"attention_bias": r.flag(), "mlp_bias": r.flag()})),
        "mixtral" => set(json!({
            "num_local_experts": r.within(1, 6), "num_experts_per_tok": 1, "sliding_window": window,
        })),
        "mistral" => set(json!({"sliding_window": window})),
        "phi3" => set(json!({
            "sliding_window": r.pick(&[json!(null), json!(window)]), "original_max_position_embeddings": 64,
        })),
        "qwen2" | "qwen3" => set(json!({
            "use_sliding_window": true, "sliding_window": window, "max_window_layers": r.within(0, layers),
        })),
        _ => {
            // An even number of rotated elements.
            let part = 2 * r.within(1, dim / 2);
            set(json!({
                "use_parallel_residual": r.flag(), "use_qkv_bias": r.flag(),
                "partial_rotary_factor": (part as f64 + 0.5) / dim as f64,
            }));
        }
    }
    let factors = |r: &mut Random| -> Vec<f64> {
        (0..rotated / 2)
            .map(|_| 1.0 + r.within(0, 30) as f64 / 10.0)
            .collect()
    };
    if ["llama", "mistral", "qwen2", "phi3"].contains(&family) && dim > 2 {
        set(match (family, scaling) {
            ("phi3", 0..3) | ("llama", 0) => json!({"rope_scaling": {
                "type": "longrope", "short_factor": factors(&mut r), "long_factor": factors(&mut r),
                "original_max_position_embeddings": 64,
            }}),
            ("llama", 1) => json!({
                "max_position_embeddings": 24, "rope_scaling": {"type": "dynamic", "factor": 8.0},
            }),
            ("llama" | "qwen2", 2) => json!({"rope_scaling": {"type": "linear", "factor": 2.5}}),
            ("llama" | "mistral", 3) => json!({"rope_scaling": {
                "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
            }}),
            _ => json!({}),
        });
    }
    // A unit in the last place of a growing frequency is more of an angle the further out it is.
    let dynamic = c["rope_scaling"]["type"] == "dynamic";
    let longest = r
        .pick(&[9, 70, 150, 230])
        .min(if dynamic { 70 } else { 230 });
    let lengths = [longest, r.within(1, longest)];
    let row = |&n: &u64, r: &mut Random| (0..n).map(|_| r.within(3, vocab - 1) as i64).collect();
    let rows = lengths.iter().map(|n| row(n, &mut r)).collect();
    (c, rows)
}

fn run(seed: u64) -> Vec<String> {
    let (config, rows) = random(seed);
    let compared = Compared {
        name: &format!("seed {seed}: {config}"),
        config: &config,
        precision: Precision {
            kv: Kv::F32,
            ..Precision::default()
        },
        tolerance: F32,
        level: "x86-64-v3",
    };
    compared.run(&rows)
}

fn run_all(seeds: std::ops::Range<u64>) {
    let problems: Vec<String> = seeds.flat_map(run).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn compiled_code_is_what_the_evaluator_computes() {
    match std::env::var("LLMC_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => run_all(seed..seed + 1),
        None => run_all(0..FEW),
    }
}

#[test]
#[ignore = "minutes: make test-full"]
fn and_for_many_more() {
    run_all(FEW..MANY);
}
