//! Gemma 2.
//!
//! *Gemma 2* (arXiv:2408.00118): Gemma 3 with soft caps on scores and logits, without norms on heads, and with
//! every other layer sliding, from the first on.

use llmc_ir::Mask;

use super::{Family, Request, Task, gemma3_text, layer_types, llama};
use crate::blocks::mlp::activation;
use crate::blocks::{Arrangement, Attention, Blueprint, Decoder, DecoderLayer, Head, Mlp, Norm};
use crate::error::Result;
use crate::rope::{Defaults, Rope};

pub const FAMILY: Family = Family {
    name: "gemma2",
    architectures: &[("Gemma2ForCausalLM", Task::CausalLm), ("Gemma2Model", Task::Base)],
    prefix: "model.",
    build,
};

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    let hidden = c.hidden_size()?;
    let layers = c.layers()?;
    let heads = c.grouped_heads_of(Some(4), Some(256))?;
    let norm = Norm::rms_one_plus(c.epsilon("rms_norm_eps", 1e-6)?);
    let bias = c.flag_or("attention_bias", false)?;
    let query_scale = c.real_or("query_pre_attn_scalar", 1e-6..=1e9, 256.0)?;
    let softcap = gemma3_text::cap(c, "attn_logit_softcapping", Some(50.0))?;
    let act = activation(c, "hidden_activation", "gelu_pytorch_tanh")?;
    let layer = |mask| -> Result<DecoderLayer> {
        let attention = Attention {
            scale: query_scale.powf(-0.5) as f32,
            softcap,
            ..llama::attention(c, heads, mask)?.with_bias(bias, bias)
        };
        let mlp = Mlp::gated(hidden, c.intermediate_size()?, act, false);
        Ok(DecoderLayer { name: "layer", attention, mlp: mlp.into(), norm, arrangement: Arrangement::GEMMA })
    };
    let final_cap = gemma3_text::cap(c, "final_logit_softcapping", Some(30.0))?;
    let decoder = Decoder {
        hidden,
        context: c.positions()?,
        embeddings: llama::tokens(c, f64::from(hidden).sqrt() as f32)?,
        embedding_norm: None,
        ropes: vec![("angles", Rope::of(c, heads.dim, Defaults::default())?)],
        classes: vec![layer(Mask::causal(None))?],
        layers: vec![0; layers as usize],
        norm: Some((norm, "model.norm")),
        head: llama::head(request, true)?.map(|head| Head { softcap: final_cap, ..head }),
    };
    let slides = match layer_types::sliding(c, layers)? {
        Some(slides) => slides,
        None => (0..layers).map(|layer| layer.is_multiple_of(2)).collect(),
    };
    Blueprint::Decoder(Box::new(decoder))
        .with_sliding(&slides, |_| layer(Mask::causal(Some(layer_types::window(c, 4096)?))))
}
