//! Qwen 3, the dense models.
//!
//! Yang et al., *Qwen3 Technical Report* (arXiv:2505.09388): Llama with an RMS norm on every query and key head
//! before the rotation, and no biases unless `attention_bias` says so.

use llmc_ir::Mask;

use super::{Family, Request, Task, layer_types, llama, qwen2};
use crate::blocks::{Attention, Blueprint, DecoderLayer, Norm};
use crate::error::Result;
use crate::rope::{Defaults, Rope};

pub const FAMILY: Family = Family {
    name: "qwen3",
    architectures: &[("Qwen3ForCausalLM", Task::CausalLm), ("Qwen3Model", Task::Base)],
    prefix: "model.",
    build,
};

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    let heads = c.grouped_heads_of(Some(32), Some(128))?;
    let bias = c.flag_or("attention_bias", false)?;
    let norm = Norm::rms(c.epsilon("rms_norm_eps", 1e-6)?);
    let attention = |mask| -> Result<Attention> {
        let plain = llama::attention(c, heads, mask)?.with_bias(bias, bias);
        Ok(Attention { head_norm: Some(llama::head_norm(norm)), ..plain })
    };
    let rope = Rope::of(c, heads.dim, Defaults::default())?;
    let full =
        llama::decoder(request, vec![("angles", rope)], attention(Mask::causal(None))?, llama::mlp(c, false)?)?;
    let Some(slides) = qwen2::slides(c)? else { return Ok(full) };
    full.with_sliding(&slides, |full: &DecoderLayer| {
        let mask = Mask::causal(Some(layer_types::window(c, 4096)?));
        Ok(DecoderLayer { attention: attention(mask)?, ..full.clone() })
    })
}
