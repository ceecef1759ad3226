//! Rotary positions of a GGUF file: base, scaling, and the factors of Llama 3.
//!
//! In: `ARCHITECTURE.rope.*` and `rope_freqs.weight`. Out: `rope_theta` and `rope_scaling` as Hugging Face spells
//! them.
//!
//! llama.cpp's converter stores what the `llama3` scaling does to each frequency, `[head_dim / 2]`, instead of the
//! parameters. They are found again (their ratio is all that counts, so `low_freq_factor` is taken as 1), and
//! compared with the tensor: factors of another origin are refused.
//!
//! The factors of a longrope are tensors too, and what multiplies cos and sin is a key.
//!
//! Not here: what the fields mean (`crate::rope`).

use llmc_ir::rope::{RopeScaling, inv_freq};

use super::architectures::Fields;
use crate::error::{Excerpt, Problem, Result};
use crate::json::{Json, Object};
use crate::limits;

/// The tensor of factors.
pub const FACTORS: &str = "rope_freqs.weight";
/// The tensors of a longrope's factors.
pub const LONGROPE: [&str; 2] = ["rope_factors_short.weight", "rope_factors_long.weight"];
/// Between factors stored in f32 and those of the parameters that were found.
const TOLERANCE: f64 = 1e-5;
const DEFAULT_THETA: f64 = 10_000.0;

/// Sets `rope_theta` and `rope_scaling`.
pub fn configure(fields: &mut Fields) -> Result<()> {
    fields.copy("rope_theta", "rope.freq_base")?;
    let mut scaling = scaling(fields)?;
    if fields.gguf.tensor(FACTORS).is_some() {
        if scaling.is_some() {
            let what = "a scaling besides the factors of rope_freqs.weight";
            let key = fields.key("rope.scaling.type");
            return Err(fields.metadata().problem(&key, what).unsupported());
        }
        scaling = llama3(fields)?;
    }
    if let Some(scaling) = scaling {
        fields.set("rope_scaling", scaling);
    }
    Ok(())
}

/// The keys of `rope.scaling`.
fn scaling(fields: &mut Fields) -> Result<Option<Object>> {
    let metadata = fields.metadata();
    fields.ignore(&["rope.scaling.finetuned"]);
    for (key, neutral) in [
        ("rope.scaling.attn_factor", 1.0),
        ("rope.scaling.yarn_attn_factor", 1.0),
        ("rope.scaling.yarn_ext_factor", 1.0),
    ] {
        fields.require(key, &[neutral.into()])?;
    }
    let mut object = Object::new();
    let mut copy = |fields: &mut Fields, field: &str, key: &str| -> Result<()> {
        let key = fields.key(key);
        if let Some(value) = metadata.json(&key)? {
            object.insert(field.to_owned(), value);
        }
        fields.name(&format!("rope_scaling.{field}"), key);
        Ok(())
    };
    copy(fields, "factor", "rope.scale_linear")?;
    copy(fields, "factor", "rope.scaling.factor")?;
    copy(
        fields,
        "original_max_position_embeddings",
        "rope.scaling.original_context_length",
    )?;
    copy(fields, "beta_fast", "rope.scaling.yarn_beta_fast")?;
    copy(fields, "beta_slow", "rope.scaling.yarn_beta_slow")?;
    let key = fields.key("rope.scaling.type");
    let kind = metadata.optional_text(&key)?;
    let kind = match (kind, object.contains_key("factor")) {
        (None | Some("none"), false) => return Ok(None),
        // What llama.cpp takes an absent type for.
        (None, true) => "linear",
        (Some("none"), true) => return Ok(None),
        (Some(kind @ ("linear" | "yarn")), _) => kind,
        (Some(_), _) => return Err(metadata.refuse(&key, "none, linear or yarn")),
    };
    fields.name("rope_scaling.rope_type", key);
    object.insert("rope_type".into(), kind.into());
    Ok(Some(object))
}

/// Sets `partial_rotary_factor`, where less than a head is rotated.
pub fn partial(fields: &mut Fields) -> Result<()> {
    let key = fields.key("rope.dimension_count");
    let metadata = fields.metadata();
    let rotated = metadata.optional_count(&key, 1..=limits::HEAD_DIM)?;
    fields.name("partial_rotary_factor", key);
    let dim = fields.head_dimension()?;
    if let Some((rotated, dim)) = rotated.zip(dim).filter(|(rotated, dim)| rotated != dim) {
        // The half keeps rounding from losing a dimension.
        fields.set(
            "partial_rotary_factor",
            (f64::from(rotated) + 0.5) / f64::from(dim),
        );
    } else if rotated.is_some() {
        fields.set("partial_rotary_factor", 1.0);
    }
    Ok(())
}

