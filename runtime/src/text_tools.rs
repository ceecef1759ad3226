//! The `tokenize` and `detokenize` commands, for compiled models and for the compiler alike.
//!
//! Input: a tokenizer, the strings of its special tokens, a chat template; then texts, or JSON
//! lines `{"text", "pair"?}` or `{"messages", "tools"?, "add_generation_prompt"?}`. Output: ids,
//! tokens, or JSON lines `{"ids", "type_ids", "rendered"?}`. Special tokens are added unless asked
//! not to; a rendered chat holds its own, so none are added to it.

use crate::chat_template::ChatTemplate;
use crate::tokenizer::{Encoded, Tokenizer};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::sync::OnceLock;

/// Arguments of `tokenize`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TokenizeArgs {
    /// Print the ids alone, separated by spaces
    #[arg(long, conflicts_with = "jsonl")]
    pub ids: bool,
    /// Read and print a JSON object a line
    #[arg(long)]
    pub jsonl: bool,
    /// Add no special tokens
    #[arg(long)]
    pub no_special: bool,
    /// The text; `-` or nothing reads standard input
    pub text: Option<String>,
}

/// Arguments of `detokenize`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DetokenizeArgs {
    /// Leave special tokens out
    #[arg(long)]
    pub skip_special: bool,
    /// Token ids, separated by spaces or commas; `-` reads standard input
    #[arg(required = true, value_name = "IDS", allow_negative_numbers = true)]
    pub ids: Vec<String>,
}

/// A line of `tokenize --jsonl`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    text: Option<String>,
    pair: Option<String>,
    messages: Option<serde_json::Value>,
    tools: Option<serde_json::Value>,
    add_generation_prompt: Option<bool>,
}

#[derive(Debug, Serialize)]
struct LineOut {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rendered: Option<String>,
}

/// A tokenizer with its chat template.
pub struct TextTools<'a> {
    pub tokenizer: Tokenizer<'a>,
    special_strings: &'a BTreeMap<String, String>,
    chat_template: Option<&'a str>,
    /// Compiled when it is first needed.
    chat: OnceLock<ChatTemplate>,
}

