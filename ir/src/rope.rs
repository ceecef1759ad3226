//! Rotary position schemes: the inverse frequencies and the factor on cos and sin.
//!
//! Formulas: HF `modeling_rope_utils` (linear, dynamic, llama3, yarn, longrope); computed in f32
//! wherever HF computes in f32.
//!
//! Two kinds look at the length of the token's sequence, each sequence by itself:
//!
//! - *longrope* has two sets of factors, and takes the long ones for every position of a sequence
//!   that is longer than the original context. A sequence that grows past it is computed again, so
//!   that the token behind n others is what a fresh run over the n gives (HF does the same, but goes
//!   by the longest sequence of a batch).
//! - *dynamic* (NTK) raises the base with the length. As in HF with a cache, the keys of past tokens
//!   stay as they were rotated: the tokens of a sequence's first run, its prompt, go by the prompt's
//!   length, and each later one by its own position + 1, where that is more. So chunks, batches and
//!   speculation change nothing; only the place where the prompt ends does.

use crate::attr::{AttrReader, AttrValue, Attrs, short};

/// How positions beyond the trained context are scaled.
#[derive(Clone, PartialEq, Debug)]
pub enum RopeScaling {
    /// As trained.
    Default,
    /// Positions divided by `factor`.
    Linear { factor: f32 },
    /// The base grows with the sequence's length beyond `original_context`.
    Dynamic { factor: f32, original_context: u32 },
    /// Llama 3.1: long wavelengths divided by `factor`, a smooth band between.
    Llama3 {
        factor: f32,
        low_freq_factor: f32,
        high_freq_factor: f32,
        original_context: u32,
    },
    /// YaRN (arXiv:2309.00071).
    Yarn {
        factor: f32,
        beta_fast: f32,
        beta_slow: f32,
        original_context: u32,
        truncate: bool,
        /// Factor on cos and sin.
        attention_factor: f32,
    },
    /// LongRoPE (arXiv:2402.13753): periods times factors, one for each pair.
    LongRope {
        /// `[dim / 2]`, of sequences of up to `original_context` tokens.
        short: Vec<f32>,
        /// `[dim / 2]`, of longer ones.
        long: Vec<f32>,
        original_context: u32,
        /// Factor on cos and sin.
        attention_factor: f32,
    },
}

/// What a model's ropes want to know of its sequences' lengths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LengthRule {
    /// Whether the sequence is longer than this: if it grows past it, all of it is computed again.
    Switch(u32),
    /// How long the sequence's first run was, where it is longer than this.
    Prompt(u32),
}

/// Inverse frequencies `[dim / 2]` for rotary positions over `dim` elements of a head, of sequences
/// within the original context.
pub fn inv_freq(theta: f64, dim: u32, scaling: &RopeScaling) -> Vec<f32> {
    inv_freq_at(theta, dim, scaling, 0)
}

/// The same, of a sequence of `length` tokens.
pub fn inv_freq_at(theta: f64, dim: u32, scaling: &RopeScaling, length: u32) -> Vec<f32> {
    let half = dim / 2;
    let theta = match scaling {
        RopeScaling::Dynamic {
            factor,
            original_context,
        } => {
            let growth = dynamic_growth(*factor, *original_context, length);
            theta * growth.powf(f64::from(dim) / (f64::from(dim) - 2.0))
        }
        _ => theta,
    };
    // f32 at every step that HF takes in f32: at long positions the difference shows.
    let period = |i: u32| theta.powf(f64::from((2 * i) as f32 / dim as f32)) as f32;
    (0..half)
        .map(|i| {
            let f = 1.0 / period(i);
            match *scaling {
                RopeScaling::Default | RopeScaling::Dynamic { .. } => f,
                RopeScaling::LongRope {
                    ref short,
                    ref long,
                    original_context,
                    ..
                } => {
                    let factors = if length > original_context {
                        long
                    } else {
                        short
                    };
                    1.0 / (factors.get(i as usize).copied().unwrap_or(1.0) * period(i))
                }
                RopeScaling::Linear { factor } => f / factor,
                RopeScaling::Llama3 {
                    factor,
                    low_freq_factor,
                    high_freq_factor,
                    original_context,
                } => {
                    let context = original_context as f32;
                    let wavelength = 2.0 * std::f32::consts::PI / f;
                    if wavelength < context / high_freq_factor {
                        f
                    } else if wavelength > context / low_freq_factor {
                        f / factor
                    } else {
                        let smooth = (context / wavelength - low_freq_factor)
                            / (high_freq_factor - low_freq_factor);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                }
                RopeScaling::Yarn {
                    factor,
                    beta_fast,
                    beta_slow,
                    original_context,
                    truncate,
                    ..
                } => {
                    let (low, high) =
                        yarn_range(theta, dim, beta_fast, beta_slow, original_context, truncate);
                    let ramp = ((f64::from(i) - low) / (high - low)).clamp(0.0, 1.0) as f32;
                    1.0 / (factor * period(i)) * ramp + f * (1.0 - ramp)
                }
            }
        })
        .collect()
}

/// What the base of dynamic NTK grows by: factor · length / context − (factor − 1), at least 1.
pub fn dynamic_growth(factor: f32, original_context: u32, length: u32) -> f64 {
    let (factor, context) = (f64::from(factor), f64::from(original_context.max(1)));
    let length = f64::from(length).max(context);
    factor * length / context - (factor - 1.0)
}

/// First and last pair of the band in which YaRN interpolates.
fn yarn_range(
    theta: f64,
    dim: u32,
    beta_fast: f32,
    beta_slow: f32,
    original_context: u32,
    truncate: bool,
) -> (f64, f64) {
    let pair_of = |rotations: f32| {
        let turns =
            f64::from(original_context) / (f64::from(rotations) * 2.0 * std::f64::consts::PI);
        f64::from(dim) * turns.ln() / (2.0 * theta.ln())
    };
    let (mut low, mut high) = (pair_of(beta_fast), pair_of(beta_slow));
    if truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, high) = (low.max(0.0), high.min(f64::from(dim) - 1.0));
    (low, if low == high { high + 0.001 } else { high })
}

