//! `perplexity`: how well the model foretells a text.
//!
//! Input: a file, encoded with the special tokens that the tokenizer puts around a plain text.
//! Output: tokens foretold, their mean negative log-likelihood (natural logarithm) and its
//! exponential. A text beyond the window is read in windows that overlap: each begins with an empty
//! cache, `stride` tokens after the one before it, and only tokens that no earlier window has told
//! count. So every token but the first counts once, and after the first window each has at least
//! `window - stride` tokens before it. (Hugging Face's guide does the same; llama.cpp's tool cuts
//! the text into windows side by side and counts the second half of each.)
//! Not here: steps (`engine`).

use crate::engine::{Rows, Work};
use crate::session::{Session, as_i32, check_ids};
use crate::tensor_file::TensorFile;
use crate::text_tools::read_text;
use crate::{Error, Result};
use serde_json::json;
use std::io::{BufRead, Write};
use std::path::PathBuf;

/// Window where the context is longer.
const DEFAULT_WINDOW: usize = 2048;

/// Arguments of `perplexity`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PerplexityArgs {
    /// The text; `-` reads standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Tokens in a window [default: the context, at most 2048]
    #[arg(long, value_name = "N")]
    pub window: Option<usize>,
    /// Tokens from one window to the next [default: half a window]
    #[arg(long, value_name = "N")]
    pub stride: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Write each token's negative log-likelihood: `nll`, f32 [tokens - 1], and `input_ids`
    #[arg(long, value_name = "OUT.safetensors")]
    pub nll: Option<PathBuf>,
}

/// A window of a text: tokens `start..end`, of which those from `first` on count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    start: usize,
    first: usize,
    end: usize,
}

/// The windows over `len` tokens; `stride <= window`, both above 0.
fn windows(len: usize, window: usize, stride: usize) -> impl Iterator<Item = Window> {
    let mut told = 1;
    (0..len).step_by(stride).map_while(move |start| {
        let first = told;
        let end = (start + window).min(len);
        told = end;
        (first < end).then_some(Window { start, first, end })
    })
}

