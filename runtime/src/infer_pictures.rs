//! `infer` for models that read pictures, and perhaps texts.
//!
//! Input: `pixel_values`, or pictures' files, or both, files behind; texts for models that compare the two.
//! Output: the results of each entry that there is input for, hidden states of pictures where asked, products
//! of the embeddings of all texts and pictures, and the `pixel_values` that files gave.
//! Not here: decoding files (`image`), reading tensors (`infer_input`).

use crate::engine::{Rows, StepView, Work};
use crate::infer::InferArgs;
use crate::infer_input::{self, Pictured, Row};
use crate::session::Session;
use crate::tensor_file::{Spec, TensorFile};
use crate::{Error, Result, image, pictures};
use llmc_abi::{Entry, EntryInfo, Per, Pictures};

/// A tensor of the file: which entry gives it, and of what it is made.
struct Tensor {
    entry: Entry,
    from: Made,
    width: usize,
}

#[derive(Clone, Copy)]
enum Made {
    Output(usize),
    /// The residual stream at a layer boundary.
    Tap(usize),
}

/// Runs `infer`; `bytes` are those of the input file.
pub fn infer(
    session: &Session<'_>,
    args: &InferArgs,
    model: &Pictures,
    bytes: &[u8],
) -> Result<()> {
    let m = session.manifest;
    let from_files = image::is_picture(bytes) || !args.images.is_empty();
    let mut given = read(session, args, model, bytes)?;
    let count = given.pixels.len() / (3 * (model.image_size as usize).pow(2));
    let texts: &mut [Row] = match &mut given.text {
        Some(text) => &mut text.rows,
        None => &mut [],
    };
    if let Some(similarity) = &model.similarity {
        for (r, row) in texts.iter_mut().enumerate() {
            if row.ids.is_empty() {
                return Err(Error::Input(format!(
                    "row {r} is masked wholly: there is no text"
                )));
            }
            row.ids.truncate(similarity.end.len(&row.ids));
        }
    }
    let texts: &[Row] = texts;

    // Pixel values first, then what the entries give, then products.
    let mut specs: Vec<Spec> = Vec::new();
    let mut tensors: Vec<Tensor> = Vec::new();
    let edge = model.image_size as usize;
    if from_files {
        specs.push(("pixel_values".into(), vec![count, 3, edge, edge]));
    }
    let first = specs.len();
    for info in m.entries() {
        let (rows, tokens) = match info.entry {
            Entry::Vision if count > 0 => (count, model.tokens()),
            Entry::Forward if !texts.is_empty() => (texts.len(), 0),
            _ => continue,
        };
        for (name, per, from, width) in of_entry(&info, args.hidden_states) {
            let shape = match per {
                Per::Sequence => vec![rows, width],
                Per::Token | Per::Row => vec![rows, tokens, width],
            };
            specs.push((name, shape));
            tensors.push(Tensor {
                entry: info.entry,
                from,
                width,
            });
        }
    }
    let both = model.similarity.filter(|_| count > 0 && !texts.is_empty());
    if both.is_some() {
        specs.push(("logits_per_image".into(), vec![count, texts.len()]));
        specs.push(("logits_per_text".into(), vec![texts.len(), count]));
    }
    let products = first + tensors.len();
    let mut file = TensorFile::create(&args.output, None, specs)?;
    if from_files {
        file.write(0, 0, &given.pixels);
    }

    let mut engine = session.engine(0, session.max_input(), args.hidden_states)?;
    let mut embeds = [Vec::new(), Vec::new()];
    let mut take = |entry: Entry, view: &StepView<'_>| {
        for (i, tensor) in tensors.iter().enumerate().filter(|(_, t)| t.entry == entry) {
            let width = tensor.width;
            for (s, span) in view.spans.iter().enumerate() {
                let mut put =
                    |row: usize, values: &[f32]| file.write(first + i, row * width, values);
                match tensor.from {
                    Made::Output(o) if view.per(o) == Per::Sequence => {
                        put(span.work, view.row(o, s))
                    }
                    Made::Output(o) => {
                        (0..span.len).for_each(|k| {
                            put(span.work * span.len + k, view.row(o, span.token + k))
                        });
                    }
                    Made::Tap(layer) => {
                        for k in 0..span.len {
                            if let Some(values) = view.tap(layer, span.token + k) {
                                put(span.work * span.len + k, values);
                            }
                        }
                    }
                }
            }
        }
    };
    let embedding = |entry: Entry, name: &str| {
        let entries = m.entries();
        let info = entries.iter().find(|e| e.entry == entry)?;
        info.outputs.iter().position(|o| o.name == name)
    };
    if count > 0 {
        let output = embedding(Entry::Vision, "image_embeds");
        pictures::run(&mut engine, model, &given.pixels, None, &mut |view| {
            take(Entry::Vision, view);
            if let Some(output) = output {
                embeds[0].extend((0..view.spans.len()).map(|s| view.row(output, s).to_vec()));
            }
            Ok(())
        })?;
    }
    if !texts.is_empty() {
        let output = embedding(Entry::Forward, "text_embeds");
        let mut works: Vec<Work<'_>> = Vec::with_capacity(texts.len());
        for row in texts {
            works.push(Work {
                seq: None,
                ids: &row.ids,
                types: &[],
                rows: Rows::None,
            });
        }
        engine.run_of(Entry::Forward, &works, &[], &mut |view| {
            take(Entry::Forward, view);
            if let Some(output) = output {
                embeds[1].extend((0..view.spans.len()).map(|s| view.row(output, s).to_vec()));
            }
            Ok(())
        })?;
    }
    if let Some(similarity) = both {
        let [images, texts] = &embeds;
        let product = |a: &[f32], b: &[f32]| {
            let sum: f64 = a
                .iter()
                .zip(b)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum();
            (sum * f64::from(similarity.scale)) as f32
        };
        for (i, image) in images.iter().enumerate() {
            for (t, text) in texts.iter().enumerate() {
                let value = product(image, text);
                file.write(products, i * texts.len() + t, &[value]);
                file.write(products + 1, t * images.len() + i, &[value]);
            }
        }
    }
    file.finish(&[])
}

