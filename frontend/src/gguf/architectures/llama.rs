//! `llama`: Llama 1 to 3, Mistral and Mixtral, which llama.cpp writes under one name.
//!
//! The converter reorders the rows of queries and keys, so that rotated pairs are neighbours; with
//! `llama.attention.sliding_window` the model is a Mistral, with experts a Mixtral.

use super::{Architecture, Fields};
use crate::error::Result;
use crate::gguf::rope;
use crate::json::Json;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "llama",
    tensors: TENSORS,
    layer_tensors: &[
        ("attn_k", "self_attn.k_proj"),
        ("attn_norm", "input_layernorm"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("ffn_down", "mlp.down_proj"),
        ("ffn_down_exps", "block_sparse_moe.experts.down_proj"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_gate_exps", "block_sparse_moe.experts.gate_proj"),
        ("ffn_gate_inp", "block_sparse_moe.gate"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_up_exps", "block_sparse_moe.experts.up_proj"),
    ],
    layers: "model.layers.",
    paired: &[
        ("attn_q", "llama.attention.head_count"),
        ("attn_k", "llama.attention.head_count_kv"),
    ],
    norms_include_offset: false,
    configure,
};

/// What decoders after Llama share.
pub const TENSORS: &[(&str, &str)] = &[
    ("output", "lm_head"),
    ("output_norm", "model.norm"),
    ("token_embd", "model.embed_tokens"),
];

/// A layer of Llama's descendants.
pub const LAYER_TENSORS: &[(&str, &str)] = &[
    ("attn_k", "self_attn.k_proj"),
    ("attn_norm", "input_layernorm"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_up", "mlp.up_proj"),
];

fn configure(fields: &mut Fields) -> Result<()> {
    fields.take_experts();
    fields.decoder()?;
    rope::configure(fields)?;
    if mixtral(fields)? {
        return Ok(());
    }
    let window = "attention.sliding_window";
    fields.copy("sliding_window", window)?;
    let window = fields.key(window);
    let window = fields.metadata().optional_count(&window, 0..=u32::MAX)?;
    let is_mistral = window.is_some_and(|window| window > 0);
    let (class, family) = match is_mistral {
        true => ("MistralForCausalLM", "mistral"),
        false => ("LlamaForCausalLM", "llama"),
    };
    fields.set("architectures", Json::Array(vec![class.into()]));
    fields.set("model_type", family);
    if !is_mistral {
        let any = |tensors: &[&str]| tensors.iter().any(|tensor| fields.has_in_layers(tensor));
        let attention = any(&[
            "attn_q.bias",
            "attn_k.bias",
            "attn_v.bias",
            "attn_output.bias",
        ]);
        let mlp = any(&["ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"]);
        fields.set("attention_bias", attention);
        fields.set("mlp_bias", mlp);
    }
    Ok(())
}

/// The fields of a Mixtral, if the file has experts.
fn mixtral(fields: &mut Fields) -> Result<bool> {
    let count = fields.key("expert_count");
    if super::uniform_count(fields.metadata(), &count)?.unwrap_or(0) == 0 {
        fields.require("expert_used_count", &[0u32.into()])?;
        return Ok(false);
    }
    fields.copy("num_local_experts", "expert_count")?;
    fields.copy("num_experts_per_tok", "expert_used_count")?;
    fields.demand("expert_used_count")?;
    fields.copy("sliding_window", "attention.sliding_window")?;
    fields.set(
        "architectures",
        Json::Array(vec!["MixtralForCausalLM".into()]),
    );
    fields.set("model_type", "mixtral");
    Ok(true)
}
