//! The weights of a GGUF file under Hugging Face's names.
//!
//! In: an opened file. Out: a [`WeightSource`]; blocks and numbers as they are stored.
//!
//! Rows of queries and keys that the converter reordered are presented in Hugging Face's order: within a head of
//! `dim` rows, row `2j + s` of the file is row `s · dim/2 + j` here. Blocks lie along rows, so rows move whole.
//!
//! Invariants: every tensor of the file has a name here, or the file is refused; reads copy at most the bytes asked
//! for.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;

use super::architectures::Architecture;
use super::file::{GgufFile, Tensor};
use super::{Gguf, rope};
use crate::error::{Problem, Result};
use crate::limits;
use crate::weights::{StoredType, TensorInfo, WeightSource};

/// Tensors by Hugging Face's names.
#[derive(Debug)]
pub struct GgufWeights {
    gguf: Arc<Gguf>,
    architecture: &'static Architecture,
    tensors: IndexMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// GGUF's name.
    name: String,
    info: TensorInfo,
    /// Rows of one head, where pairs of them are neighbours.
    paired: Option<u64>,
}

impl GgufWeights {
    /// Names all tensors of a file.
    pub fn new(gguf: Arc<Gguf>) -> Result<Self> {
        let architecture = gguf.architecture()?;
        let gated = gguf.names().any(|name| name.contains(".ffn_gate."));
        let mut tensors = IndexMap::new();
        for name in gguf.names() {
            let longrope = architecture.name == "phi3" && rope::LONGROPE.contains(&name);
            if name == rope::FACTORS || longrope {
                continue;
            }
            let Some((tensor, file)) = gguf.tensor(name) else {
                continue;
            };
            let Some(own) = hugging_face_name(architecture, name, gated) else {
                let what = format!(
                    "a tensor that the architecture {} does not have",
                    architecture.name
                );
                let problem = Problem::of(file.metadata.path(), what).field(name);
                return Err(problem.unsupported());
            };
            if own.is_empty() {
                continue;
            }
            let paired = rows_per_head(&gguf, architecture, name, tensor, file)?;
            let info = TensorInfo {
                stored: StoredType::of_ggml(tensor.ty),
                shape: tensor.shape.clone(),
            };
            let name = name.to_owned();
            tensors.insert(own, Entry { name, info, paired });
        }
        Ok(Self {
            gguf,
            architecture,
            tensors,
        })
    }

    fn tensor(&self, name: &str) -> Option<(&Entry, &Tensor, &GgufFile)> {
        let entry = self.tensors.get(name)?;
        let (tensor, file) = self.gguf.tensor(&entry.name)?;
        Some((entry, tensor, file))
    }
}

/// `blk.3.attn_q.weight` → `model.layers.3.self_attn.q_proj.weight`; empty for a tensor that nobody reads.
fn hugging_face_name(architecture: &Architecture, name: &str, gated: bool) -> Option<String> {
    let (stem, kind) = name.rsplit_once('.')?;
    if !matches!(kind, "weight" | "bias") {
        return None;
    }
    let Some(rest) = stem.strip_prefix("blk.") else {
        let rows = architecture.tensors.iter();
        let mut named = rows.filter_map(|(gguf, own)| translate(stem, gguf, own));
        let own = if gated {
            named.next_back()
        } else {
            named.next()
        }?;
        return Some(match own.is_empty() {
            true => own,
            false => format!("{own}.{kind}"),
        });
    };
    let find = |stem: &str| {
        let mut rows = architecture.layer_tensors.iter();
        rows.find(|(gguf, _)| *gguf == stem).map(|(_, own)| *own)
    };
    let (layer, stem) = rest.split_once('.')?;
    let layer = layer_number(layer)?;
    // A whole name.
    if let Some(own) = find(&format!("{stem}.{kind}")) {
        return Some(format!("{}{layer}.{own}", architecture.layers));
    }
    let own = find(stem)?;
    Some(format!("{}{layer}.{own}.{kind}", architecture.layers))
}

