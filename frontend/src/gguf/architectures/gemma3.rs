//! `gemma3`: the text models of Gemma 3.
//!
//! The weights of norms hold the one that the family adds. What the converter leaves out, llama.cpp knows: every
//! sixth layer sees everything, sliding layers rotate by 10000 without scaling, and scores are scaled by the
//! dimension of a head, in the model of 62 layers by the width of a query.

use super::gemma2::query_pre_attn_scalar;
use super::{Architecture, Fields};
use crate::error::Result;
use crate::gguf::rope;
use crate::json::Json;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "gemma3",
    tensors: super::llama::TENSORS,
    layer_tensors: &[
        ("attn_k", "self_attn.k_proj"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("attn_norm", "input_layernorm"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_q_norm", "self_attn.q_norm"),
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
const LAYERS_27B: u32 = 62;
const PATTERN: u32 = 6;

fn configure(fields: &mut Fields) -> Result<()> {
    fields.decoder()?;
    rope::configure(fields)?;
    fields.demand("attention.key_length")?;
    fields.copy("rope_local_base_freq", "rope.freq_base_swa")?;
    fields.copy("sliding_window", "attention.sliding_window")?;
    fields.demand("attention.sliding_window")?;
    fields.copy("attn_logit_softcapping", "attn_logit_softcapping")?;
    fields.copy("final_logit_softcapping", "final_logit_softcapping")?;
    pattern(fields)?;

    query_pre_attn_scalar(fields, LAYERS_27B)?;
    fields.set(
        "architectures",
        Json::Array(vec!["Gemma3ForCausalLM".into()]),
    );
    fields.set("model_type", "gemma3_text");
    Ok(())
}

/// Every n-th layer is full, or a list says which ones slide.
fn pattern(fields: &mut Fields) -> Result<()> {
    const KEY: &str = "attention.sliding_window_pattern";
    let key = fields.key(KEY);
    match fields.metadata().json(&key)? {
        Some(Json::Array(slides)) => {
            let layer_type = |slides: &Json| match slides {
                Json::Bool(true) => Ok("sliding_attention".into()),
                Json::Bool(false) => Ok("full_attention".into()),
                _ => Err(fields
                    .metadata()
                    .wrong(&key, "true or false for every layer")),
            };
            let types = slides.iter().map(layer_type).collect::<Result<_>>()?;
            fields.set("layer_types", Json::Array(types));
            fields.name("layer_types", key);
        }
        Some(_) => fields.copy("sliding_window_pattern", KEY)?,
        None => fields.set("sliding_window_pattern", PATTERN),
    }
    Ok(())
}