/// The tensors of the input file and the pictures of all files.
fn read(
    session: &Session<'_>,
    args: &InferArgs,
    model: &Pictures,
    bytes: &[u8],
) -> Result<Pictured> {
    let file = |path| pictures::read_file(session, model, path);
    let named = |e| Error::Input(format!("{}: {e}", args.input.display()));
    let mut given = match image::is_picture(bytes) {
        true => Pictured {
            pixels: file(&args.input)?,
            text: None,
        },
        false => {
            let texts = model.similarity.is_some();
            let edge = model.image_size as usize;
            infer_input::read_pictured(bytes, session.manifest, edge, texts).map_err(named)?
        }
    };
    for path in &args.images {
        given.pixels.extend(file(path)?);
    }
    if given.pixels.is_empty() && given.text.is_none() {
        return Err(named(Error::Input(
            "the tensor `pixel_values` is missing".into(),
        )));
    }
    Ok(given)
}

/// Names, origins and widths of an entry's tensors.
fn of_entry(info: &EntryInfo, hidden_states: bool) -> Vec<(String, Per, Made, usize)> {
    let output = |(i, o): (usize, &llmc_abi::Output)| {
        (o.name.clone(), o.per, Made::Output(i), o.width as usize)
    };
    let mut list: Vec<_> = info.outputs.iter().enumerate().map(output).collect();
    let taps = if hidden_states {
        info.taps.count as usize
    } else {
        0
    };
    let tap = |i| {
        (
            format!("hidden_states.{i}"),
            Per::Token,
            Made::Tap(i),
            info.taps.width as usize,
        )
    };
    list.extend((0..taps).map(tap));
    list
}