/// Runs `perplexity`.
pub fn perplexity(
    session: &Session<'_>,
    args: &PerplexityArgs,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<()> {
    session.need(session.continues_texts(), "perplexity")?;
    let m = session.manifest;
    let context = m.limits.max_context as usize;
    let window = args.window.unwrap_or(context.min(DEFAULT_WINDOW));
    if !(2..=context).contains(&window) {
        return Err(Error::Usage(format!(
            "--window {window}: give 2 to {context} tokens, the context"
        )));
    }
    let stride = args.stride.unwrap_or(window / 2);
    if !(1..window).contains(&stride) {
        return Err(Error::Usage(format!(
            "--stride {stride}: give 1 to {} tokens, less than a window",
            window - 1
        )));
    }
    let tools = session.text_tools()?;
    let text = if args.file.as_os_str() == "-" {
        read_text(input)?
    } else {
        let bytes = std::fs::read(&args.file);
        let bytes = bytes.map_err(|e| Error::Input(format!("{}: {e}", args.file.display())))?;
        let wrong = |_| Error::Input(format!("{} is not UTF-8", args.file.display()));
        String::from_utf8(bytes).map_err(wrong)?
    };
    let ids = tools.tokenizer.encode(&text, true)?.ids;
    check_ids(m, &ids)?;
    if ids.len() < 2 {
        return Err(Error::Input(format!(
            "the text has {} tokens: at least 2 are needed, of which one is foretold",
            ids.len()
        )));
    }
    let nll = measure(session, &as_i32(&ids), window, stride)?;
    let mean = nll.iter().map(|&n| f64::from(n)).sum::<f64>() / nll.len() as f64;
    if let Some(path) = &args.nll {
        let columns = vec![ids.iter().map(|&id| i64::from(id)).collect()];
        let shape = ("input_ids".to_owned(), vec![1, ids.len()]);
        let mut file =
            TensorFile::create(path, Some(shape), vec![("nll".to_owned(), vec![nll.len()])])?;
        file.write(0, 0, &nll);
        file.finish(&columns)?;
    }
    let line = if args.json {
        json!({"tokens": nll.len(), "mean_nll": mean, "perplexity": mean.exp()}).to_string()
    } else {
        let (tokens, perplexity) = (nll.len(), mean.exp());
        format!("tokens {tokens}  mean NLL {mean:.6}  perplexity {perplexity:.4}")
    };
    writeln!(out, "{line}").map_err(|e| Error::io("standard output", e))
}

/// The negative log-likelihood of each token but the first `[ids.len() - 1]`.
fn measure(session: &Session<'_>, ids: &[i32], window: usize, stride: usize) -> Result<Vec<f32>> {
    let mut engine = session.engine(1, window.min(ids.len()), false)?;
    let logits = engine
        .output("logits")
        .ok_or_else(|| Error::Unsupported("this model gives no logits".into()))?;
    let mut nll = Vec::with_capacity(ids.len() - 1);
    for Window { start, first, end } in windows(ids.len(), window, stride) {
        let seq = engine.open()?;
        // The token before the first that counts foretells it.
        let work = |ids, rows| Work {
            seq: Some(seq),
            ids,
            types: &[],
            rows,
        };
        engine.run(&[work(&ids[start..first - 1], Rows::None)], &mut |_| Ok(()))?;
        let mut target = first;
        engine.run(&[work(&ids[first - 1..end - 1], Rows::All)], &mut |view| {
            for span in view.spans {
                for row in span.row..span.row + span.rows {
                    nll.push(negative_log_likelihood(view.row(logits, row), ids[target])?);
                    target += 1;
                }
            }
            Ok(())
        })?;
        engine.close(seq);
        if nll.len() > 1 && end < ids.len() {
            session.note(&format!("{} of {} tokens", nll.len(), ids.len() - 1));
        }
    }
    Ok(nll)
}

/// -ln softmax(logits)[target], the sum in f64.
fn negative_log_likelihood(logits: &[f32], target: i32) -> Result<f32> {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from((l - best).exp())).sum();
    let told = logits.get(target as usize).copied().unwrap_or(f32::NAN);
    let nll = sum.ln() - f64::from(told - best);
    if nll.is_nan() {
        return Err(Error::Run("the model's logits are not numbers".into()));
    }
    Ok(nll as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(len: usize, window: usize, stride: usize, expected: &[(usize, usize, usize)]) {
        let found: Vec<_> = windows(len, window, stride)
            .map(|w| (w.start, w.first, w.end))
            .collect();
        assert_eq!(found, expected, "{len} {window} {stride}");
    }

    #[test]
    fn every_token_but_the_first_counts_once() {
        check(2, 10, 5, &[(0, 1, 2)]);
        check(10, 10, 5, &[(0, 1, 10)]);
        check(11, 10, 5, &[(0, 1, 10), (5, 10, 11)]);
        check(
            25,
            10,
            5,
            &[(0, 1, 10), (5, 10, 15), (10, 15, 20), (15, 20, 25)],
        );
        check(9, 4, 3, &[(0, 1, 4), (3, 4, 7), (6, 7, 9)]);
        for len in 2..60 {
            for window in 2..20 {
                for stride in 1..window {
                    let mut next = 1;
                    for w in windows(len, window, stride) {
                        assert!(w.start < w.first && w.first == next && w.end - w.start <= window);
                        next = w.end;
                    }
                    assert_eq!(next, len, "{window} {stride}");
                }
            }
        }
    }

    #[test]
    fn likelihoods_are_those_of_a_softmax() {
        let logits = [1.0f32, 3.0, 2.0, f32::NEG_INFINITY];
        let sum: f64 = [1.0f64, 3.0, 2.0].iter().map(|l| l.exp()).sum();
        let nll = negative_log_likelihood(&logits, 2).unwrap();
        assert!((f64::from(nll) + (2.0f64.exp() / sum).ln()).abs() < 1e-6);
        assert_eq!(negative_log_likelihood(&logits, 3).unwrap(), f32::INFINITY);
        assert!(negative_log_likelihood(&[f32::NAN; 2], 0).is_err());
    }
}
