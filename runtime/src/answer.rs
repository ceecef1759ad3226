//! `answer`: where in a text the answer to a question stands; of models that are told pictures what a question about
//! one is answered with (`caption`).
//!
//! Input: a context and questions. Output: for each question the best spans of the context, as a line of text or
//! as a JSON line `{"answers": [{"answer", "score", "start", "end", "start_byte", "end_byte"}, …]}`.
//!
//! ```text
//! window     question and a part of the context, which slides
//! p, q       softmax of start and end logits over the context's tokens and [CLS]
//! score      p(start) · q(end), end at most --max-length tokens behind start
//! answer     the span widened to whole words; equal answers of several windows add up
//! ```
//!
//! `--no-answer` also weighs that there is none, which [CLS] stands for.

use crate::generation_flags::GenerationFlags;
use crate::scores::{greatest, softmax};
use crate::session::Session;
use crate::spans::{Characters, Span};
use crate::text_tools::read_text;
use crate::texts::{self, Input, Item, Task, Texts};
use crate::tokenizer::{Overlong, Window};
use crate::told::Told;
use crate::{Error, Result, caption};
use llmc_abi::HeadTask;
use serde::Serialize;
use std::io::{BufRead, Write};

/// Arguments of `answer`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct AnswerArgs {
    /// The text that holds the answers, of which `--top-k` are told [default: 1]; `-` reads it from standard
    /// input
    #[arg(long, value_name = "TEXT")]
    pub context: Option<String>,
    /// The questions, behind the file of a picture where the model is told one; `-` or nothing reads one a line from
    /// standard input
    #[arg(value_name = "QUESTION")]
    pub questions: Vec<String>,
    /// Tokens of the longest answer in a context [default: 15]
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// Tokens of a window [default: 384, or what the model takes]
    #[arg(long, value_name = "N")]
    pub window: Option<usize>,
    /// Tokens that windows share [default: 128, or half of a window]
    #[arg(long, value_name = "N")]
    pub stride: Option<usize>,
    /// Also consider that there is no answer
    #[arg(long)]
    pub no_answer: bool,
    /// Print JSON lines; always for questions of standard input
    #[arg(long)]
    pub json: bool,
    /// At most N new tokens for each answer about a picture [default: 64]
    #[arg(short = 'n', value_name = "N")]
    pub new: Option<usize>,
    #[command(flatten)]
    pub flags: GenerationFlags,
}

impl AnswerArgs {
    /// A flag that answers out of a context alone have.
    pub fn of_contexts(&self) -> Option<&'static str> {
        let given = [
            ("--context", self.context.is_some()),
            ("--max-length", self.max_length.is_some()),
            ("--window", self.window.is_some()),
            ("--stride", self.stride.is_some()),
            ("--no-answer", self.no_answer),
        ];
        given
            .into_iter()
            .find_map(|(flag, given)| given.then_some(flag))
    }
}

#[derive(Serialize)]
struct Line<'a> {
    answers: Vec<Printed<'a>>,
}

#[derive(Serialize)]
struct Printed<'a> {
    answer: &'a str,
    score: f32,
    #[serde(flatten)]
    span: Span,
}

/// A span of a window's tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    start: usize,
    end: usize,
    score: f32,
}

/// The `count` best spans of a window, and the score of there being none. `allowed` are the tokens of the context
/// and those that stand for no answer.
fn candidates(
    logits: [&[f32]; 2],
    window: &Window,
    cls: Option<u32>,
    (count, longest): (usize, usize),
) -> (Vec<Candidate>, f32) {
    let allowed: Vec<usize> = (0..window.ids.len())
        .filter(|&i| window.texts[i] == Some(1) || Some(window.ids[i]) == cls)
        .collect();
    let [start, end] = logits.map(|logits| {
        let of: Vec<f32> = allowed.iter().map(|&i| logits[i]).collect();
        let mut all = vec![0.0; logits.len()];
        for (&i, p) in allowed.iter().zip(softmax(&of)) {
            all[i] = p;
        }
        all
    });
    let none = start.first().zip(end.first()).map_or(0.0, |(p, q)| p * q);
    let mut found: Vec<Candidate> = Vec::new();
    // [CLS] at the front is no answer.
    for &s in allowed.iter().filter(|&&s| s > 0) {
        for &e in allowed.iter().filter(|&&e| e >= s && e - s < longest) {
            let score = start[s] * end[e];
            found.push(Candidate {
                start: s,
                end: e,
                score,
            });
        }
    }
    let scores: Vec<f32> = found.iter().map(|c| c.score).collect();
    let best = greatest(&scores, count);
    (best.into_iter().map(|i| found[i]).collect(), none)
}

