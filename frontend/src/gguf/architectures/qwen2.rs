//! `qwen2`: Qwen2, Qwen2.5 and their coders.

use super::{Architecture, Fields, llama};
use crate::error::Result;
use crate::gguf::rope;
use crate::json::Json;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "qwen2",
    tensors: llama::TENSORS,
    layer_tensors: llama::LAYER_TENSORS,
    layers: "model.layers.",
    paired: &[],
    norms_include_offset: false,
    configure,
};

fn configure(fields: &mut Fields) -> Result<()> {
    fields.decoder()?;
    rope::configure(fields)?;
    fields.require("attention.sliding_window", &[0u32.into()])?;
    fields.set(
        "architectures",
        Json::Array(vec!["Qwen2ForCausalLM".into()]),
    );
    fields.set("model_type", "qwen2");
    Ok(())
}
