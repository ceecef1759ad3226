//! What is measured: the batch's shape, the precision, the arithmetic in it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::error::Error;
use crate::limits::compute::Peak;

/// A batch: the tokens of each of its sentences.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    pub lengths: Vec<usize>,
}

impl Case {
    /// Sentences of the batch.
    pub fn batch(&self) -> usize {
        self.lengths.len()
    }

    /// Neighbours of one length: how many, and the length.
    fn runs(&self) -> Vec<(usize, usize)> {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for &length in &self.lengths {
            match runs.last_mut().filter(|(_, l)| *l == length) {
                Some((count, _)) => *count += 1,
                None => runs.push((1, length)),
            }
        }
        runs
    }

    /// The lengths with `sign` between them.
    pub fn list(&self, sign: &str) -> String {
        let lengths: Vec<String> = self.lengths.iter().map(usize::to_string).collect();
        lengths.join(sign)
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let run = |part: &str| {
            let (count, length) = part.split_once('x')?;
            let (count, length): (usize, usize) = (count.parse().ok()?, length.parse().ok()?);
            let sensible = (1..=4096).contains(&count) && length > 0;
            sensible.then(|| std::iter::repeat_n(length, count))
        };
        let runs: Option<Vec<_>> = s.split('+').map(run).collect();
        let runs = runs.ok_or_else(|| format!("`{s}` is not BATCHxTOKENS[+BATCHxTOKENS…]"))?;
        let lengths = runs.into_iter().flatten().collect();
        Ok(Case { lengths })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let runs = self.runs();
        let runs: Vec<String> = runs.iter().map(|(n, l)| format!("{n}x{l}")).collect();
        f.pad(&runs.join("+"))
    }
}

/// A class of arithmetic, within which sides are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    F32,
    Int8,
}

impl Precision {
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Int8 => "int8",
        }
    }

    /// What `llmc compile` is told.
    pub fn quant(self) -> &'static str {
        match self {
            Precision::F32 => "none",
            Precision::Int8 => "int8",
        }
    }

    /// The machine's peak that shares are of.
    pub fn peak(self) -> Peak {
        match self {
            Precision::F32 => Peak::F32,
            Precision::Int8 => Peak::Int8,
        }
    }

    /// How close embeddings must be to the reference: ours, a peer's.
    pub fn least_cosines(self) -> [f64; 2] {
        match self {
            Precision::F32 => [0.9999, 0.9999],
            // A peer is taken as it comes: dynamic quantisation costs it what it costs.
            Precision::Int8 => [0.999, 0.0],
        }
    }
}

/// The sizes that the arithmetic depends on, out of `config.json`.
pub struct Encoder {
    hidden: f64,
    intermediate: f64,
    layers: f64,
}

impl Encoder {
    pub fn read(model: &Path) -> Result<Self, Error> {
        let path = model.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::Io(path.clone(), e))?;
        let config: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| Error::Json(path.clone(), e))?;
        let size = |key: &'static str| {
            config[key]
                .as_f64()
                .ok_or_else(|| Error::Missing(path.clone(), key))
        };
        Ok(Encoder {
            hidden: size("hidden_size")?,
            intermediate: size("intermediate_size")?,
            layers: size("num_hidden_layers")?,
        })
    }

    /// Multiplications and additions of the matrix products of a batch without its padding: four projections, two of
    /// the MLP, and attention's two.
    pub fn flops(&self, case: &Case) -> f64 {
        let linear =
            2.0 * (4.0 * self.hidden * self.hidden + 2.0 * self.hidden * self.intermediate);
        let of = |&length: &usize| {
            let tokens = length as f64;
            tokens * self.layers * (linear + 4.0 * tokens * self.hidden)
        };
        case.lengths.iter().map(of).sum()
    }
}

/// How many runs make about half a second at 80 GFLOP/s a thread.
pub fn runs(flops: f64, threads: usize) -> usize {
    ((0.5 * 80e9 * threads as f64 / flops) as usize).clamp(3, 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(text: &str) -> Case {
        text.parse().unwrap()
    }

    #[test]
    fn cases_parse_and_print() {
        assert_eq!(case("3x128").lengths, [128, 128, 128]);
        assert_eq!(case("1x256+2x16").lengths, [256, 16, 16]);
        assert_eq!(case("1x256+2x16").list(" "), "256 16 16");
        for bad in ["", "x", "32", "0x5", "4x", "4xx4", "1x2+", "99999x1"] {
            assert!(bad.parse::<Case>().is_err(), "{bad}");
        }
        for text in ["1x16", "1x256+31x16"] {
            assert_eq!(case(text).to_string(), text);
        }
    }

    #[test]
    fn arithmetic_of_minilm() {
        let minilm = Encoder {
            hidden: 384.0,
            intermediate: 1536.0,
            layers: 6.0,
        };
        let flops = minilm.flops(&case("32x128"));
        assert!((flops / 32.0 / 2.869e9 - 1.0).abs() < 1e-3, "{flops}");
        let mixed = minilm.flops(&case("1x256+31x16"));
        let parts = minilm.flops(&case("1x256")) + 31.0 * minilm.flops(&case("1x16"));
        assert!((mixed / parts - 1.0).abs() < 1e-9, "{mixed}");
    }
}
