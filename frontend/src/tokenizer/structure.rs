//! The structure of a `tokenizer.json`, checked before the `tokenizers` crate sees it.
//!
//! In: the bytes of the file and the model's vocabulary size. Out: the kind of tokenizer and its ids.
//!
//! Invariants: ids are unique and inside the vocabulary; merges, scores and the ids of post-processors are of
//! the right type; tables that normalise texts do not lead outside; the nesting of normalizers and alike is
//! bounded, because the crate tries every variant at every level.
//!
//! Not here: whether the parts fit together; the crate says that when it loads them.

use std::path::Path;

use super::{Kind, charsmap};
use crate::error::{Excerpt, FrontendError, Problem, Result};
use crate::json::{Json, Limits, Object};
use crate::limits;

const PARTS: [&str; 4] = ["normalizer", "pre_tokenizer", "post_processor", "decoder"];
/// The member that holds SentencePiece's table.
const CHARSMAP: &str = "precompiled_charsmap";
const DEPTH: usize = 10;
const PART_VALUES: usize = 10_000;
/// Added tokens beyond the model's vocabulary that may be set aside.
const BEYOND: usize = 64;

/// Ids and texts.
pub type Tokens = Vec<(u32, String)>;

/// What the file says.
pub struct Structure {
    pub kind: Kind,
    pub size: usize,
    pub beyond: Tokens,
    pub added: Tokens,
}

/// Checks the file; errors name the part.
pub fn check(file: &Path, json: &[u8], vocabulary: Option<u32>) -> Result<Structure> {
    let root = Json::parse(file, json, Limits::TOKENIZER)?;
    let wrong = |field: &str, what: String| Problem::of(file, what).field(field).input();
    let Some(root) = root.as_object() else {
        return Err(Problem::of(
            file,
            format!("found {}, expected an object", root.describe()),
        )
        .input());
    };
    for part in PARTS {
        if let Some(value) = root.get(part) {
            let mut left = PART_VALUES;
            if !is_bounded(value, DEPTH, &mut left) {
                return Err(wrong(
                    part,
                    format!("nested deeper than {DEPTH}, or more than {PART_VALUES} values"),
                ));
            }
            check_tables(value).map_err(|what| wrong(part, format!("{CHARSMAP}: {what}")))?;
        }
    }
    let model = match root.get("model") {
        Some(Json::Object(model)) => model,
        Some(other) => {
            return Err(wrong(
                "model",
                format!("found {}, expected an object", other.describe()),
            ));
        }
        None => return Err(wrong("model", "missing, expected an object".into())),
    };
    let kind = kind(file, root, model)?;
    let limit = vocabulary.unwrap_or(limits::VOCABULARY) as usize;
    let mut ids = Ids {
        file,
        limit,
        seen: Vec::new(),
    };
    match kind {
        Kind::Unigram => ids.unigram(model)?,
        _ => ids.table(model)?,
    }
    if matches!(
        kind,
        Kind::ByteLevelBpe | Kind::SentencePieceBpe | Kind::CharacterBpe
    ) {
        merges(file, model)?;
    }
    let (added, beyond) = ids.added(root)?;
    if let Some(value) = root.get("post_processor") {
        ids.post_processor(value)?;
    }
    let size = ids.seen.len().max(
        added
            .iter()
            .map(|(id, _)| *id as usize + 1)
            .max()
            .unwrap_or(0),
    );
    Ok(Structure {
        kind,
        size,
        beyond,
        added,
    })
}

/// Checks the tables that normalise texts.
fn check_tables(value: &Json) -> Result<(), String> {
    match value {
        Json::Array(values) => values.iter().try_for_each(check_tables),
        Json::Object(members) => members.iter().try_for_each(|(name, value)| match value {
            Json::String(map) if name == CHARSMAP => {
                let map = base64::decode(map).map_err(|e| e.to_string())?;
                charsmap::check(&map)
            }
            value => check_tables(value),
        }),
        _ => Ok(()),
    }
}

fn is_bounded(value: &Json, depth: usize, left: &mut usize) -> bool {
    let Some(next) = left.checked_sub(1) else {
        return false;
    };
    *left = next;
    match value {
        Json::Array(values) => {
            depth > 0
                && values
                    .iter()
                    .all(|value| is_bounded(value, depth - 1, left))
        }
        Json::Object(members) => {
            depth > 0
                && members
                    .values()
                    .all(|value| is_bounded(value, depth - 1, left))
        }
        _ => true,
    }
}

