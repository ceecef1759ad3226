//! MXFP4 tensors of Hugging Face checkpoints as one tensor each.
//!
//! In: a checkpoint that holds `X_blocks` `[…, out, in / 32, 16]` and `X_scales` `[…, out, in / 32]`, bytes. Out: the
//! same with `X` `[…, out, in]` in the place of the two, in blocks of the format MXFP4.
//!
//! Here the low nibble of a byte is the even element; in a block byte i holds elements i and i + 16.
//!
//! Not here: which tensors a family wants.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use indexmap::IndexMap;
use llmc_ir::quant::Format;

use super::{StoredType, TensorInfo, WeightSource};
use crate::error::{Problem, Result};
use crate::gguf::GgmlType;

const BLOCKS: &str = "_blocks";
const SCALES: &str = "_scales";
/// Bytes of a block: the scale, then the nibbles.
const BLOCK: u64 = 17;
const NIBBLES: u64 = 16;

/// A checkpoint whose pairs of tensors are joined.
pub struct Joined {
    source: Box<dyn WeightSource>,
    /// The tensors that are pairs; the others are the checkpoint's own.
    pairs: IndexMap<String, TensorInfo>,
    names: Vec<String>,
}

/// Joins the pairs of a checkpoint, if it has any.
pub fn join(source: Box<dyn WeightSource>) -> Result<Box<dyn WeightSource>> {
    let mut pairs = IndexMap::new();
    let mut names = Vec::new();
    for name in source.names() {
        let partner = |from: &str, to: &str| {
            let stem = name.strip_suffix(from)?;
            source
                .info(&format!("{stem}{to}"))
                .map(|info| (stem.to_owned(), info))
        };
        if let Some((stem, scales)) = partner(BLOCKS, SCALES) {
            let info = joined(&*source, name, scales)?;
            names.push(stem.clone());
            pairs.insert(stem, info);
        } else if partner(SCALES, BLOCKS).is_none() {
            names.push(name.to_owned());
        }
    }
    Ok(match pairs.is_empty() {
        true => source,
        false => Box::new(Joined {
            source,
            pairs,
            names,
        }),
    })
}

/// What a pair is, if its tensors fit each other.
fn joined(source: &dyn WeightSource, name: &str, scales: &TensorInfo) -> Result<TensorInfo> {
    let blocks = source.info(name);
    let fits = blocks.filter(|blocks| {
        let bytes = [blocks.stored, scales.stored] == [StoredType::U8; 2];
        let shape = blocks.shape.split_last();
        bytes && shape.is_some_and(|(last, rest)| *last == NIBBLES && *rest == scales.shape[..])
    });
    let shape = fits.and_then(|_| {
        let (last, rest) = scales.shape.split_last()?;
        Some([rest, &[last.checked_mul(32)?]].concat())
    });
    let elements = shape
        .as_ref()
        .and_then(|s| s.iter().try_fold(1u64, |n, dim| n.checked_mul(*dim)));
    let stored = GgmlType::of_format(Format::MXFP4).map(StoredType::Ggml);
    match (stored, shape, elements) {
        (Some(stored), Some(shape), Some(elements)) if stored.bytes(elements).is_some() => {
            Ok(TensorInfo { stored, shape })
        }
        _ => {
            let shape = |info: Option<&TensorInfo>| {
                info.map_or(String::new(), |info| {
                    format!("{} {:?}", info.stored, info.shape)
                })
            };
            let what = format!(
                "found {} blocks and {} scales, expected u8 […, out, in / 32, 16] and u8 […, out, in / 32]",
                shape(blocks),
                shape(Some(scales))
            );
            let problem = source
                .file(name)
                .map_or_else(|| Problem::new(&what), |file| Problem::of(file, &what));
            Err(problem.field(name).input())
        }
    }
}

impl Joined {
    fn part(&self, stem: &str, suffix: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        self.source.read(&format!("{stem}{suffix}"), range)
    }
}

