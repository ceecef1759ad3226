//! The families of models, one file each.
//!
//! In: a configuration. Out: a blueprint: what the family's paper says, in blocks.
//!
//! Invariants: a family is chosen by the class in `architectures`, or by `model_type` where there is none; a
//! family file reads fields and fills in blocks, and contains no loops over layers and no ops.
//!
//! Not here: how blocks become IR (`blocks`), the names' prefixes in checkpoints (`weights::bound`).

mod heads;
mod layer_types;

use crate::blocks::Blueprint;
use crate::config::Config;
use crate::error::{Excerpt, Problem, Result};
use crate::sentence::Sentence;

/// A family.
pub struct Family {
    /// Its name, which is its `model_type`.
    pub name: &'static str,
    /// The classes of transformers, and what each adds to the base model.
    pub architectures: &'static [(&'static str, Task)],
    /// What a checkpoint of a class with a head puts before the base model's tensors.
    pub prefix: &'static str,
    /// Reads the configuration.
    pub build: fn(&Request) -> Result<Blueprint>,
}

/// What a class of transformers returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// The hidden state, and the pooled one where the family has a pooler.
    Base,
    /// The next token's logits.
    CausalLm,
    /// A class for each picture.
    ImageClassification,
    /// Logits of the tokens behind masks.
    MaskedLm,
    /// Where in a text the answer to a question starts and ends.
    QuestionAnswering,
    /// A class for every text, or a number.
    SequenceClassification,
    /// A class for every token.
    TokenClassification,
}

/// What a family is asked to build.
pub struct Request<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The head.
    pub task: Task,
    /// What sentence-transformers asks for besides.
    pub sentence: Option<&'a Sentence>,
}

macro_rules! families {
    ($($module:ident)*) => {
        $(mod $module;)*

        /// All families, alphabetical.
        pub const FAMILIES: &[Family] = &[$($module::FAMILY),*];
    };
}

families! {
    albert
    bert
    blip2
    bloom
    clip
    deberta
    deberta_v2
    distilbert
    falcon
    gemma2
    gemma3_text
    gpt2
    gpt3
    gpt_bigcode
    gpt_neo
    gpt_oss
    llama
    mistral
    mixtral
    mpnet
    openai_gpt
    opt
    phi3
    qwen2
    qwen3
    qwen3_moe
    roberta
    stablelm
    t5
    vit
    xlm_roberta
}

/// The configuration of the language model, where another one holds it.
pub fn text_config(c: &Config) -> Result<Option<Config>> {
    match c.optional_text("model_type")? {
        Some("blip-2") => blip2::text_config(c).map(Some),
        _ => Ok(None),
    }
}

/// The family, class and head of a configuration.
pub fn find<'c>(
    c: &'c Config,
    sentence: Option<&Sentence>,
) -> Result<(&'static Family, &'c str, Task)> {
    let model_type = c.optional_text("model_type")?;
    let of_type = FAMILIES
        .iter()
        .find(|family| Some(family.name) == model_type);
    let architectures = c.architectures()?;
    // Sentence-transformers takes the base model, whatever class the checkpoint was saved from.
    if sentence.is_some() {
        let base = |family: &'static Family| {
            family
                .architectures
                .iter()
                .find(|(_, task)| *task == Task::Base)
        };
        return match of_type.and_then(|family| Some((family, base(family)?))) {
            Some((family, (class, _))) => Ok((family, class, Task::Base)),
            None => Err(refuse(c, "model_type", &c.what_it_is())),
        };
    }
    let Some(wanted) = architectures.first() else {
        return match of_type.and_then(|family| Some((family, family.architectures.first()?))) {
            Some((family, (class, task))) => Ok((family, class, *task)),
            None => Err(refuse(c, "model_type", model_type.unwrap_or("nothing"))),
        };
    };
    let found = FAMILIES.iter().find_map(|family| {
        let (_, task) = family
            .architectures
            .iter()
            .find(|(class, _)| class == wanted)?;
        Some((family, *wanted, *task))
    });
    match (found, of_type) {
        (None, _) => Err(refuse(c, "architectures", wanted)),
        (Some((family, ..)), Some(other)) if family.name != other.name => {
            let what = format!(
                "found \"{}\", expected \"{}\" for {wanted}",
                other.name, family.name
            );
            Err(c.problem("model_type", what).input())
        }
        (Some(found), _) => Ok(found),
    }
}

/// The classes of the same network where there are any, else the families.
fn refuse(c: &Config, field: &str, found: &str) -> crate::FrontendError {
    // `BertForMaskedLM`, `BertModel`: `Bert`.
    fn stem(class: &str) -> &str {
        let (stem, _) = class.split_once("For").unwrap_or((class, ""));
        stem.strip_suffix("Model").unwrap_or(stem)
    }
    let classes = FAMILIES
        .iter()
        .flat_map(|f| f.architectures.iter().map(|(class, _)| *class));
    let mut supported: Vec<_> = classes.filter(|c| stem(c) == stem(found)).collect();
    let mut of = "";
    if supported.is_empty() {
        of = "the families ";
        supported = FAMILIES.iter().map(|f| f.name).collect();
    }
    Problem::of(
        c.file(),
        format!(
            "found {}, supported are {of}{}",
            Excerpt(found),
            supported.join(", ")
        ),
    )
    .field(field)
    .unsupported()
}
