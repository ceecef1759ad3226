//! What a classifier's outputs are called and how they become scores.
//!
//! In: `id2label`, `num_labels`, `problem_type` and what sentence-transformers' cross-encoders add. Out:
//! [`Labels`].
//!
//! Invariants: labels are numbered from 0 without gaps; there is at least one.
//!
//! Not here: the arithmetic of scores (the runtime).

use crate::config::Config;
use crate::error::{Excerpt, Result};
use crate::json::Json;

/// Classes of one model.
const MOST: u32 = 1 << 20;

/// A classifier's outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// The name of each.
    pub names: Vec<String>,
    /// How logits become scores of classes.
    pub scores: Scores,
    /// How the logit of a pair becomes its relevance.
    pub relevance: Scores,
}

/// A function of logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scores {
    /// Themselves: regression.
    Logits,
    /// Each by itself: several labels at once, or one.
    Sigmoid,
    /// One of several.
    Softmax,
}

impl Labels {
    /// Reads them; two without a name of their own where nothing is said, as transformers does.
    pub fn of(c: &Config) -> Result<Self> {
        let count = c.optional_count("num_labels", 1..=MOST)?;
        let names = match c.get("id2label") {
            None => (0..count.unwrap_or(2))
                .map(|i| format!("LABEL_{i}"))
                .collect(),
            Some(value) => names(c, value)?,
        };
        if let Some(count) = count.filter(|count| *count as usize != names.len()) {
            let what = format!(
                "found {count}, expected the length of id2label ({})",
                names.len()
            );
            return Err(c.problem("num_labels", what).input());
        }
        let scores = match c.optional_text("problem_type")? {
            Some("regression") => Scores::Logits,
            Some("multi_label_classification") => Scores::Sigmoid,
            Some("single_label_classification") | None => match names.len() {
                1 => Scores::Sigmoid,
                _ => Scores::Softmax,
            },
            Some(_) => {
                let supported = "\"regression\", \"single_label_classification\" or \"multi_label_classification\"";
                return Err(c.refuse("problem_type", supported));
            }
        };
        let relevance = relevance(c, names.len())?;
        Ok(Self {
            names,
            scores,
            relevance,
        })
    }
}

/// `{"0": "NAME", …}`.
fn names(c: &Config, value: &Json) -> Result<Vec<String>> {
    const FIELD: &str = "id2label";
    let Some(members) = value
        .as_object()
        .filter(|members| (1..=MOST as usize).contains(&members.len()))
    else {
        return Err(c.wrong(FIELD, format_args!("an object of 1 to {MOST} labels")));
    };
    let name = |i: usize| {
        let wrong = |what: String| c.problem(&format!("{FIELD}.{i}"), what).input();
        match members.get(&i.to_string()) {
            None => Err(wrong(format!(
                "missing, expected labels from 0 to {}",
                members.len() - 1
            ))),
            Some(Json::String(name)) => Ok(name.clone()),
            Some(other) => Err(wrong(format!(
                "found {}, expected a string",
                other.describe()
            ))),
        }
    };
    (0..members.len()).map(name).collect()
}

/// What a cross-encoder does with its logits: by default a sigmoid where there is one of them. Older
/// sentence-transformers write `sbert_ce_default_activation_function`, newer ones an object.
fn relevance(c: &Config, labels: usize) -> Result<Scores> {
    let section = c.section("sentence_transformers")?;
    let (at, field) = match &section {
        Some(section) if section.has("activation_fn") => (section, "activation_fn"),
        _ => (c, "sbert_ce_default_activation_function"),
    };
    let Some(class) = at.optional_text(field)? else {
        return Ok(if labels == 1 {
            Scores::Sigmoid
        } else {
            Scores::Logits
        });
    };
    match class.rsplit('.').next().unwrap_or(class) {
        "Sigmoid" => Ok(Scores::Sigmoid),
        "Identity" => Ok(Scores::Logits),
        _ => {
            let what = format!(
                "found \"{}\", supported are Sigmoid and Identity",
                Excerpt(class)
            );
            Err(at.problem(field, what).unsupported())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::json::Limits;

    #[track_caller]
    fn check(text: &str, expected: Result<(&[&str], Scores, Scores), &str>) {
        let path = Path::new("config.json");
        let json = Json::parse(path, text.as_bytes(), Limits::CONFIG).unwrap();
        let found = Config::from_json(path, json).and_then(|c| Labels::of(&c));
        match (found, expected) {
            (Ok(found), Ok((names, scores, relevance))) => {
                assert_eq!(found.names, names, "{text}");
                assert_eq!(
                    (found.scores, found.relevance),
                    (scores, relevance),
                    "{text}"
                );
            }
            (Err(error), Err(expected)) => assert_eq!(error.to_string(), expected, "{text}"),
            (found, expected) => panic!("{text}: found {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn scores_follow_the_problem() {
        use Scores::{Logits, Sigmoid, Softmax};
        check("{}", Ok((&["LABEL_0", "LABEL_1"], Softmax, Logits)));
        check("{\"num_labels\": 1}", Ok((&["LABEL_0"], Sigmoid, Sigmoid)));
        check(
            "{\"id2label\": {\"1\": \"no\", \"0\": \"yes\"}}",
            Ok((&["yes", "no"], Softmax, Logits)),
        );
        check(
            "{\"problem_type\": \"multi_label_classification\"}",
            Ok((&["LABEL_0", "LABEL_1"], Sigmoid, Logits)),
        );
        check(
            "{\"num_labels\": 1, \"problem_type\": \"regression\", \
             \"sbert_ce_default_activation_function\": \"torch.nn.modules.linear.Identity\"}",
            Ok((&["LABEL_0"], Logits, Logits)),
        );
        check(
            "{\"num_labels\": 1, \"sentence_transformers\": \
             {\"activation_fn\": \"torch.nn.modules.activation.Sigmoid\", \"version\": \"4\"}}",
            Ok((&["LABEL_0"], Sigmoid, Sigmoid)),
        );
    }

    #[test]
    fn what_contradicts_is_refused() {
        check(
            "{\"id2label\": {\"0\": \"a\", \"2\": \"b\"}}",
            Err("config.json: `id2label.1`: missing, expected labels from 0 to 1"),
        );
        check(
            "{\"id2label\": {\"0\": 1}}",
            Err("config.json: `id2label.0`: found 1, expected a string"),
        );
        check(
            "{\"id2label\": {}}",
            Err(
                "config.json: `id2label`: found an object of 0, expected an object of 1 to 1048576 labels",
            ),
        );
        check(
            "{\"id2label\": {\"0\": \"a\"}, \"num_labels\": 2}",
            Err("config.json: `num_labels`: found 2, expected the length of id2label (1)"),
        );
        check(
            "{\"problem_type\": \"ranking\"}",
            Err(
                "not supported yet: config.json: `problem_type`: found \"ranking\", supported is \"regression\", \
                 \"single_label_classification\" or \"multi_label_classification\"",
            ),
        );
        check(
            "{\"sbert_ce_default_activation_function\": \"x.Tanh\"}",
            Err(
                "not supported yet: config.json: `sbert_ce_default_activation_function`: found \"x.Tanh\", \
                 supported are Sigmoid and Identity",
            ),
        );
    }
}
