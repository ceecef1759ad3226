//! `bert`: BERT, and sentence encoders on it.
//!
//! The converter drops the pooler; `bert.pooling_type` says how a sentence becomes one vector.

use super::{Architecture, Fields};
use crate::error::Result;
use crate::gguf::sentence;
use crate::json::Json;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "bert",
    tensors: &[
        ("position_embd", "embeddings.position_embeddings"),
        ("token_embd", "embeddings.word_embeddings"),
        ("token_embd_norm", "embeddings.LayerNorm"),
        ("token_types", "embeddings.token_type_embeddings"),
    ],
    layer_tensors: &[
        ("attn_k", "attention.self.key"),
        ("attn_output", "attention.output.dense"),
        ("attn_output_norm", "attention.output.LayerNorm"),
        ("attn_q", "attention.self.query"),
        ("attn_v", "attention.self.value"),
        ("ffn_down", "output.dense"),
        ("ffn_up", "intermediate.dense"),
        ("layer_output_norm", "output.LayerNorm"),
    ],
    layers: "encoder.layer.",
    paired: &[],
    norms_include_offset: false,
    configure,
};

fn configure(fields: &mut Fields) -> Result<()> {
    fields.common()?;
    let epsilon = "attention.layer_norm_epsilon";
    fields.copy("layer_norm_eps", epsilon)?;
    fields.demand(epsilon)?;
    fields.require("attention.causal", &[Json::Bool(false)])?;
    fields.key(sentence::POOLING);
    let types = fields.gguf.tensor("token_types.weight");
    if let Some(rows) = types.and_then(|(tensor, _)| tensor.shape.first().copied()) {
        fields.set("type_vocab_size", rows);
        fields.name("type_vocab_size", "token_types.weight".into());
    }
    fields.set("architectures", Json::Array(vec!["BertModel".into()]));
    fields.set("model_type", "bert");
    Ok(())
}
