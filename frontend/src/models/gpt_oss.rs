//! gpt-oss-20b and 120b.
//!
//! OpenAI, *gpt-oss-120b & gpt-oss-20b Model Card* (arXiv:2508.10925):
//!
//! ```text
//! x += attention(norm(x))     grouped queries with biases and sinks; even layers see a window; YaRN
//! x += mixture(norm(x))       the gate is quick GELU, clamped; the up is clamped, plus 1; biases everywhere
//! ```
//!
//! Published checkpoints store the experts in MXFP4.

use llmc_ir::Mask;
use llmc_ir::ops::{ActKind, Gate};

use super::{Family, Request, Task, layer_types, llama};
use crate::blocks::moe::{ExpertCount, ExpertTensors, OwnTensors};
use crate::blocks::{Attention, Blueprint, DecoderLayer, Moe, Projection};
use crate::config::Config;
use crate::error::Result;
use crate::rope::{Defaults, Rope};

pub const FAMILY: Family = Family {
    name: "gpt_oss",
    architectures: &[("GptOssForCausalLM", Task::CausalLm), ("GptOssModel", Task::Base)],
    prefix: "model.",
    build,
};

/// The constant of the quick GELU.
const ALPHA: f64 = 1.702;

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    if let Some(section) = c.section("quantization_config")?
        && section.text("quant_method")? != "mxfp4"
    {
        return Err(section.refuse("quant_method", "mxfp4"));
    }
    if !c.has("rope_parameters") && !c.has("rope_scaling") {
        return Err(c.wrong("rope_scaling", "the YaRN scaling of the model"));
    }
    let heads = c.grouped_heads_of(Some(8), Some(64))?;
    let bias = c.flag_or("attention_bias", true)?;
    let attention = |mask| -> Result<Attention> {
        Ok(Attention {
            sinks: Some("model.layers.{layer}.self_attn.sinks"),
            ..llama::attention(c, heads, mask)?.with_bias(bias, bias)
        })
    };
    let rope = Rope::of(c, heads.dim, Defaults { theta: 150_000.0, ..Defaults::default() })?;
    let full = llama::decoder(request, vec![("angles", rope)], attention(Mask::causal(None))?, moe(c)?)?;
    let layers = c.layers()?;
    let slides = match layer_types::sliding(c, layers)? {
        Some(slides) => slides,
        None => (0..layers).map(|layer| layer.is_multiple_of(2)).collect(),
    };
    full.with_sliding(&slides, |full: &DecoderLayer| {
        let mask = Mask::causal(Some(layer_types::window(c, 128)?));
        Ok(DecoderLayer { attention: attention(mask)?, ..full.clone() })
    })
}

fn moe(c: &Config) -> Result<Moe> {
    if c.real_or("swiglu_alpha", 0.0..=1e3, ALPHA)? != ALPHA {
        return Err(c.refuse("swiglu_alpha", ALPHA));
    }
    let limit = c.real_or("swiglu_limit", 1e-3..=1e9, 7.0)? as f32;
    let (hidden, inner) = (c.hidden_size()?, c.intermediate_size()?);
    Ok(Moe {
        hidden,
        inner: (inner, "intermediate_size"),
        sizes: ExpertCount::of(c, &["num_local_experts"], (128, 4), [hidden, inner])?,
        renormalize: true,
        gate: Gate { act: ActKind::QuickGelu, limit: Some(limit), shift: 1.0 },
        router: Projection::plain("model.layers.{layer}.mlp.router").with_bias(true),
        bias: true,
        tensors: ExpertTensors {
            stacked: "model.layers.{layer}.mlp.experts",
            own: OwnTensors::Interleaved([
                "model.layers.{layer}.mlp.experts.gate_up_proj",
                "model.layers.{layer}.mlp.experts.down_proj",
            ]),
        },
    })
}
