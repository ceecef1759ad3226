//! `gpt2`: GPT-2.
//!
//! The converter transposes the Conv1D weights, so that they lie as everywhere else; older files repeat the token
//! table as `output`.

use super::{Architecture, Fields};
use crate::error::Result;
use crate::json::Json;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "gpt2",
    tensors: TENSORS,
    layer_tensors: LAYER_TENSORS,
    layers: "transformer.h.",
    paired: &[],
    norms_include_offset: false,
    configure,
};

/// What GPT-2's descendants share.
pub const TENSORS: &[(&str, &str)] = &[
    ("output", "lm_head"),
    ("output_norm", "transformer.ln_f"),
    ("position_embd", "transformer.wpe"),
    ("token_embd", "transformer.wte"),
];

/// A layer of theirs.
pub const LAYER_TENSORS: &[(&str, &str)] = &[
    ("attn_norm", "ln_1"),
    ("attn_output", "attn.c_proj"),
    ("attn_qkv", "attn.c_attn"),
    ("ffn_down", "mlp.c_proj"),
    ("ffn_norm", "ln_2"),
    ("ffn_up", "mlp.c_fc"),
];

fn configure(fields: &mut Fields) -> Result<()> {
    sizes(fields)?;
    fields.set("stored_out_in", true);
    fields.set("architectures", Json::Array(vec!["GPT2LMHeadModel".into()]));
    fields.set("model_type", "gpt2");
    Ok(())
}

/// The sizes, under GPT-2's names.
pub fn sizes(fields: &mut Fields) -> Result<()> {
    fields.layer_norm_decoder(
        ["n_embd", "n_layer", "n_inner", "n_head", "n_positions"],
        "layer_norm_epsilon",
    )
}
