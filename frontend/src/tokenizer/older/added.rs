//! Tokens that are looked for in texts before anything else.
//!
//! In: the tokens that the vocabulary sets apart, `added_tokens_decoder` of `tokenizer_config.json`, `added_tokens.json`,
//! and the tokens of the roles. Out: [`Added`] tokens by id.
//!
//! Invariants: what the files say of an id wins over what the kind says; a token that no file gives an id follows
//! the last one, in the order of the roles; ids and texts are unique.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::Settings;
use super::draft::Draft;
use super::kind::Kind;
use crate::config::Config;
use crate::error::{Excerpt, Problem, Result};
use crate::json::{Json, Object};
use crate::limits;

/// Added tokens of one tokenizer.
const COUNT: usize = 1 << 16;

/// An added token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    pub id: u32,
    pub text: String,
    pub single_word: bool,
    pub lstrip: bool,
    pub rstrip: bool,
    pub normalized: bool,
    pub special: bool,
    /// Whether a file describes it, so that nothing is left to the kind.
    described: bool,
}

impl Added {
    fn new(id: u32, text: &str, special: bool) -> Self {
        Self {
            id,
            text: text.to_owned(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special,
            described: false,
        }
    }

    /// As it stands in a `tokenizer.json`.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "content": self.text,
            "single_word": self.single_word,
            "lstrip": self.lstrip,
            "rstrip": self.rstrip,
            "normalized": self.normalized,
            "special": self.special,
        })
    }

    /// Takes what an object says of the token.
    fn describe(&mut self, config: &Config, field: &str, members: &Object) -> Result<()> {
        self.described = true;
        let flags = [
            ("single_word", &mut self.single_word),
            ("lstrip", &mut self.lstrip),
            ("rstrip", &mut self.rstrip),
            ("normalized", &mut self.normalized),
            ("special", &mut self.special),
        ];
        for (name, flag) in flags {
            match members.get(name) {
                None | Some(Json::Null) => {}
                Some(Json::Bool(value)) => *flag = *value,
                Some(_) => return Err(config.wrong(field, format_args!("`{name}` true or false"))),
            }
        }
        Ok(())
    }
}

/// A token's text, and what else is said of it.
fn content<'c>(
    config: &'c Config,
    field: &str,
    value: &'c Json,
) -> Result<(&'c str, Option<&'c Object>)> {
    let wrong = || config.wrong(field, "a string, or an object with a string `content`");
    match value {
        Json::String(text) if !text.is_empty() => Ok((text, None)),
        Json::Object(members) => {
            let text = members.get("content").and_then(Json::as_str);
            let text = text.filter(|text| !text.is_empty()).ok_or_else(wrong)?;
            Ok((text, Some(&**members)))
        }
        _ => Err(wrong()),
    }
}

/// Gathers the tokens.
pub fn gather(file: &Path, draft: &Draft, settings: &Settings<'_>) -> Result<Vec<Added>> {
    let mut all: BTreeMap<u32, Added> = BTreeMap::new();
    for (id, text, special) in &draft.apart {
        all.insert(*id, Added::new(*id, text, *special));
    }
    if let Some(config) = settings.config {
        of_decoder(config, &mut all)?;
    }
    if let Some(added) = &settings.added {
        of_added(added, &mut all)?;
    }
    roles(file, draft, settings, &mut all)?;
    let mut texts: BTreeMap<&str, u32> = BTreeMap::new();
    for token in all.values() {
        let known = draft
            .vocabulary
            .id(&token.text)
            .filter(|id| *id != token.id);
        if let Some(other) = known.or(texts.insert(&token.text, token.id)) {
            let text = Excerpt(&token.text);
            let what = format!(
                "`{text}` is an added token with id {}, and {other} too",
                token.id
            );
            return Err(Problem::of(file, what).input());
        }
    }
    if all.len() > COUNT {
        let what = format!("{} added tokens, expected at most {COUNT}", all.len());
        return Err(Problem::of(file, what).input());
    }
    Ok(all.into_values().collect())
}

