//! Executables against the evaluator over shapes that no golden case has: head sizes that are no
//! multiples of a vector, odd head counts, prompts longer than a page and than a step, windows,
//! 16-bit weights, every type of KV cache.
//!
//! Each case is a config with random weights; both sides make the same ones from the seed.

use llmc_codegen::targets::x86_64;
use llmc_passes::{Activations, Kv, Precision, Quant};
use llmc_tests::differential::{Compared, F32};
use serde_json::{Value, json};

/// How far an executable may be from the evaluator where keys and values are rounded, by both, to 16 bits: what lies between two numbers of
/// the cache may go either way.
const F16: f32 = 5e-3;
const BF16: f32 = 4e-2;
/// The same for 8 bits.
const Q8_0: f32 = 2e-2;
/// The same where products read 8 bits: rounding moves values to other codes.
const INT8: f32 = 5e-2;

struct Case {
    name: &'static str,
    config: Value,
    prompt: usize,
    kv: Kv,
    /// Types of the weights, and what their products read.
    quant: (Quant, Activations),
    tolerance: f32,
}

fn decoder(family: &str, class: &str, more: Value) -> Value {
    let mut config = json!({
        "architectures": [class], "model_type": family, "hidden_act": "silu",
        "hidden_size": 72, "intermediate_size": 100, "num_hidden_layers": 3,
        "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 24,
        "vocab_size": 131, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "initializer_range": 0.2, "torch_dtype": "float32",
        "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2
    });
    merge(&mut config, more);
    config
}

fn encoder(family: &str, class: &str, more: Value) -> Value {
    let mut config = json!({
        "architectures": [class], "model_type": family, "hidden_act": "gelu",
        "hidden_size": 120, "intermediate_size": 200, "num_hidden_layers": 2,
        "num_attention_heads": 5, "vocab_size": 131, "max_position_embeddings": 300,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "initializer_range": 0.2,
        "torch_dtype": "float32", "pad_token_id": 1, "relative_attention_num_buckets": 32
    });
    merge(&mut config, more);
    config
}

/// Scores have no scale: smaller weights keep the softmax from amplifying what rounding leaves.
fn t5(class: &str, more: Value) -> Value {
    let mut config = json!({
        "architectures": [class], "model_type": "t5", "feed_forward_proj": "relu",
        "d_model": 72, "d_ff": 100, "d_kv": 20, "num_heads": 3, "num_layers": 2,
        "num_decoder_layers": 3, "vocab_size": 131, "n_positions": 700,
        "initializer_range": 0.08, "torch_dtype": "float32", "tie_word_embeddings": true,
        "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1
    });
    merge(&mut config, more);
    config
}

/// A picture in the text; the Q-Former has layers that look at it and others.
fn blip2(text: Value, vision: Value, qformer: Value) -> Value {
    let mut seen = json!({
        "hidden_size": 36, "intermediate_size": 50, "num_hidden_layers": 1, "num_attention_heads": 3,
        "image_size": 24, "patch_size": 6, "qkv_bias": false
    });
    merge(&mut seen, vision);
    let mut asked = json!({
        "hidden_size": 28, "num_hidden_layers": 5, "num_attention_heads": 2, "intermediate_size": 33,
        "cross_attention_frequency": 3
    });
    merge(&mut asked, qformer);
    json!({
        "architectures": ["Blip2ForConditionalGeneration"], "model_type": "blip-2", "image_token_id": 131,
        "num_query_tokens": 37, "initializer_range": 0.08, "torch_dtype": "float32",
        "text_config": text, "vision_config": seen, "qformer_config": asked
    })
}

fn opt(more: Value) -> Value {
    let mut config = json!({
        "model_type": "opt", "vocab_size": 132, "hidden_size": 40, "ffn_dim": 56, "num_hidden_layers": 2,
        "num_attention_heads": 5, "max_position_embeddings": 700
    });
    merge(&mut config, more);
    config
}

fn merge(into: &mut Value, more: Value) {
    for (key, value) in more.as_object().unwrap() {
        into[key] = value.clone();
    }
}

fn case(name: &'static str, config: Value, prompt: usize) -> Case {
    Case {
        name,
        config,
        prompt,
        kv: Kv::Auto,
        quant: (Quant::None, Activations::Auto),
        tolerance: F32,
    }
}

