//! Weights out of a seed: `--random-weights SEED`.
//!
//! In: the tensors that a model asks for, with the kind of values each holds. Out: a [`WeightSource`] that stores
//! nothing and computes any chunk on demand.
//!
//! Invariants: an element depends on the seed, the tensor's name and its index alone, so chunks of any size, in
//! any order, on any machine and in any type (before rounding to it) are the same; only integer arithmetic and
//! one multiplication are involved.
//!
//! The normal distribution is a sum of eight uniform 16-bit numbers: within ±4.9 standard deviations, close
//! enough for speed tests and for models without a checkpoint.
//!
//! Not here: reproducing any framework's generator.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use half::{bf16, f16};
use indexmap::IndexMap;

use super::{StoredType, TensorInfo, WeightSource};
use crate::error::{Problem, Result};

/// What a tensor is filled with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// Normally distributed around 0, with this standard deviation: matrices and tables.
    Normal(f32),
    /// One value: 1 for the scale of norms (0 where the family adds 1), 0 for biases.
    Constant(f32),
}

/// Tensors computed from a seed.
#[derive(Clone, Debug)]
pub struct Synthetic {
    seed: u64,
    tensors: IndexMap<String, (TensorInfo, Fill)>,
}

impl Synthetic {
    /// A source without tensors.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            tensors: IndexMap::new(),
        }
    }

    /// Adds a tensor; `stored` has to be a type of weights.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        stored: StoredType,
        shape: Vec<u64>,
        fill: Fill,
    ) -> Result<()> {
        let name = name.into();
        let bytes = shape
            .iter()
            .try_fold(1u64, |elements, dim| elements.checked_mul(*dim))
            .and_then(|elements| stored.bytes(elements));
        let is_plain = matches!(stored, StoredType::F32 | StoredType::F16 | StoredType::BF16);
        if !is_plain || bytes.is_none_or(|bytes| bytes > i64::MAX as u64) {
            let what = format!("random weights of {stored} and shape {shape:?} cannot be made");
            return Err(Problem::new(what).field(name).input());
        }
        self.tensors
            .insert(name, (TensorInfo { stored, shape }, fill));
        Ok(())
    }
}

impl WeightSource for Synthetic {
    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|(info, _)| info)
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let outside = || {
            Problem::new("a read outside the random tensors")
                .field(name)
                .input()
        };
        let (info, fill) = self.tensors.get(name).ok_or_else(outside)?;
        if range.start > range.end || range.end > info.bytes() {
            return Err(outside());
        }
        let size = info.stored.bytes(1).unwrap_or(1);
        let (first, last) = (range.start / size, range.end.div_ceil(size));
        let stream = Stream::new(self.seed, name);
        let values = (first..last).map(|index| match *fill {
            Fill::Constant(value) => value,
            Fill::Normal(deviation) => stream.normal(index) * deviation,
        });
        let bytes: Vec<u8> = match info.stored {
            StoredType::F16 => values
                .flat_map(|v| f16::from_f32(v).to_le_bytes())
                .collect(),
            StoredType::BF16 => values
                .flat_map(|v| bf16::from_f32(v).to_le_bytes())
                .collect(),
            _ => values.flat_map(f32::to_le_bytes).collect(),
        };
        let skip = (range.start - first * size) as usize;
        let length = (range.end - range.start) as usize;
        Ok(match skip == 0 && length == bytes.len() {
            true => Cow::Owned(bytes),
            false => Cow::Owned(bytes[skip..skip + length].to_vec()),
        })
    }

    fn release(&self, _name: &str, _range: Range<u64>) {}

    fn file(&self, _name: &str) -> Option<&Path> {
        None
    }
}

/// The numbers of one tensor, by index.
struct Stream {
    key: u64,
}

impl Stream {
    fn new(seed: u64, name: &str) -> Self {
        // FNV-1a over the name, then the mixer: names that differ in one letter share nothing.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self {
            key: mix(hash ^ mix(seed)),
        }
    }

    /// Mean 0, standard deviation 1.
    fn normal(&self, index: u64) -> f32 {
        const MEAN: i32 = 8 * 65535 / 2;
        // 1 / sqrt(8 · (2^32 − 1) / 12): the deviation of a sum of eight uniform 16-bit numbers.
        const SCALE: f32 = 1.868_812_4e-5;
        let first = mix(self.key.wrapping_add((2 * index).wrapping_mul(GOLDEN)));
        let second = mix(self.key.wrapping_add((2 * index + 1).wrapping_mul(GOLDEN)));
        let lanes = |word: u64| {
            (word & 0xffff) + (word >> 16 & 0xffff) + (word >> 32 & 0xffff) + (word >> 48)
        };
        let sum = (lanes(first) + lanes(second)) as i32;
        (sum - MEAN) as f32 * SCALE
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64: every bit of the input changes every bit of the output.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(seed: u64) -> Synthetic {
        let mut source = Synthetic::new(seed);
        source
            .add("w", StoredType::F32, vec![100, 200], Fill::Normal(0.02))
            .unwrap();
        source
            .add("b", StoredType::BF16, vec![8], Fill::Constant(1.0))
            .unwrap();
        source
    }

    fn values(source: &Synthetic, range: Range<u64>) -> Vec<f32> {
        let bytes = source.read("w", range).unwrap();
        bytes
            .chunks(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    }

    #[test]
    fn the_distribution_is_the_one_asked_for() {
        let values = values(&source(7), 0..80_000);
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
        let square =
            values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 5e-4, "{mean}");
        assert!((square.sqrt() - 0.02).abs() < 4e-4, "{}", square.sqrt());
    }

    #[test]
    fn chunks_agree_with_the_whole() {
        let whole = source(7).read("w", 0..80_000).unwrap().into_owned();
        for range in [0..4, 4..400, 3..9, 79_999..80_000, 80_000..80_000] {
            let part = source(7).read("w", range.clone()).unwrap().into_owned();
            assert_eq!(part, whole[range.start as usize..range.end as usize]);
        }
        assert!(source(7).read("w", 0..80_001).is_err());
        assert_ne!(values(&source(7), 0..64), values(&source(8), 0..64));
    }

    #[test]
    fn constants_are_rounded_to_the_type() {
        assert_eq!(
            &*source(1).read("b", 0..4).unwrap(),
            [0x80, 0x3f, 0x80, 0x3f]
        );
    }
}
