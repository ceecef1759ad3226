//! `.tiktoken`: byte strings in base64 with their ranks, a pair a line.
//!
//! In: the ranks, which are the ids. Out: BPE with a merge for every way to cut a token into two others, ordered by
//! the rank of the whole, which merges as ranks do.
//!
//! How texts are cut is not in the file: its name says it (`cl100k_base`, `o200k_base`, `qwen`, …), or the class of
//! `tokenizer_config.json`; Llama 3's release calls its file `tokenizer.model`. Special tokens are those of
//! `added_tokens_decoder`; without one, the encoding's own: at their ids where all ranks are there, else behind the
//! last.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};

use super::Settings;
use super::byte_level::{QWEN, model, pieces, split};
use super::draft::{Draft, Frame, Vocabulary, byte_level};
use crate::error::{Excerpt, Problem, Result};
use crate::json::{Limits, read_bounded};
use crate::limits;

/// Bytes of one token.
const LENGTH: usize = 1024;
/// Ways to cut tokens into others, all together.
const MERGES: usize = 8 << 20;

const GPT2: &str = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const CL100K: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// An encoding.
struct Encoding {
    /// What the name of a file begins with.
    names: &'static [&'static str],
    pattern: &'static str,
    /// Texts are normalised so.
    normalizer: Option<&'static str>,
    /// A word that is a token is never merged.
    ignore_merges: bool,
    /// The token before every text.
    begin: Option<&'static str>,
    /// Ranks of the whole encoding.
    ranks: u32,
    /// Special tokens and their ids.
    special: &'static [(&'static str, u32)],
}

static ENCODINGS: [Encoding; 5] = [
    Encoding {
        names: &["cl100k"],
        pattern: CL100K,
        normalizer: None,
        ignore_merges: false,
        begin: None,
        ranks: 100_256,
        special: &[
            ("<|endoftext|>", 100_257),
            ("<|fim_prefix|>", 100_258),
            ("<|fim_middle|>", 100_259),
            ("<|fim_suffix|>", 100_260),
            ("<|endofprompt|>", 100_276),
        ],
    },
    Encoding {
        names: &["o200k"],
        pattern: O200K,
        normalizer: None,
        ignore_merges: false,
        begin: None,
        ranks: 199_998,
        special: &[("<|endoftext|>", 199_999), ("<|endofprompt|>", 200_018)],
    },
    Encoding {
        names: &["gpt2", "r50k"],
        pattern: GPT2,
        normalizer: None,
        ignore_merges: false,
        begin: None,
        ranks: 50_256,
        special: &[("<|endoftext|>", 50_256)],
    },
    Encoding {
        names: &["qwen"],
        pattern: QWEN,
        normalizer: Some("NFC"),
        ignore_merges: false,
        begin: None,
        ranks: 151_643,
        special: &[
            ("<|endoftext|>", 151_643),
            ("<|im_start|>", 151_644),
            ("<|im_end|>", 151_645),
        ],
    },
    Encoding {
        names: &["llama3", "llama-3", "tokenizer.model"],
        pattern: CL100K,
        normalizer: None,
        ignore_merges: true,
        begin: Some("<|begin_of_text|>"),
        ranks: 128_000,
        special: &[
            ("<|begin_of_text|>", 128_000),
            ("<|end_of_text|>", 128_001),
            ("<|start_header_id|>", 128_006),
            ("<|end_header_id|>", 128_007),
            ("<|eot_id|>", 128_009),
        ],
    },
];

/// Whether a file's first line is a token and its rank.
pub fn recognises(file: &Path) -> Result<bool> {
    use std::io::Read;
    let io = |e| crate::error::FrontendError::io("read", file, e);
    let (opened, _) = crate::json::open_regular(file)?;
    let mut start = Vec::new();
    opened
        .take(LENGTH as u64)
        .read_to_end(&mut start)
        .map_err(io)?;
    let line = start.split(|b| *b == b'\n').next().unwrap_or_default();
    Ok(pair(line).is_some())
}

/// A line's bytes and rank.
fn pair(line: &[u8]) -> Option<(Vec<u8>, u32)> {
    let line = std::str::from_utf8(line).ok()?.trim_end_matches('\r');
    let (token, rank) = line.split_once(' ')?;
    let token = base64::decode(token).ok().filter(|t| !t.is_empty())?;
    Some((token, rank.parse().ok()?))
}

