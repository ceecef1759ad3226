//! `qwen3moe`: Qwen 3's mixtures of experts.
//!
//! What the converter leaves out, llama.cpp knows: all layers are mixtures, and the weights of the chosen experts
//! are normalised.

use super::{Architecture, Fields, llama};
use crate::error::Result;
use crate::gguf::rope;
use crate::json::Json;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "qwen3moe",
    tensors: llama::TENSORS,
    layer_tensors: &[
        ("attn_k", "self_attn.k_proj"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("attn_norm", "input_layernorm"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_v", "self_attn.v_proj"),
        ("ffn_down_exps", "mlp.experts.down_proj"),
        ("ffn_gate_exps", "mlp.experts.gate_proj"),
        ("ffn_gate_inp", "mlp.gate"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_up_exps", "mlp.experts.up_proj"),
    ],
    layers: "model.layers.",
    paired: &[],
    norms_include_offset: false,
    configure,
};

fn configure(fields: &mut Fields) -> Result<()> {
    fields.take_experts();
    fields.decoder()?;
    rope::configure(fields)?;
    fields.require("attention.sliding_window", &[0u32.into()])?;
    fields.copy("num_experts", "expert_count")?;
    fields.demand("expert_count")?;
    fields.copy("num_experts_per_tok", "expert_used_count")?;
    fields.demand("expert_used_count")?;
    fields.copy("moe_intermediate_size", "expert_feed_forward_length")?;
    fields.demand("expert_feed_forward_length")?;
    fields.set("norm_topk_prob", true);
    fields.set(
        "architectures",
        Json::Array(vec!["Qwen3MoeForCausalLM".into()]),
    );
    fields.set("model_type", "qwen3_moe");
    Ok(())
}
