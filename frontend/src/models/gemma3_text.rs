//! Gemma 3, text only (270M, 1B, and the language models of the larger ones).
//!
//! *Gemma 3 Technical Report* (arXiv:2503.19786):
//!
//! ```text
//! x  = embed(ids) · √hidden
//! x += norm(attention(norm(x)))     norm: · (1 + w); q and k normalised per head; five sliding layers, one full
//! x += norm(down(gelu(gate(h)) · up(h)))  h = norm(x)
//! ```
//!
//! Sliding layers rotate with their own base and without scaling. The scale of the embedding is √hidden in the type
//! of the arithmetic, which is f32 here: bf16 arithmetic would round it (25.25 for 640, not 25.298).

use llmc_ir::Mask;

use super::{Family, Request, Task, layer_types, llama};
use crate::blocks::mlp::activation;
use crate::blocks::{Arrangement, Attention, Blueprint, Decoder, DecoderLayer, Head, Mlp, Norm, Positions};
use crate::config::Config;
use crate::error::Result;
use crate::limits;
use crate::rope::{Defaults, Rope};

pub const FAMILY: Family = Family {
    name: "gemma3_text",
    architectures: &[("Gemma3ForCausalLM", Task::CausalLm), ("Gemma3TextModel", Task::Base)],
    prefix: "model.",
    build,
};

const FULL: usize = 0;
const SLIDING: usize = 1;

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    if c.flag_or("use_bidirectional_attention", false)? {
        return Err(c.refuse("use_bidirectional_attention", "false"));
    }
    let hidden = c.hidden_size()?;
    let layers = c.layers()?;
    let heads = c.grouped_heads(Some(4))?;
    let norm = Norm::rms_one_plus(c.epsilon("rms_norm_eps", 1e-6)?);
    let bias = c.flag_or("attention_bias", false)?;
    let query_scale = c.real_or("query_pre_attn_scalar", 1e-6..=1e9, 256.0)?;
    let attention = |rope, mask| -> Result<Attention> {
        Ok(Attention {
            head_norm: Some(llama::head_norm(norm)),
            positions: Positions::Rope(rope),
            scale: query_scale.powf(-0.5) as f32,
            softcap: cap(c, "attn_logit_softcapping", None)?,
            ..llama::attention(c, heads, mask)?.with_bias(bias, bias)
        })
    };
    let act = activation(c, "hidden_activation", "gelu_pytorch_tanh")?;
    let layer = |attention| -> Result<DecoderLayer> {
        let mlp = Mlp::gated(hidden, c.intermediate_size()?, act, false);
        Ok(DecoderLayer { name: "layer", attention, mlp: mlp.into(), norm, arrangement: Arrangement::GEMMA })
    };

    let decoder = Decoder {
        hidden,
        context: c.positions()?,
        embeddings: llama::tokens(c, f64::from(hidden).sqrt() as f32)?,
        embedding_norm: None,
        ropes: ropes(c, heads.dim)?,
        classes: vec![layer(attention(FULL, Mask::causal(None))?)?],
        layers: vec![0; layers as usize],
        norm: Some((norm, "model.norm")),
        head: llama::head(request, true)?
            .map(|head| Ok::<_, crate::FrontendError>(Head { softcap: cap(c, "final_logit_softcapping", None)?, ..head }))
            .transpose()?,
    };
    Blueprint::Decoder(Box::new(decoder)).with_sliding(&slides(c, layers)?, |_| {
        layer(attention(SLIDING, Mask::causal(Some(layer_types::window(c, 4096)?)))?)
    })
}

/// Every sixth layer is full; other patterns by name or by list.
fn slides(c: &Config, layers: u32) -> Result<Vec<bool>> {
    if let Some(slides) = layer_types::sliding(c, layers)? {
        return Ok(slides);
    }
    let pattern = c.count_or("sliding_window_pattern", 1..=limits::LAYERS, 6)?;
    Ok((1..=layers).map(|layer| !layer.is_multiple_of(pattern)).collect())
}

/// The rope of full layers, then that of sliding ones.
fn ropes(c: &Config, head_dim: u32) -> Result<Vec<(&'static str, Rope)>> {
    let global = Defaults { theta: 1_000_000.0, ..Defaults::default() };
    let local = Defaults { theta: 10_000.0, ..Defaults::default() };
    let full = match Rope::of_layer_type(c, "full_attention", head_dim, global)? {
        Some(rope) => rope,
        None => Rope::of(c, head_dim, global)?,
    };
    let sliding = match Rope::of_layer_type(c, "sliding_attention", head_dim, local)? {
        Some(rope) => rope,
        None => {
            let theta = c.real_or("rope_local_base_freq", 1.0..=1e12, local.theta)?;
            Rope::unscaled(c, theta, head_dim, local.partial)?
        }
    };
    Ok(vec![("angles", full), ("angles_local", sliding)])
}

/// A soft cap: the family's default where the field is absent, none where it is `null`.
pub fn cap(c: &Config, field: &str, default: Option<f64>) -> Result<Option<f32>> {
    let default = default.filter(|_| !c.members().contains_key(field));
    Ok(c.optional_real(field, 1e-6..=1e9)?.or(default).map(|cap| cap as f32))
}