/// `model.layers.3.self_attn.q_proj.weight` → `blk.3.attn_q.weight`.
fn gguf_name(architecture: &Architecture, name: &str) -> Option<String> {
    let find = |stem: &str| {
        let mut rows = architecture.layer_tensors.iter();
        rows.find(|(_, own)| *own == stem).map(|(gguf, _)| *gguf)
    };
    let whole = name.strip_prefix(architecture.layers);
    if let Some((layer, own)) = whole.and_then(|rest| rest.split_once('.'))
        && let Some(gguf) = find(own)
        && gguf.ends_with(".weight")
    {
        return Some(format!("blk.{layer}.{gguf}"));
    }
    let (stem, kind) = name.rsplit_once('.')?;
    let mut rows = architecture.tensors.iter();
    if let Some(gguf) = rows.find_map(|(gguf, own)| translate(stem, own, gguf)) {
        return Some(format!("{gguf}.{kind}"));
    }
    let (layer, stem) = stem.strip_prefix(architecture.layers)?.split_once('.')?;
    let gguf = find(stem)?;
    Some(format!("blk.{layer}.{gguf}.{kind}"))
}

/// `name` as `to` has it, if it is `from`, where `{layer}` stands for a number.
fn translate(name: &str, from: &str, to: &str) -> Option<String> {
    const LAYER: &str = "{layer}";
    match from.split_once(LAYER) {
        None => (name == from).then(|| to.to_owned()),
        Some((head, tail)) => {
            let number = name.strip_prefix(head)?.strip_suffix(tail)?;
            Some(to.replace(LAYER, &layer_number(number)?.to_string()))
        }
    }
}

/// A layer's number as a file writes it: without leading zeros, so that two names cannot mean one layer.
fn layer_number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number < limits::LAYERS && text == number.to_string()).then_some(number)
}

/// Rows of a head, if the tensor's rows are stored in pairs.
fn rows_per_head(
    gguf: &Gguf,
    architecture: &Architecture,
    name: &str,
    tensor: &Tensor,
    file: &GgufFile,
) -> Result<Option<u64>> {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let stem = stem.splitn(3, '.').nth(2).unwrap_or_default();
    let paired = architecture
        .paired
        .iter()
        .find(|(paired, _)| *paired == stem);
    let Some((_, key)) = paired else {
        return Ok(None);
    };
    let heads = |key: &str| super::architectures::uniform_count(gguf.metadata(), key);
    let heads = match heads(key)? {
        Some(heads) => heads,
        // As many as there are queries.
        None => heads("llama.attention.head_count")?.unwrap_or(1),
    };
    let rows = tensor.shape.first().copied().unwrap_or(0);
    if heads == 0 || !rows.is_multiple_of(2 * u64::from(heads)) {
        let what =
            format!("shape: found {rows} rows, expected pairs for each of {heads} heads ({key})");
        return Err(Problem::of(file.metadata.path(), what).field(name).input());
    }
    Ok(Some(rows / u64::from(heads)))
}

/// The row of the file that is row `row` here.
fn stored_row(row: u64, head: u64) -> u64 {
    let (first, within) = (row / head * head, row % head);
    let half = head / 2;
    first + 2 * (within % half) + within / half
}

/// Bytes of a row of the first dimension.
fn row_bytes(info: &TensorInfo) -> u64 {
    let rows = info.shape.first().copied().unwrap_or(1).max(1);
    (info.bytes() / rows).max(1)
}