fn kind(file: &Path, root: &Object, model: &Object) -> Result<Kind> {
    let name = match model.get("type") {
        Some(Json::String(name)) => name.as_str(),
        Some(other) => {
            let what = format!(
                "found {}, expected \"BPE\", \"WordPiece\" or \"Unigram\"",
                other.describe()
            );
            return Err(Problem::of(file, what).field("model.type").input());
        }
        // Files of the first versions: the fields tell.
        None if model.contains_key("merges") => "BPE",
        None if model.contains_key("unk_id") => "Unigram",
        None => "WordPiece",
    };
    match name {
        "BPE" if model.get("byte_fallback").and_then(Json::as_bool) == Some(true) => {
            Ok(Kind::SentencePieceBpe)
        }
        "BPE"
            if ["pre_tokenizer", "decoder"]
                .iter()
                .any(|part| root.get(*part).is_some_and(mentions_byte_level)) =>
        {
            Ok(Kind::ByteLevelBpe)
        }
        "BPE" => Ok(Kind::CharacterBpe),
        "WordPiece" => Ok(Kind::WordPiece),
        "Unigram" => Ok(Kind::Unigram),
        _ => {
            let what = format!(
                "found \"{}\", supported are BPE, WordPiece and Unigram",
                Excerpt(name)
            );
            Err(Problem::of(file, what).field("model.type").unsupported())
        }
    }
}

fn mentions_byte_level(value: &Json) -> bool {
    match value {
        Json::String(text) => text == "ByteLevel",
        Json::Array(values) => values.iter().any(mentions_byte_level),
        Json::Object(members) => members.values().any(mentions_byte_level),
        _ => false,
    }
}

fn merges(file: &Path, model: &Object) -> Result<()> {
    let field = "model.merges";
    let Some(merges) = model.get("merges") else {
        return Err(Problem::of(file, "missing, expected an array")
            .field(field)
            .input());
    };
    let is_merge = |merge: &Json| match merge {
        Json::String(text) => text.contains(' '),
        Json::Array(pair) => pair.len() == 2 && pair.iter().all(|side| side.as_str().is_some()),
        _ => false,
    };
    let Some(list) = merges.as_array() else {
        return Err(Problem::of(
            file,
            format!("found {}, expected an array", merges.describe()),
        )
        .field(field)
        .input());
    };
    match list.iter().position(|merge| !is_merge(merge)) {
        None => Ok(()),
        Some(i) => {
            let what = format!("found {}, expected two tokens", list[i].describe());
            Err(Problem::of(file, what)
                .field(format!("{field}[{i}]"))
                .input())
        }
    }
}

struct Ids<'a> {
    file: &'a Path,
    /// Ids have to be below.
    limit: usize,
    /// Which ids the vocabulary uses.
    seen: Vec<bool>,
}

