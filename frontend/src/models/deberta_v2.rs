//! DeBERTa v2 and v3, mDeBERTa.
//!
//! He et al., *DeBERTaV3* (arXiv:2111.09543), and the released v2 models: DeBERTa with
//!
//! - separate queries, keys and values, all with biases;
//! - distances in `position_buckets` on either side, those of more than half of them by their logarithm;
//! - tables of positions that go through the layer's own projections of queries and keys (`share_att_key`), behind a
//!   layer norm (`norm_rel_ebd`);
//! - in v2 a convolution of the embeddings (`conv_kernel_size`), added to what the first layer makes.

use llmc_ir::ops::{Disentangled, Unfold};

use super::deberta::{self, max_relative_positions, norm, pos_att_type, positive};
use super::{Family, Request, Task};
use crate::blocks::mlp::activation;
use crate::blocks::{Attention, Blueprint, Conv, PositionTerms, Positions, Projection};
use crate::config::{Config, Heads};
use crate::error::Result;
use crate::limits;

pub const FAMILY: Family = Family {
    name: "deberta-v2",
    architectures: &[
        ("DebertaV2Model", Task::Base),
        ("DebertaV2ForMaskedLM", Task::MaskedLm),
        ("DebertaV2ForQuestionAnswering", Task::QuestionAnswering),
        ("DebertaV2ForSequenceClassification", Task::SequenceClassification),
        ("DebertaV2ForTokenClassification", Task::TokenClassification),
    ],
    prefix: "deberta.",
    build,
};

const QUERY: &str = "encoder.layer.{layer}.attention.self.query_proj";
const KEY: &str = "encoder.layer.{layer}.attention.self.key_proj";
const VALUE: &str = "encoder.layer.{layer}.attention.self.value_proj";

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    let [q, k, v] = [QUERY, KEY, VALUE].map(|tensor| Projection::plain(tensor).with_bias(true));
    let kinds = pos_att_type(c)?;
    let (c2p, p2c) = (kinds.contains(&"c2p"), kinds.contains(&"p2c"));
    let positions = match c.flag_or("relative_attention", false)? {
        false => Positions::Learned,
        true => {
            let (key, query) = match c.flag_or("share_att_key", false)? {
                true => (k.clone(), q.clone()),
                false => {
                    let part = |tensor| Projection::plain(tensor).with_bias(true);
                    (
                        part("encoder.layer.{layer}.attention.self.pos_key_proj"),
                        part("encoder.layer.{layer}.attention.self.pos_query_proj"),
                    )
                }
            };
            let (span, max_distance) = spans(c)?;
            deberta::positions(PositionTerms {
                terms: Disentangled { c2p, p2c, span, max_distance },
                table: deberta::TABLE,
                norm: table_norm(c)?,
                key,
                query,
            })
        }
    };
    let heads = heads(c)?;
    let attention = Attention {
        q,
        k,
        v,
        scale: deberta::scale(heads, usize::from(c2p) + usize::from(p2c)),
        ..deberta::attention(c, heads, positions)?
    };
    let encoder = deberta::encoder(request, attention)?.with_conv(conv(c)?);
    Ok(Blueprint::Encoder(Box::new(encoder)))
}

/// Half the rows of the table, and the distance whose logarithm comes to its edge.
fn spans(c: &Config) -> Result<(u32, Option<u32>)> {
    let max = max_relative_positions(c)?;
    let Some(buckets) = positive(c, "position_buckets", Disentangled::MAX_SPAN)? else {
        return Ok((max, None));
    };
    let terms = |max_distance| Disentangled { c2p: true, p2c: true, span: buckets, max_distance };
    if terms(None).buckets_to(max) {
        return Ok((buckets, Some(max)));
    }
    // No distance of the context is beyond those that count as they are.
    if c.positions()? <= buckets / 2 + 1 {
        return Ok((buckets, None));
    }
    let expected = format!("at least 2, and less than twice the greatest distance ({max}) less 2");
    Err(c.wrong("position_buckets", expected))
}

/// The layer norm of the table.
fn table_norm(c: &Config) -> Result<Option<(f32, &'static str)>> {
    let kinds = c.optional_text("norm_rel_ebd")?.unwrap_or("none").to_lowercase();
    let normed = kinds.split('|').any(|kind| kind.trim() == "layer_norm");
    let eps = c.epsilon("layer_norm_eps", 1e-7)? as f32;
    Ok(normed.then_some((eps, "encoder.LayerNorm")))
}

/// Heads of `attention_head_size`, by default an equal share of the hidden size.
fn heads(c: &Config) -> Result<Heads> {
    const FIELD: &str = "attention_head_size";
    let heads = c.heads()?;
    let dim = c.count_or(FIELD, 1..=limits::HEAD_DIM, heads.dim)?;
    if u64::from(heads.query) * u64::from(dim) > u64::from(limits::WIDTH) {
        let expected = format!("at most {} in all {} heads", limits::WIDTH, heads.query);
        return Err(c.wrong(FIELD, expected));
    }
    Ok(Heads { dim, ..heads })
}

fn conv(c: &Config) -> Result<Option<Conv>> {
    const FIELD: &str = "conv_kernel_size";
    let width = c.count_or(FIELD, 0..=Unfold::MAX_WIDTH, 0)?;
    if width == 0 {
        return Ok(None);
    }
    if width.is_multiple_of(2) {
        return Err(c.wrong(FIELD, "an odd number, or 0"));
    }
    if c.count_or("conv_groups", 1..=limits::WIDTH, 1)? != 1 {
        return Err(c.refuse("conv_groups", 1));
    }
    Ok(Some(Conv {
        tensor: "encoder.conv.conv",
        width,
        act: activation(c, "conv_act", "tanh")?,
        norm: (norm(c)?, "encoder.conv.LayerNorm"),
    }))
}
