//! `t5`: T5, T5 1.1, Flan-T5.
//!
//! Whether the feed-forward part is gated the tensors tell. What the converter leaves out, llama.cpp knows: gates are
//! GELU's, what is not gated ReLU's, and from 128 tokens on distances share a bucket. Without a head of its own, or
//! with a copy of the token table, the model is T5 1.0, whose states are divided before the table.

use super::{Architecture, Fields};
use crate::error::Result;
use crate::gguf::Gguf;
use crate::json::Json;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "t5",
    tensors: TENSORS,
    layer_tensors: &[],
    layers: "",
    paired: &[],
    norms_include_offset: false,
    configure,
};

/// Those of the encoder and of the decoder.
pub const TENSORS: &[(&str, &str)] = &[
    ("dec.blk.{layer}.attn_k", "decoder.block.{layer}.layer.0.SelfAttention.k"),
    ("dec.blk.{layer}.attn_norm", "decoder.block.{layer}.layer.0.layer_norm"),
    ("dec.blk.{layer}.attn_o", "decoder.block.{layer}.layer.0.SelfAttention.o"),
    ("dec.blk.{layer}.attn_q", "decoder.block.{layer}.layer.0.SelfAttention.q"),
    ("dec.blk.{layer}.attn_rel_b", "decoder.block.{layer}.layer.0.SelfAttention.relative_attention_bias"),
    ("dec.blk.{layer}.attn_v", "decoder.block.{layer}.layer.0.SelfAttention.v"),
    ("dec.blk.{layer}.cross_attn_k", "decoder.block.{layer}.layer.1.EncDecAttention.k"),
    ("dec.blk.{layer}.cross_attn_norm", "decoder.block.{layer}.layer.1.layer_norm"),
    ("dec.blk.{layer}.cross_attn_o", "decoder.block.{layer}.layer.1.EncDecAttention.o"),
    ("dec.blk.{layer}.cross_attn_q", "decoder.block.{layer}.layer.1.EncDecAttention.q"),
    // Checkpoints of T5 1.0 have one that no implementation reads.
    ("dec.blk.{layer}.cross_attn_rel_b", ""),
    ("dec.blk.{layer}.cross_attn_v", "decoder.block.{layer}.layer.1.EncDecAttention.v"),
    ("dec.blk.{layer}.ffn_down", "decoder.block.{layer}.layer.2.DenseReluDense.wo"),
    ("dec.blk.{layer}.ffn_gate", "decoder.block.{layer}.layer.2.DenseReluDense.wi_0"),
    ("dec.blk.{layer}.ffn_norm", "decoder.block.{layer}.layer.2.layer_norm"),
    ("dec.blk.{layer}.ffn_up", "decoder.block.{layer}.layer.2.DenseReluDense.wi"),
    ("dec.blk.{layer}.ffn_up", "decoder.block.{layer}.layer.2.DenseReluDense.wi_1"),
    ("dec.output_norm", "decoder.final_layer_norm"),
    ("enc.blk.{layer}.attn_k", "encoder.block.{layer}.layer.0.SelfAttention.k"),
    ("enc.blk.{layer}.attn_norm", "encoder.block.{layer}.layer.0.layer_norm"),
    ("enc.blk.{layer}.attn_o", "encoder.block.{layer}.layer.0.SelfAttention.o"),
    ("enc.blk.{layer}.attn_q", "encoder.block.{layer}.layer.0.SelfAttention.q"),
    ("enc.blk.{layer}.attn_rel_b", "encoder.block.{layer}.layer.0.SelfAttention.relative_attention_bias"),
    ("enc.blk.{layer}.attn_v", "encoder.block.{layer}.layer.0.SelfAttention.v"),
    ("enc.blk.{layer}.ffn_down", "encoder.block.{layer}.layer.1.DenseReluDense.wo"),
    ("enc.blk.{layer}.ffn_gate", "encoder.block.{layer}.layer.1.DenseReluDense.wi_0"),
    ("enc.blk.{layer}.ffn_norm", "encoder.block.{layer}.layer.1.layer_norm"),
    ("enc.blk.{layer}.ffn_up", "encoder.block.{layer}.layer.1.DenseReluDense.wi"),
    ("enc.blk.{layer}.ffn_up", "encoder.block.{layer}.layer.1.DenseReluDense.wi_1"),
    ("enc.output_norm", "encoder.final_layer_norm"),
    ("output", "lm_head"),
    ("token_embd", "shared"),
];

const NAMES: [&str; 5] = ["d_model", "num_layers", "d_ff", "num_heads", "n_positions"];

fn configure(fields: &mut Fields) -> Result<()> {
    encoder(fields)?;
    fields.copy("num_decoder_layers", "decoder_block_count")?;
    // When texts begin (`generation`).
    fields.ignore(&["decoder_start_token_id"]);
    fields.require("pooling_type", &[0u32.into()])?;
    fields.set("tie_word_embeddings", !has_own_head(fields.gguf));
    let class = "T5ForConditionalGeneration";
    fields.set("architectures", Json::Array(vec![class.into()]));
    Ok(())
}

/// The fields of both stacks.
pub fn encoder(fields: &mut Fields) -> Result<()> {
    fields.common_named(NAMES)?;
    let epsilon = "attention.layer_norm_rms_epsilon";
    fields.copy("layer_norm_epsilon", epsilon)?;
    fields.demand(epsilon)?;
    // The same number, which llama.cpp does not read.
    fields.ignore(&["attention.layer_norm_epsilon"]);
    let buckets = "attention.relative_buckets_count";
    fields.copy("relative_attention_num_buckets", buckets)?;
    fields.demand(buckets)?;
    fields.set("relative_attention_max_distance", 128u32);
    if let Some(dim) = fields.head_dimension()? {
        fields.set("d_kv", dim);
        let key = fields.key("attention.key_length");
        fields.name("d_kv", key);
    }
    fields.head_dimensions(&["attention.value_length"])?;
    let gated = fields.gguf.tensor("enc.blk.0.ffn_gate.weight").is_some();
    fields.set("feed_forward_proj", if gated { "gated-gelu" } else { "relu" });
    fields.set("model_type", "t5");
    Ok(())
}

/// Whether there is a head that differs from the token table.
fn has_own_head(gguf: &Gguf) -> bool {
    let found = |name: &str| gguf.tensor(name).map(|(tensor, file)| (tensor.ty, &tensor.shape, file.data(tensor)));
    let head = found("output.weight");
    head.is_some() && head != found("token_embd.weight")
}
