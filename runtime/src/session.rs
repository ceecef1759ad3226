//! What every task starts from: the payload, the chosen code, and the common flags.
//!
//! Input: a payload, the step of the chosen level, threads. Output: engines with the cache a task
//! plans for, and the tokenizer. Not here: any task.

use crate::engine::{Compiled, Engine, EngineOptions};
use crate::kv_cache::KvPlan;
use crate::text_tools::TextTools;
use crate::timings::Timings;
use crate::{Error, Result};
use llmc_abi::{Head, HeadTask, Kind, Manifest, StepFn};

/// A loaded model and how to run it.
#[derive(Clone, Copy)]
pub struct Session<'a> {
    pub manifest: &'a Manifest,
    /// The compiled tokenizer.
    pub tokenizer: &'a [u8],
    pub weights: &'a [u8],
    /// Of `Manifest::entries`, in order.
    pub steps: &'a [StepFn],
    /// Index of the chosen level in `Manifest::levels`.
    pub level: usize,
    pub threads: u32,
    /// No progress and figures on standard error.
    pub quiet: bool,
    /// Times since the process began.
    pub timings: &'a Timings,
    /// Whether they are wanted on standard error.
    pub tell_timings: bool,
}

impl<'a> Session<'a> {
    /// An engine with room for `sequences` of up to `tokens` tokens.
    pub fn engine(&self, sequences: usize, tokens: usize, taps: bool) -> Result<Engine<'a>> {
        let model = Compiled {
            manifest: self.manifest,
            steps: self.steps,
            weights: self.weights,
        };
        let tokens = tokens.min(self.manifest.limits.max_context as usize);
        let plan = KvPlan {
            sequences,
            tokens,
            source: self.manifest.longest_source() as usize,
        };
        let engine = Engine::new(
            model,
            EngineOptions {
                threads: self.threads,
                plan,
                taps,
            },
        );
        self.timings.mark("engine");
        engine
    }

    /// The tokenizer and chat template.
    pub fn text_tools(&self) -> Result<TextTools<'a>> {
        let m = self.manifest;
        if !m.has_tokenizer {
            return Err(Error::Unsupported(format!(
                "{} was compiled without a tokenizer",
                m.name
            )));
        }
        let tools = TextTools::new(
            self.tokenizer,
            &m.special_strings,
            m.chat_template.as_deref(),
        );
        self.timings.mark("tokenizer");
        tools
    }

    /// True for models that write texts.
    pub fn generates(&self) -> bool {
        self.manifest.kind != Kind::Encoder
            && self.manifest.outputs.iter().any(|o| o.name == "logits")
    }

    /// Index of an output by name.
    pub fn output(&self, name: &str) -> Option<usize> {
        self.manifest.outputs.iter().position(|o| o.name == name)
    }

    /// The model's head and the index of its output, or the refusal of a task that needs another head.
    pub fn head(&self, of: HeadTask, output: &str, task: &str) -> Result<(&'a Head, usize)> {
        let head = self.manifest.head.as_ref().filter(|h| h.task == of);
        let Some((head, output)) = head.and_then(|head| Some((head, self.output(output)?))) else {
            return Err(self.lacks(task));
        };
        let columns = self.manifest.outputs[output].width as usize;
        if !head.labels.is_empty() && head.labels.len() != columns {
            return Err(Error::Payload(format!(
                "{} labels for {columns} outputs",
                head.labels.len()
            )));
        }
        Ok((head, output))
    }

    /// True for models that go on with a text, rather than write one about another.
    pub fn continues_texts(&self) -> bool {
        self.generates() && self.manifest.kind == Kind::Decoder
    }

    /// True for models that can do with tokens alone.
    pub fn takes_tokens(&self) -> bool {
        let pictures = self.manifest.pictures.as_ref();
        pictures.is_none_or(|p| p.told.is_some())
    }

    /// Refuses a task that the model lacks.
    pub fn need(&self, has: bool, task: &str) -> Result<()> {
        match has {
            true => Ok(()),
            false => Err(self.lacks(task)),
        }
    }

    fn lacks(&self, task: &str) -> Error {
        let m = self.manifest;
        Error::Unsupported(format!(
            "{} ({}) has no task `{task}`",
            m.name, m.architecture
        ))
    }

    /// Longest input in tokens, for the faces that truncate.
    pub fn max_input(&self) -> usize {
        let m = self.manifest;
        let limit = match m.kind {
            Kind::Encoder => m.limits.max_context.min(m.limits.max_tokens),
            Kind::Decoder => m.limits.max_context,
            Kind::EncoderDecoder => m.source_limit(),
        };
        (if m.max_input_tokens == 0 {
            limit
        } else {
            limit.min(m.max_input_tokens)
        }) as usize
    }

    /// Longest source in tokens; 0 for models that have none.
    pub fn max_source(&self) -> usize {
        self.manifest.source_limit() as usize
    }

    /// Prints a line on standard error unless `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }
}

/// Token ids as the step reads them. Ids of a loaded tokenizer beyond i32 do not exist.
pub fn as_i32(ids: &[u32]) -> Vec<i32> {
    ids.iter().map(|&i| i as i32).collect()
}

/// Refuses ids that the model has no embedding for: the tokenizer belongs to another model.
pub fn check_ids(manifest: &Manifest, ids: &[u32]) -> Result<()> {
    match ids.iter().find(|&&i| i >= manifest.vocab_size) {
        Some(id) => Err(Error::Input(format!(
            "the tokenizer gives token {id}, this model's vocabulary has {}",
            manifest.vocab_size
        ))),
        None => Ok(()),
    }
}
