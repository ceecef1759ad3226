//! The generation flags that `generate`, `chat` and `infer` share.
//!
//! Input: the command line. Output: [`Generation`], checked against the model. A flag that would
//! be ignored is an error here, so that nobody takes something else for what was asked.

use crate::beam_search::{BeamParams, EarlyStopping};
use crate::sampling_params::{SamplingChoice, SamplingParams};
use crate::{Error, Result};
use llmc_abi::{GenerationDefaults, Manifest};

/// Beams at most.
const MAX_BEAMS: usize = 1024;
/// Tokens that are guessed at a time at most.
const MAX_GUESSES: usize = 256;

/// How to pick tokens.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
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
    /// Keep the tokens of most typical surprise that together reach P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub typical: Option<f32>,
    /// Make tokens that were seen less likely (above 1)
    #[arg(
        long,
        alias = "repetition-penalty",
        value_name = "R",
        allow_negative_numbers = true
    )]
    pub repeat_penalty: Option<f32>,
    /// Take P off the logits of new tokens that came before
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub presence_penalty: Option<f32>,
    /// Take P off the logit of a new token for each time that it came
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub frequency_penalty: Option<f32>,
    /// Let no n-gram of N tokens come twice
    #[arg(long, value_name = "N")]
    pub no_repeat_ngram: Option<u32>,
    /// Do not end before N new tokens
    #[arg(long, value_name = "N")]
    pub min_new_tokens: Option<u32>,
    /// Add X to a token's logit, -inf to ban it (may be given several times), or a JSON object
    #[arg(long, value_name = "ID:±X|JSON", allow_hyphen_values = true)]
    pub logit_bias: Vec<String>,
    /// Makes sampling repeatable
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Search with N beams; samples only if a flag above asks for it
    #[arg(long, value_name = "N")]
    pub beams: Option<usize>,
    /// Give the N best texts of a search, or N samples
    #[arg(long, value_name = "N")]
    pub num_return: Option<usize>,
    /// A beam's score is over its length to this power [default: 1]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub length_penalty: Option<f64>,
    /// End a search when there are as many finished texts as beams, or never early [default: false]
    #[arg(
        long,
        value_name = "true|false|never",
        num_args = 0..=1,
        require_equals = false,
        default_missing_value = "true"
    )]
    pub early_stopping: Option<Early>,
    /// Guess up to N tokens at a time from what was said before; the text stays the same
    #[arg(long, value_name = "N")]
    pub prompt_lookup: Option<usize>,
}

/// Values of `--early-stopping`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Early {
    True,
    False,
    Never,
}

/// How to generate: what all flags say.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    pub sampling: SamplingParams,
    /// What is added to the logits of tokens.
    pub bias: Vec<(u32, f32)>,
    /// None for one beam.
    pub beams: Option<BeamParams>,
    /// Texts that are wanted of each prompt.
    pub returned: usize,
    /// Tokens that are guessed at a time at most; 0 guesses none.
    pub lookup: usize,
}

impl Generation {
    /// Refuses what needs several texts at once.
    pub fn one_text(&self, task: &str) -> Result<()> {
        let flag = match self {
            Generation { beams: Some(_), .. } => "--beams",
            Generation { returned: 2.., .. } => "--num-return",
            _ => return Ok(()),
        };
        Err(Error::Usage(format!(
            "{flag}: {task} writes one text as it comes"
        )))
    }
}