impl WeightSource for Joined {
    fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        match self.pairs.get(name) {
            Some(info) => Some(info),
            None => self.source.info(name),
        }
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let Some(info) = self.pairs.get(name) else {
            return self.source.read(name, range);
        };
        if range.start > range.end || range.end > info.bytes() {
            let problem = Problem::new("a read outside the checkpoint's tensors").field(name);
            return Err(problem.input());
        }
        // Whole blocks, of which the first and the last may be cut.
        let (first, end) = (range.start / BLOCK, range.end.div_ceil(BLOCK));
        let scales = self.part(name, SCALES, first..end)?;
        let nibbles = self.part(name, BLOCKS, first * NIBBLES..end * NIBBLES)?;
        let mut bytes = Vec::with_capacity(((end - first) * BLOCK) as usize);
        for (scale, pairs) in scales.iter().zip(nibbles.chunks_exact(NIBBLES as usize)) {
            bytes.push(*scale);
            let element = |i: usize| pairs[i / 2] >> (4 * (i % 2)) & 15;
            bytes.extend((0..NIBBLES as usize).map(|i| element(i) | element(i + 16) << 4));
        }
        let skip = (range.start - first * BLOCK) as usize;
        bytes.drain(..skip);
        bytes.truncate((range.end - range.start) as usize);
        Ok(Cow::Owned(bytes))
    }

    fn release(&self, name: &str, range: Range<u64>) {
        if !self.pairs.contains_key(name) {
            return self.source.release(name, range);
        }
        let (first, end) = (range.start / BLOCK, range.end / BLOCK);
        self.source.release(&format!("{name}{SCALES}"), first..end);
        self.source
            .release(&format!("{name}{BLOCKS}"), first * NIBBLES..end * NIBBLES);
    }

    fn file(&self, name: &str) -> Option<&Path> {
        match self.pairs.contains_key(name) {
            true => self.source.file(&format!("{name}{BLOCKS}")),
            false => self.source.file(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two tensors.
    struct Two(IndexMap<String, (TensorInfo, Vec<u8>)>);

    impl WeightSource for Two {
        fn names(&self) -> Vec<&str> {
            self.0.keys().map(String::as_str).collect()
        }

        fn info(&self, name: &str) -> Option<&TensorInfo> {
            self.0.get(name).map(|(info, _)| info)
        }

        fn read(&self, name: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
            Ok(Cow::Borrowed(
                &self.0[name].1[range.start as usize..range.end as usize],
            ))
        }

        fn release(&self, _: &str, _: Range<u64>) {}

        fn file(&self, _: &str) -> Option<&Path> {
            None
        }
    }

    fn two(blocks: &[u64], scales: &[u64]) -> Box<dyn WeightSource> {
        let tensor = |shape: &[u64], first: u8| {
            let info = TensorInfo {
                stored: StoredType::U8,
                shape: shape.to_vec(),
            };
            let data = (0..info.elements())
                .map(|i| (i as u8).wrapping_mul(7).wrapping_add(first))
                .collect();
            (info, data)
        };
        let tensors = [
            ("x_blocks", tensor(blocks, 1)),
            ("x_scales", tensor(scales, 120)),
            ("y", tensor(&[2], 0)),
        ];
        Box::new(Two(tensors
            .map(|(name, tensor)| (name.to_owned(), tensor))
            .into()))
    }

    #[test]
    fn a_pair_is_a_tensor_in_blocks() {
        let source = join(two(&[2, 3, 1, 16], &[2, 3, 1])).unwrap();
        assert_eq!(source.names(), ["x", "y"]);
        let info = source.info("x").unwrap().clone();
        assert_eq!(
            (info.shape.as_slice(), info.bytes()),
            (&[2, 3, 32][..], 6 * 17)
        );
        let all = source.read("x", 0..6 * 17).unwrap().into_owned();
        // The second block: scale 127; bytes 16… of the nibbles, of which the first hold elements 0 and 1.
        let byte = |i: u8| (16 + i).wrapping_mul(7).wrapping_add(1);
        assert_eq!(all[17], 127);
        assert_eq!(all[18], (byte(0) & 15) | (byte(8) & 15) << 4);
        assert_eq!(all[19], (byte(0) >> 4) | (byte(8) >> 4) << 4);
        for range in [0..1, 5..40, 17..34, 100..102] {
            let part = source.read("x", range.clone()).unwrap().into_owned();
            assert_eq!(part, all[range.start as usize..range.end as usize]);
        }
        assert!(source.read("x", 0..6 * 17 + 1).is_err());
    }

    #[test]
    fn tensors_that_do_not_fit_are_refused() {
        for (blocks, scales) in [
            (&[2, 1, 15][..], &[2, 1][..]),
            (&[2, 1, 16], &[2, 2]),
            (&[16], &[]),
        ] {
            let error = join(two(blocks, scales))
                .map(|_| ())
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("x_blocks") && error.contains("expected u8"),
                "{error}"
            );
        }
    }
}
