//! What is measured: the batch's shape, the arithmetic in it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::error::Error;

/// `batch` sentences of `seq` tokens each, none padded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case {
    pub batch: usize,
    pub seq: usize,
}

impl FromStr for Case {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let parsed = s.split_once('x').and_then(|(b, t)| {
            Some(Case {
                batch: b.parse().ok()?,
                seq: t.parse().ok()?,
            })
        });
        parsed
            .filter(|c| c.batch > 0 && c.seq > 0)
            .ok_or_else(|| format!("`{s}` is not BATCHxTOKENS"))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(&format!("{}x{}", self.batch, self.seq))
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

    /// Multiplications and additions of the matrix products: four projections, two of the MLP, and attention's two.
    pub fn flops(&self, case: Case) -> f64 {
        let (tokens, seq) = ((case.batch * case.seq) as f64, case.seq as f64);
        let linear =
            2.0 * (4.0 * self.hidden * self.hidden + 2.0 * self.hidden * self.intermediate);
        tokens * self.layers * (linear + 4.0 * seq * self.hidden)
    }
}

/// How many runs make about half a second at 80 GFLOP/s a thread.
pub fn runs(flops: f64, threads: usize) -> usize {
    ((0.5 * 80e9 * threads as f64 / flops) as usize).clamp(3, 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_parse_and_print() {
        assert_eq!(
            "32x128".parse(),
            Ok(Case {
                batch: 32,
                seq: 128
            })
        );
        for bad in ["", "x", "32", "0x5", "4x", "4xx4"] {
            assert!(bad.parse::<Case>().is_err(), "{bad}");
        }
        assert_eq!(Case { batch: 1, seq: 16 }.to_string(), "1x16");
    }

    #[test]
    fn arithmetic_of_minilm() {
        let minilm = Encoder {
            hidden: 384.0,
            intermediate: 1536.0,
            layers: 6.0,
        };
        let flops = minilm.flops(Case {
            batch: 32,
            seq: 128,
        });
        assert!((flops / 32.0 / 2.869e9 - 1.0).abs() < 1e-3, "{flops}");
    }
}
