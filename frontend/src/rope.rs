//! Rotary position embeddings: from a configuration to the attributes of the IR's `rope_angles`.
//!
//! In: the rope fields of a configuration, in the layout of transformers 4 (`rope_theta` beside `rope_scaling`)
//! or 5 (`rope_parameters`, perhaps one object per layer type). Out: [`Rope`].
//!
//! Invariants: the frequencies that the result stands for are finite; defaults are those of transformers 5
//! (YaRN's `truncate` is on, its attention factor is 0.1·ln(factor) + 1).
//!
//! Kinds: `default`, `linear`, `dynamic`, `llama3`, `yarn`, `longrope`. Not here: the frequencies
//! ([`llmc_ir::rope`], which also says what sequences' lengths are to `dynamic` and `longrope`) and the rotation
//! (op `rope`).

use llmc_ir::ops::RopeAngles;
use llmc_ir::rope::{RopeScaling, inv_freq_at};

use crate::config::Config;
use crate::error::{Problem, Result};
use crate::limits;

/// The rotation of one kind of layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// The base.
    pub theta: f64,
    /// Dimensions of a head that are rotated, from the first; even.
    pub rotated: u32,
    /// The adjustment to longer contexts.
    pub scaling: RopeScaling,
}

/// What a family says where its configuration is silent.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// The base.
    pub theta: f64,
    /// The part of a head that is rotated.
    pub partial: f64,
    /// Older names of `longrope`, which may mean something else to other families.
    pub longrope: &'static [&'static str],
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            theta: 10_000.0,
            partial: 1.0,
            longrope: &["su"],
        }
    }
}

const THETA: std::ops::RangeInclusive<f64> = 1.0..=1e12;
const KINDS: &str = "\"default\", \"linear\", \"dynamic\", \"llama3\", \"yarn\" or \"longrope\"";
const FACTOR: std::ops::RangeInclusive<f64> = 1.0..=65536.0;

impl Rope {
    /// The rope of a model whose layers share one.
    pub fn of(c: &Config, head_dim: u32, defaults: Defaults) -> Result<Self> {
        let parameters = match c.section("rope_parameters")? {
            Some(section) => Some(section),
            None => c.section("rope_scaling")?,
        };
        match parameters {
            None => Self::unscaled(
                c,
                c.real_or("rope_theta", THETA, defaults.theta)?,
                head_dim,
                defaults.partial,
            ),
            Some(section) => Self::of_section(c, &section, head_dim, defaults),
        }
    }

    /// The rope of one layer type (`full_attention`, `sliding_attention`) where `rope_parameters` has one object
    /// per type; `None` in the older layout.
    pub fn of_layer_type(
        c: &Config,
        layer_type: &str,
        head_dim: u32,
        defaults: Defaults,
    ) -> Result<Option<Self>> {
        let Some(parameters) = c.section("rope_parameters")? else {
            return Ok(None);
        };
        match parameters.section(layer_type)? {
            Some(section) => Self::of_section(c, &section, head_dim, defaults).map(Some),
            None => Ok(None),
        }
    }

    /// Frequencies without scaling.
    pub fn unscaled(c: &Config, theta: f64, head_dim: u32, partial: f64) -> Result<Self> {
        let rotated = rotated(c, None, head_dim, partial)?;
        Ok(Self {
            theta,
            rotated,
            scaling: RopeScaling::Default,
        })
    }

    /// The op that computes the angles of a step.
    pub fn angles(&self) -> RopeAngles {
        RopeAngles {
            theta: self.theta,
            dim: self.rotated,
            scaling: self.scaling.clone(),
        }
    }

    /// The longest sequence that the scaling is meant for, where it says so itself.
    pub fn reach(&self) -> Option<u32> {
        let RopeScaling::Dynamic {
            factor,
            original_context,
        } = self.scaling
        else {
            return None;
        };
        let reach = f64::from(original_context) * f64::from(factor);
        Some(reach.min(f64::from(limits::POSITIONS)) as u32)
    }

