//! `phi3`: Phi-3 and Phi-3.5.
//!
//! The factors of a longrope are tensors. The converter writes a window of 0 where there is none, and what the
//! longrope multiplies cos and sin with, which follows from the two contexts.

use super::{Architecture, Fields};
use crate::error::Result;
use crate::gguf::rope;
use crate::json::Json;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "phi3",
    tensors: super::llama::TENSORS,
    layer_tensors: &[
        ("attn_norm", "input_layernorm"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_qkv", "self_attn.qkv_proj"),
        ("ffn_down", "mlp.down_proj"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_up", "mlp.gate_up_proj"),
    ],
    layers: "model.layers.",
    paired: &[],
    norms_include_offset: false,
    configure,
};

fn configure(fields: &mut Fields) -> Result<()> {
    fields.grouped_decoder()?;
    rope::partial(fields)?;
    rope::configure_longrope(fields)?;
    let key = fields.key("attention.sliding_window");
    if fields.metadata().optional_count(&key, 0..=u32::MAX)? != Some(0) {
        fields.copy("sliding_window", "attention.sliding_window")?;
    }
    fields.set("architectures", Json::Array(vec!["Phi3ForCausalLM".into()]));
    fields.set("model_type", "phi3");
    Ok(())
}
