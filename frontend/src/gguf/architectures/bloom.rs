//! `bloom`: BLOOM and BLOOMZ.
//!
//! The converter takes the fused projection apart: all queries, all keys, all values.

use super::{Architecture, Fields};
use crate::error::Result;
use crate::json::Json;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "bloom",
    tensors: &[
        ("output", "lm_head"),
        ("output_norm", "transformer.ln_f"),
        ("token_embd", "transformer.word_embeddings"),
        ("token_embd_norm", "transformer.word_embeddings_layernorm"),
    ],
    layer_tensors: &[
        ("attn_norm", "input_layernorm"),
        ("attn_output", "self_attention.dense"),
        ("attn_qkv", "self_attention.query_key_value"),
        ("ffn_down", "mlp.dense_4h_to_h"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_up", "mlp.dense_h_to_4h"),
    ],
    layers: "transformer.h.",
    paired: &[],
    norms_include_offset: false,
    configure,
};

fn configure(fields: &mut Fields) -> Result<()> {
    fields.layer_norm_decoder(
        ["hidden_size", "n_layer", "n_inner", "n_head", "seq_length"],
        "layer_norm_epsilon",
    )?;
    // As many as there are queries.
    fields.ignore(&["attention.head_count_kv"]);
    fields.set("stored_qkv_apart", true);
    fields.set("architectures", Json::Array(vec!["BloomForCausalLM".into()]));
    fields.set("model_type", "bloom");
    Ok(())
}