    fn of_section(c: &Config, section: &Config, head_dim: u32, defaults: Defaults) -> Result<Self> {
        let theta = match section.optional_real("rope_theta", THETA)? {
            Some(theta) => theta,
            None => c.real_or("rope_theta", THETA, defaults.theta)?,
        };
        let rotated = rotated(c, Some(section), head_dim, defaults.partial)?;
        let kind = if section.has("rope_type") {
            "rope_type"
        } else {
            "type"
        };
        let scaling = match section.optional_text(kind)?.unwrap_or("default") {
            "default" => RopeScaling::Default,
            "longrope" => longrope(c, section, rotated)?,
            name if defaults.longrope.contains(&name) => longrope(c, section, rotated)?,
            "dynamic" if rotated > 2 => RopeScaling::Dynamic {
                factor: section.real("factor", FACTOR)? as f32,
                original_context: c.positions()?,
            },
            "dynamic" => {
                let what = format!("rotates {rotated} dimensions, expected more than 2");
                return Err(section.problem(kind, what).input());
            }
            "linear" => RopeScaling::Linear {
                factor: section.real("factor", FACTOR)? as f32,
            },
            "llama3" => llama3(c, section)?,
            "yarn" => yarn(c, section, theta)?,
            "proportional" => return Err(section.refuse(kind, KINDS)),
            _ => return Err(section.wrong(kind, KINDS)),
        };
        let finite = [0, limits::POSITIONS]
            .into_iter()
            .flat_map(|length| inv_freq_at(theta, rotated, &scaling, length))
            .all(|f| f.is_finite() && f > 0.0);
        if !finite || !scaling.attention_factor().is_finite() {
            return Err(section
                .problem(
                    kind,
                    "these parameters give frequencies that are not finite",
                )
                .input());
        }
        Ok(Self {
            theta,
            rotated,
            scaling,
        })
    }
}

fn rotated(c: &Config, section: Option<&Config>, head_dim: u32, default: f64) -> Result<u32> {
    const FIELD: &str = "partial_rotary_factor";
    let partial = match section
        .map(|s| s.optional_real(FIELD, 0.0..=1.0))
        .transpose()?
        .flatten()
    {
        Some(partial) => partial,
        None => c.real_or(FIELD, 0.0..=1.0, default)?,
    };
    let rotated = (f64::from(head_dim) * partial) as u32;
    if rotated == 0 || !rotated.is_multiple_of(2) {
        let field = if partial == 1.0 { "head_dim" } else { FIELD };
        let what = format!("rotates {rotated} of {head_dim} dimensions, expected an even number");
        return Err(c.problem(field, what).input());
    }
    Ok(rotated)
}

fn original_context(c: &Config, section: &Config) -> Result<u32> {
    const FIELD: &str = "original_max_position_embeddings";
    if let Some(context) = section.optional_count(FIELD, 1..=limits::POSITIONS)? {
        return Ok(context);
    }
    match c.optional_count(FIELD, 1..=limits::POSITIONS)? {
        Some(context) => Ok(context),
        None => c.positions(),
    }
}

fn llama3(c: &Config, section: &Config) -> Result<RopeScaling> {
    let low = section.real("low_freq_factor", 1e-6..=1e6)?;
    let high = section.real("high_freq_factor", 1e-6..=1e6)?;
    if high <= low {
        let what = format!("found {high}, expected more than low_freq_factor ({low})");
        return Err(section.problem("high_freq_factor", what).input());
    }
    Ok(RopeScaling::Llama3 {
        factor: section.real("factor", FACTOR)? as f32,
        low_freq_factor: low as f32,
        high_freq_factor: high as f32,
        original_context: original_context(c, section)?,
    })
}

/// `short_factor` and `long_factor`, one for each pair. The context of the original model stands beside the
/// section in Phi-3's configurations; the factor on cos and sin follows from how much longer the new one is.
fn longrope(c: &Config, section: &Config, rotated: u32) -> Result<RopeScaling> {
    const CONTEXT: &str = "original_max_position_embeddings";
    let original_context = match c.optional_count(CONTEXT, 1..=limits::POSITIONS)? {
        Some(context) => context,
        None => original_context(c, section)?,
    };
    let factors = |field: &str| -> Result<Vec<f32>> {
        let factors = section.reals(field, 1e-6..=1e6)?;
        if factors.len() != (rotated / 2) as usize {
            let (found, pairs) = (factors.len(), rotated / 2);
            let what = format!("found {found} factors, expected one for each of {pairs} pairs");
            return Err(section.problem(field, what).input());
        }
        Ok(factors.into_iter().map(|f| f as f32).collect())
    };
    let factor = match section.optional_real("factor", 1e-6..=65536.0)? {
        Some(factor) => factor,
        None => f64::from(c.positions()?) / f64::from(original_context),
    };
    let attention_factor = match section.optional_real("attention_factor", 0.0..=1e6)? {
        Some(given) => given,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / f64::from(original_context).ln()).sqrt(),
    };
    Ok(RopeScaling::LongRope {
        short: factors("short_factor")?,
        long: factors("long_factor")?,
        original_context,
        attention_factor: attention_factor as f32,
    })
}