/// Reads the file.
pub fn write(file: &Path, settings: &Settings<'_>) -> Result<Draft> {
    let encoding = encoding(file, settings)?;
    let bytes = read_bounded(file, Limits::TOKENIZER.bytes)?;
    let mut ranks: HashMap<Vec<u8>, u32> = HashMap::new();
    let mut tokens: Vec<(Vec<u8>, u32)> = Vec::new();
    let mut vocabulary = Vocabulary::default();
    let letters = letters();
    for (number, line) in bytes.split(|b| *b == b'\n').enumerate() {
        if line.is_empty() || line == b"\r" {
            continue;
        }
        let at = |what: String| Problem::of(file, format!("line {}: {what}", number + 1)).input();
        let wrong = || {
            let found = String::from_utf8_lossy(line);
            at(format!(
                "found \"{}\", expected base64, a space and a rank",
                Excerpt(&found)
            ))
        };
        let (token, rank) = pair(line).ok_or_else(wrong)?;
        if token.len() > LENGTH {
            return Err(at(format!(
                "a token of {} bytes, expected 1 to {LENGTH}",
                token.len()
            )));
        }
        let text: String = token.iter().map(|b| letters[*b as usize]).collect();
        vocabulary.add(&text, rank).map_err(at)?;
        ranks.insert(token.clone(), rank);
        tokens.push((token, rank));
    }
    if tokens.is_empty() {
        return Err(Problem::of(file, "no tokens").input());
    }
    tokens.sort_by_key(|(_, rank)| *rank);
    if let Some(two) = tokens.windows(2).find(|two| two[0].1 == two[1].1) {
        let what = format!("two tokens have the rank {}", two[0].1);
        return Err(Problem::of(file, what).input());
    }
    let merges = merges(file, &tokens, &ranks, &letters)?;
    let step = json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": true,
        "use_regex": false,
    });
    let is_whole = vocabulary.end() == encoding.ranks;
    let said = settings
        .config
        .is_some_and(|c| c.has("added_tokens_decoder"));
    let own = encoding.special.iter().zip(vocabulary.end()..);
    let own = own.map(|((text, id), next)| {
        let id = if is_whole { *id } else { next };
        (id, (*text).to_owned(), true)
    });
    let apart = if said { Vec::new() } else { own.collect() };
    Ok(Draft {
        kind: None,
        apart,
        normalizer: encoding
            .normalizer
            .map_or(Value::Null, |name| json!({"type": name})),
        pre_tokenizer: pieces(split(encoding.pattern, "Isolated", false), step),
        decoder: byte_level(true, true),
        model: model(&vocabulary, merges, None, None, encoding.ignore_merges),
        frame: encoding
            .begin
            .map_or(Frame::Offsets, |begin| Frame::around(Some(begin), None, 1)),
        vocabulary,
    })
}

fn encoding(file: &Path, settings: &Settings<'_>) -> Result<&'static Encoding> {
    let name = file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    let named = |name: &str| {
        let mut all = ENCODINGS.iter();
        all.find(|e| e.names.iter().any(|own| name.starts_with(own)))
    };
    if let Some(encoding) = named(&name) {
        return Ok(encoding);
    }
    let class = settings
        .config
        .map(|c| c.optional_text("tokenizer_class"))
        .transpose()?;
    let class = class.flatten().map(str::to_lowercase);
    class.as_deref().and_then(named).ok_or_else(|| {
        let names: Vec<&str> = ENCODINGS.iter().flat_map(|e| e.names).copied().collect();
        let what = "the name does not say which encoding it is";
        let help = format!(
            "expected a name that begins with one of {}",
            names.join(", ")
        );
        Problem::of(file, what).help(help).unsupported()
    })
}

/// The letter of each byte, as byte-level tokenizers spell it: printable ones stand for themselves, the others for
/// letters from U+0100 on.
fn letters() -> Vec<char> {
    let mut next = 0x100;
    (0..=255u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => {
                let letter = char::from_u32(next).unwrap_or(char::REPLACEMENT_CHARACTER);
                next += 1;
                letter
            }
        })
        .collect()
}

/// All cuts of all tokens, by the rank of the whole, then of the left and the right part.
fn merges(
    file: &Path,
    tokens: &[(Vec<u8>, u32)],
    ranks: &HashMap<Vec<u8>, u32>,
    letters: &[char],
) -> Result<Value> {
    let spell = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|b| letters[*b as usize])
            .collect::<String>()
    };
    let mut merges = Vec::new();
    for (token, _) in tokens {
        let cuts = (1..token.len()).map(|at| token.split_at(at));
        let mut cuts: Vec<(u32, u32, usize)> = cuts
            .filter_map(|(left, right)| Some((*ranks.get(left)?, *ranks.get(right)?, left.len())))
            .collect();
        cuts.sort_unstable();
        for (_, _, at) in cuts {
            let (left, right) = token.split_at(at);
            merges.push(json!([spell(left), spell(right)]));
        }
        if merges.len() > MERGES {
            let what = format!("tokens that can be cut into others in more than {MERGES} ways");
            return Err(Problem::of(file, what).input());
        }
    }
    Ok(Value::Array(merges))
}

const _: () = assert!(limits::VOCABULARY > 200_019);
