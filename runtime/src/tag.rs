//! `tag`: entities as spans of each text.
//!
//! Input: texts. Output: for each its entities, as lines of text or as a JSON line `{"entities": [{"entity_group",
//! "score", "word", "start", "end", "start_byte", "end_byte"}, …]}`.
//!
//! ```text
//! token      its likeliest label, which is its tag with `B-` or `I-` before it
//! entity     a run of tokens of one tag, cut where a token begins one (`B-`); scored by the mean
//! O          belongs to no entity
//! ```
//!
//! `--aggregation none` lists the tokens instead. A text that is too long is read in windows that overlap; of
//! entities of several windows that overlap the longest stays, of equals the likeliest.

use crate::scores::{greatest, softmax};
use crate::session::Session;
use crate::spans::{Characters, Span};
use crate::texts::{self, Input, Item, Task, Texts};
use crate::tokenizer::{Overlong, Window};
use crate::{Error, Result};
use llmc_abi::HeadTask;
use serde::Serialize;
use std::io::{BufRead, Write};

/// Arguments of `tag`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TagArgs {
    #[command(flatten)]
    pub texts: Texts,
    /// Whether tokens are joined to entities
    #[arg(long, value_enum, default_value_t)]
    pub aggregation: Aggregation,
    /// Tokens that windows of long texts share [default: 128, or half of a window]
    #[arg(long, value_name = "N")]
    pub stride: Option<usize>,
    /// Print JSON lines; always for texts of standard input
    #[arg(long)]
    pub json: bool,
}

/// How tokens become entities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Aggregation {
    /// Neighbours of one tag are one entity
    #[default]
    Simple,
    /// Every token for itself
    None,
}

#[derive(Serialize)]
struct Line<'a> {
    entities: Vec<Printed<'a>>,
}

#[derive(Serialize)]
struct Printed<'a> {
    /// The tag of joined tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_group: Option<&'a str>,
    /// The label of a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    entity: Option<&'a str>,
    score: f32,
    word: &'a str,
    #[serde(flatten)]
    span: Span,
}

/// Tokens `bytes.0..bytes.1` under one name.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Entity<'a> {
    name: &'a str,
    score: f32,
    bytes: (usize, usize),
}

/// What a label says: whether an entity begins, and of which kind.
fn split(label: &str) -> (bool, &str) {
    match (label.strip_prefix("B-"), label.strip_prefix("I-")) {
        (Some(tag), _) => (true, tag),
        (None, Some(tag)) => (false, tag),
        (None, None) => (false, label),
    }
}

/// Joins neighbours; names become tags.
fn join<'a>(tokens: &[Entity<'a>]) -> Vec<Entity<'a>> {
    let mut groups: Vec<Vec<Entity<'a>>> = Vec::new();
    for token in tokens {
        let (begins, tag) = split(token.name);
        let last = groups.last_mut();
        let last = last.filter(|g| g.last().is_some_and(|t| split(t.name).1 == tag));
        match last.filter(|_| !begins) {
            Some(group) => group.push(*token),
            None => groups.push(vec![*token]),
        }
    }
    let entity = |group: Vec<Entity<'a>>| {
        let (first, last) = (group.first()?, group.last()?);
        let sum: f64 = group.iter().map(|t| f64::from(t.score)).sum();
        Some(Entity {
            name: split(first.name).1,
            score: (sum / group.len() as f64) as f32,
            bytes: (first.bytes.0, last.bytes.1),
        })
    };
    groups.into_iter().filter_map(entity).collect()
}

/// Of entities that overlap, the longest, of equals the likeliest.
fn without_overlaps(mut entities: Vec<Entity<'_>>) -> Vec<Entity<'_>> {
    entities.sort_by_key(|e| e.bytes.0);
    let mut kept: Vec<Entity<'_>> = Vec::new();
    for entity in entities {
        let len = |e: &Entity<'_>| e.bytes.1 - e.bytes.0;
        match kept.last_mut().filter(|k| entity.bytes.0 < k.bytes.1) {
            None => kept.push(entity),
            Some(k) => {
                if (len(&entity), entity.score) > (len(k), k.score) {
                    *k = entity;
                }
            }
        }
    }
    kept
}

/// The entities of one window.
fn of_window<'a>(
    window: &Window,
    logits: &[f32],
    labels: &'a [String],
    aggregation: Aggregation,
) -> Vec<Entity<'a>> {
    let rows = logits.chunks(labels.len().max(1)).enumerate();
    let tokens = rows.filter(|(i, _)| window.texts[*i].is_some());
    let tokens: Vec<Entity<'a>> = tokens
        .filter_map(|(i, row)| {
            let scores = softmax(row);
            let &label = greatest(&scores, 1).first()?;
            Some(Entity {
                name: &labels[label],
                score: scores[label],
                bytes: window.offsets[i],
            })
        })
        .collect();
    let entities = match aggregation {
        Aggregation::Simple => join(&tokens),
        Aggregation::None => tokens,
    };
    entities.into_iter().filter(|e| e.name != "O").collect()
}