impl RopeScaling {
    /// Factor on cos and sin.
    pub fn attention_factor(&self) -> f32 {
        match self {
            RopeScaling::Yarn {
                attention_factor, ..
            }
            | RopeScaling::LongRope {
                attention_factor, ..
            } => *attention_factor,
            RopeScaling::Default
            | RopeScaling::Linear { .. }
            | RopeScaling::Dynamic { .. }
            | RopeScaling::Llama3 { .. } => 1.0,
        }
    }

    /// What the frequencies depend on besides the position; None for most kinds.
    pub fn length_rule(&self) -> Option<LengthRule> {
        match *self {
            RopeScaling::LongRope {
                original_context, ..
            } => Some(LengthRule::Switch(original_context)),
            RopeScaling::Dynamic {
                original_context, ..
            } => Some(LengthRule::Prompt(original_context)),
            RopeScaling::Default
            | RopeScaling::Linear { .. }
            | RopeScaling::Llama3 { .. }
            | RopeScaling::Yarn { .. } => None,
        }
    }

    /// What is wrong with it for `dim` rotated elements.
    pub fn check(&self, dim: u32) -> Result<(), String> {
        match self {
            RopeScaling::LongRope { short, long, .. } => {
                let pairs = (dim / 2) as usize;
                match [short.len(), long.len()].into_iter().find(|&n| n != pairs) {
                    Some(n) => Err(format!(
                        "{n} factors, expected one for each of {pairs} pairs"
                    )),
                    None => Ok(()),
                }
            }
            RopeScaling::Dynamic { .. } if dim <= 2 => {
                Err(format!("dim is {dim}, dynamic scaling takes more than 2"))
            }
            RopeScaling::Dynamic {
                original_context: 0,
                ..
            } => Err("the original context is 0".into()),
            _ => Ok(()),
        }
    }

    /// As an attribute; None for the default.
    pub fn to_attr(&self) -> Option<AttrValue> {
        let float = |a: Attrs, k: &str, v: f32| a.with(k, AttrValue::Float(short(v)));
        let list = |a: Attrs, k: &str, v: &[f32]| {
            let floats = v.iter().map(|v| AttrValue::Float(short(*v)));
            a.with(k, AttrValue::List(floats.collect()))
        };
        let (name, attrs) = match *self {
            RopeScaling::Default => return None,
            RopeScaling::Linear { factor } => ("linear", float(Attrs::new(), "factor", factor)),
            RopeScaling::Dynamic {
                factor,
                original_context,
            } => {
                let a = float(Attrs::new(), "factor", factor);
                ("dynamic", a.int("original_context", original_context))
            }
            RopeScaling::LongRope {
                short: ref of_short,
                long: ref of_long,
                original_context,
                attention_factor,
            } => {
                let a = list(list(Attrs::new(), "short", of_short), "long", of_long);
                let a = a.int("original_context", original_context);
                ("longrope", float(a, "attention_factor", attention_factor))
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_context,
            } => {
                let a = float(Attrs::new(), "factor", factor);
                let a = float(a, "low_freq_factor", low_freq_factor);
                let a = float(a, "high_freq_factor", high_freq_factor);
                ("llama3", a.int("original_context", original_context))
            }
            RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                original_context,
                truncate,
                attention_factor,
            } => {
                let a = float(Attrs::new(), "factor", factor);
                let a = float(float(a, "beta_fast", beta_fast), "beta_slow", beta_slow);
                let a = a
                    .int("original_context", original_context)
                    .flag("truncate", truncate);
                ("yarn", float(a, "attention_factor", attention_factor))
            }
        };
        Some(AttrValue::Struct(name.to_string(), attrs))
    }

    /// Reads the attribute `scaling`.
    pub fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        let Some((name, mut a)) = attrs.opt_struct("scaling")? else {
            return Ok(RopeScaling::Default);
        };
        let scaling = match name.as_str() {
            "linear" => RopeScaling::Linear {
                factor: a.float("factor")?,
            },
            "dynamic" => RopeScaling::Dynamic {
                factor: a.float("factor")?,
                original_context: a.u32("original_context")?,
            },
            "longrope" => RopeScaling::LongRope {
                short: a.float_list("short")?,
                long: a.float_list("long")?,
                original_context: a.u32("original_context")?,
                attention_factor: a.float("attention_factor")?,
            },
            "llama3" => RopeScaling::Llama3 {
                factor: a.float("factor")?,
                low_freq_factor: a.float("low_freq_factor")?,
                high_freq_factor: a.float("high_freq_factor")?,
                original_context: a.u32("original_context")?,
            },
            "yarn" => RopeScaling::Yarn {
                factor: a.float("factor")?,
                beta_fast: a.float("beta_fast")?,
                beta_slow: a.float("beta_slow")?,
                original_context: a.u32("original_context")?,
                truncate: a.flag("truncate")?,
                attention_factor: a.float("attention_factor")?,
            },
            other => return Err(format!("unknown rope scaling `{other}`")),
        };
        a.finish()?;
        Ok(scaling)
    }
}
