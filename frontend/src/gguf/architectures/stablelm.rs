//! `stablelm`: StableLM.
//!
//! Layers without a norm before the feed-forward part have both parts side by side, whatever
//! `use_parallel_residual` says: the converter writes it true where the configuration is silent.

use super::fields::LLAMA_NAMES;
use super::{Architecture, Fields, llama};
use crate::error::Result;
use crate::gguf::rope;
use crate::json::Json;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "stablelm",
    tensors: llama::TENSORS,
    layer_tensors: llama::LAYER_TENSORS,
    layers: "model.layers.",
    paired: &[],
    norms_include_offset: false,
    configure,
};

fn configure(fields: &mut Fields) -> Result<()> {
    fields.layer_norm_decoder(LLAMA_NAMES, "layer_norm_eps")?;
    fields.copy("num_key_value_heads", "attention.head_count_kv")?;
    rope::configure(fields)?;
    fields.demand("rope.dimension_count")?;
    rope::partial(fields)?;
    fields.ignore(&["use_parallel_residual"]);
    let parallel = !fields.has_in_layers("ffn_norm.weight");
    fields.set("use_parallel_residual", parallel);
    fields.set("use_qkv_bias", fields.has_in_layers("attn_q.bias"));
    fields.set(
        "architectures",
        Json::Array(vec!["StableLmForCausalLM".into()]),
    );
    fields.set("model_type", "stablelm");
    Ok(())
}
