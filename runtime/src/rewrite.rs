//! `translate` and `summarize`: a text for each text.
//!
//! Input: texts as arguments, or one a line on standard input. Output: a line for each, in order, as it is ready;
//! or a JSON line `{"text", "translations": […]}` or `{"text", "summaries": […]}`, whose entries are those of `caption`.
//! The model is told what to do by the prefix that its configuration has for the task
//! (`task_specific_params`). Texts beyond the longest source are cut, with one note.
//! Not here: raw prompts (`generate`).

use crate::generation_flags::GenerationFlags;
use crate::session::Session;
use crate::texts::{self, Texts};
use crate::told::Given;
use crate::writer::{Said, Writer};
use crate::{Error, Result};
use llmc_abi::{Kind, Manifest};
use std::io::{BufRead, Write};

/// Arguments of `translate` and `summarize`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RewriteArgs {
    #[command(flatten)]
    pub texts: Texts,
    /// At most N new tokens for each [default: 256]
    #[arg(short = 'n', value_name = "N")]
    pub new: Option<usize>,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub flags: GenerationFlags,
}

/// Arguments of `translate`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TranslateArgs {
    /// The language to translate from [default: the only one that goes into the other]
    #[arg(long, value_name = "LANG")]
    pub from: Option<String>,
    /// The language to translate into [default: the only one]
    #[arg(long, value_name = "LANG")]
    pub to: Option<String>,
    #[command(flatten)]
    pub rest: RewriteArgs,
}

/// New tokens when `-n` says nothing.
const DEFAULT_NEW: usize = 256;
/// The prefix's key for summaries, and the beginning of those for translations.
const SUMMARY: &str = "summarization";
const TRANSLATION: &str = "translation_";

/// Whether the model translates, and whether it summarises.
pub fn tasks(m: &Manifest) -> (bool, bool) {
    let pair = m.kind == Kind::EncoderDecoder;
    let translates = m.prefixes.keys().any(|k| k.starts_with(TRANSLATION));
    (pair && translates, pair && m.prefixes.contains_key(SUMMARY))
}

/// Runs `summarize`.
pub fn summarize(
    session: &Session<'_>,
    args: &RewriteArgs,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<()> {
    session.need(tasks(session.manifest).1, "summarize")?;
    let prefix = session.manifest.prefixes.get(SUMMARY);
    let prefix = prefix.map_or("", String::as_str);
    rewrite(session, ("summaries", prefix), args, input, out)
}

/// Runs `translate`.
pub fn translate(
    session: &Session<'_>,
    args: &TranslateArgs,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<()> {
    session.need(tasks(session.manifest).0, "translate")?;
    let prefix = translation(session.manifest, args.from.as_deref(), args.to.as_deref())?;
    rewrite(session, ("translations", prefix), &args.rest, input, out)
}

/// The prefix of the only translation between these languages.
fn translation<'m>(m: &'m Manifest, from: Option<&str>, to: Option<&str>) -> Result<&'m str> {
    let pairs = || {
        let keys = m.prefixes.iter().filter_map(|(k, prefix)| {
            let (from, to) = k.strip_prefix(TRANSLATION)?.split_once("_to_")?;
            Some((from, to, prefix.as_str()))
        });
        keys.collect::<Vec<_>>()
    };
    let fits = |(f, t, _): &(&str, &str, &str)| {
        from.is_none_or(|from| from == *f) && to.is_none_or(|to| to == *t)
    };
    let found: Vec<_> = pairs().into_iter().filter(fits).collect();
    match found.as_slice() {
        &[(_, _, prefix)] => Ok(prefix),
        _ => {
            let all: Vec<String> = pairs()
                .iter()
                .map(|(f, t, _)| format!("{f} to {t}"))
                .collect();
            Err(Error::Usage(format!(
                "this model translates {}: say which with --from and --to",
                all.join(", ")
            )))
        }
    }
}

/// Writes what the model says to `prefix` and each text; in JSON it is called `name`.
fn rewrite(
    session: &Session<'_>,
    (name, prefix): (&str, &str),
    args: &RewriteArgs,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<()> {
    let m = session.manifest;
    let generation = args.flags.resolve(&m.generation, m)?;
    if generation.returned > 1 && !args.json {
        return Err(Error::Usage(
            "--num-return: each text gets one line, unless --json is given".into(),
        ));
    }
    let tools = session.text_tools()?;
    let new = args.new.unwrap_or(DEFAULT_NEW);
    let new = new.min(m.limits.max_context as usize);
    let mut writer = Writer::new(session, generation, (1, new))?;
    let longest = session.max_source();
    // Whether a text was too long, which is told once.
    let mut is_cut = false;
    let written = |e| Error::io("standard output", e);
    args.texts.each(input, &mut |text| {
        let source = format!("{prefix}{text}");
        let (encoded, cut) = tools.tokenizer.encode_within(&source, longest)?;
        if cut && !std::mem::replace(&mut is_cut, true) {
            session.note(&format!("texts are cut at {longest} tokens"));
        }
        let said = writer.write(&tools.tokenizer, &encoded.ids, Given::default())?;
        let wrote = if args.json {
            texts::write_json(out, &serde_json::json!({"text": text, name: said}))
        } else {
            // A line for a line.
            let line = said.first().map_or(String::new(), Said::line);
            writeln!(out, "{line}").map_err(written)
        };
        wrote.and_then(|()| out.flush().map_err(written))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_only_translation() {
        let mut m = Manifest::default();
        let mut add = |k: &str, p: &str| m.prefixes.insert(k.into(), p.into());
        add("summarization", "summarize: ");
        add("translation_en_to_de", "to German: ");
        add("translation_en_to_fr", "to French: ");
        add("translation_de_to_fr", "de-fr: ");
        let find = |from, to| translation(&m, from, to).ok();
        assert_eq!(find(None, Some("de")), Some("to German: "));
        assert_eq!(find(Some("de"), None), Some("de-fr: "));
        assert_eq!(find(Some("en"), Some("fr")), Some("to French: "));
        assert_eq!((find(None, None), find(None, Some("fr"))), (None, None));
        let e = translation(&m, None, Some("xx")).unwrap_err().to_string();
        assert!(e.contains("de to fr, en to de, en to fr"), "{e}");
    }
}