fn cases() -> Vec<Case> {
    let llama = |more| decoder("llama", "LlamaForCausalLM", more);
    let heads = |q: u32, kv: u32, dim: u32| json!({"num_attention_heads": q, "num_key_value_heads": kv, "head_dim": dim});
    let deberta = |more| {
        let mut config = encoder(
            "deberta",
            "DebertaModel",
            json!({
                "relative_attention": true, "pos_att_type": "c2p|p2c", "position_biased_input": false,
                "type_vocab_size": 0
            }),
        );
        merge(&mut config, more);
        config
    };
    let deberta_v2 = |more| {
        let mut config = deberta(json!({
            "architectures": ["DebertaV2Model"], "model_type": "deberta-v2", "position_buckets": 32,
            "share_att_key": true, "norm_rel_ebd": "layer_norm"
        }));
        merge(&mut config, more);
        config
    };
    let kv = |name, dtype, tolerance| Case {
        kv: dtype,
        tolerance,
        ..case(name, llama(heads(6, 2, 40)), 140)
    };
    let mixtral = |experts: u32, chosen: u32, more: Value| {
        let mut config = decoder("mixtral", "MixtralForCausalLM", more);
        config["num_local_experts"] = experts.into();
        config["num_experts_per_tok"] = chosen.into();
        config
    };
    // Small weights: where a code differs, little comes of it.
    let blocks = json!({
        "hidden_size": 96, "intermediate_size": 160, "head_dim": 32, "initializer_range": 0.05
    });
    let quantised = |name, quant, activations, chosen, tolerance| Case {
        quant: (quant, activations),
        kv: Kv::F32,
        tolerance,
        ..case(name, mixtral(5, chosen, blocks.clone()), 50)
    };
    let exact = |name, quant| quantised(name, quant, Activations::F32, 2, F32);
    // Every expert is chosen: where 8 bits blur the logits, another choice would be another model.
    let rounded = |name, quant| quantised(name, quant, Activations::Auto, 5, INT8);
    vec![
        case("experts", mixtral(7, 3, json!({})), 130),
        case("one expert", mixtral(1, 1, json!({})), 5),
        case(
            "experts in bf16",
            mixtral(4, 2, json!({"torch_dtype": "bfloat16"})),
            90,
        ),
        case(
            "mixtures between dense layers",
            decoder(
                "qwen3_moe",
                "Qwen3MoeForCausalLM",
                json!({
                    "num_experts": 40, "num_experts_per_tok": 5, "moe_intermediate_size": 24,
                    "decoder_sparse_step": 2, "norm_topk_prob": false
                }),
            ),
            75,
        ),
        case(
            "sinks and bounded gates",
            decoder(
                "gpt_oss",
                "GptOssForCausalLM",
                json!({
                    "num_local_experts": 6, "num_experts_per_tok": 4, "sliding_window": 70,
                    "swiglu_limit": 0.5,
                    "rope_scaling": {
                        "rope_type": "yarn", "factor": 8.0, "truncate": false,
                        "original_max_position_embeddings": 128
                    }
                }),
            ),
            200,
        ),
        exact("experts in q8_0", Quant::Q8_0),
        exact("experts in q4_0", Quant::Q4_0),
        exact("experts in int8", Quant::Int8),
        rounded("experts and rows in bf16", Quant::Bf16),
        rounded("experts in q4_0, rows in 8 bits", Quant::Q4_0),
        rounded("experts in int8, rows in 8 bits", Quant::Int8),
        rounded("experts in q4_k_m, rows in 8 bits", Quant::Q4KM),
        case("mqa, heads of 24", llama(json!({})), 70),
        case("gqa, heads of 40", llama(heads(6, 3, 40)), 130),
        case("mha, heads of 80", llama(heads(5, 5, 80)), 65),
        case("heads of 6", llama(heads(7, 7, 6)), 64),
        case("heads of 256", llama(heads(4, 1, 256)), 20),
        case("longer than a step", llama(heads(2, 1, 16)), 700),
        case("bf16", llama(json!({"torch_dtype": "bfloat16"})), 33),
        case(
            "f16, tied",
            llama(json!({"torch_dtype": "float16", "tie_word_embeddings": true})),
            33,
        ),
        case(
            "biases",
            llama(json!({"attention_bias": true, "mlp_bias": true})),
            33,
        ),
        case("wide", llama(json!({"intermediate_size": 1700})), 20),
        kv("f16 cache", Kv::F16, F16),
        kv("bf16 cache", Kv::Bf16, BF16),
        Case {
            kv: Kv::Q8_0,
            tolerance: Q8_0,
            ..case("q8_0 cache", llama(heads(6, 2, 96)), 140)
        },
        case(
            "window over pages",
            decoder(
                "mistral",
                "MistralForCausalLM",
                json!({"sliding_window": 100}),
            ),
            330,
        ),
        case(
            "qkv biases",
            decoder("qwen2", "Qwen2ForCausalLM", heads(9, 3, 24)),
            75,
        ),
        case(
            "two kinds of layer",
            decoder(
                "gemma3_text",
                "Gemma3ForCausalLM",
                json!({
                    "sliding_window": 70, "sliding_window_pattern": 3, "query_pre_attn_scalar": 40,
                    "hidden_activation": "gelu_pytorch_tanh", "head_dim": 40,
                    "rope_local_base_freq": 10000.0, "tie_word_embeddings": true
                }),
            ),
            200,
        ),
        case("bert", encoder("bert", "BertModel", json!({})), 130),
        case("mpnet", encoder("mpnet", "MPNetModel", json!({})), 280),
        case("deberta", deberta(json!({})), 150),
        case(
            "deberta, near distances and keys alone",
            deberta(
                json!({"max_relative_positions": 8, "pos_att_type": ["c2p"], "position_biased_input": true}),
            ),
            150,
        ),
        case("deberta v3", deberta_v2(json!({})), 300),
        case(
            "deberta v2",
            deberta_v2(json!({"conv_kernel_size": 5, "conv_act": "gelu"})),
            140,
        ),
        case(
            "deberta v2, tables of their own",
            deberta_v2(json!({
                "share_att_key": false, "norm_rel_ebd": "none", "position_buckets": -1, "attention_head_size": 20,
                "type_vocab_size": 2, "pos_att_type": "p2c", "torch_dtype": "bfloat16"
            })),
            70,
        ),
        Case {
            quant: (Quant::Q8_0, Activations::F32),
            ..case(
                "deberta v3 in q8_0",
                deberta_v2(
                    json!({"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 192}),
                ),
                70,
            )
        },
        // A source longer than a step of the decoder, a text longer than a page.
        case("t5", t5("T5ForConditionalGeneration", json!({})), 600),
        case(
            "t5 1.1 bf16",
            t5(
                "T5ForConditionalGeneration",
                json!({"feed_forward_proj": "gated-gelu", "tie_word_embeddings": false,
                    "torch_dtype": "bfloat16", "num_heads": 2, "d_kv": 32}),
            ),
            70,
        ),
        Case {
            kv: Kv::F16,
            tolerance: F16,
            ..case(
                "t5 kv f16",
                t5("T5ForConditionalGeneration", json!({})),
                130,
            )
        },
        // Types differ from layer to layer: decoder and what writes its sources are split alike.
        Case {
            quant: (Quant::Q4KM, Activations::F32),
            ..case(
                "t5 q4_k_m",
                t5(
                    "T5ForConditionalGeneration",
                    json!({"d_model": 256, "d_ff": 512, "num_heads": 4, "d_kv": 64,
                        "num_layers": 4, "num_decoder_layers": 8, "initializer_range": 0.03}),
                ),
                70,
            )
        },
        case(
            "blip-2 with opt, norms behind",
            blip2(
                opt(json!({"do_layer_norm_before": false})),
                json!({}),
                json!({}),
            ),
            560,
        ),
        case(
            "blip-2 with t5, every layer looks",
            blip2(
                t5("", json!({"vocab_size": 132})),
                json!({"qkv_bias": true, "patch_size": 12}),
                json!({"cross_attention_frequency": 1, "num_hidden_layers": 2}),
            ),
            560,
        ),
        // What writes pictures' keys is split as what reads them is.
        Case {
            quant: (Quant::Q4KM, Activations::F32),
            ..case(
                "blip-2 q4_k_m",
                blip2(
                    opt(
                        json!({"hidden_size": 256, "ffn_dim": 512, "num_hidden_layers": 8, "num_attention_heads": 4}),
                    ),
                    json!({"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4,
                        "num_attention_heads": 4}),
                    json!({"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 9,
                        "num_attention_heads": 4, "cross_attention_frequency": 2}),
                ),
                70,
            )
        },
        Case {
            quant: (Quant::Q8_0, Activations::Auto),
            tolerance: INT8,
            ..case(
                "blip-2 q8_0",
                blip2(
                    opt(json!({"hidden_size": 64, "ffn_dim": 96, "num_attention_heads": 4})),
                    json!({"hidden_size": 96, "intermediate_size": 128}),
                    json!({"hidden_size": 64, "intermediate_size": 128}),
                ),
                70,
            )
        },
        case("t5 encoder", t5("T5EncoderModel", json!({})), 130),
    ]
}

/// Ids in `3..vocabulary`, the same every time.
fn prompt(len: usize) -> Vec<i64> {
    (0..len as i64)
        .map(|i| 3 + (i * i * 7 + i * 13) % 128)
        .collect()
}

fn run(case: &Case, level: &str) -> Vec<String> {
    let (quant, activations) = case.quant;
    let precision = Precision {
        quant,
        activations,
        kv: case.kv,
    };
    let compared = Compared {
        name: case.name,
        config: &case.config,
        precision,
        tolerance: case.tolerance,
        level,
    };
    compared.run(&[prompt(case.prompt)])
}

fn sweep(level: &str) {
    let problems: Vec<String> = cases().iter().flat_map(|c| run(c, level)).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn with_avx2() {
    sweep("x86-64-v3");
}

#[test]
fn with_avx512() {
    if !x86_64::V4.requires.iter().all(|f| x86_64::host_has(f)) {
        eprintln!("SKIPPED: this CPU cannot run x86-64-v4");
        return;
    }
    sweep("x86-64-v4");
}