impl<'a> TextTools<'a> {
    /// Opens a compiled tokenizer. `special_strings` are the special tokens of
    /// tokenizer_config.json by name: `bos_token`, `eos_token`…
    pub fn new(
        tokenizer: &'a [u8],
        special_strings: &'a BTreeMap<String, String>,
        chat_template: Option<&'a str>,
    ) -> Result<TextTools<'a>> {
        Ok(TextTools {
            tokenizer: Tokenizer::open(tokenizer)?,
            special_strings,
            chat_template,
            chat: OnceLock::new(),
        })
    }

    /// The chat template, or an error that says there is none.
    pub fn chat(&self) -> Result<&ChatTemplate> {
        if let Some(chat) = self.chat.get() {
            return Ok(chat);
        }
        let none = || Error::Unsupported("this model has no chat template".into());
        let template = self.chat_template.ok_or_else(none)?;
        let chat = ChatTemplate::new(template, self.special_strings)?;
        Ok(self.chat.get_or_init(|| chat))
    }

    /// Runs `tokenize`.
    pub fn tokenize(
        &self,
        args: &TokenizeArgs,
        input: &mut dyn BufRead,
        out: &mut dyn Write,
    ) -> Result<()> {
        if args.jsonl {
            return self.tokenize_lines(args, input, out);
        }
        let text = match args.text.as_deref() {
            None | Some("-") => read_text(input)?,
            Some(text) => text.to_owned(),
        };
        let encoded = self.tokenizer.encode(&text, !args.no_special)?;
        if args.ids {
            let ids: Vec<String> = encoded.ids.iter().map(u32::to_string).collect();
            writeln!(out, "{}", ids.join(" ")).map_err(written)?;
        } else {
            for &id in &encoded.ids {
                let token = self.tokenizer.token(id).unwrap_or_default();
                writeln!(out, "{id:>7}  {}", token.escape_debug()).map_err(written)?;
            }
        }
        Ok(())
    }

    fn tokenize_lines(
        &self,
        args: &TokenizeArgs,
        input: &mut dyn BufRead,
        out: &mut dyn Write,
    ) -> Result<()> {
        let mut given = args
            .text
            .as_deref()
            .filter(|t| *t != "-")
            .map(str::as_bytes);
        let input: &mut dyn BufRead = match &mut given {
            Some(bytes) => bytes,
            None => input,
        };
        let mut number = 0;
        let mut line = Vec::new();
        loop {
            line.clear();
            number += 1;
            if input
                .read_until(b'\n', &mut line)
                .map_err(|e| Error::io("standard input", e))?
                == 0
            {
                return Ok(());
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let at = |e: Error| Error::Input(format!("line {number}: {e}"));
            let parsed: Line = serde_json::from_slice(&line)
                .map_err(|e| Error::Input(format!("line {number}: {e}")))?;
            let result = self.tokenize_line(&parsed, !args.no_special).map_err(at)?;
            let json = serde_json::to_string(&result).map_err(|e| Error::Run(e.to_string()))?;
            writeln!(out, "{json}")
                .and_then(|()| out.flush())
                .map_err(written)?;
        }
    }

    fn tokenize_line(&self, line: &Line, special: bool) -> Result<LineOut> {
        let (encoded, rendered) = match (line, &line.text, &line.messages) {
            (
                Line {
                    pair,
                    tools: None,
                    add_generation_prompt: None,
                    ..
                },
                Some(text),
                None,
            ) => {
                let encoded = match pair {
                    Some(pair) => self.tokenizer.encode_pair(text, pair, special)?,
                    None => self.tokenizer.encode(text, special)?,
                };
                (encoded, None)
            }
            (
                Line {
                    pair: None, tools, ..
                },
                None,
                Some(messages),
            ) => {
                let prompt = line.add_generation_prompt.unwrap_or(false);
                let rendered = self.chat()?.render(messages, tools.as_ref(), prompt)?;
                (self.tokenizer.encode(&rendered, false)?, Some(rendered))
            }
            _ => {
                return Err(Error::Input(
                    "give {\"text\", \"pair\"?} or {\"messages\", \"tools\"?, \"add_generation_prompt\"?}".into(),
                ));
            }
        };
        let Encoded { ids, type_ids, .. } = encoded;
        Ok(LineOut {
            ids,
            type_ids,
            rendered,
        })
    }

    /// Runs `detokenize`.
    pub fn detokenize(
        &self,
        args: &DetokenizeArgs,
        input: &mut dyn BufRead,
        out: &mut dyn Write,
    ) -> Result<()> {
        let mut ids = Vec::new();
        let mut add = |text: &str| -> Result<()> {
            for word in text
                .split([' ', ',', '\n', '\r', '\t', '[', ']'])
                .filter(|w| !w.is_empty())
            {
                let id: u32 = word
                    .parse()
                    .map_err(|_| Error::Input(format!("`{word}` is no token id")))?;
                if self.tokenizer.token(id).is_none() {
                    return Err(Error::Input(format!("no token has the id {id}")));
                }
                ids.push(id);
            }
            Ok(())
        };
        for arg in &args.ids {
            if arg == "-" {
                add(&read_text(input)?)?;
            } else {
                add(arg)?;
            }
        }
        let text = self.tokenizer.decode(&ids, args.skip_special)?;
        writeln!(out, "{text}").map_err(written)
    }
}

/// All of an input as text.
pub fn read_text(input: &mut dyn BufRead) -> Result<String> {
    let mut bytes = Vec::new();
    input
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io("standard input", e))?;
    String::from_utf8(bytes).map_err(|_| Error::Input("standard input is not UTF-8".into()))
}

fn written(e: std::io::Error) -> Error {
    Error::io("standard output", e)
}