/// Sets `rope_theta` and `rope_scaling` of a model that may have a longrope.
pub fn configure_longrope(fields: &mut Fields) -> Result<()> {
    let [short, long] = LONGROPE;
    let (short, long) = match (factors(fields, short)?, factors(fields, long)?) {
        (Some(short), Some(long)) => (short, long),
        (None, None) => return configure(fields),
        (found, _) => {
            let missing = LONGROPE[usize::from(found.is_some())];
            let problem = Problem::of(fields.gguf.path(), "missing, expected a tensor of factors");
            return Err(problem.field(missing).input());
        }
    };
    fields.copy("rope_theta", "rope.freq_base")?;
    fields.ignore(&["rope.scaling.finetuned"]);
    let metadata = fields.metadata();
    let kind = fields.key("rope.scaling.type");
    match metadata.optional_text(&kind)? {
        None | Some("longrope") => {}
        Some(_) => return Err(metadata.refuse(&kind, "longrope")),
    }
    let list = |factors: Vec<f64>| Json::Array(factors.into_iter().map(Json::from).collect());
    let mut object = Object::new();
    object.insert("rope_type".into(), "longrope".into());
    object.insert("short_factor".into(), list(short));
    object.insert("long_factor".into(), list(long));
    for (field, tensor) in ["short_factor", "long_factor"].iter().zip(LONGROPE) {
        fields.name(&format!("rope_scaling.{field}"), tensor.into());
    }
    for (field, key) in [
        (
            "original_max_position_embeddings",
            "rope.scaling.original_context_length",
        ),
        ("attention_factor", "rope.scaling.attn_factor"),
    ] {
        let key = fields.key(key);
        if let Some(value) = metadata.json(&key)? {
            object.insert(field.to_owned(), value);
        }
        fields.name(&format!("rope_scaling.{field}"), key);
    }
    fields.set("rope_scaling", object);
    Ok(())
}

/// A tensor of factors, one for each pair; none where it is not there.
fn factors(fields: &Fields, name: &str) -> Result<Option<Vec<f64>>> {
    let Some((tensor, file)) = fields.gguf.tensor(name) else {
        return Ok(None);
    };
    let wrong = |what: String| Problem::of(file.metadata.path(), what).field(name);
    let (ty, shape) = (tensor.ty, &tensor.shape);
    let [pairs] = shape[..] else {
        return Err(wrong(format!("shape: found {shape:?}, expected one dimension")).input());
    };
    if ty.name != "f32" || pairs > u64::from(limits::HEAD_DIM / 2) {
        let expected = limits::HEAD_DIM / 2;
        let what =
            format!("found {pairs} factors of type {ty}, expected f32 and at most {expected}");
        return Err(wrong(what).input());
    }
    let bytes = file.data(tensor).chunks_exact(4);
    let factors: Vec<f64> = bytes
        .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
        .collect();
    if let Some(bad) = factors
        .iter()
        .find(|factor| !(**factor > 0.0 && factor.is_finite()))
    {
        return Err(wrong(format!("found the factor {bad}, expected positive numbers")).input());
    }
    Ok(Some(factors))
}

/// The `llama3` scaling that the tensor of factors stands for; none if they are all 1.
fn llama3(fields: &mut Fields) -> Result<Option<Object>> {
    let Some(factors) = factors(fields, FACTORS)? else {
        return Ok(None);
    };
    if factors.iter().all(|factor| *factor == 1.0) {
        return Ok(None);
    }
    let key = fields.key("rope.freq_base");
    let theta = fields.metadata().json(&key)?;
    let theta = theta
        .and_then(|theta| theta.as_f64())
        .unwrap_or(DEFAULT_THETA);
    let dim = 2 * factors.len() as u32;
    let frequencies = inv_freq(theta, dim, &RopeScaling::Default);
    let bands = Bands::of(&frequencies, &factors);
    let fits = |found: &Parameters| {
        let scaled = inv_freq(theta, dim, &found.scaling());
        let mut pairs = frequencies.iter().zip(&scaled).zip(&factors);
        pairs.all(|((plain, scaled), factor)| {
            let ratio = f64::from(*scaled) * factor / f64::from(*plain);
            (ratio - 1.0).abs() < TOLERANCE
        })
    };
    let Some(found) = bands.candidates().into_iter().find(fits) else {
        let first = factors
            .iter()
            .take(8)
            .map(f64::to_string)
            .collect::<Vec<_>>();
        let what = format!(
            "factors that are not those of a llama3 scaling: {}…",
            Excerpt(&first.join(", "))
        );
        let problem = Problem::of(fields.gguf.path(), what).field(FACTORS);
        return Err(problem.unsupported());
    };
    let mut object = Object::new();
    object.insert("rope_type".into(), "llama3".into());
    for (field, value) in [
        ("factor", Json::from(found.factor)),
        ("low_freq_factor", Json::from(found.low)),
        ("high_freq_factor", Json::from(found.high)),
        (
            "original_max_position_embeddings",
            Json::from(u64::from(found.context)),
        ),
    ] {
        fields.name(&format!("rope_scaling.{field}"), FACTORS.into());
        object.insert(field.into(), value);
    }
    Ok(Some(object))
}

