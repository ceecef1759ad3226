//! Mistral 7B and what is built like it (Zephyr, Mistral Nemo).
//!
//! Jiang et al., *Mistral 7B* (arXiv:2310.06825): Llama with a sliding window on all layers. Later versions have no
//! window (`"sliding_window": null`); an absent field means 4096.

use llmc_ir::Mask;

use super::{Family, Request, Task, llama};
use crate::blocks::Blueprint;
use crate::error::Result;
use crate::limits;
use crate::rope::{Defaults, Rope};

pub const FAMILY: Family = Family {
    name: "mistral",
    architectures: &[("MistralForCausalLM", Task::CausalLm), ("MistralModel", Task::Base)],
    prefix: "model.",
    build,
};

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    let heads = c.grouped_heads(Some(8))?;
    let window = match c.members().contains_key("sliding_window") {
        true => c.optional_count("sliding_window", 1..=limits::POSITIONS)?,
        false => Some(4096),
    };
    let attention = llama::attention(c, heads, Mask::causal(window))?;
    let rope = Rope::of(c, heads.dim, Defaults::default())?;
    llama::decoder(request, vec![("angles", rope)], attention, llama::mlp(c, false)?)
}
