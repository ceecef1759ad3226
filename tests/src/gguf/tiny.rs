//! The smallest models of each architecture.

use super::{Gguf, Value};

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
        if arch == "t5" {
            return Self::tiny_t5((ty, block_len, block_bytes));
        }
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
