//! Pictures through the model's entry `vision`.
//!
//! Input: pixel values, or files. Output: the entry's results, picture by picture, handed to the caller step
//! by step; embeddings of pictures and of texts. Not here: decoding files (`image`), any task's printing.

use crate::engine::{Engine, Rows, StepView, Work};
use crate::image;
use crate::kv_cache::SeqId;
use crate::session::Session;
use crate::{Error, Result};
use llmc_abi::{Entry, EntryInfo, Pictures};
use std::path::Path;

/// Pixel values of a file, `[3, edge, edge]`, by the model's own steps.
pub fn read_file(session: &Session<'_>, pictures: &Pictures, path: &Path) -> Result<Vec<f32>> {
    let Some(steps) = &pictures.steps else {
        return Err(Error::Unsupported(format!(
            "{} was compiled without preprocessor_config.json: only `infer` with pixel_values reads pictures",
            session.manifest.name
        )));
    };
    image::pixel_values(path, steps)
}

/// The entry that reads pictures.
pub fn entry(session: &Session<'_>) -> Result<EntryInfo> {
    let entries = session.manifest.entries();
    let found = entries.into_iter().find(|e| e.entry == Entry::Vision);
    found.ok_or_else(|| Error::Payload("pictures, but no entry that reads them".into()))
}

/// Runs pictures, `[n, 3, edge, edge]`; `sink` gets every step, whose items are pictures. What queries are to look at
/// is one picture, and becomes the source of `seq`.
pub fn run(
    engine: &mut Engine<'_>,
    pictures: &Pictures,
    pixels: &[f32],
    seq: Option<SeqId>,
    sink: &mut dyn FnMut(&StepView<'_>) -> Result<()>,
) -> Result<()> {
    let each = 3 * (pictures.image_size as usize).pow(2);
    let rows: Vec<Vec<f32>> = pixels
        .chunks_exact(each)
        .map(|pixels| image::patches(pixels, pictures))
        .collect();
    let ids = vec![0; pictures.tokens()];
    let work = |_: &Vec<f32>| Work {
        seq,
        ids: &ids,
        types: &[],
        rows: Rows::None,
    };
    let works: Vec<Work<'_>> = rows.iter().map(work).collect();
    let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
    engine.run_of(Entry::Vision, &works, &[rows.as_slice()], sink)
}

/// A result of each picture, by its name.
pub fn results(
    session: &Session<'_>,
    engine: &mut Engine<'_>,
    pictures: &Pictures,
    pixels: &[f32],
    name: &str,
) -> Result<Vec<Vec<f32>>> {
    let info = entry(session)?;
    let Some(output) = info.outputs.iter().position(|o| o.name == name) else {
        return Err(Error::Unsupported(format!(
            "{} gives no {name}",
            session.manifest.name
        )));
    };
    let mut found = Vec::new();
    run(engine, pictures, pixels, None, &mut |view| {
        found.extend((0..view.spans.len()).map(|s| view.row(output, s).to_vec()));
        Ok(())
    })?;
    Ok(found)
}
