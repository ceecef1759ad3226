//! `rerank`: how relevant each text is to a query, by a cross-encoder.
//!
//! Input: a query and texts. Output: a line for each text in their order, or a JSON line `{"score", "logit"}`;
//! with `--top-k N` the N most relevant, best first, as `{"index", "score", "logit", "text"}`. Pairs that are
//! too long are cut, the longer part first. Scores are what sentence-transformers' cross-encoders give.

use crate::scores::{greatest, scores};
use crate::session::Session;
use crate::texts::{self, Input, Item, Task, Texts};
use crate::tokenizer::Overlong;
use crate::{Error, Result};
use llmc_abi::HeadTask;
use serde::Serialize;
use std::io::{BufRead, Write};

/// Arguments of `rerank`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RerankArgs {
    /// What is looked for
    pub query: String,
    #[command(flatten)]
    pub texts: Texts,
    /// Print the N most relevant texts alone, best first
    #[arg(long, value_name = "N")]
    pub top_k: Option<usize>,
    /// Print JSON lines; always for texts of standard input
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    score: f32,
    logit: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

fn print(out: &mut dyn Write, json: bool, text: &str, line: &Line<'_>) -> Result<()> {
    if json {
        return texts::write_json(out, line);
    }
    writeln!(out, "{:.4}  {text}", line.score).map_err(|e| Error::io("standard output", e))
}

/// Runs `rerank`.
pub fn rerank(
    session: &Session<'_>,
    args: &RerankArgs,
    input: &mut (dyn BufRead + Send),
    out: &mut dyn Write,
) -> Result<()> {
    let (head, output) = session.head(HeadTask::SequenceClassification, "logits", "rerank")?;
    if head.labels.len() != 1 {
        return Err(Error::Unsupported(format!(
            "{} gives {} labels: rerank needs a cross-encoder, which gives one score",
            session.manifest.name,
            head.labels.len()
        )));
    }
    let json = args.json || args.texts.are_lines();
    let tools = session.text_tools()?;
    let encode = |text: &str| -> Result<Item<String>> {
        let (tokenizer, limit) = (&tools.tokenizer, session.max_input());
        let (windows, cut) = tokenizer.windows(&args.query, Some(text), limit, Overlong::Cut)?;
        let inputs = windows.iter().map(|w| Input::of(session, w));
        Ok(Item {
            inputs: inputs.collect::<Result<_>>()?,
            cut,
            of: text.to_owned(),
        })
    };
    let mut kept: Vec<(f32, f32, String)> = Vec::new();
    let mut answer = |item: &Item<String>, found: Vec<texts::Found>, out: &mut dyn Write| {
        let logit = found[0][0][0];
        let score = scores(head.relevance, &[logit])[0];
        if args.top_k.is_some() {
            kept.push((score, logit, item.of.clone()));
            return Ok(());
        }
        let line = Line {
            index: None,
            score,
            logit,
            text: None,
        };
        print(out, json, &item.of, &line)
    };
    let task = Task {
        outputs: &[output],
        encode: &encode,
        answer: &mut answer,
    };
    texts::run(session, &args.texts, task, input, out)?;
    let Some(count) = args.top_k else {
        return Ok(());
    };
    // A sigmoid may round what logits tell apart.
    let logits: Vec<f32> = kept.iter().map(|(_, logit, _)| *logit).collect();
    for index in greatest(&logits, count) {
        let (score, logit, text) = &kept[index];
        let line = Line {
            index: Some(index),
            score: *score,
            logit: *logit,
            text: Some(text),
        };
        print(out, json, text, &line)?;
    }
    Ok(())
}
