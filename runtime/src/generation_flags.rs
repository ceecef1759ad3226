//! The generation flags that `generate`, `chat` and `infer` share, and those that are known but
//! refused.
//!
//! Input: the command line. Output: a [`SamplingChoice`]. A flag that would be ignored is an error
//! here, so that nobody takes plain sampling for what was asked.

use crate::sampling_params::SamplingChoice;
use crate::{Error, Result};

/// How to pick tokens.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Generation")]
pub struct GenerationFlags {
    /// 0 is greedy
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f32>,
    /// Keep the K likeliest tokens
    #[arg(long, value_name = "K")]
    pub top_k: Option<u32>,
    /// Keep the likeliest tokens that together reach P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f32>,
    /// Keep tokens at least P times as likely as the likeliest
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub min_p: Option<f32>,
    /// Make tokens that were seen less likely (above 1)
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    pub repeat_penalty: Option<f32>,
    /// Let no n-gram of N tokens come twice
    #[arg(long, value_name = "N")]
    pub no_repeat_ngram: Option<u32>,
    /// Do not end before N new tokens
    #[arg(long, value_name = "N")]
    pub min_new_tokens: Option<u32>,
    /// Keep the tokens of most typical surprise that together reach P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub typical: Option<f32>,
    /// Makes sampling repeatable
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub later: UnsupportedFlags,
}

/// Flags that this version does not do.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct UnsupportedFlags {
    #[arg(long, hide = true, allow_negative_numbers = true)]
    beams: Option<String>,
    #[arg(long, hide = true, allow_negative_numbers = true)]
    num_return: Option<String>,
    #[arg(long, hide = true, allow_negative_numbers = true)]
    length_penalty: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1)]
    early_stopping: Option<Option<String>>,
}

impl GenerationFlags {
    /// What the flags say, or which of them is not supported.
    pub fn choice(&self) -> Result<SamplingChoice> {
        let l = &self.later;
        // One beam, and one returned, is what is done anyway.
        let beams = l.beams.as_deref().is_some_and(|b| b != "1");
        let returned = l.num_return.as_deref().is_some_and(|n| n != "1");
        let given = [
            ("--beams", beams),
            ("--num-return", returned),
            ("--length-penalty", l.length_penalty.is_some()),
            ("--early-stopping", l.early_stopping.is_some()),
        ];
        if let Some((flag, _)) = given.iter().find(|(_, given)| *given) {
            return Err(Error::Unsupported(format!("{flag} is not supported yet")));
        }
        Ok(SamplingChoice {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            no_repeat_ngram: self.no_repeat_ngram,
            min_new_tokens: self.min_new_tokens,
            typical: self.typical,
            seed: self.seed,
        })
    }
}