/// Runs `tag`.
pub fn tag(
    session: &Session<'_>,
    args: &TagArgs,
    input: &mut (dyn BufRead + Send),
    out: &mut dyn Write,
) -> Result<()> {
    let (head, output) = session.head(HeadTask::TokenClassification, "logits", "tag")?;
    let json = args.json || args.texts.are_lines();
    let tools = session.text_tools()?;
    let limit = session.max_input();
    let stride = args.stride.unwrap_or(128.min(limit / 2));
    let encode = |text: &str| -> Result<Item<(String, Vec<Window>)>> {
        let windows = Overlong::Windows { stride };
        let (windows, cut) = tools.tokenizer.windows(text, None, limit, windows)?;
        let inputs = windows.iter().map(|w| Input::of(session, w));
        Ok(Item {
            inputs: inputs.collect::<Result<_>>()?,
            cut,
            of: (text.to_owned(), windows),
        })
    };
    let mut several = false;
    let mut answer = |item: &Item<(String, Vec<Window>)>,
                      found: Vec<texts::Found>,
                      out: &mut dyn Write| {
        let (text, windows) = &item.of;
        let of_window = |(window, found): (&Window, &texts::Found)| {
            of_window(window, &found[0], &head.labels, args.aggregation)
        };
        let mut entities: Vec<Entity<'_>> =
            windows.iter().zip(&found).flat_map(of_window).collect();
        if windows.len() > 1 {
            entities = without_overlaps(entities);
        }
        let mut characters = Characters::of(text);
        let entities = entities.into_iter().map(|entity| {
            let (span, word) = characters.span(entity.bytes);
            let joined = args.aggregation == Aggregation::Simple;
            Printed {
                entity_group: joined.then_some(entity.name),
                entity: (!joined).then_some(entity.name),
                score: entity.score,
                word,
                span,
            }
        });
        let entities: Vec<Printed<'_>> = entities.collect();
        if json {
            return texts::write_json(out, &Line { entities });
        }
        let failed = |e| Error::io("standard output", e);
        if std::mem::replace(&mut several, true) {
            writeln!(out).map_err(failed)?;
        }
        for e in entities {
            let name = e.entity_group.or(e.entity).unwrap_or_default();
            let (start, end) = (e.span.start, e.span.end);
            writeln!(out, "{name}  {:.4}  {start}-{end}  {}", e.score, e.word).map_err(failed)?;
        }
        Ok(())
    };
    let task = Task {
        outputs: &[output],
        encode: &encode,
        answer: &mut answer,
    };
    texts::run(session, &args.texts, task, input, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &'static str, score: f32, bytes: (usize, usize)) -> Entity<'static> {
        Entity { name, score, bytes }
    }

    #[test]
    fn neighbours_of_a_tag_are_joined() {
        let tokens = [
            token("B-PER", 0.9, (0, 4)),
            token("I-PER", 0.7, (5, 9)),
            token("B-PER", 0.8, (10, 12)),
            token("O", 0.5, (13, 14)),
            token("O", 0.7, (15, 16)),
            token("I-LOC", 0.6, (17, 20)),
            token("LOC", 0.4, (20, 22)),
        ];
        let joined = join(&tokens);
        let expected = [
            token("PER", 0.8, (0, 9)),
            token("PER", 0.8, (10, 12)),
            token("O", 0.6, (13, 16)),
            token("LOC", 0.5, (17, 22)),
        ];
        assert_eq!(joined.len(), expected.len());
        for (found, want) in joined.iter().zip(&expected) {
            assert_eq!((found.name, found.bytes), (want.name, want.bytes));
            assert!((found.score - want.score).abs() < 1e-6, "{found:?}");
        }
    }

    #[test]
    fn the_longest_of_overlapping_entities_stays() {
        let entities = vec![
            token("A", 0.9, (0, 4)),
            token("B", 0.9, (6, 8)),
            token("A", 0.5, (0, 5)),
            token("C", 0.3, (6, 8)),
            token("D", 0.1, (8, 9)),
        ];
        assert_eq!(
            without_overlaps(entities),
            [
                token("A", 0.5, (0, 5)),
                token("B", 0.9, (6, 8)),
                token("D", 0.1, (8, 9)),
            ]
        );
    }

    #[test]
    fn added_tokens_have_no_label() {
        let labels = ["O".to_owned(), "B-X".to_owned()];
        let window = Window {
            ids: vec![0, 7, 8, 1],
            texts: vec![None, Some(0), Some(0), None],
            offsets: vec![(0, 0), (0, 2), (2, 5), (0, 0)],
            ..Window::default()
        };
        let logits = [0.0, 9.0, 0.0, 9.0, 9.0, 0.0, 0.0, 9.0];
        let found = of_window(&window, &logits, &labels, Aggregation::None);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name, found[0].bytes), ("B-X", (0, 2)));
    }
}
