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
    let metadata = fields.metadata();
    let count = |key: &str| metadata.count_or(key, 0..=limits::WIDTH, 0);
    let scalar = match count("gemma2.block_count")? {
        LAYERS_27B => {
            let heads = count("gemma2.attention.head_count")?.max(1);
            f64::from(count("gemma2.embedding_length")?) / f64::from(heads)
        }
        _ => f64::from(count("gemma2.attention.key_length")?),
    };
    fields.set("query_pre_attn_scalar", scalar);
    fields.set(
        "architectures",
        Json::Array(vec!["Gemma2ForCausalLM".into()]),
    );
    fields.set("model_type", "gemma2");
    Ok(())
}
