//! `classify`: labels for each text.
//!
//! Input: texts. Output: the best labels of each with their scores, as a line of text or as a JSON line
//! `{"labels": [{"label", "score"}, …]}`. One label where labels exclude each other, else all of them,
//! unless `--top-k` says how many. Texts that are too long are cut.

use crate::scores::{greatest, scores};
use crate::session::Session;
use crate::texts::{self, Input, Item, Task, Texts};
use crate::tokenizer::Overlong;
use crate::{Error, Result};
use llmc_abi::{HeadTask, Scores};
use serde::Serialize;
use std::io::{BufRead, Write};

/// Arguments of `classify`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ClassifyArgs {
    #[command(flatten)]
    pub texts: Texts,
    /// Labels of each text [default: 1, or all where several may hold]
    #[arg(long, value_name = "N")]
    pub top_k: Option<usize>,
    /// Print JSON lines; always for texts of standard input
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    labels: Vec<Label<'a>>,
}

#[derive(Serialize)]
struct Label<'a> {
    label: &'a str,
    score: f32,
}

/// Runs `classify`.
pub fn classify(
    session: &Session<'_>,
    args: &ClassifyArgs,
    input: &mut (dyn BufRead + Send),
    out: &mut dyn Write,
) -> Result<()> {
    let (head, output) = session.head(HeadTask::SequenceClassification, "logits", "classify")?;
    let count = args.top_k.unwrap_or(match head.scores {
        Scores::Softmax => 1,
        Scores::Sigmoid | Scores::Logits => head.labels.len(),
    });
    let json = args.json || args.texts.are_lines();
    let tools = session.text_tools()?;
    let encode = |text: &str| -> Result<Item<()>> {
        let limit = session.max_input();
        let (windows, cut) = tools.tokenizer.windows(text, None, limit, Overlong::Cut)?;
        let inputs = windows.iter().map(|w| Input::of(session, w));
        Ok(Item {
            inputs: inputs.collect::<Result<_>>()?,
            cut,
            of: (),
        })
    };
    let mut answer = |_: &Item<()>, found: Vec<texts::Found>, out: &mut dyn Write| {
        let scores = scores(head.scores, &found[0][0]);
        let label = |i: usize| Label {
            label: &head.labels[i],
            score: scores[i],
        };
        let labels: Vec<Label<'_>> = greatest(&scores, count).into_iter().map(label).collect();
        if json {
            return texts::write_json(out, &Line { labels });
        }
        let labels: Vec<String> = labels
            .iter()
            .map(|l| format!("{} {:.4}", l.label, l.score))
            .collect();
        writeln!(out, "{}", labels.join("  ")).map_err(|e| Error::io("standard output", e))
    };
    let task = Task {
        outputs: &[output],
        encode: &encode,
        answer: &mut answer,
    };
    texts::run(session, &args.texts, task, input, out)
}
