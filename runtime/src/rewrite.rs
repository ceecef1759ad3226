//! `translate` and `summarize`: a text for each text.
//!
//! Input: texts as arguments, or one a line on standard input. Output: a line for each, in order, as it is ready.
//! The model is told what to do by the prefix that its configuration has for the task
//! (`task_specific_params`). Texts beyond the longest source are cut, with one note.
//! Not here: raw prompts (`generate`).

use crate::beam_text::search_text;
use crate::decode_loop::{Request, continue_text};
use crate::engine::Engine;
use crate::generation_flags::{Generation, GenerationFlags};
use crate::session::{Session, check_ids};
use crate::source_text::read_source;
use crate::text_tools::TextTools;
use crate::texts::Texts;
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
    rewrite(session, prefix.map_or("", String::as_str), args, input, out)
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
    rewrite(session, prefix, &args.rest, input, out)
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

fn rewrite(
    session: &Session<'_>,
    prefix: &str,
    args: &RewriteArgs,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<()> {
    let m = session.manifest;
    let generation = args.flags.resolve(&m.generation, m)?;
    if generation.returned > 1 {
        return Err(Error::Usage("--num-return: each text gets one line".into()));
    }
    let tools = session.text_tools()?;
    let new = args
        .new
        .unwrap_or(DEFAULT_NEW)
        .min(m.limits.max_context as usize);
    let beams = generation.beams.map_or(1, |b| b.beams);
    let engine = session.engine(beams, new.saturating_add(1), false)?;
    let mut writer = Writer {
        session,
        tools,
        engine,
        generation,
        new,
        is_cut: false,
    };
    if !args.texts.are_lines() {
        let mut texts = args.texts.texts.iter();
        return texts.try_for_each(|text| writer.line(&format!("{prefix}{text}"), out));
    }
    let mut line = String::new();
    loop {
        line.clear();
        match input.read_line(&mut line) {
            Ok(0) => return Ok(()),
            Ok(_) => {
                let text = line.trim_end_matches(['\n', '\r']);
                writer.line(&format!("{prefix}{text}"), out)?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                return Err(Error::Input("standard input is not UTF-8".into()));
            }
            Err(e) => return Err(Error::io("standard input", e)),
        }
    }
}

/// Writes texts about one source after the other.
struct Writer<'s> {
    session: &'s Session<'s>,
    tools: TextTools<'s>,
    engine: Engine<'s>,
    generation: Generation,
    new: usize,
    /// Whether a text was too long, which is told once.
    is_cut: bool,
}

impl Writer<'_> {
    /// One line about `text`.
    fn line(&mut self, text: &str, out: &mut dyn Write) -> Result<()> {
        let (session, m) = (self.session, self.session.manifest);
        let longest = session.max_source();
        let (encoded, cut) = self.tools.tokenizer.encode_within(text, longest)?;
        check_ids(m, &encoded.ids)?;
        if cut && !std::mem::replace(&mut self.is_cut, true) {
            session.note(&format!("texts are cut at {longest} tokens"));
        }
        let start = [m.start_token()];
        let request = Request {
            prompt: &start,
            max_new: Some(self.new),
            sampling: self.generation.sampling,
            bias: &self.generation.bias,
            lookup: self.generation.lookup,
            stops: &[],
            eos: &m.tokens.eos,
            continues: false,
        };
        let seq = self.engine.open()?;
        read_source(&mut self.engine, seq, &encoded.ids)?;
        let tokenizer = &self.tools.tokenizer;
        let said = match self.generation.beams {
            Some(params) => {
                // The search closes the sequence.
                let search = search_text(&mut self.engine, seq, tokenizer, &request, params)?;
                search
                    .found
                    .into_iter()
                    .next()
                    .map_or(String::new(), |f| f.text)
            }
            None => {
                let mut emit = |_: Option<u32>, _: &str| -> Result<()> { Ok(()) };
                let engine = &mut self.engine;
                let done = continue_text(engine, seq, tokenizer, &request, &mut emit)?;
                self.engine.close(seq);
                done.text
            }
        };
        // A line for a line.
        let said = said.replace(['\n', '\r'], " ");
        writeln!(out, "{}", said.trim())
            .and_then(|()| out.flush())
            .map_err(|e| Error::io("standard output", e))
    }
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