/// `added_tokens_decoder`: an object of ids and tokens.
fn of_decoder(config: &Config, all: &mut BTreeMap<u32, Added>) -> Result<()> {
    const FIELD: &str = "added_tokens_decoder";
    let members = match config.get(FIELD) {
        None => return Ok(()),
        Some(Json::Object(members)) => members,
        Some(_) => return Err(config.wrong(FIELD, "an object of ids and tokens")),
    };
    for (id, value) in members.iter() {
        let field = format!("{FIELD}.{id}");
        let number = id.parse::<u32>().ok().filter(|id| *id < limits::VOCABULARY);
        let wrong = || config.problem(&field, "not an id").input();
        let number = number.ok_or_else(wrong)?;
        let (text, more) = content(config, &field, value)?;
        let mut token = Added::new(number, text, false);
        if let Some(members) = more {
            token.describe(config, &field, members)?;
        }
        all.insert(number, token);
    }
    Ok(())
}

/// `added_tokens.json`: an object of texts and ids.
fn of_added(config: &Config, all: &mut BTreeMap<u32, Added>) -> Result<()> {
    for (text, value) in config.members().iter() {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.filter(|id| *id < limits::VOCABULARY && !text.is_empty());
        let wrong = || config.problem(text, "expected a text and its id").input();
        let id = id.ok_or_else(wrong)?;
        match all.get(&id) {
            Some(token) if token.text == *text => {}
            Some(token) => {
                let what = format!("has id {id}, which `{}` has too", Excerpt(&token.text));
                return Err(config.problem(text, what).input());
            }
            None => drop(all.insert(id, Added::new(id, text, false))),
        }
    }
    Ok(())
}

/// The tokens of the roles and `additional_special_tokens`: special, with an id if they have none yet.
fn roles(
    file: &Path,
    draft: &Draft,
    settings: &Settings<'_>,
    all: &mut BTreeMap<u32, Added>,
) -> Result<()> {
    let kind = draft.kind;
    let by_kind = kind.map_or(&[][..], Kind::roles);
    let mut names: Vec<&str> = by_kind.iter().map(|(role, _)| *role).collect();
    let others = super::super::ROLES
        .iter()
        .filter(|role| !names.contains(role));
    let others: Vec<&str> = others.copied().collect();
    names.extend(others);
    for role in names {
        let field = format!("{role}_token");
        let said = said(settings, &field);
        let default = by_kind.iter().find(|(other, _)| *other == role);
        let mut token = match (&said, default) {
            (Some((config, value)), _) => {
                let (text, more) = content(config, &field, value)?;
                let mut token = place(draft, all, text);
                if let Some(members) = more {
                    token.describe(config, &field, members)?;
                }
                token
            }
            // What neither the folder names nor the vocabulary has is not there; a mask is always added.
            (None, Some((_, text))) if draft.vocabulary.id(text).is_some() || role == "mask" => {
                place(draft, all, text)
            }
            (None, _) => continue,
        };
        token.special = true;
        if !token.described {
            token.lstrip |= role == "mask" && kind.is_some_and(Kind::mask_takes_space);
            token.normalized |= role == "unk" && kind == Some(Kind::DebertaV2);
        }
        all.insert(token.id, token);
    }
    let field = "additional_special_tokens";
    if let Some((config, value)) = said(settings, field) {
        let Some(list) = value.as_array() else {
            return Err(config.wrong(field, "an array of tokens"));
        };
        for value in list {
            let (text, more) = content(&config, field, value)?;
            let mut token = place(draft, all, text);
            token.special = true;
            if let Some(members) = more {
                token.describe(&config, field, members)?;
            }
            all.insert(token.id, token);
        }
    }
    match all.keys().next_back() {
        Some(id) if *id >= limits::VOCABULARY => {
            Err(Problem::of(file, "more tokens than ids").input())
        }
        _ => Ok(()),
    }
}

/// A field of `tokenizer_config.json`, else of `special_tokens_map.json`.
fn said(settings: &Settings<'_>, field: &str) -> Option<(Config, Json)> {
    let configs = [settings.config, settings.map.as_ref()];
    configs.into_iter().flatten().find_map(|config| {
        let value = config.get(field)?;
        Some((config.clone(), value.clone()))
    })
}

/// The token of a text: where it stands already, else in the vocabulary, else behind the last.
fn place(draft: &Draft, all: &BTreeMap<u32, Added>, text: &str) -> Added {
    if let Some(token) = all.values().find(|token| token.text == text) {
        return token.clone();
    }
    let last = all.keys().next_back().map_or(0, |id| id + 1);
    let next = draft.vocabulary.end().max(last);
    let id = draft.vocabulary.id(text).unwrap_or(next);
    Added::new(id, text, true)
}