fn yarn(c: &Config, section: &Config, theta: f64) -> Result<RopeScaling> {
    let original_context = original_context(c, section)?;
    let factor = match section.optional_real("factor", FACTOR)? {
        Some(factor) => factor,
        None => f64::from(c.positions()?) / f64::from(original_context),
    };
    // A zero counts as absent, as it does for `or` in the original.
    let positive = |field: &str| -> Result<Option<f64>> {
        Ok(section
            .optional_real(field, 0.0..=1e6)?
            .filter(|value| *value != 0.0))
    };
    let beta_fast = positive("beta_fast")?.unwrap_or(32.0);
    let beta_slow = positive("beta_slow")?.unwrap_or(1.0);
    if beta_fast < beta_slow {
        let what = format!("found {beta_fast}, expected at least beta_slow ({beta_slow})");
        return Err(section.problem("beta_fast", what).input());
    }
    if theta <= 1.0 {
        let problem = Problem::of(c.file(), format!("found {theta}, expected more than 1"))
            .field("rope_theta");
        return Err(problem.input());
    }
    let magnitude = |weight: f64| {
        if factor <= 1.0 {
            1.0
        } else {
            0.1 * weight * factor.ln() + 1.0
        }
    };
    let attention_factor = match section.optional_real("attention_factor", 0.0..=1e6)? {
        Some(given) => given,
        None => match (positive("mscale")?, positive("mscale_all_dim")?) {
            (Some(part), Some(all)) => magnitude(part) / magnitude(all),
            _ => magnitude(1.0),
        },
    };
    Ok(RopeScaling::Yarn {
        factor: factor as f32,
        beta_fast: beta_fast as f32,
        beta_slow: beta_slow as f32,
        original_context,
        truncate: section.flag_or("truncate", true)?,
        attention_factor: attention_factor as f32,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use llmc_ir::rope::inv_freq;

    use crate::json::{Json, Limits};

    fn rope(text: &str, head_dim: u32) -> Result<Rope> {
        let path = Path::new("config.json");
        let c = Config::from_json(path, Json::parse(path, text.as_bytes(), Limits::CONFIG)?)?;
        Rope::of(&c, head_dim, Defaults::default())
    }

    /// Compares the frequencies with a formula, and the factor on cos and sin.
    #[track_caller]
    fn check(text: &str, head_dim: u32, factor: f64, expected: impl Fn(f64) -> f64) {
        let rope = rope(text, head_dim).unwrap();
        let found = rope.scaling.attention_factor();
        assert!((f64::from(found) - factor).abs() < 1e-6, "{found}");
        for (i, found) in inv_freq(rope.theta, rope.rotated, &rope.scaling)
            .iter()
            .enumerate()
        {
            let expected = expected(i as f64);
            assert!(
                (f64::from(*found) / expected - 1.0).abs() < 3e-7,
                "{i}: found {found}, expected {expected}"
            );
        }
    }

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        let error = rope(text, 8).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn default_and_linear() {
        let base = |i: f64| 10_000f64.powf(-2.0 * i / 16.0);
        check("{}", 16, 1.0, base);
        check(
            "{\"rope_scaling\": null, \"rope_theta\": 10000}",
            16,
            1.0,
            base,
        );
        let v5 = "{\"rope_parameters\": {\"rope_theta\": 1e6, \"rope_type\": \"default\"}}";
        check(v5, 16, 1.0, |i| 1e6f64.powf(-i / 8.0));
        check(
            "{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}}",
            16,
            1.0,
            |i| base(i) / 2.0,
        );
        check("{\"partial_rotary_factor\": 0.5}", 16, 1.0, |i| {
            10_000f64.powf(-i / 4.0)
        });
    }

    #[test]
    fn longrope_has_two_sets_of_factors() {
        let text = "{\"max_position_embeddings\": 256, \"original_max_position_embeddings\": 64, \"rope_scaling\":
            {\"type\": \"su\", \"short_factor\": [1, 1, 1, 2], \"long_factor\": [1, 2, 3, 4]}}";
        let factor = (1.0 + 4f64.ln() / 64f64.ln()).sqrt();
        let base = |i: f64| 10_000f64.powf(-i / 4.0);
        check(text, 8, factor, |i| {
            base(i) / if i == 3.0 { 2.0 } else { 1.0 }
        });
        let rope = rope(text, 8).unwrap();
        let long = inv_freq_at(rope.theta, rope.rotated, &rope.scaling, 65);
        for (i, f) in long.into_iter().enumerate() {
            let expected = base(i as f64) / (i as f64 + 1.0);
            assert!((f64::from(f) / expected - 1.0).abs() < 3e-7, "{i}: {f}");
        }
    }

    #[test]
    fn dynamic_raises_the_base() {
        let text = "{\"max_position_embeddings\": 64, \"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}}";
        check(text, 8, 1.0, |i| 10_000f64.powf(-i / 4.0));
        let rope = rope(text, 8).unwrap();
        assert_eq!(rope.reach(), Some(128));
        // Twice the context: 2 · 2 − 1.
        let base = 10_000.0 * 3f64.powf(8.0 / 6.0);
        let found = inv_freq_at(rope.theta, rope.rotated, &rope.scaling, 128);
        for (i, f) in found.into_iter().enumerate() {
            let expected = base.powf(-(i as f64) / 4.0);
            assert!((f64::from(f) / expected - 1.0).abs() < 3e-7, "{i}: {f}");
        }
    }

    #[test]
    fn llama3_has_three_bands() {
        let text = "{\"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0,
            \"high_freq_factor\": 4.0, \"low_freq_factor\": 1.0, \"original_max_position_embeddings\": 64}}";
        check(text, 16, 1.0, |i| {
            let f = 500_000f64.powf(-i / 8.0);
            let turns = 64.0 * f / std::f64::consts::TAU;
            let smooth = ((turns - 1.0) / 3.0).clamp(0.0, 1.0);
            (1.0 - smooth) * f / 8.0 + smooth * f
        });
    }

    #[test]
    fn yarn_ramps_between_whole_pairs() {
        let scaling = |more: &str| {
            let fields = "\"rope_type\": \"yarn\", \"factor\": 4.0, \"original_max_position_embeddings\": 4096";
            format!("{{\"rope_scaling\": {{{fields}{more}}}}}")
        };
        let pair = |turns: f64| {
            128.0 * (4096.0 / (turns * std::f64::consts::TAU)).ln() / (2.0 * 10_000f64.ln())
        };
        let mixed = |low: f64, high: f64| {
            move |i: f64| {
                let f = 10_000f64.powf(-i / 64.0);
                let ramp = ((i - low) / (high - low)).clamp(0.0, 1.0);
                f / 4.0 * ramp + f * (1.0 - ramp)
            }
        };
        let whole = mixed(pair(32.0).floor(), pair(1.0).ceil());
        let factor = 0.1 * 4f64.ln() + 1.0;
        check(&scaling(""), 128, factor, whole);
        check(
            &scaling(", \"truncate\": false"),
            128,
            factor,
            mixed(pair(32.0), pair(1.0)),
        );
        check(&scaling(", \"attention_factor\": 1.5"), 128, 1.5, whole);
        let both = scaling(", \"mscale\": 1.0, \"mscale_all_dim\": 0.5");
        check(&both, 128, factor / (0.05 * 4f64.ln() + 1.0), whole);
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let scaling = |text: &str| format!("{{\"rope_scaling\": {text}}}");
        check_error(
            &scaling("{\"type\": \"proportional\", \"factor\": 2.0}"),
            "not supported yet: config.json: `rope_scaling.type`: found \"proportional\"",
        );
        check_error(
            &scaling("{\"type\": \"su\", \"short_factor\": [1, 2]}"),
            "`max_position_embeddings`: missing",
        );
        let longrope = |short: &str| {
            let original = "\"original_max_position_embeddings\": 8, \"factor\": 2";
            scaling(&format!(
                "{{\"type\": \"longrope\", {original}, \"short_factor\": {short}}}"
            ))
        };
        check_error(
            &longrope("[1, 2]"),
            "`rope_scaling.short_factor`: found 2 factors",
        );
        check_error(
            &longrope("[1, 2, 3, 0]"),
            "an array of numbers from 0.000001",
        );
        check_error(
            &longrope("[1, 2, 3, 4]"),
            "`rope_scaling.long_factor`: missing",
        );
        check_error(
            &scaling("{\"rope_type\": \"wobbly\"}"),
            "`rope_scaling.rope_type`: found \"wobbly\"",
        );
        check_error(
            &scaling("{\"rope_type\": \"linear\"}"),
            "`rope_scaling.factor`: missing",
        );
        check_error(
            &scaling("{\"rope_type\": \"linear\", \"factor\": 0.0}"),
            "`rope_scaling.factor`: found 0.0",
        );
        check_error(&scaling("4"), "`rope_scaling`: found 4, expected an object");
        check_error(
            "{\"rope_theta\": -1.0}",
            "`rope_theta`: found -1.0, expected a number from 1",
        );
        check_error(
            "{\"partial_rotary_factor\": 0.4}",
            "`partial_rotary_factor`: rotates 3 of 8",
        );
    }
}
