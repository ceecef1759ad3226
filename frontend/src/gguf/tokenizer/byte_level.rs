//! `gpt2`: BPE over bytes spelled as letters.

use serde_json::{Value, json};

use super::parts::{self, Around, Parts};
use super::pre_tokenizers::PreTokenizer;
use super::vocabulary::Vocabulary;
use crate::error::{Excerpt, Result};

const PRE: &str = "tokenizer.ggml.pre";
const PREFIX: &str = "tokenizer.ggml.add_space_prefix";
const MERGES: &str = "tokenizer.ggml.merges";

/// The `tokenizer.json`.
pub fn write(tokens: &Vocabulary) -> Result<Value> {
    let metadata = tokens.metadata;
    let Some(name) = metadata.optional_text(PRE)? else {
        let help = "files of before May 2024 do not say how texts are cut: convert the model again, or give its tokenizer.json with --tokenizer";
        let problem = metadata.problem(PRE, "missing, expected the name of a pre-tokenizer");
        return Err(problem.help(help).input());
    };
    if metadata.optional_flag(PREFIX)? == Some(true) {
        return Err(metadata.refuse(PREFIX, "false"));
    }
    let pre = PreTokenizer::find(name).map_err(|names| metadata.refuse(PRE, names))?;
    let text = |id: u32| tokens.text(id);
    let byte_level = |trim_offsets: bool| {
        json!({
            "type": "ByteLevel",
            "add_prefix_space": true,
            "trim_offsets": trim_offsets,
            "use_regex": true,
        })
    };
    let around = Around::read(tokens, (pre.adds_bos, false))?;
    let parts = Parts {
        normalizer: pre.normalizer(),
        pre_tokenizer: pre.pre_tokenizer(),
        post_processor: match around.template(1) {
            None => byte_level(false),
            Some(template) => {
                json!({"type": "Sequence", "processors": [byte_level(false), template]})
            }
        },
        decoder: byte_level(true),
    };
    let model = json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": null,
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": false,
        "byte_fallback": false,
        "ignore_merges": pre.ignore_merges,
        "vocab": parts::vocab(tokens, text),
        "merges": merges(tokens)?,
    });
    Ok(parts::file(tokens, text, parts, model))
}

/// Pairs of tokens whose text together is a token.
fn merges(tokens: &Vocabulary) -> Result<Value> {
    let metadata = tokens.metadata;
    let ids = tokens.index(|id| tokens.text(id))?;
    let Some(merges) = metadata.optional_texts(MERGES)? else {
        return Err(metadata.wrong(MERGES, "texts"));
    };
    let pair = |(at, merge): (usize, &&str)| {
        // A token may begin with a space, but not hold one.
        let first = merge.chars().next().map_or(0, char::len_utf8);
        let split = merge[first..].find(' ').map(|space| first + space);
        let pair = split.map(|space| (&merge[..space], &merge[space + 1..]));
        let is_merge = |(left, right): &(&str, &str)| {
            let whole = format!("{left}{right}");
            [*left, *right, &whole]
                .iter()
                .all(|text| ids.contains_key(*text))
        };
        match pair.filter(is_merge) {
            Some((left, right)) => Ok(json!([left, right])),
            None => {
                let what = format!(
                    "found \"{}\", expected two tokens that make a third, and a space between them",
                    Excerpt(merge)
                );
                Err(metadata.problem(&format!("{MERGES}[{at}]"), what).input())
            }
        }
    };
    let merges = merges.iter().enumerate().map(pair);
    Ok(Value::Array(merges.collect::<Result<_>>()?))
}