impl WeightSource for GgufWeights {
    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|entry| &entry.info)
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let outside = || {
            Problem::of(self.gguf.path(), "a read outside the file's tensors")
                .field(name)
                .input()
        };
        let (entry, tensor, file) = self.tensor(name).ok_or_else(outside)?;
        let data = file.data(tensor);
        if range.start > range.end || range.end > data.len() as u64 {
            return Err(outside());
        }
        let Some(head) = entry.paired else {
            return Ok(Cow::Borrowed(
                &data[range.start as usize..range.end as usize],
            ));
        };
        let row_bytes = row_bytes(&entry.info);
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        let mut at = range.start;
        while at < range.end {
            let (row, within) = (at / row_bytes, at % row_bytes);
            let count = (row_bytes - within).min(range.end - at);
            let start = (stored_row(row, head) * row_bytes + within) as usize;
            bytes.extend_from_slice(&data[start..start + count as usize]);
            at += count;
        }
        Ok(Cow::Owned(bytes))
    }

    fn release(&self, name: &str, range: Range<u64>) {
        let Some((entry, tensor, file)) = self.tensor(name) else {
            return;
        };
        // All rows of a head come from all over the head.
        let unit = entry.paired.map_or(1, |head| head * row_bytes(&entry.info));
        let bound = |offset: u64| tensor.place.start + (offset as usize).min(tensor.place.len());
        let end = range
            .end
            .min(tensor.place.len() as u64)
            .next_multiple_of(unit);
        file.metadata
            .map()
            .release(bound(range.start / unit * unit)..bound(end));
    }

    fn file(&self, name: &str) -> Option<&Path> {
        self.tensor(name).map(|(_, _, file)| file.metadata.path())
    }

    fn stored_name(&self, name: &str) -> Option<String> {
        gguf_name(self.architecture, name)
    }

    fn is_exact(&self) -> bool {
        true
    }

    fn norms_include_offset(&self) -> bool {
        self.architecture.norms_include_offset
    }
}

#[cfg(test)]
mod tests {
    use super::super::architectures::ARCHITECTURES;
    use super::*;

    #[test]
    fn names_translate_both_ways() {
        for architecture in ARCHITECTURES {
            let layers = architecture.layer_tensors.iter();
            let layers = layers.map(|(name, _)| match name.ends_with(".weight") {
                true => format!("blk.12.{name}"),
                false => format!("blk.12.{name}.weight"),
            });
            let whole = architecture.tensors.iter().filter(|row| !row.1.is_empty());
            let whole = whole.map(|(name, _)| format!("{}.bias", name.replace("{layer}", "12")));
            for name in layers.chain(whole) {
                for gated in [false, true] {
                    let own = hugging_face_name(architecture, &name, gated).unwrap();
                    assert_eq!(gguf_name(architecture, &own).as_ref(), Some(&name));
                }
            }
        }
        let t5 = ARCHITECTURES.iter().find(|a| a.name == "t5").unwrap();
        let t5 = |name: &str, gated: bool| hugging_face_name(t5, name, gated);
        let up = "dec.blk.3.ffn_up.weight";
        let plain = "decoder.block.3.layer.2.DenseReluDense.wi.weight";
        assert_eq!(t5(up, false).as_deref(), Some(plain));
        let gated = "decoder.block.3.layer.2.DenseReluDense.wi_1.weight";
        assert_eq!(t5(up, true).as_deref(), Some(gated));
        assert_eq!(
            t5("dec.blk.0.cross_attn_rel_b.weight", true).as_deref(),
            Some("")
        );
        for name in [
            "enc.blk.03.attn_q.weight",
            "enc.blk..attn_q.weight",
            "enc.blk.0.cross_attn_q.weight",
        ] {
            assert_eq!(t5(name, false), None, "{name}");
        }
        let llama = ARCHITECTURES.iter().find(|a| a.name == "llama").unwrap();
        assert_eq!(
            hugging_face_name(llama, "blk.3.attn_q.weight", true).as_deref(),
            Some("model.layers.3.self_attn.q_proj.weight")
        );
        for name in [
            "blk.03.attn_q.weight",
            "blk.+3.attn_q.weight",
            "blk.3.attn_q",
            "blk.5000.attn_q.weight",
            "blk",
        ] {
            assert_eq!(hugging_face_name(llama, name, true), None, "{name}");
        }
    }

    #[test]
    fn pairs_become_halves() {
        let order: Vec<u64> = (0..12).map(|row| stored_row(row, 6)).collect();
        assert_eq!(order, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }
}
