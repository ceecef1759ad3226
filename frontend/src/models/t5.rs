//! T5 1.0, T5 1.1, Flan-T5, and T5's encoder alone (sentence-T5).
//!
//! Raffel et al., *Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer*
//! (arXiv:1910.10683); Chung et al., *Scaling Instruction-Finetuned Language Models* (arXiv:2210.11416):
//!
//! ```text
//! x += attention(rms_norm(x))            a bias by relative position, one table for all layers of a stack; no scale
//! x += cross_attention(rms_norm(x))      decoder only; neither bias nor scale
//! x += down(relu(up(h)))                 1.0; from 1.1 on down(gelu(gate(h)) · up(h)), h = rms_norm(x)
//! logits = table · (rms_norm(x) / √d_model)      1.0: tied; from 1.1 on a head of its own, unscaled
//! ```
//!
//! `tie_word_embeddings` tells both. Newer configurations say that weights are tied whatever the checkpoint has,
//! and tell the scale by `scale_decoder_outputs`.
//!
//! Nothing has a bias of its own. d_kv × heads may differ from d_model. The feed-forward sums overflow in f16; the
//! residual stream is f32 whatever the weights are. Positions are relative, so that no length is the last: the
//! context is `n_positions` (512 where it is missing) unless another one is asked for.

use llmc_ir::{Mask, ops::ActKind, ops::RelativeBias};

use super::{Family, Request, Task};
use crate::blocks::encoder_decoder::{EncoderDecoder, Head, Stack};
use crate::blocks::{Attention, Blueprint, Embeddings, Encoder, Mlp, Norm, Positions, Projection, Table};
use crate::config::{Config, Heads};
use crate::error::Result;
use crate::limits;

pub const FAMILY: Family = Family {
    name: "t5",
    architectures: &[
        ("T5ForConditionalGeneration", Task::CausalLm),
        // The class's name in the oldest configurations.
        ("T5WithLMHeadModel", Task::CausalLm),
        ("T5EncoderModel", Task::Base),
    ],
    prefix: "transformer.",
    build,
};

/// Sequences that the compiler takes on.
const LONGEST: u32 = 1 << 15;

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    let hidden = width(c)?;
    let layers = c.count("num_layers", 1..=limits::LAYERS)?;
    let decoder_layers = c.count_or("num_decoder_layers", 1..=limits::LAYERS, layers)?;
    let tied = c.flag_or("tie_word_embeddings", true)?;
    let scaled = c.flag_or("scale_decoder_outputs", tied)?;
    let stack = |own: &Names, layers: u32, cross: Option<(Attention, &'static str)>| -> Result<Stack> {
        let bidirectional = cross.is_none();
        Ok(Stack {
            attention: attention(c, own.attention, Some((own, bidirectional)))?,
            attention_norm: own.attention_norm,
            cross,
            mlp: mlp(c, own)?,
            mlp_norm: own.mlp_norm,
            layers: vec![0; layers as usize],
            norm: own.norm,
        })
    };
    Ok(Blueprint::EncoderDecoder(Box::new(EncoderDecoder {
        hidden,
        context: c.count_or("n_positions", 1..=LONGEST, 512)?,
        longest: LONGEST,
        embeddings: Embeddings {
            hidden,
            tokens: Table { tensor: "shared.weight", rows: c.vocab_size()?, skip: 0, field: "vocab_size" },
            scale: 1.0,
            types: None,
            positions: None,
            narrow: None,
        },
        norm: Norm::rms(c.epsilon("layer_norm_epsilon", 1e-6)?),
        encoder: stack(&ENCODER, layers, None)?,
        decoder: match request.task {
            Task::CausalLm => {
                let cross = (attention(c, CROSS, None)?, "decoder.block.{layer}.layer.1.layer_norm");
                Some(stack(&DECODER, decoder_layers, Some(cross))?)
            }
            _ => None,
        },
        head: Head {
            tensor: (!tied).then_some("lm_head.weight"),
            scale: if scaled { f64::from(hidden).powf(-0.5) as f32 } else { 1.0 },
        },
        sentence: Encoder::sentence(request.sentence),
    })))
}

fn width(c: &Config) -> Result<u32> {
    c.count("d_model", 1..=limits::WIDTH)
}

