//! How tokens are picked: the parameters, and where they come from.
//!
//! Input: the flags of a command line and the model's generation_config.json. Output:
//! [`SamplingParams`], checked. Not here: picking (`sampler`).

use crate::sampler::mix;
use crate::{Error, Result};
use llmc_abi::GenerationDefaults;

/// How to pick tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the k likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this likely, relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Above 1: tokens that were seen become less likely.
    pub repeat_penalty: f32,
    /// Taken off the logit of each new token that came.
    pub presence_penalty: f32,
    /// Taken off the logit of a new token as often as it came.
    pub frequency_penalty: f32,
    /// No n-gram of this many tokens comes twice; 0 allows all.
    pub no_repeat_ngram: u32,
    /// No end-of-text token before this many new tokens.
    pub min_new_tokens: u32,
    /// Keep the tokens of most typical surprise that together reach this probability; 1 keeps all.
    pub typical: f32,
    pub seed: u64,
}

/// Greedy, without penalties.
pub const GREEDY: SamplingParams = SamplingParams {
    temperature: 0.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repeat_penalty: 1.0,
    presence_penalty: 0.0,
    frequency_penalty: 0.0,
    no_repeat_ngram: 0,
    min_new_tokens: 0,
    typical: 1.0,
    seed: 0,
};

impl SamplingParams {
    /// Whether the number of times that tokens came counts.
    pub fn counts_tokens(&self) -> bool {
        self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }
}

/// What a command line says; what it leaves out comes from the model's generation_config.json.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplingChoice {
    pub temperature: Option<f32>,
    pub top_k: Option<u32>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repeat_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub no_repeat_ngram: Option<u32>,
    pub min_new_tokens: Option<u32>,
    pub typical: Option<f32>,
    pub seed: Option<u64>,
}

impl SamplingChoice {
    /// True if a flag asks for sampling.
    pub fn samples(&self) -> bool {
        let cuts = self.top_k.is_some()
            || self.top_p.is_some()
            || self.min_p.is_some()
            || self.typical.is_some();
        self.temperature.map_or(cuts, |t| t > 0.0)
    }

    /// Checks the flags and fills in the rest. Without `do_sample` in the defaults, and without a
    /// flag that asks for sampling, decoding is greedy.
    pub fn resolve(&self, defaults: &GenerationDefaults) -> Result<SamplingParams> {
        let within = |name: &str, value: Option<f32>, ok: fn(f32) -> bool, range: &str| match value
        {
            Some(v) if !ok(v) => Err(Error::Usage(format!("--{name} {v}: give a number {range}"))),
            _ => Ok(()),
        };
        within(
            "temperature",
            self.temperature,
            |v| v.is_finite() && v >= 0.0,
            "of at least 0",
        )?;
        within(
            "top-p",
            self.top_p,
            |v| v > 0.0 && v <= 1.0,
            "above 0, up to 1",
        )?;
        within(
            "min-p",
            self.min_p,
            |v| (0.0..=1.0).contains(&v),
            "from 0 to 1",
        )?;
        within(
            "repeat-penalty",
            self.repeat_penalty,
            |v| v.is_finite() && v > 0.0,
            "above 0",
        )?;
        within(
            "typical",
            self.typical,
            |v| v > 0.0 && v <= 1.0,
            "above 0, up to 1",
        )?;
        for (name, value) in [
            ("presence-penalty", self.presence_penalty),
            ("frequency-penalty", self.frequency_penalty),
        ] {
            within(name, value, |v| v.abs() <= 1e6, "from -1e6 to 1e6")?;
        }
        let greedy = SamplingParams {
            repeat_penalty: self
                .repeat_penalty
                .or(defaults.repetition_penalty)
                .unwrap_or(1.0),
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            no_repeat_ngram: self.no_repeat_ngram.unwrap_or(0),
            min_new_tokens: self.min_new_tokens.unwrap_or(0),
            ..GREEDY
        };
        let by_default = defaults.do_sample == Some(true);
        if self.temperature == Some(0.0) || !self.samples() && !by_default {
            return Ok(greedy);
        }
        // A generation_config.json that samples and names no k means Hugging Face's 50.
        let top_k = defaults.top_k.or(by_default.then_some(50));
        Ok(SamplingParams {
            temperature: self.temperature.or(defaults.temperature).unwrap_or(1.0),
            top_k: self.top_k.or(top_k).unwrap_or(0),
            top_p: self.top_p.or(defaults.top_p).unwrap_or(1.0),
            min_p: self.min_p.or(defaults.min_p).unwrap_or(0.0),
            typical: self.typical.unwrap_or(1.0),
            seed: self.seed.unwrap_or_else(fresh_seed),
            ..greedy
        })
    }
}

/// A seed from the clock, for runs that name none.
fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    mix(now.map_or(1, |d| d.as_nanos() as u64)) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_defaults_combine() {
        let sampled = GenerationDefaults {
            do_sample: Some(true),
            temperature: Some(0.6),
            top_p: Some(0.9),
            repetition_penalty: Some(1.1),
            ..GenerationDefaults::default()
        };
        let none = SamplingChoice::default();
        assert_eq!(
            none.resolve(&GenerationDefaults::default()).unwrap(),
            GREEDY
        );
        let p = none.resolve(&sampled).unwrap();
        assert_eq!((p.temperature, p.top_p, p.repeat_penalty), (0.6, 0.9, 1.1));
        let zero = SamplingChoice {
            temperature: Some(0.0),
            ..none
        };
        assert_eq!(zero.resolve(&sampled).unwrap().temperature, 0.0);
        let k = SamplingChoice {
            top_k: Some(5),
            ..none
        };
        assert_eq!(
            k.resolve(&GenerationDefaults::default())
                .unwrap()
                .temperature,
            1.0
        );
        for bad in [
            SamplingChoice {
                temperature: Some(-1.0),
                ..none
            },
            SamplingChoice {
                temperature: Some(f32::NAN),
                ..none
            },
            SamplingChoice {
                top_p: Some(0.0),
                ..none
            },
            SamplingChoice {
                min_p: Some(1.5),
                ..none
            },
            SamplingChoice {
                repeat_penalty: Some(0.0),
                ..none
            },
        ] {
            assert_eq!(bad.resolve(&sampled).unwrap_err().exit_code(), 2);
        }
    }
}
