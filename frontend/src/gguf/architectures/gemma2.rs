//! `gemma2`: Gemma 2.
//!
//! The weights of norms hold the one that the family adds. What the converter leaves out, llama.cpp knows: every
//! second layer slides, the first one among them, and scores are scaled by the dimension of a head, in the model of
//! 46 layers by the width of a query.

use super::{Architecture, Fields};
use crate::error::Result;
use crate::gguf::rope;
use crate::json::Json;
use crate::limits;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "gemma2",
    tensors: super::llama::TENSORS,
    layer_tensors: &[
        ("attn_k", "self_attn.k_proj"),
        ("attn_norm", "input_layernorm"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("ffn_down", "mlp.down_proj"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_norm", "pre_feedforward_layernorm"),
        ("ffn_up", "mlp.up_proj"),
        ("post_attention_norm", "post_attention_layernorm"),
        ("post_ffw_norm", "post_feedforward_layernorm"),
    ],
    layers: "model.layers.",
    paired: &[],
    norms_include_offset: true,
    configure,
};

/// Layers of the 27B model, the only one whose scale is not that of its heads.
const LAYERS_27B: u32 = 46;

fn configure(fields: &mut Fields) -> Result<()> {
    fields.decoder()?;
    rope::configure(fields)?;
    fields.demand("attention.key_length")?;
    fields.copy("sliding_window", "attention.sliding_window")?;
    fields.demand("attention.sliding_window")?;
    fields.copy("attn_logit_softcapping", "attn_logit_softcapping")?;
    fields.copy("final_logit_softcapping", "final_logit_softcapping")?;
    query_pre_attn_scalar(fields, LAYERS_27B)?;
    fields.set(
        "architectures",
        Json::Array(vec!["Gemma2ForCausalLM".into()]),
    );
    fields.set("model_type", "gemma2");
    Ok(())
}

/// The head's size, but in the model of `largest` layers the width over the heads; files do not say it.
pub fn query_pre_attn_scalar(fields: &mut Fields, largest: u32) -> Result<()> {
    let metadata = fields.metadata();
    let mut count = |key: &str| metadata.count_or(&fields.key(key), 0..=limits::WIDTH, 0);
    let scalar = if count("block_count")? == largest {
        let heads = count("attention.head_count")?.max(1);
        f64::from(count("embedding_length")?) / f64::from(heads)
    } else {
        f64::from(count("attention.key_length")?)
    };
    fields.set("query_pre_attn_scalar", scalar);
    Ok(())
}
