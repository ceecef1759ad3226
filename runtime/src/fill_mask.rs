//! `fill-mask`: which tokens may stand where the mask is.
//!
//! Input: texts with the model's mask token in them. Output: for every mask the likeliest tokens, as lines of
//! text or as a JSON line `{"masks": [[{"score", "token", "token_str", "sequence"}, …], …]}`. The logits of
//! masks alone are computed. Texts that are too long are cut.

use crate::scores::{greatest, softmax};
use crate::session::Session;
use crate::texts::{self, Input, Item, Task, Texts};
use crate::tokenizer::Overlong;
use crate::{Error, Result};
use llmc_abi::HeadTask;
use serde::Serialize;
use std::io::{BufRead, Write};

/// Arguments of `fill-mask`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FillMaskArgs {
    #[command(flatten)]
    pub texts: Texts,
    /// Tokens for each mask
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub top_k: usize,
    /// Print JSON lines; always for texts of standard input
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Line {
    masks: Vec<Vec<Fill>>,
}

#[derive(Serialize)]
struct Fill {
    score: f32,
    token: u32,
    token_str: String,
    /// The text with this token in the mask's place.
    sequence: String,
}

/// A text's ids and where its masks are.
struct Masked {
    ids: Vec<u32>,
    at: Vec<usize>,
}

/// Runs `fill-mask`.
pub fn fill_mask(
    session: &Session<'_>,
    args: &FillMaskArgs,
    input: &mut (dyn BufRead + Send),
    out: &mut dyn Write,
) -> Result<()> {
    let (_, output) = session.head(HeadTask::MaskedLm, "logits", "fill-mask")?;
    let tools = session.text_tools()?;
    let tokenizer = &tools.tokenizer;
    let strings = &session.manifest.special_strings;
    let mask = strings
        .get("mask_token")
        .and_then(|token| Some((token, tokenizer.id(token)?)));
    let Some((mask, mask_id)) = mask else {
        return Err(Error::Unsupported(
            "this model's tokenizer names no mask token".into(),
        ));
    };
    let width = session.manifest.outputs[output].width as usize;
    let json = args.json || args.texts.are_lines();
    let encode = |text: &str| -> Result<Item<Masked>> {
        let limit = session.max_input();
        let (mut windows, cut) = tokenizer.windows(text, None, limit, Overlong::Cut)?;
        let window = windows.swap_remove(0);
        let ids = window.ids.iter().enumerate();
        let at: Vec<usize> = ids
            .filter(|(_, id)| **id == mask_id)
            .map(|(i, _)| i)
            .collect();
        if at.is_empty() {
            let within = if cut {
                format!(" within {limit} tokens")
            } else {
                String::new()
            };
            return Err(Error::Input(format!("the text holds no {mask}{within}")));
        }
        Ok(Item {
            inputs: vec![Input::of(session, &window)?.with_rows(at.clone())],
            cut,
            of: Masked {
                ids: window.ids,
                at,
            },
        })
    };
    let mut answer = |item: &Item<Masked>, found: Vec<texts::Found>, out: &mut dyn Write| {
        let Masked { ids, at } = &item.of;
        let mut masks = Vec::new();
        for (logits, &place) in found[0][0].chunks(width).zip(at) {
            let scores = softmax(logits);
            let mut fills = Vec::new();
            for token in greatest(&scores, args.top_k) {
                let mut ids = ids.clone();
                ids[place] = token as u32;
                fills.push(Fill {
                    score: scores[token],
                    token: token as u32,
                    token_str: tokenizer.decode(&[token as u32], false)?,
                    // The other masks would be lost with the special tokens.
                    sequence: tokenizer.decode(&ids, at.len() == 1)?,
                });
            }
            masks.push(fills);
        }
        if json {
            return texts::write_json(out, &Line { masks });
        }
        for fill in masks.iter().flatten() {
            writeln!(
                out,
                "{:.4}  {}  {}",
                fill.score,
                fill.token_str.trim(),
                fill.sequence
            )
            .map_err(|e| Error::io("standard output", e))?;
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
