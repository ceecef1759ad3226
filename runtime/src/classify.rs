//! `classify`: labels for each text or picture.
//!
//! Input: texts, pairs of texts, or files of pictures. Output: the best labels of each with their scores, as a line of text or as a JSON line
//! `{"labels": [{"label", "score"}, …]}`. One label where labels exclude each other, else all of them,
//! unless `--top-k` says how many. Texts that are too long are cut, the longer one of a pair first.

use crate::scores::{greatest, scores};
use crate::session::Session;
use crate::texts::{self, Input, Item, Task, Texts};
use crate::tokenizer::Overlong;
use crate::{Error, Result, pictures};
use llmc_abi::{Head, HeadTask, Pictures, Scores};
use serde::Serialize;
use std::io::{BufRead, Write};
use std::path::Path;

/// Arguments of `classify`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ClassifyArgs {
    #[command(flatten)]
    pub texts: Texts,
    /// A second text to each, where the model was made for pairs
    #[arg(long, value_name = "TEXT", conflicts_with = "pairs")]
    pub pair: Option<String>,
    /// Each text is two, with a tab between
    #[arg(long)]
    pub pairs: bool,
    /// Labels of each text [default: 1, or all where several may hold]
    #[arg(long, value_name = "N")]
    pub top_k: Option<usize>,
    /// Print JSON lines; always for texts of standard input
    #[arg(long)]
    pub json: bool,
}

impl ClassifyArgs {
    /// A text and what stands beside it.
    fn split<'t>(&'t self, text: &'t str) -> Result<(&'t str, Option<&'t str>)> {
        if !self.pairs {
            return Ok((text, self.pair.as_deref()));
        }
        let two = text
            .split_once('\t')
            .filter(|(_, second)| !second.contains('\t'));
        let (text, pair) = two.ok_or_else(|| {
            let tabs = text.matches('\t').count();
            Error::Input(format!(
                "--pairs: found a text with {tabs} tabs, expected one"
            ))
        })?;
        Ok((text, Some(pair)))
    }
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
    if let Some(pictures) = &session.manifest.pictures {
        return classify_pictures(session, args, pictures, input, out);
    }
    let (head, output) = session.head(HeadTask::SequenceClassification, "logits", "classify")?;
    let count = count(args, head);
    let json = args.json || args.texts.are_lines();
    let tools = session.text_tools()?;
    let encode = |text: &str| -> Result<Item<()>> {
        let limit = session.max_input();
        let (text, pair) = args.split(text)?;
        let (windows, cut) = tools.tokenizer.windows(text, pair, limit, Overlong::Cut)?;
        let inputs = windows.iter().map(|w| Input::of(session, w));
        Ok(Item {
            inputs: inputs.collect::<Result<_>>()?,
            cut,
            of: (),
        })
    };
    let mut answer = |_: &Item<()>, found: Vec<texts::Found>, out: &mut dyn Write| {
        answer_with(head, &found[0][0], (count, json), out)
    };
    let task = Task {
        outputs: &[output],
        encode: &encode,
        answer: &mut answer,
    };
    texts::run(session, &args.texts, task, input, out)
}

/// How many labels are told.
fn count(args: &ClassifyArgs, head: &Head) -> usize {
    args.top_k.unwrap_or(match head.scores {
        Scores::Softmax => 1,
        Scores::Sigmoid | Scores::Logits => head.labels.len(),
    })
}

/// Prints the best labels.
fn answer_with(
    head: &Head,
    logits: &[f32],
    (count, json): (usize, bool),
    out: &mut dyn Write,
) -> Result<()> {
    let scores = scores(head.scores, logits);
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
}

/// The same for pictures, whose files are named.
fn classify_pictures(
    session: &Session<'_>,
    args: &ClassifyArgs,
    model: &Pictures,
    input: &mut (dyn BufRead + Send),
    out: &mut dyn Write,
) -> Result<()> {
    let (head, _) = session.head(HeadTask::ImageClassification, "logits", "classify")?;
    if args.pair.is_some() || args.pairs {
        return Err(Error::Usage(
            "--pair, --pairs: this model classifies pictures".into(),
        ));
    }
    let told = (count(args, head), args.json || args.texts.are_lines());
    let mut engine = session.engine(0, session.max_input(), false)?;
    args.texts.each(input, &mut |name| {
        let pixels = pictures::read_file(session, model, Path::new(name))?;
        let logits = pictures::results(session, &mut engine, model, &pixels, "logits")?;
        logits
            .iter()
            .try_for_each(|row| answer_with(head, row, told, out))?;
        out.flush().map_err(|e| Error::io("standard output", e))
    })
}
