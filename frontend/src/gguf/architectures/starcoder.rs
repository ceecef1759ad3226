//! `starcoder`: GPTBigCode, one key and value head for all queries.

use super::{Architecture, Fields, gpt2};
use crate::error::Result;
use crate::json::Json;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "starcoder",
    tensors: gpt2::TENSORS,
    layer_tensors: gpt2::LAYER_TENSORS,
    layers: "transformer.h.",
    paired: &[],
    norms_include_offset: false,
    configure,
};

fn configure(fields: &mut Fields) -> Result<()> {
    gpt2::sizes(fields)?;
    fields.require("attention.head_count_kv", &[1u32.into()])?;
    fields.demand("attention.head_count_kv")?;
    fields.set("multi_query", true);
    fields.set(
        "architectures",
        Json::Array(vec!["GPTBigCodeForCausalLM".into()]),
    );
    fields.set("model_type", "gpt_bigcode");
    Ok(())
}
