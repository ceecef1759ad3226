//! How byte-level tokenizers cut texts into words, by the names that GGUF gives them.
//!
//! In: `tokenizer.ggml.pre`. Out: the normalizer and the pre-tokenizer of the tokenizers that go by that name, as
//! their own `tokenizer.json` has them.
//!
//! A name that is missing here is refused: with other words the model gets other tokens.

use serde_json::{Value, json};

/// One way of cutting.
pub struct PreTokenizer {
    /// The names, as llama.cpp's converter writes them.
    names: &'static [&'static str],
    normalizer: Option<&'static str>,
    cut: Cut,
    /// Whether a word that is a token is never merged.
    pub ignore_merges: bool,
    /// Whether texts begin with a token unless the file says otherwise.
    pub adds_bos: bool,
}

/// The steps before bytes become letters.
enum Cut {
    /// Pieces that match a pattern, one pattern after another.
    Patterns(&'static [&'static str]),
    /// GPT-2's pattern, which the byte-level step has built in.
    Gpt2,
    /// Single digits, then GPT-2's pattern.
    DigitsThenGpt2,
}

const PRE_TOKENIZERS: [PreTokenizer; 7] = [
    // What llama.cpp falls back to.
    PreTokenizer {
        names: &["default"],
        normalizer: None,
        cut: Cut::Patterns(&[
            r"[\p{P}\$\+<=>\^~\|]+",
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
            r"\p{N}+",
            r"[0-9][0-9][0-9]",
        ]),
        ignore_merges: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &["gpt-2"],
        normalizer: None,
        cut: Cut::Gpt2,
        ignore_merges: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &["gpt-4o"],
        normalizer: None,
        cut: Cut::Patterns(&[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ]),
        ignore_merges: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &["llama-bpe", "llama-v3", "llama3"],
        normalizer: None,
        cut: Cut::Patterns(&[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ]),
        ignore_merges: true,
        adds_bos: true,
    },
    PreTokenizer {
        names: &["deepseek-r1-qwen", "qwen2"],
        normalizer: Some("NFC"),
        cut: Cut::Patterns(&[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ]),
        ignore_merges: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &["smollm", "starcoder"],
        normalizer: None,
        cut: Cut::DigitsThenGpt2,
        ignore_merges: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &["tekken"],
        normalizer: None,
        cut: Cut::Patterns(&[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ]),
        ignore_merges: true,
        adds_bos: true,
    },
];

impl PreTokenizer {
    /// The one of that name; else the names that there are.
    pub fn find(name: &str) -> Result<&'static Self, String> {
        let found = PRE_TOKENIZERS.iter().find(|pre| pre.names.contains(&name));
        found.ok_or_else(|| {
            let names: Vec<&str> = PRE_TOKENIZERS
                .iter()
                .flat_map(|pre| pre.names)
                .copied()
                .collect();
            names.join(", ")
        })
    }

    /// The `normalizer`.
    pub fn normalizer(&self) -> Value {
        self.normalizer
            .map_or(Value::Null, |name| json!({"type": name}))
    }

    /// The `pre_tokenizer`.
    pub fn pre_tokenizer(&self) -> Value {
        let byte_level = |use_regex: bool| {
            json!({
                "type": "ByteLevel",
                "add_prefix_space": false,
                "trim_offsets": true,
                "use_regex": use_regex,
            })
        };
        let mut steps: Vec<Value> = match self.cut {
            Cut::Gpt2 => return byte_level(true),
            Cut::DigitsThenGpt2 => vec![json!({"type": "Digits", "individual_digits": true})],
            Cut::Patterns(patterns) => patterns
                .iter()
                .map(|pattern| {
                    json!({
                        "type": "Split",
                        "pattern": {"Regex": pattern},
                        "behavior": "Isolated",
                        "invert": false,
                    })
                })
                .collect(),
        };
        steps.push(byte_level(matches!(self.cut, Cut::DigitsThenGpt2)));
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}
