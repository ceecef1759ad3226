//! Qwen2, Qwen2.5 and their coders.
//!
//! Yang et al., *Qwen2 Technical Report* (arXiv:2407.10671): Llama with biases on queries, keys and values. With
//! `use_sliding_window`, layers from `max_window_layers` on see a window.

use llmc_ir::Mask;

use super::{Family, Request, Task, layer_types, llama};
use crate::blocks::{Attention, Blueprint, DecoderLayer};
use crate::config::Config;
use crate::error::Result;
use crate::limits;
use crate::rope::{Defaults, Rope};

pub const FAMILY: Family = Family {
    name: "qwen2",
    architectures: &[("Qwen2ForCausalLM", Task::CausalLm), ("Qwen2Model", Task::Base)],
    prefix: "model.",
    build,
};

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    let heads = c.grouped_heads(Some(32))?;
    let attention = |mask| -> Result<Attention> {
        Ok(llama::attention(c, heads, mask)?.with_bias(true, false))
    };
    let mlp = llama::mlp(c, false)?;
    let rope = Rope::of(c, heads.dim, Defaults::default())?;
    let full = llama::decoder(request, vec![("angles", rope)], attention(Mask::causal(None))?, mlp)?;

    let Some(slides) = slides(c)? else { return Ok(full) };
    let sliding = |full: &DecoderLayer| {
        let mask = Mask::causal(Some(layer_types::window(c, 4096)?));
        Ok(DecoderLayer { attention: attention(mask)?, ..full.clone() })
    };
    full.with_sliding(&slides, sliding)
}

/// Which layers see a window; `None`: all layers see everything.
pub fn slides(c: &Config) -> Result<Option<Vec<bool>>> {
    let layers = c.layers()?;
    match layer_types::sliding(c, layers)? {
        Some(slides) => Ok(Some(slides)),
        None if c.flag_or("use_sliding_window", false)? => {
            let first = c.count_or("max_window_layers", 0..=limits::LAYERS, 28)?;
            Ok(Some((0..layers).map(|layer| layer >= first).collect()))
        }
        None => Ok(None),
    }
}
