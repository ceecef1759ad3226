//! What llama.cpp's converter does to T5: keys, names, and tokenizers of the kind Unigram; the
//! smallest T5.

use serde_json::Value as Json;

use super::{Gguf, Value};

/// The architecture of a configuration.
pub(super) fn arch(config: &Json) -> &'static str {
    match config["architectures"][0] == "T5EncoderModel" {
        true => "t5encoder",
        false => "t5",
    }
}

/// What the converter calls a tensor, without `.weight`.
pub(super) fn name(stem: &str) -> String {
    let parts: Vec<&str> = stem.split('.').collect();
    let stack = |stack: &str| match stack {
        "encoder" => "enc",
        "decoder" => "dec",
        _ => panic!("{stem}"),
    };
    match parts[..] {
        ["shared"] => "token_embd".into(),
        ["lm_head"] => "output".into(),
        [of, "final_layer_norm"] => format!("{}.output_norm", stack(of)),
        [of, "block", layer, "layer", sublayer, ref part @ ..] => {
            let part = match part {
                ["SelfAttention", "relative_attention_bias"] => "attn_rel_b".into(),
                ["SelfAttention", projection] => format!("attn_{projection}"),
                ["EncDecAttention", projection] => format!("cross_attn_{projection}"),
                ["DenseReluDense", "wi" | "wi_1"] => "ffn_up".into(),
                ["DenseReluDense", "wi_0"] => "ffn_gate".into(),
                ["DenseReluDense", "wo"] => "ffn_down".into(),
                ["layer_norm"] if sublayer == "0" => "attn_norm".into(),
                ["layer_norm"] if (of, sublayer) == ("decoder", "1") => "cross_attn_norm".into(),
                ["layer_norm"] => "ffn_norm".into(),
                _ => panic!("{stem}"),
            };
            format!("{}.blk.{layer}.{part}", stack(of))
        }
        _ => panic!("{stem}"),
    }
}

impl Gguf {
    pub(super) fn t5_keys(&mut self, arch: &str, config: &Json) {
        let count = |field: &str| config[field].as_u64().map(|n| Value::U32(n as u32));
        let epsilon = config["layer_norm_epsilon"]
            .as_f64()
            .map(|x| Value::F32(x as f32));
        let of_decoder = |value: Option<Value>| value.filter(|_| arch == "t5");
        for (key, value) in [
            (
                "context_length",
                count("n_positions").or(Some(Value::U32(512))),
            ),
            ("embedding_length", count("d_model")),
            ("feed_forward_length", count("d_ff")),
            ("block_count", count("num_layers")),
            (
                "decoder_block_count",
                of_decoder(count("num_decoder_layers")),
            ),
            ("attention.head_count", count("num_heads")),
            ("attention.key_length", count("d_kv")),
            ("attention.value_length", count("d_kv")),
            ("attention.layer_norm_epsilon", epsilon.clone()),
            (
                "attention.relative_buckets_count",
                count("relative_attention_num_buckets"),
            ),
            ("attention.layer_norm_rms_epsilon", epsilon),
            (
                "decoder_start_token_id",
                of_decoder(count("decoder_start_token_id")),
            ),
        ] {
            if let Some(value) = value {
                self.set(&format!("{arch}.{key}"), value);
            }
        }
    }

    /// What a `tokenizer.json` of the kind Unigram has besides its pieces.
    pub(super) fn unigram_keys(&mut self, file: &Json) {
        self.set("tokenizer.ggml.model", "t5");
        self.set("tokenizer.ggml.pre", "default");
        let steps = file["pre_tokenizer"].to_string();
        let prefix = Value::Bool(!steps.contains("\"never\""));
        self.set("tokenizer.ggml.add_space_prefix", prefix);
        let squeeze = Value::Bool(steps.contains("WhitespaceSplit"));
        self.set("tokenizer.ggml.remove_extra_whitespaces", squeeze);
        if let Some(map) = file["normalizer"]["precompiled_charsmap"].as_str() {
            let map = base64::decode(map).unwrap();
            let count = (map.len() as u64).to_le_bytes();
            let array = [&0u32.to_le_bytes()[..], &count, &map].concat();
            self.set("tokenizer.ggml.precompiled_charsmap", Value::Raw(9, array));
        }
    }
}

impl Gguf {
    /// A gated model of one layer a stack, weights of `ty` (ggml's number, with the elements and bytes of its blocks)
    /// that are all zero, with a tokenizer.
    pub(super) fn tiny_t5((ty, block_len, block_bytes): (u32, u64, u64)) -> Self {
        let (hidden, heads, inner, buckets) = (32, 2, 64, 32);
        let tokens = ["<pad>", "</s>", "<unk>", "▁", "a", "b", "▁a", "[PAD7]"];
        let types = [3, 3, 2, 1, 1, 1, 1, 5];
        let mut gguf = Self::default();
        gguf.set("general.architecture", "t5");
        for (key, value) in [
            ("block_count", 1),
            ("context_length", 64),
            ("embedding_length", hidden),
            ("feed_forward_length", inner),
            ("attention.head_count", heads),
            ("attention.key_length", hidden / heads),
            ("attention.relative_buckets_count", buckets),
            ("decoder_start_token_id", 0),
        ] {
            gguf.set(&format!("t5.{key}"), Value::U32(value as u32));
        }
        gguf.set("t5.attention.layer_norm_rms_epsilon", Value::F32(1e-6));
        gguf.set("tokenizer.ggml.model", "t5");
        let texts = tokens.iter().map(|token| token.to_string()).collect();
        gguf.set("tokenizer.ggml.tokens", Value::Texts(texts));
        gguf.set("tokenizer.ggml.token_type", Value::I32s(types.to_vec()));
        let scores = (0..tokens.len()).map(|id| -(id as f32)).collect();
        gguf.set("tokenizer.ggml.scores", Value::F32s(scores));
        gguf.set("tokenizer.ggml.eos_token_id", Value::U32(1));

        let mut matrix = |name: &str, rows: u64, columns: u64| {
            let bytes = rows * columns / block_len * block_bytes;
            gguf.add(name, &[columns, rows], ty, vec![0; bytes as usize]);
        };
        matrix("token_embd.weight", tokens.len() as u64, hidden);
        for (stack, attentions) in [("enc", &["attn"][..]), ("dec", &["attn", "cross_attn"])] {
            for projection in ["q", "k", "v", "o"] {
                for attention in attentions {
                    let name = format!("{stack}.blk.0.{attention}_{projection}.weight");
                    matrix(&name, hidden, hidden);
                }
            }
            matrix(&format!("{stack}.blk.0.ffn_gate.weight"), inner, hidden);
            matrix(&format!("{stack}.blk.0.ffn_up.weight"), inner, hidden);
            matrix(&format!("{stack}.blk.0.ffn_down.weight"), hidden, inner);
        }
        for stack in ["enc", "dec"] {
            let bias = vec![0; (heads * buckets * 4) as usize];
            gguf.add(
                &format!("{stack}.blk.0.attn_rel_b.weight"),
                &[heads, buckets],
                0,
                bias,
            );
            for norm in [
                "blk.0.attn_norm",
                "blk.0.cross_attn_norm",
                "blk.0.ffn_norm",
                "output_norm",
            ] {
                if stack == "dec" || !norm.contains("cross") {
                    let name = format!("{stack}.{norm}.weight");
                    gguf.add(&name, &[hidden], 0, vec![0; hidden as usize * 4]);
                }
            }
        }
        gguf
    }
}