/// Tensors of a stack.
struct Names {
    /// Queries, keys, values, output.
    attention: [&'static str; 4],
    attention_norm: &'static str,
    bias: &'static str,
    /// What the bias's table is called.
    bias_name: &'static str,
    /// Not gated: up. Gated: gate and up.
    up: [&'static str; 3],
    down: &'static str,
    mlp_norm: &'static str,
    norm: &'static str,
}

const ENCODER: Names = Names {
    attention: [
        "encoder.block.{layer}.layer.0.SelfAttention.q",
        "encoder.block.{layer}.layer.0.SelfAttention.k",
        "encoder.block.{layer}.layer.0.SelfAttention.v",
        "encoder.block.{layer}.layer.0.SelfAttention.o",
    ],
    attention_norm: "encoder.block.{layer}.layer.0.layer_norm",
    bias: "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    bias_name: "encoder.relative_bias",
    up: [
        "encoder.block.{layer}.layer.1.DenseReluDense.wi",
        "encoder.block.{layer}.layer.1.DenseReluDense.wi_0",
        "encoder.block.{layer}.layer.1.DenseReluDense.wi_1",
    ],
    down: "encoder.block.{layer}.layer.1.DenseReluDense.wo",
    mlp_norm: "encoder.block.{layer}.layer.1.layer_norm",
    norm: "encoder.final_layer_norm",
};

const DECODER: Names = Names {
    attention: [
        "decoder.block.{layer}.layer.0.SelfAttention.q",
        "decoder.block.{layer}.layer.0.SelfAttention.k",
        "decoder.block.{layer}.layer.0.SelfAttention.v",
        "decoder.block.{layer}.layer.0.SelfAttention.o",
    ],
    attention_norm: "decoder.block.{layer}.layer.0.layer_norm",
    bias: "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    bias_name: "decoder.relative_bias",
    up: [
        "decoder.block.{layer}.layer.2.DenseReluDense.wi",
        "decoder.block.{layer}.layer.2.DenseReluDense.wi_0",
        "decoder.block.{layer}.layer.2.DenseReluDense.wi_1",
    ],
    down: "decoder.block.{layer}.layer.2.DenseReluDense.wo",
    mlp_norm: "decoder.block.{layer}.layer.2.layer_norm",
    norm: "decoder.final_layer_norm",
};

const CROSS: [&str; 4] = [
    "decoder.block.{layer}.layer.1.EncDecAttention.q",
    "decoder.block.{layer}.layer.1.EncDecAttention.k",
    "decoder.block.{layer}.layer.1.EncDecAttention.v",
    "decoder.block.{layer}.layer.1.EncDecAttention.o",
];

/// Attention among a stack's own tokens, or over the source.
fn attention(c: &Config, names: [&'static str; 4], own: Option<(&Names, bool)>) -> Result<Attention> {
    let heads = c.count("num_heads", 1..=limits::HEADS)?;
    let dim = c.count_or("d_kv", 1..=limits::HEAD_DIM, 64)?;
    if heads.checked_mul(dim).is_none_or(|width| width > limits::WIDTH) {
        return Err(c.wrong("d_kv", format!("num_heads × d_kv of at most {}", limits::WIDTH)));
    }
    let buckets = c.count_or("relative_attention_num_buckets", 4..=1 << 16, 32)?;
    let max_distance = c.count_or("relative_attention_max_distance", buckets / 2 + 1..=limits::POSITIONS, 128)?;
    let positions = match own {
        None => Positions::Learned,
        Some((names, bidirectional)) => Positions::Relative {
            tensor: names.bias,
            name: names.bias_name,
            bias: RelativeBias { buckets, max_distance, bidirectional },
        },
    };
    let [q, k, v, o] = names.map(Projection::plain);
    Ok(Attention {
        hidden: width(c)?,
        heads: Heads { query: heads, key_value: heads, dim },
        q,
        k,
        v,
        o,
        head_norm: None,
        positions,
        mask: match own {
            Some((_, false)) => Mask::Causal,
            Some((_, true)) | None => Mask::Bidirectional,
        },
        scale: 1.0,
        softcap: None,
        sinks: None,
    })
}

/// The feed-forward part: `feed_forward_proj` names its nonlinearity, `gated-` before it.
fn mlp(c: &Config, names: &Names) -> Result<Mlp> {
    let (gated, act) = match c.optional_text("feed_forward_proj")?.unwrap_or("relu") {
        "relu" => (false, ActKind::Relu),
        "gelu" => (false, ActKind::Gelu),
        "gelu_new" => (false, ActKind::GeluTanh),
        "silu" => (false, ActKind::Silu),
        "gated-relu" => (true, ActKind::Relu),
        // The reference implementation takes the tanh form here.
        "gated-gelu" | "gated-gelu_new" => (true, ActKind::GeluTanh),
        "gated-silu" => (true, ActKind::Silu),
        _ => return Err(c.refuse("feed_forward_proj", "relu, gelu, gelu_new or silu, perhaps behind gated-")),
    };
    let [only, gate, up] = names.up.map(Projection::plain);
    Ok(Mlp {
        hidden: width(c)?,
        inner: c.count("d_ff", 1..=limits::WIDTH)?,
        act,
        gate: gated.then_some(gate),
        up: if gated { up } else { only },
        down: Projection::plain(names.down),
    })
}