impl GenerationFlags {
    /// Checks the flags and fills in the rest from the model's defaults.
    pub fn resolve(
        &self,
        defaults: &GenerationDefaults,
        manifest: &Manifest,
    ) -> Result<Generation> {
        let choice = SamplingChoice {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            no_repeat_ngram: self.no_repeat_ngram,
            min_new_tokens: self.min_new_tokens,
            typical: self.typical,
            seed: self.seed,
        };
        let beams = self.beams()?;
        // A search is asked for by its own flag; that a model's defaults sample says nothing of it.
        let searched = GenerationDefaults {
            do_sample: None,
            ..defaults.clone()
        };
        let sampling = choice.resolve(if beams.is_some() { &searched } else { defaults })?;
        let returned = self.num_return.unwrap_or(1);
        if beams.is_none() && returned > 1 && sampling.temperature <= 0.0 {
            return Err(Error::Usage(format!(
                "--num-return {returned}: greedy texts are all the same; give --beams, or sample"
            )));
        }
        let lookup = self.prompt_lookup.unwrap_or(0);
        if lookup > MAX_GUESSES {
            return Err(Error::Usage(format!(
                "--prompt-lookup {lookup}: give a number up to {MAX_GUESSES}"
            )));
        }
        if lookup > 0 && beams.is_some() {
            return Err(Error::Usage(
                "--prompt-lookup and --beams exclude each other".into(),
            ));
        }
        let bias = parse_bias(&self.logit_bias, manifest.vocab_size)?;
        Ok(Generation {
            sampling,
            bias,
            beams,
            returned,
            lookup,
        })
    }

    fn beams(&self) -> Result<Option<BeamParams>> {
        let within = |flag: &str, value: Option<usize>| match value {
            Some(v) if !(1..=MAX_BEAMS).contains(&v) => Err(Error::Usage(format!(
                "{flag} {v}: give a number from 1 to {MAX_BEAMS}"
            ))),
            _ => Ok(value.unwrap_or(1)),
        };
        let beams = within("--beams", self.beams)?;
        let returned = within("--num-return", self.num_return)?;
        if beams == 1 {
            let given = [
                ("--length-penalty", self.length_penalty.is_some()),
                ("--early-stopping", self.early_stopping.is_some()),
            ];
            return match given.iter().find(|(_, given)| *given) {
                Some((flag, _)) => Err(Error::Usage(format!("{flag} needs --beams above 1"))),
                None => Ok(None),
            };
        }
        if returned > beams {
            return Err(Error::Usage(format!(
                "--num-return {returned}: a search with {beams} beams finds {beams} texts"
            )));
        }
        let length_penalty = self.length_penalty.unwrap_or(1.0);
        if length_penalty.is_nan() || length_penalty.abs() > 100.0 {
            return Err(Error::Usage(format!(
                "--length-penalty {length_penalty}: give a number from -100 to 100"
            )));
        }
        Ok(Some(BeamParams {
            beams,
            returned,
            length_penalty,
            early_stopping: match self.early_stopping {
                None | Some(Early::False) => EarlyStopping::Heuristic,
                Some(Early::True) => EarlyStopping::First,
                Some(Early::Never) => EarlyStopping::Never,
            },
        }))
    }
}