impl Ids<'_> {
    fn error(&self, field: impl Into<String>, what: impl Into<String>) -> FrontendError {
        Problem::of(self.file, what).field(field).input()
    }

    fn id(&self, field: &str, token: &str, value: &Json) -> Result<usize> {
        let id = value.as_u64().and_then(|id| usize::try_from(id).ok());
        id.filter(|id| *id < self.limit).ok_or_else(|| {
            let what = format!(
                "`{}` has id {}, expected one below vocab_size ({})",
                Excerpt(token),
                value.describe(),
                self.limit
            );
            self.error(field, what)
        })
    }

    fn mark(&mut self, field: &str, token: &str, id: usize) -> Result<()> {
        if self.seen.len() <= id {
            self.seen.resize(id + 1, false);
        }
        if std::mem::replace(&mut self.seen[id], true) {
            return Err(self.error(
                field,
                format!(
                    "`{}` has id {id}, which another token has too",
                    Excerpt(token)
                ),
            ));
        }
        Ok(())
    }

    /// BPE, WordPiece: an object of tokens and ids.
    fn table(&mut self, model: &Object) -> Result<()> {
        const FIELD: &str = "model.vocab";
        let vocab = match model.get("vocab") {
            Some(Json::Object(vocab)) => vocab,
            Some(other) => {
                return Err(self.error(
                    FIELD,
                    format!("found {}, expected an object", other.describe()),
                ));
            }
            None => return Err(self.error(FIELD, "missing, expected an object of tokens and ids")),
        };
        if vocab.is_empty() {
            return Err(self.error(FIELD, "no tokens"));
        }
        for (token, value) in vocab.iter() {
            let id = self.id(FIELD, token, value)?;
            self.mark(FIELD, token, id)?;
        }
        Ok(())
    }

    /// Unigram: an array of pieces and scores.
    fn unigram(&mut self, model: &Object) -> Result<()> {
        const FIELD: &str = "model.vocab";
        let Some(vocab) = model.get("vocab").and_then(Json::as_array) else {
            return Err(self.error(FIELD, "expected an array of pieces and scores"));
        };
        if vocab.is_empty() || vocab.len() > self.limit {
            let what = format!(
                "found {} pieces, expected 1 to vocab_size ({})",
                vocab.len(),
                self.limit
            );
            return Err(self.error(FIELD, what));
        }
        for (i, piece) in vocab.iter().enumerate() {
            let ok = match piece.as_array() {
                Some([text, score]) => text.as_str().is_some() && score.as_f64().is_some(),
                _ => false,
            };
            if !ok {
                return Err(self.error(
                    format!("{FIELD}[{i}]"),
                    format!("found {}, expected [piece, score]", piece.describe()),
                ));
            }
        }
        match model.get("unk_id") {
            None | Some(Json::Null) => {}
            Some(value) if value.as_u64().is_some_and(|id| id < vocab.len() as u64) => {}
            Some(value) => {
                let what = format!(
                    "found {}, expected an id below {}",
                    value.describe(),
                    vocab.len()
                );
                return Err(self.error("model.unk_id", what));
            }
        }
        self.seen = vec![true; vocab.len()];
        Ok(())
    }

    /// All added tokens, and those among them that the model has no rows for.
    fn added(&self, root: &Object) -> Result<(Tokens, Tokens)> {
        const FIELD: &str = "added_tokens";
        let list = match root.get(FIELD) {
            None | Some(Json::Null) => return Ok(Default::default()),
            Some(Json::Array(list)) => list,
            Some(other) => {
                return Err(self.error(
                    FIELD,
                    format!("found {}, expected an array", other.describe()),
                ));
            }
        };
        let (mut added, mut beyond) = (Vec::new(), Vec::new());
        for (i, entry) in list.iter().enumerate() {
            let at = |field: &str| format!("{FIELD}[{i}].{field}");
            let member = |field: &str| entry.as_object().and_then(|members| members.get(field));
            let Some(content) = member("content")
                .and_then(Json::as_str)
                .filter(|content| !content.is_empty())
            else {
                return Err(self.error(at("content"), "expected a string that is not empty"));
            };
            let id = member("id")
                .and_then(Json::as_u64)
                .filter(|id| *id < u64::from(limits::VOCABULARY));
            let Some(id) = id.and_then(|id| u32::try_from(id).ok()) else {
                let found = member("id").map_or("missing".into(), |value| {
                    format!("found {}", value.describe())
                });
                return Err(self.error(at("id"), format!("{found}, expected an id")));
            };
            if id as usize >= self.limit {
                beyond.push((id, content.to_owned()));
            }
            added.push((id, content.to_owned()));
        }
        if beyond.len() > BEYOND {
            let what = format!(
                "{} tokens have ids beyond vocab_size ({})",
                beyond.len(),
                self.limit
            );
            return Err(Problem::of(self.file, what)
                .field(FIELD)
                .help("does the tokenizer belong to this model?")
                .input());
        }
        Ok((added, beyond))
    }

    /// The ids that are put around every text: they have to be in the model.
    fn post_processor(&self, value: &Json) -> Result<()> {
        const FIELD: &str = "post_processor";
        let Some(members) = value.as_object() else {
            return Ok(());
        };
        for role in ["cls", "sep"] {
            if let Some([token, id]) = members.get(role).and_then(Json::as_array) {
                self.id(FIELD, token.as_str().unwrap_or(role), id)?;
            }
        }
        if let Some(special) = members.get("special_tokens").and_then(Json::as_object) {
            for (token, entry) in special.iter() {
                let ids = entry
                    .as_object()
                    .and_then(|entry| entry.get("ids"))
                    .and_then(Json::as_array);
                for id in ids.unwrap_or_default() {
                    self.id(FIELD, token, id)?;
                }
            }
        }
        for processor in members
            .get("processors")
            .and_then(Json::as_array)
            .unwrap_or_default()
        {
            self.post_processor(processor)?;
        }
        Ok(())
    }
}
