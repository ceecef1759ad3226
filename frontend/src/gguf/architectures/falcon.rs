//! `falcon`: Falcon 7B, 40B and 180B.
//!
//! The converter takes the fused projection apart: all queries, all keys, all values. So the 7B model is one of the
//! new architecture with one key and value head; where there is a second norm (`attn_norm_2`), it is that before
//! attention.

use super::{Architecture, Fields};
use crate::error::Result;
use crate::gguf::rope;
use crate::json::Json;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "falcon",
    tensors: &[
        ("output", "lm_head"),
        ("output_norm", "transformer.ln_f"),
        ("token_embd", "transformer.word_embeddings"),
    ],
    layer_tensors: &[
        ("attn_norm", "input_layernorm"),
        ("attn_norm_2", "ln_attn"),
        ("attn_output", "self_attention.dense"),
        ("attn_qkv", "self_attention.query_key_value"),
        ("ffn_down", "mlp.dense_4h_to_h"),
        ("ffn_up", "mlp.dense_h_to_4h"),
    ],
    layers: "transformer.h.",
    paired: &[],
    norms_include_offset: false,
    configure,
};

const NAMES: [&str; 5] = [
    "hidden_size",
    "num_hidden_layers",
    "ffn_hidden_size",
    "num_attention_heads",
    "max_position_embeddings",
];

fn configure(fields: &mut Fields) -> Result<()> {
    fields.layer_norm_decoder(NAMES, "layer_norm_epsilon")?;
    rope::configure(fields)?;
    fields.copy("num_kv_heads", "attention.head_count_kv")?;
    fields.demand("attention.head_count_kv")?;
    let norms = 1 + u32::from(fields.has_in_layers("attn_norm_2.weight"));
    fields.set("num_ln_in_parallel_attn", norms);
    fields.set("new_decoder_architecture", true);
    fields.set("stored_qkv_apart", true);
    fields.set("bias", fields.has_in_layers("attn_qkv.bias"));
    fields.set("architectures", Json::Array(vec!["FalconForCausalLM".into()]));
    fields.set("model_type", "falcon");
    Ok(())
}
