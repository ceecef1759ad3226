//! `qwen3`: Qwen 3's dense models.

use super::{Architecture, Fields, llama};
use crate::error::Result;
use crate::gguf::rope;
use crate::json::Json;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "qwen3",
    tensors: llama::TENSORS,
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
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_up", "mlp.up_proj"),
    ],
    layers: "model.layers.",
    paired: &[],
    norms_include_offset: false,
    configure,
};

fn configure(fields: &mut Fields) -> Result<()> {
    fields.decoder()?;
    fields.demand("attention.key_length")?;
    rope::configure(fields)?;
    fields.require("attention.sliding_window", &[0u32.into()])?;
    fields.set("architectures", Json::Array(vec!["Qwen3ForCausalLM".into()]));
    fields.set("model_type", "qwen3");
    Ok(())
}
