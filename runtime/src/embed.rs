//! `embed`: one vector for each text.
//!
//! Input: texts. Output: one JSON line `{"embedding": […]}` for each. `--dimensions` keeps the first
//! dimensions (Matryoshka), of length 1 again where the model's embeddings are. Not here: pooling
//! (compiled into the step).

use crate::session::Session;
use crate::texts::{self, Input, Item, Task, Texts};
use crate::{Error, Result};
use std::io::{BufRead, Write};

/// Arguments of `embed`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct EmbedArgs {
    #[command(flatten)]
    pub texts: Texts,
    /// Keep the first N dimensions
    #[arg(long, value_name = "N")]
    pub dimensions: Option<usize>,
}

/// Runs `embed`.
pub fn embed(
    session: &Session<'_>,
    args: &EmbedArgs,
    input: &mut (dyn BufRead + Send),
    out: &mut dyn Write,
) -> Result<()> {
    let m = session.manifest;
    let output = session.output("sentence_embedding").filter(|_| m.embeds);
    let Some(output) = output else {
        return session.need(false, "embed");
    };
    let width = m.outputs[output].width as usize;
    let kept = args.dimensions.unwrap_or(width);
    if !(1..=width).contains(&kept) {
        return Err(Error::Usage(format!(
            "--dimensions {kept}: this model's embeddings have 1 to {width}"
        )));
    }
    let tools = session.text_tools()?;
    let face = &m.sentence;
    let encode = |text: &str| -> Result<Item<()>> {
        let mut text = format!("{}{text}", face.prompt);
        if face.lower_case {
            text = text.to_lowercase();
        }
        let (encoded, cut) = tools.tokenizer.encode_within(&text, session.max_input())?;
        let inputs = vec![Input::new(session, &encoded.ids, &encoded.type_ids)?];
        Ok(Item {
            inputs,
            cut,
            of: (),
        })
    };
    let mut answer = |_: &Item<()>, mut found: Vec<texts::Found>, out: &mut dyn Write| {
        let row = &mut found[0][0];
        if kept < width {
            row.truncate(kept);
            if face.normalized {
                normalize(row);
            }
        }
        let failed = |e| Error::io("standard output", e);
        out.write_all(b"{\"embedding\": ").map_err(failed)?;
        serde_json::to_writer(&mut *out, row).map_err(|e| failed(std::io::Error::from(e)))?;
        out.write_all(b"}\n").map_err(failed)
    };
    let task = Task {
        outputs: &[output],
        encode: &encode,
        answer: &mut answer,
    };
    texts::run(session, &args.texts, task, input, out)
}

/// Divides by the L2 norm, which is never less than 1e-12.
fn normalize(row: &mut [f32]) {
    let squares: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let norm = squares.sqrt().max(1e-12);
    row.iter_mut()
        .for_each(|x| *x = (f64::from(*x) / norm) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortened_embedding_has_length_1() {
        let mut row = [3.0, 4.0];
        normalize(&mut row);
        assert_eq!(row, [0.6, 0.8]);
        let mut zero = [0.0, 0.0];
        normalize(&mut zero);
        assert_eq!(zero, [0.0, 0.0]);
    }
}
