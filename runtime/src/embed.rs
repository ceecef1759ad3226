//! `embed`: one vector for each text, or picture where the model compares them.
//!
//! Input: texts, files of pictures. Output: one JSON line `{"embedding": […]}` for each. `--dimensions` keeps the first
//! dimensions (Matryoshka), of length 1 again where the model's embeddings are. Not here: pooling
//! (compiled into the step).

use crate::engine::{Rows, Work};
use crate::session::{Session, as_i32, check_ids};
use crate::text_tools::TextTools;
use crate::texts::{self, Input, Item, Task, Texts};
use crate::{Error, Result, image, pictures};
use llmc_abi::{Pictures, Similarity};
use std::io::{BufRead, Read, Write};
use std::path::Path;

/// Arguments of `embed`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct EmbedArgs {
    #[command(flatten)]
    pub texts: Texts,
    /// Keep the first N dimensions
    #[arg(long, value_name = "N")]
    pub dimensions: Option<usize>,
    /// Print JSON lines, which is the only form
    #[arg(long)]
    pub json: bool,
}

/// Runs `embed`.
pub fn embed(
    session: &Session<'_>,
    args: &EmbedArgs,
    input: &mut (dyn BufRead + Send),
    out: &mut dyn Write,
) -> Result<()> {
    let m = session.manifest;
    if let Some((pictures, similarity)) = m.pictures.as_ref().and_then(|p| Some((p, p.similarity?)))
    {
        return embed_both(session, args, (pictures, similarity), input, out);
    }
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

/// The same in a space that texts share with pictures: what names a picture's file is a picture.
fn embed_both(
    session: &Session<'_>,
    args: &EmbedArgs,
    (model, similarity): (&Pictures, Similarity),
    input: &mut (dyn BufRead + Send),
    out: &mut dyn Write,
) -> Result<()> {
    if args.dimensions.is_some() {
        let what = "--dimensions of a space shared by texts and pictures";
        return Err(Error::Unsupported(what.into()));
    }
    let Some(output) = session.output("text_embeds") else {
        return Err(Error::Payload(
            "similarities, but no embeddings of texts".into(),
        ));
    };
    let mut engine = session.engine(0, session.max_input(), false)?;
    let mut told = false;
    let mut tools: Option<TextTools<'_>> = None;
    args.texts.each(input, &mut |text| {
        let row = if names_picture(Path::new(text)) {
            let pixels = pictures::read_file(session, model, Path::new(text))?;
            pictures::results(session, &mut engine, model, &pixels, "image_embeds")?.concat()
        } else {
            let tools: &TextTools<'_> = match &tools {
                Some(tools) => tools,
                None => tools.insert(session.text_tools()?),
            };
            let (encoded, cut) = tools.tokenizer.encode_within(text, session.max_input())?;
            check_ids(session.manifest, &encoded.ids)?;
            if cut && !std::mem::replace(&mut told, true) {
                let limit = session.max_input();
                session.note(&format!(
                    "texts of more than {limit} tokens are cut to {limit}"
                ));
            }
            let ids = as_i32(&encoded.ids);
            if ids.is_empty() {
                return Err(Error::Input(
                    "a text without tokens has no embedding".into(),
                ));
            }
            let work = Work {
                seq: None,
                ids: &ids[..similarity.end.len(&ids)],
                types: &[],
                rows: Rows::None,
            };
            let mut row = Vec::new();
            engine.run(&[work], &mut |view| {
                row = view.row(output, 0).to_vec();
                Ok(())
            })?;
            row
        };
        #[derive(serde::Serialize)]
        struct Line {
            embedding: Vec<f32>,
        }
        texts::write_json(out, &Line { embedding: row })?;
        out.flush().map_err(|e| Error::io("standard output", e))
    })
}

/// Whether there is a picture's file of this name.
fn names_picture(path: &Path) -> bool {
    let mut head = [0; 12];
    let read = std::fs::File::open(path).and_then(|mut file| file.read(&mut head));
    read.is_ok_and(|n| image::is_picture(&head[..n]))
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
