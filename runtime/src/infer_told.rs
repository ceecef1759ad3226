//! `infer` for language models that are told pictures.
//!
//! Input: `pixel_values` or pictures' files, and prompts in which tokens stand for the rows of all pictures, in
//! order; without prompts each picture is one, with the token that begins texts behind it. Output: what the entries
//! of pictures give, the `pixel_values` that files gave, and what the language model gives (`infer`, `infer_pair`).
//! Not here: reading and checking the tensors (`infer_input`), files of pictures (`pictures`).

use crate::engine::StepView;
use crate::infer::{self, InferArgs, Run};
use crate::infer_input::{self, Inputs, Pair, Row};
use crate::session::Session;
use crate::tensor_file::Spec;
use crate::told::Told;
use crate::{Error, Result, caption, image, infer_pair, pictures};
use llmc_abi::{Entry, Kind, Per};

/// A tensor that is known before the language model runs.
pub(crate) struct Known {
    pub spec: Spec,
    pub values: Vec<f32>,
}

/// Runs `infer` on the bytes of an input file.
pub(crate) fn infer(
    session: &Session<'_>,
    args: &InferArgs,
    told: &Told<'_>,
    bytes: Vec<u8>,
    run: Run<'_>,
) -> Result<()> {
    let m = session.manifest;
    let named = |e| Error::Input(format!("{}: {e}", args.input.display()));
    let edge = told.model.image_size as usize;
    let is_file = image::is_picture(&bytes);
    let mut given = match is_file {
        true => infer_input::Told {
            pixels: pictures::read_file(session, told.model, &args.input)?,
            ..infer_input::Told::default()
        },
        false => infer_input::read_told(&bytes, m, edge).map_err(named)?,
    };
    drop(bytes);
    for path in &args.images {
        given
            .pixels
            .extend(pictures::read_file(session, told.model, path)?);
    }
    let each = 3 * edge * edge;
    let count = given.pixels.len() / each;
    if count == 0 {
        return Err(named(Error::Input(
            "the tensor `pixel_values` is missing".into(),
        )));
    }
    let mut prompts = match given.prompts.take() {
        Some(prompts) => prompts,
        None => implied(session, told, count)?,
    };
    let tokens = prompts.rows.iter().flat_map(|r| &r.ids);
    let (found, each_picture) = (
        tokens.filter(|&&id| told.stands(id)).count(),
        told.tokens.count as usize,
    );
    if found != count * each_picture {
        let (id, expected) = (told.tokens.id, count * each_picture);
        return Err(named(Error::Input(format!(
            "`input_ids` holds the token {id} {found} times: {count} pictures of {each_picture} tokens are {expected}"
        ))));
    }

    let mut known: Vec<Known> = Vec::new();
    if is_file || !args.images.is_empty() {
        let spec = ("pixel_values".into(), vec![count, 3, edge, edge]);
        known.push(Known {
            spec,
            values: given.pixels.clone(),
        });
    }
    let first = known.len();
    for (name, per, width) in outputs(session) {
        let shape = match per {
            (Per::Sequence, _) => vec![count, width],
            (Per::Token | Per::Row, Entry::Vision) => vec![count, told.model.tokens(), width],
            (Per::Token | Per::Row, _) => vec![count, each_picture, width],
        };
        known.push(Known {
            spec: (name, shape),
            values: Vec::new(),
        });
    }
    let mut features = Vec::new();
    let mut engine = session.engine(1, 1, false)?;
    for pixels in given.pixels.chunks_exact(each) {
        let mut take = |entry: Entry, view: &StepView<'_>| {
            let names = outputs(session).enumerate();
            let of = names.filter(|(_, (_, (_, e), _))| *e == entry);
            for (output, (at, _)) in of.enumerate() {
                let rows = match view.per(output) {
                    Per::Sequence => 1,
                    Per::Token | Per::Row => view.spans[0].len,
                };
                let values = &mut known[first + at].values;
                (0..rows).for_each(|row| values.extend(view.row(output, row)));
            }
        };
        features.extend(told.see(&mut engine, pixels, &mut take)?);
    }
    drop(engine);
    let mut rows = told.rows(&features);
    for row in &mut prompts.rows {
        (row.types, row.features) = told.place(&row.ids, &mut rows);
    }
    match m.kind {
        Kind::EncoderDecoder => {
            let pair = Pair {
                source: prompts,
                text: given.text,
            };
            infer_pair::infer(session, args, pair, run, known)
        }
        Kind::Decoder | Kind::Encoder => infer::rows(session, args, prompts, run, known),
    }
}

/// Names, widths and entries of what pictures give, entry by entry.
fn outputs<'s>(
    session: &'s Session<'_>,
) -> impl Iterator<Item = (String, (Per, Entry), usize)> + 's {
    let of = |entry| session.manifest.other(entry);
    let entries = [Entry::Vision, Entry::Qformer].into_iter().filter_map(of);
    entries.flat_map(|e| {
        let one = |o: &llmc_abi::Output| (o.name.clone(), (o.per, e.entry), o.width as usize);
        e.outputs.iter().map(one)
    })
}

/// A prompt for each picture: it, and the token that begins texts.
fn implied(session: &Session<'_>, told: &Told<'_>, count: usize) -> Result<Inputs> {
    let ids = crate::session::as_i32(&told.ids(&[caption::start(session)?]));
    let row = Row {
        columns: (0..ids.len()).collect(),
        ids,
        ..Row::default()
    };
    Ok(Inputs {
        columns: row.ids.len(),
        rows: vec![row; count],
    })
}
