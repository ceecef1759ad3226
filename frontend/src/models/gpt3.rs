//! GPT-3: GPT-2's layers, some of which see their keys through sparse patterns.
//!
//! Brown et al., *Language Models are Few-Shot Learners* (arXiv:2005.14165), section 2.1: dense layers alternate with
//! locally banded sparse ones, as in Child et al., *Generating Long Sequences with Sparse Transformers*
//! (arXiv:1904.10509), section 4.2. No library writes such configurations; these fields stand beside GPT-2's:
//!
//! | field | |
//! |---|---|
//! | `attention_types` | `[[["dense", "banded"], 48]]`: lists of kinds, each repeated, as GPT-Neo has them |
//! | `attention_layers` | instead: one kind for each layer |
//! | `window_size` | keys that a banded layer sees: 256 |
//! | `attention_stride` | l of a strided layer: 128 |
//! | `attention_block` | positions that a stride takes together: 1 |
//! | `attention_span`, `attention_summary` | l and c of a fixed layer: 128 and 8 |
//!
//! | kind | a query sees |
//! |---|---|
//! | `dense` (`global`) | every key up to its own |
//! | `banded` (`local`) | the last `window_size` |
//! | `strided` | the last l, and every l-th before its own (blocks of `attention_block`: l of them, every l-th) |
//! | `fixed` | its own span of l positions, and the last c of every earlier span |
//!
//! Weights have GPT-2's names and are stored alike (`[in, out]`). The paper does not tell the sizes of its bands.

use llmc_ir::Mask;

use super::{Family, Request, Task, gpt2, gpt_neo};
use crate::blocks::{Attention, Blueprint, DecoderLayer, Projection};
use crate::config::Config;
use crate::error::Result;
use crate::limits;

pub const FAMILY: Family = Family {
    name: "gpt3",
    architectures: &[("GPT3LMHeadModel", Task::CausalLm), ("GPT3Model", Task::Base)],
    prefix: "transformer.",
    build,
};

/// The kinds of layers: their classes, and their names in configurations.
const KINDS: [(&str, [&str; 2]); 4] = [
    ("layer.dense", ["dense", "global"]),
    ("layer.banded", ["banded", "local"]),
    ("layer.strided", ["strided", "strided"]),
    ("layer.fixed", ["fixed", "fixed"]),
];

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    let sizes = gpt2::Sizes::of(c)?;
    let part = |tensor| Projection::plain(tensor).with_bias(true).conv1d();
    let qkv = part("transformer.h.{layer}.attn.c_attn").split([sizes.hidden; 3]);
    let attention = gpt2::attention(c, sizes, qkv, part("transformer.h.{layer}.attn.c_proj"))?;
    let dense = gpt2::layer(c, attention, gpt2::mlp(c, sizes, "gelu_new", part)?)?;

    let (field, kinds) = gpt_neo::kinds(c, sizes.layers)?;
    let kind = |name: &&str| {
        let found = KINDS.iter().position(|(_, names)| names.contains(name));
        found.ok_or_else(|| c.wrong(field, "\"dense\", \"banded\", \"strided\" and \"fixed\""))
    };
    let kinds: Vec<usize> = kinds.iter().map(kind).collect::<Result<_>>()?;
    let used: Vec<usize> = (0..KINDS.len()).filter(|kind| kinds.contains(kind)).collect();
    let classes = used.iter().map(|&kind| {
        let attention = Attention { mask: mask(c, kind)?, ..dense.attention.clone() };
        let name = if used.len() == 1 { "layer" } else { KINDS[kind].0 };
        Ok(DecoderLayer { name, attention, ..dense.clone() })
    });
    let classes = classes.collect::<Result<_>>()?;
    let place = |kind: &usize| used.iter().position(|used| used == kind).unwrap_or(0);
    gpt2::decoder(request, sizes, classes, kinds.iter().map(place).collect())
}

/// What a layer of a kind sees, by its index in [`KINDS`].
fn mask(c: &Config, kind: usize) -> Result<Mask> {
    let size = |field: &str, default| c.count_or(field, 1..=limits::POSITIONS, default);
    let and_causal = |mask| Mask::And(vec![Mask::Causal, mask]);
    Ok(match KINDS[kind].1[0] {
        "banded" => Mask::causal(Some(size("window_size", 256)?)),
        "strided" => {
            let (every, block) = (size("attention_stride", 128)?, size("attention_block", 1)?);
            let band = every.saturating_mul(block).min(limits::POSITIONS);
            and_causal(Mask::Or(vec![Mask::Band(band), Mask::Stride { every, block }]))
        }
        "fixed" => {
            let (span, last) = (size("attention_span", 128)?, size("attention_summary", 8)?);
            if last > span {
                let what = format!("found {last}, expected at most attention_span ({span})");
                return Err(c.problem("attention_summary", what).input());
            }
            and_causal(Mask::Fixed { span, last })
        }
        _ => Mask::causal(None),
    })
}