/// Runs `answer`.
pub fn answer(
    session: &Session<'_>,
    args: &AnswerArgs,
    input: &mut (dyn BufRead + Send),
    out: &mut dyn Write,
) -> Result<()> {
    if let Some(told) = Told::of(session.manifest)? {
        return caption::answer(session, args, told, input, out);
    }
    let task = HeadTask::QuestionAnswering;
    let (_, start) = session.head(task, "start_logits", "answer")?;
    let (_, end) = session.head(task, "end_logits", "answer")?;
    let (count, longest) = (
        args.flags.top_k.unwrap_or(1) as usize,
        args.max_length.unwrap_or(15),
    );
    let others = GenerationFlags {
        top_k: None,
        ..args.flags.clone()
    };
    if args.new.is_some() || others != GenerationFlags::default() {
        let what =
            "this model finds answers in a context, and takes no generation flags but --top-k";
        return Err(Error::Usage(what.into()));
    }
    let questions = Texts {
        texts: args.questions.clone(),
    };
    let context = match args.context.as_deref() {
        None => return Err(Error::Usage("answer needs --context TEXT".into())),
        Some("-") if questions.are_lines() => {
            return Err(Error::Usage(
                "standard input holds the context or the questions, not both".into(),
            ));
        }
        Some("-") => read_text(input)?,
        Some(text) => text.to_owned(),
    };
    let limit = session.max_input();
    let limit = args.window.unwrap_or(limit.min(384)).min(limit);
    let stride = args.stride.unwrap_or(128.min(limit / 2));
    let json = args.json || questions.are_lines();
    let tools = session.text_tools()?;
    let cls = session.manifest.special_strings.get("cls_token");
    let cls = cls.and_then(|token| tools.tokenizer.id(token));
    let encode = |question: &str| -> Result<Item<Vec<Window>>> {
        let windows = Overlong::Windows { stride };
        let tokenizer = &tools.tokenizer;
        let (windows, cut) = tokenizer.windows(question, Some(&context), limit, windows)?;
        let inputs = windows.iter().map(|w| Input::of(session, w));
        Ok(Item {
            inputs: inputs.collect::<Result<_>>()?,
            cut,
            of: windows,
        })
    };
    let mut answer = |item: &Item<Vec<Window>>, found: Vec<texts::Found>, out: &mut dyn Write| {
        let mut answers: Vec<Printed<'_>> = Vec::new();
        let mut none = f32::INFINITY;
        let mut characters = Characters::of(&context);
        for (window, logits) in item.of.iter().zip(&found) {
            let logits = [logits[0].as_slice(), logits[1].as_slice()];
            let (spans, no_answer) = candidates(logits, window, cls, (count, longest));
            none = none.min(no_answer);
            for Candidate { start, end, score } in spans {
                let bytes = (window.words[start].0, window.words[end].1);
                let (span, text) = characters.span(bytes);
                let same = |a: &&mut Printed<'_>| a.answer.to_lowercase() == text.to_lowercase();
                match answers.iter_mut().find(same) {
                    Some(known) => known.score += score,
                    None => answers.push(Printed {
                        answer: text,
                        score,
                        span,
                    }),
                }
            }
        }
        if args.no_answer {
            let (span, answer) = characters.span((0, 0));
            answers.push(Printed {
                answer,
                score: none,
                span,
            });
        }
        answers.sort_by(|a, b| b.score.total_cmp(&a.score));
        answers.truncate(count);
        if json {
            return texts::write_json(out, &Line { answers });
        }
        for a in answers {
            let (start, end) = (a.span.start, a.span.end);
            writeln!(out, "{}  {:.4}  {start}-{end}", a.answer, a.score)
                .map_err(|e| Error::io("standard output", e))?;
        }
        Ok(())
    };
    let task = Task {
        outputs: &[start, end],
        encode: &encode,
        answer: &mut answer,
    };
    texts::run(session, &questions, task, input, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[CLS] q [SEP] a b c [SEP]`.
    fn window() -> Window {
        let texts = [None, Some(0), None, Some(1), Some(1), Some(1), None];
        Window {
            ids: vec![0, 5, 1, 6, 7, 8, 1],
            texts: texts.into(),
            ..Window::default()
        }
    }

    #[test]
    fn spans_lie_in_the_context() {
        let start = [0.0, 9.0, 9.0, 1.0, 2.0, 0.0, 9.0];
        let end = [0.0, 9.0, 9.0, 3.5, 0.0, 2.0, 9.0];
        let (found, none) = candidates([&start, &end], &window(), Some(0), (2, 15));
        let spans: Vec<_> = found.iter().map(|c| (c.start, c.end)).collect();
        assert_eq!(spans, [(3, 3), (4, 5)]);
        let (p, q) = (
            softmax(&[0.0, 1.0, 2.0, 0.0]),
            softmax(&[0.0, 3.5, 0.0, 2.0]),
        );
        assert!((found[0].score - p[1] * q[1]).abs() < 1e-6);
        assert!((found[1].score - p[2] * q[3]).abs() < 1e-6);
        assert!((none - p[0] * q[0]).abs() < 1e-6);
    }

    #[test]
    fn answers_have_a_longest_length() {
        let start = [0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0];
        let end = [0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 0.0];
        let best = |longest| {
            let (found, _) = candidates([&start, &end], &window(), None, (1, longest));
            (found[0].start, found[0].end)
        };
        assert_eq!(best(3), (3, 5));
        assert_ne!(best(2), (3, 5));
    }
}