/// Reads `ID:X` and `{"ID": X, …}`. Ids must be below `vocab`; one that is named twice is an error.
fn parse_bias(given: &[String], vocab: u32) -> Result<Vec<(u32, f32)>> {
    let mut bias: Vec<(u32, f32)> = Vec::new();
    for text in given {
        let wrong = |what: &str| Error::Usage(format!("--logit-bias {text}: {what}"));
        let mut add = |id: &str, value: Option<f32>| {
            let id: u32 = id
                .trim()
                .parse()
                .map_err(|_| wrong("give ID:X, or a JSON object of ids and numbers"))?;
            let value = value
                .filter(|v| v.is_finite() || *v == f32::NEG_INFINITY)
                .ok_or_else(|| wrong("the bias is a number, or -inf"))?;
            if id >= vocab {
                return Err(wrong(&format!("ids are below {vocab}")));
            }
            if bias.iter().any(|(other, _)| *other == id) {
                return Err(wrong(&format!("token {id} has a bias already")));
            }
            bias.push((id, value));
            Ok(())
        };
        if text.trim_start().starts_with('{') {
            let object: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(text).map_err(|e| wrong(&e.to_string()))?;
            for (id, value) in &object {
                add(id, value.as_f64().map(|v| v as f32))?;
            }
        } else {
            let (id, value) = text.split_once(':').unwrap_or((text, ""));
            add(id, value.trim().parse().ok())?;
        }
    }
    Ok(bias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: GenerationFlags,
    }

    fn resolve(line: &str) -> std::result::Result<Generation, String> {
        let args = std::iter::once("m").chain(line.split_whitespace());
        let line = Line::try_parse_from(args).map_err(|e| e.to_string())?;
        let manifest = Manifest {
            vocab_size: 10,
            ..Manifest::default()
        };
        let defaults = GenerationDefaults {
            do_sample: Some(true),
            ..GenerationDefaults::default()
        };
        line.flags.resolve(&defaults, &manifest).map_err(|e| {
            assert_eq!(e.exit_code(), 2);
            e.to_string()
        })
    }

    #[test]
    fn good_flags_are_understood() {
        let g =
            resolve("--logit-bias 3:+1.5 --logit-bias {\"4\":-100,\"5\":2} --logit-bias 6:-inf")
                .unwrap();
        let bias = [(3, 1.5), (4, -100.0), (5, 2.0), (6, f32::NEG_INFINITY)];
        assert_eq!((g.bias, g.beams), (bias.to_vec(), None));
        let g = resolve("--beams 4 --num-return 2 --length-penalty -0.5 --early-stopping").unwrap();
        let expected = BeamParams {
            beams: 4,
            returned: 2,
            length_penalty: -0.5,
            early_stopping: EarlyStopping::First,
        };
        assert_eq!(g.beams, Some(expected));
        assert_eq!(
            g.sampling.temperature, 0.0,
            "beams do not sample by default"
        );
        let never = resolve("--beams 2 --early-stopping never --top-k 5").unwrap();
        assert_eq!(never.beams.unwrap().early_stopping, EarlyStopping::Never);
        assert_eq!(never.sampling.temperature, 1.0);
        assert_eq!(resolve("--prompt-lookup 5").unwrap().lookup, 5);
        assert_eq!(resolve("--num-return 3").unwrap().returned, 3);
    }

    #[test]
    fn wrong_flags_are_refused() {
        for (line, expected) in [
            ("--beams 0", "from 1 to 1024"),
            ("--beams 99999999999", "from 1 to 1024"),
            ("--beams x", "invalid value"),
            ("--beams -4", "unexpected argument"),
            ("--beams 2 --num-return 3", "finds 2 texts"),
            ("--num-return 0", "from 1 to 1024"),
            ("--temperature 0 --num-return 2", "all the same"),
            ("--length-penalty 1", "needs --beams"),
            ("--beams 1 --early-stopping", "needs --beams"),
            ("--beams 2 --early-stopping maybe", "invalid value"),
            ("--beams 2 --length-penalty nan", "from -100 to 100"),
            ("--beams 2 --length-penalty inf", "from -100 to 100"),
            ("--beams 2 --prompt-lookup 3", "exclude each other"),
            ("--prompt-lookup 1000", "up to 256"),
            ("--presence-penalty nan", "from -1e6 to 1e6"),
            ("--frequency-penalty inf", "from -1e6 to 1e6"),
            ("--logit-bias 3", "a number, or -inf"),
            ("--logit-bias 3:x", "a number, or -inf"),
            ("--logit-bias 3:nan", "a number, or -inf"),
            ("--logit-bias 3:inf", "a number, or -inf"),
            ("--logit-bias x:1", "give ID:X"),
            ("--logit-bias -1:1", "give ID:X"),
            ("--logit-bias 10:1", "ids are below 10"),
            ("--logit-bias 3:1 --logit-bias 3:2", "has a bias already"),
            ("--logit-bias {\"3\":\"a\"}", "a number, or -inf"),
            ("--logit-bias {\"3\":1", "EOF"),
            ("--temperature -1", "at least 0"),
            ("--typical 0", "above 0"),
            ("--repeat-penalty 0", "above 0"),
        ] {
            let e = resolve(line).unwrap_err();
            assert!(e.contains(expected), "{line}: {e}");
        }
    }
}