/// What a `llama3` scaling is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Parameters {
    factor: f64,
    low: f64,
    high: f64,
    context: u32,
}

impl Parameters {
    fn scaling(&self) -> RopeScaling {
        RopeScaling::Llama3 {
            factor: self.factor as f32,
            low_freq_factor: self.low as f32,
            high_freq_factor: self.high as f32,
            original_context: self.context,
        }
    }
}

/// The factors by what the scaling did: nothing, everything, or something between.
struct Bands {
    factor: f64,
    /// The longest wavelength that was left alone.
    longest_kept: f64,
    /// The shortest wavelength that was divided by the factor.
    shortest_divided: f64,
    /// Wavelengths between, and how much of the frequency was kept.
    between: Vec<(f64, f64)>,
}

impl Bands {
    fn of(frequencies: &[f32], factors: &[f64]) -> Self {
        let factor = factors.iter().copied().fold(1.0, f64::max);
        let mut bands = Self {
            factor,
            longest_kept: 0.0,
            shortest_divided: f64::INFINITY,
            between: Vec::new(),
        };
        for (frequency, own) in frequencies.iter().zip(factors) {
            let wavelength = std::f64::consts::TAU / f64::from(*frequency);
            if *own == 1.0 {
                bands.longest_kept = bands.longest_kept.max(wavelength);
            } else if *own == factor {
                bands.shortest_divided = bands.shortest_divided.min(wavelength);
            } else {
                // 1 / own = (1 − kept) / factor + kept
                let kept = (1.0 / own - 1.0 / factor) / (1.0 - 1.0 / factor);
                bands.between.push((wavelength, kept));
            }
        }
        bands
    }

    /// Parameters that may be the right ones, the published ones first.
    fn candidates(&self) -> Vec<Parameters> {
        let with = |factor: f64, high: f64, context: f64| Parameters {
            factor,
            low: 1.0,
            high,
            context: context.round().clamp(1.0, f64::from(limits::POSITIONS)) as u32,
        };
        let published = [self.factor, 8.0, 32.0, 16.0, 4.0];
        let mut found: Vec<Parameters> = published.map(|factor| with(factor, 4.0, 8192.0)).into();
        // kept = (context / wavelength − 1) / (high − 1), so a line over 1 / wavelength.
        match self.between[..] {
            [] => {
                found.push(with(
                    self.factor,
                    4.0,
                    (4.0 * self.longest_kept * self.shortest_divided).sqrt(),
                ));
                let context = self.shortest_divided * 0.999;
                found.push(with(
                    self.factor,
                    context / self.longest_kept * 0.999,
                    context,
                ));
            }
            [(wavelength, kept)] => {
                found.push(with(self.factor, 4.0, wavelength * (3.0 * kept + 1.0)))
            }
            [(first, first_kept), .., (last, last_kept)] => {
                let slope = (first_kept - last_kept) / (1.0 / first - 1.0 / last);
                let below = slope / first - first_kept;
                let high = 1.0 + 1.0 / below;
                found.push(with(
                    self.factor,
                    (high * 1024.0).round() / 1024.0,
                    slope / below,
                ));
                found.push(with(self.factor, high, slope / below));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The factors of a scaling are stored as f32 and found again.
    #[track_caller]
    fn check(theta: f64, dim: u32, given: Parameters, exact: bool) {
        let plain = inv_freq(theta, dim, &RopeScaling::Default);
        let scaled = inv_freq(theta, dim, &given.scaling());
        let factors: Vec<f64> = plain
            .iter()
            .zip(&scaled)
            .map(|(plain, scaled)| f64::from(plain / scaled))
            .collect();
        let near = |found: &Parameters| {
            let again = inv_freq(theta, dim, &found.scaling());
            again
                .iter()
                .zip(&scaled)
                .all(|(a, b)| (f64::from(a / b) - 1.0).abs() < TOLERANCE)
        };
        let found = Bands::of(&plain, &factors)
            .candidates()
            .into_iter()
            .find(near);
        let found = found.unwrap_or_else(|| panic!("{given:?}: nothing fits"));
        if exact {
            assert_eq!(found, given);
        }
    }

    #[test]
    fn parameters_are_found_again() {
        let with = |factor, high, context| Parameters {
            factor,
            low: 1.0,
            high,
            context,
        };
        check(500_000.0, 128, with(8.0, 4.0, 8192), true);
        check(500_000.0, 64, with(32.0, 4.0, 8192), true);
        check(500_000.0, 16, with(8.0, 4.0, 64), true);
        check(10_000.0, 128, with(3.0, 5.0, 2048), true);
        check(10_000.0, 256, with(10.0, 8.5, 700), true);
        check(500_000.0, 4, with(8.0, 4.0, 64), false);
        check(10_000.0, 8, with(2.0, 1.5, 40), false);
    }
}
