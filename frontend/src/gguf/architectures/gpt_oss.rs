//! `gpt-oss`.
//!
//! The converter cuts the experts' gates and ups apart and keeps MXFP4 as it is. What it leaves out, llama.cpp
//! knows: even layers slide. The range of YaRN's interpolation is the model's own here, not cut to whole
//! dimensions.

use super::{Architecture, Fields, llama};
use crate::error::Result;
use crate::gguf::rope;
use crate::json::Json;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "gpt-oss",
    tensors: llama::TENSORS,
    layer_tensors: &[
        ("attn_k", "self_attn.k_proj"),
        ("attn_norm", "input_layernorm"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_sinks.weight", "self_attn.sinks"),
        ("attn_v", "self_attn.v_proj"),
        ("ffn_down_exps", "mlp.experts.down_proj"),
        ("ffn_gate_exps", "mlp.experts.gate_proj"),
        ("ffn_gate_inp", "mlp.router"),
        ("ffn_up_exps", "mlp.experts.up_proj"),
        ("post_attention_norm", "post_attention_layernorm"),
    ],
    layers: "model.layers.",
    paired: &[],
    norms_include_offset: false,
    configure,
};

fn configure(fields: &mut Fields) -> Result<()> {
    fields.take_experts();
    fields.decoder()?;
    fields.demand("attention.key_length")?;
    rope::configure(fields)?;
    fields.amend("rope_scaling", "truncate", false);
    fields.copy("sliding_window", "attention.sliding_window")?;
    fields.demand("attention.sliding_window")?;
    fields.copy("num_local_experts", "expert_count")?;
    fields.demand("expert_count")?;
    fields.copy("num_experts_per_tok", "expert_used_count")?;
    fields.demand("expert_used_count")?;
    fields.copy("intermediate_size", "expert_feed_forward_length")?;
    fields.set("attention_bias", fields.has_in_layers("attn_q.bias"));
    fields.set(
        "architectures",
        Json::Array(vec!["GptOssForCausalLM".into()]),
    );
    fields.set("model_type", "gpt_oss");
    Ok(())
}
