//! Reads and checks the tensors that `infer` is given.
//!
//! Input: the bytes of a safetensors file. Output: [`Inputs`], packed: the tokens of each row that
//! its mask keeps, and the columns they came from. Any wrong dtype, shape, id or mask is one
//! error that names the tensor and the place. Positions are cumsum(mask) − 1 for either padding
//! side, which is what packing gives; `position_ids` are accepted where they say the same.

use crate::{Error, Result};
use llmc_abi::{Kind, Manifest};
use safetensors::{Dtype, SafeTensors};

/// A row of the batch without its padding.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub ids: Vec<i32>,
    /// Token types, or empty where the model takes none.
    pub types: Vec<i32>,
    /// The column of each token.
    pub columns: Vec<usize>,
    /// The rows that the entry takes for the tokens, or empty.
    pub features: Vec<f32>,
}

/// A checked batch `[rows.len(), columns]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    pub rows: Vec<Row>,
    pub columns: usize,
}

/// A 2-D integer tensor, widened.
struct Grid {
    name: &'static str,
    columns: usize,
    values: Vec<i64>,
}

fn wrong(text: String) -> Error {
    Error::Input(text)
}

fn grid(tensors: &SafeTensors<'_>, name: &'static str) -> Result<Option<Grid>> {
    let Ok(view) = tensors.tensor(name) else {
        return Ok(None);
    };
    let &[rows, columns] = view.shape() else {
        return Err(wrong(format!(
            "`{name}` has shape {:?}, expected [batch, tokens]",
            view.shape()
        )));
    };
    if rows == 0 || columns == 0 {
        return Err(wrong(format!(
            "`{name}` is empty: shape [{rows}, {columns}]"
        )));
    }
    let data = view.data();
    let mask = name == "attention_mask";
    let values = match view.dtype() {
        Dtype::I64 => data
            .chunks_exact(8)
            .map(|b| b.iter().rev().fold(0u64, |n, &x| n << 8 | u64::from(x)) as i64)
            .collect(),
        Dtype::I32 => data
            .chunks_exact(4)
            .map(|b| i64::from(b.iter().rev().fold(0u32, |n, &x| n << 8 | u32::from(x)) as i32))
            .collect(),
        Dtype::BOOL | Dtype::U8 if mask => data.iter().map(|&b| i64::from(b)).collect(),
        other => {
            return Err(wrong(format!("`{name}` is {other:?}, expected I64 or I32")));
        }
    };
    Ok(Some(Grid {
        name,
        columns,
        values,
    }))
}

/// The inputs of an encoder-decoder, of as many rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// No row of it is empty.
    pub source: Inputs,
    pub text: Option<Inputs>,
}

/// Reads the inputs of a text model.
pub fn read(bytes: &[u8], manifest: &Manifest) -> Result<Inputs> {
    const KNOWN: [&str; 4] = [
        "input_ids",
        "attention_mask",
        "token_type_ids",
        "position_ids",
    ];
    inputs(&open(bytes, &KNOWN)?, manifest)
}

/// Reads the inputs of an encoder-decoder.
pub fn read_pair(bytes: &[u8], manifest: &Manifest) -> Result<Pair> {
    let tensors = open(bytes, &["input_ids", "attention_mask", "decoder_input_ids"])?;
    let source = source(&tensors, manifest)?;
    let text = text(&tensors, manifest, source.rows.len())?;
    Ok(Pair { source, text })
}

/// What an encoder reads.
fn source(tensors: &SafeTensors<'_>, manifest: &Manifest) -> Result<Inputs> {
    let source = inputs(tensors, manifest)?;
    match source.rows.iter().position(|row| row.ids.is_empty()) {
        None => Ok(source),
        Some(row) => Err(wrong(format!(
            "row {row} of `input_ids` is masked wholly: there is no source"
        ))),
    }
}

/// Texts about as many sources as `expected`.
fn text(tensors: &SafeTensors<'_>, manifest: &Manifest, expected: usize) -> Result<Option<Inputs>> {
    let Some(ids) = grid(tensors, "decoder_input_ids")? else {
        return Ok(None);
    };
    within(&ids, manifest.vocab_size, "ids are from 0 to below")?;
    let (rows, limit) = (ids.values.len() / ids.columns, manifest.limits.max_context);
    if rows != expected {
        return Err(wrong(format!(
            "`decoder_input_ids` has {rows} rows, expected {expected}"
        )));
    }
    if ids.columns > limit as usize {
        return Err(wrong(format!(
            "`decoder_input_ids` has {} tokens a row, this model takes {limit}",
            ids.columns
        )));
    }
    let row = |ids: &[i64]| Row {
        ids: ids.iter().map(|&id| id as i32).collect(),
        columns: (0..ids.len()).collect(),
        ..Row::default()
    };
    Ok(Some(Inputs {
        rows: ids.values.chunks(ids.columns).map(row).collect(),
        columns: ids.columns,
    }))
}

/// The inputs of a language model that is told pictures.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// `[pictures, 3, edge, edge]`.
    pub pixels: Vec<f32>,
    /// Where tokens stand for pictures; None: each picture is one.
    pub prompts: Option<Inputs>,
    /// Texts about the prompts.
    pub text: Option<Inputs>,
}

/// Reads the inputs of a language model that is told pictures.
pub fn read_told(bytes: &[u8], manifest: &Manifest, edge: usize) -> Result<Told> {
    const KNOWN: [&str; 4] = [
        "pixel_values",
        "input_ids",
        "attention_mask",
        "decoder_input_ids",
    ];
    let is_pair = manifest.kind == Kind::EncoderDecoder;
    let tensors = open(bytes, &KNOWN[..KNOWN.len() - usize::from(!is_pair)])?;
    let pixels = pixels(&tensors, edge)?;
    let prompts = match (has_ids(&tensors)?, is_pair) {
        (false, _) => None,
        (true, true) => Some(source(&tensors, manifest)?),
        (true, false) => Some(inputs(&tensors, manifest)?),
    };
    let pictures = pixels.len() / (3 * edge * edge).max(1);
    let expected = prompts.as_ref().map_or(pictures, |p| p.rows.len());
    let text = text(&tensors, manifest, expected)?;
    Ok(Told {
        pixels,
        prompts,
        text,
    })
}

/// Whether there are texts; a mask alone is refused.
fn has_ids(tensors: &SafeTensors<'_>) -> Result<bool> {
    let has = |name| tensors.tensor(name).is_ok();
    match (has("input_ids"), has("attention_mask")) {
        (false, true) => Err(wrong("the tensor `input_ids` is missing".into())),
        (ids, _) => Ok(ids),
    }
}

/// `pixel_values`, `[pictures, 3, edge, edge]`; empty where there are none.
fn pixels(tensors: &SafeTensors<'_>, edge: usize) -> Result<Vec<f32>> {
    let Ok(view) = tensors.tensor("pixel_values") else {
        return Ok(Vec::new());
    };
    if !matches!(*view.shape(), [n, 3, h, w] if n > 0 && [h, w] == [edge; 2]) {
        return Err(wrong(format!(
            "`pixel_values` has shape {:?}, expected [batch, 3, {edge}, {edge}]",
            view.shape()
        )));
    }
    if view.dtype() != Dtype::F32 {
        let found = view.dtype();
        return Err(wrong(format!("`pixel_values` is {found:?}, expected F32")));
    }
    let float = |b: &[u8]| f32::from_bits(b.iter().rev().fold(0, |n, &x| n << 8 | u32::from(x)));
    Ok(view.data().chunks_exact(4).map(float).collect())
}

/// The inputs of a model that reads pictures: pixel values `[pictures, 3, edge, edge]`, and texts.
#[derive(Clone, Debug, Default)]
pub struct Pictured {
    pub pixels: Vec<f32>,
    pub text: Option<Inputs>,
}

/// Reads the inputs of a model that reads pictures, and texts where `texts` says so.
pub fn read_pictured(
    bytes: &[u8],
    manifest: &Manifest,
    edge: usize,
    texts: bool,
) -> Result<Pictured> {
    let known: &[&str] = match texts {
        true => &[
            "pixel_values",
            "input_ids",
            "attention_mask",
            "position_ids",
        ],
        false => &["pixel_values"],
    };
    let tensors = open(bytes, known)?;
    let pixels = pixels(&tensors, edge)?;
    let text = match has_ids(&tensors)? {
        true => Some(inputs(&tensors, manifest)?),
        false => None,
    };
    Ok(Pictured { pixels, text })
}

/// The tensors of a file that holds no others than `known`.
fn open<'b>(bytes: &'b [u8], known: &[&str]) -> Result<SafeTensors<'b>> {
    let tensors = SafeTensors::deserialize(bytes)
        .map_err(|e| wrong(format!("this is no safetensors file: {e}")))?;
    let mut names = tensors.names();
    names.sort_unstable();
    match names.iter().find(|n| !known.contains(*n)) {
        None => Ok(tensors),
        Some(name) => Err(wrong(format!(
            "this model takes no tensor `{name}`: it takes {}",
            known.join(", ")
        ))),
    }
}

/// Every value is from 0 to below `limit`.
fn within(g: &Grid, limit: u32, what: &str) -> Result<()> {
    match g
        .values
        .iter()
        .position(|v| !(0..i64::from(limit)).contains(v))
    {
        Some(i) => Err(wrong(format!(
            "`{}` holds {} at [{}, {}]; {what} {limit}",
            g.name,
            g.values[i],
            i / g.columns,
            i % g.columns
        ))),
        None => Ok(()),
    }
}

fn inputs(tensors: &SafeTensors<'_>, manifest: &Manifest) -> Result<Inputs> {
    let Some(ids) = grid(tensors, "input_ids")? else {
        return Err(wrong("the tensor `input_ids` is missing".into()));
    };
    let same_shape = |other: Option<Grid>| match other {
        Some(g) if g.columns != ids.columns || g.values.len() != ids.values.len() => {
            Err(wrong(format!(
                "`{}` has shape [{}, {}], `input_ids` has [{}, {}]",
                g.name,
                g.values.len() / g.columns,
                g.columns,
                ids.values.len() / ids.columns,
                ids.columns
            )))
        }
        other => Ok(other),
    };
    within(&ids, manifest.vocab_size, "ids are from 0 to below")?;
    let mask = same_shape(grid(tensors, "attention_mask")?)?;
    if let Some(mask) = &mask {
        within(mask, 2, "a mask holds 0 and 1, below")?;
    }
    // A model without a table of types reads none, whatever they are.
    let types = same_shape(grid(tensors, "token_type_ids")?)?;
    let types = types.filter(|_| manifest.type_vocab_size > 0);
    if let Some(types) = &types {
        within(
            types,
            manifest.type_vocab_size,
            "this model's token types are below",
        )?;
    }
    let positions = same_shape(grid(tensors, "position_ids")?)?;

    let columns = ids.columns;
    let mut rows = Vec::new();
    for (r, row_ids) in ids.values.chunks(columns).enumerate() {
        let mut row = Row::default();
        for (c, &id) in row_ids.iter().enumerate() {
            let i = r * columns + c;
            if mask.as_ref().is_some_and(|m| m.values[i] == 0) {
                continue;
            }
            if let Some(p) = &positions
                && p.values[i] != row.ids.len() as i64
            {
                return Err(Error::Unsupported(format!(
                    "`position_ids` holds {} at [{r}, {c}]; only positions that count the mask are supported, here {}",
                    p.values[i],
                    row.ids.len()
                )));
            }
            row.ids.push(id as i32);
            row.types.extend(types.as_ref().map(|t| t.values[i] as i32));
            row.columns.push(c);
        }
        let limits = &manifest.limits;
        let limit = match manifest.kind {
            Kind::Encoder => limits.max_context.min(limits.max_tokens),
            Kind::Decoder => limits.max_context,
            Kind::EncoderDecoder => manifest.source_limit(),
        };
        if row.ids.len() > limit as usize {
            return Err(wrong(format!(
                "row {r} of `input_ids` has {} tokens, this model takes {limit}",
                row.ids.len()
            )));
        }
        rows.push(row);
    }
    Ok(Inputs { rows, columns })
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmc_abi::Limits;
    use safetensors::tensor::{TensorView, serialize};

    fn manifest() -> Manifest {
        Manifest {
            vocab_size: 10,
            type_vocab_size: 2,
            limits: Limits {
                max_tokens: 8,
                max_seqs: 2,
                max_rows: 4,
                max_context: 4,
            },
            ..Manifest::default()
        }
    }

    fn file(tensors: &[(&str, Dtype, &[usize], &[i64])]) -> Vec<u8> {
        let data: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, dtype, _, values)| match dtype {
                Dtype::I64 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                Dtype::I32 => values
                    .iter()
                    .flat_map(|v| (*v as i32).to_le_bytes())
                    .collect(),
                Dtype::F32 => values
                    .iter()
                    .flat_map(|v| (*v as f32).to_le_bytes())
                    .collect(),
                _ => values.iter().map(|v| *v as u8).collect(),
            })
            .collect();
        let views = tensors
            .iter()
            .zip(&data)
            .map(|((name, dtype, shape, _), d)| {
                (*name, TensorView::new(*dtype, shape.to_vec(), d).unwrap())
            });
        serialize(views, None).unwrap()
    }

    fn refused(tensors: &[(&str, Dtype, &[usize], &[i64])], expected: &str) {
        let e = read(&file(tensors), &manifest()).unwrap_err();
        assert_eq!(e.exit_code(), 2);
        assert!(e.to_string().contains(expected), "{e}");
    }

    #[test]
    fn padding_on_either_side_is_packed_away() {
        let bytes = file(&[
            ("input_ids", Dtype::I32, &[2, 3], &[0, 5, 6, 7, 8, 0]),
            ("attention_mask", Dtype::U8, &[2, 3], &[0, 1, 1, 1, 1, 0]),
            ("token_type_ids", Dtype::I64, &[2, 3], &[0, 0, 1, 1, 0, 0]),
            ("position_ids", Dtype::I64, &[2, 3], &[9, 0, 1, 0, 1, 9]),
        ]);
        let inputs = read(&bytes, &manifest()).unwrap();
        let row = |ids: &[i32], types: &[i32], columns: &[usize]| Row {
            ids: ids.into(),
            types: types.into(),
            columns: columns.into(),
            features: Vec::new(),
        };
        assert_eq!(
            inputs.rows,
            [
                row(&[5, 6], &[0, 1], &[1, 2]),
                row(&[7, 8], &[1, 0], &[0, 1])
            ]
        );
        let bytes = file(&[("input_ids", Dtype::I64, &[1, 2], &[3, 0])]);
        assert_eq!(
            read(&bytes, &manifest()).unwrap().rows,
            [row(&[3, 0], &[], &[0, 1])]
        );
    }

    #[test]
    fn wrong_tensors_are_refused() {
        use Dtype::{F32, I64};
        refused(&[], "`input_ids` is missing");
        refused(&[("input_ids", F32, &[1, 1], &[1])], "expected I64 or I32");
        refused(
            &[("input_ids", I64, &[3], &[1, 2, 3])],
            "expected [batch, tokens]",
        );
        refused(&[("input_ids", I64, &[0, 3], &[])], "is empty");
        refused(
            &[("input_ids", I64, &[1, 2], &[1, 10])],
            "holds 10 at [0, 1]",
        );
        refused(
            &[("input_ids", I64, &[2, 1], &[1, -1])],
            "holds -1 at [1, 0]",
        );
        refused(&[("input_ids", I64, &[1, 1], &[i64::MIN])], "at [0, 0]");
        refused(&[("input_ids", I64, &[1, 5], &[1; 5])], "takes 4");
        let ids = (
            "input_ids",
            I64,
            &[1usize, 2] as &[usize],
            &[1i64, 2] as &[i64],
        );
        refused(&[ids, ("attention_mask", I64, &[1, 2], &[1, 2])], "0 and 1");
        refused(
            &[ids, ("attention_mask", I64, &[2, 1], &[1, 1])],
            "has shape [2, 1]",
        );
        refused(&[ids, ("attention_mask", F32, &[1, 2], &[1, 1])], "is F32");
        refused(&[ids, ("token_type_ids", I64, &[1, 2], &[0, 2])], "below 2");
        refused(
            &[ids, ("position_ids", I64, &[1, 2], &[0, 2])],
            "holds 2 at [0, 1]",
        );
        refused(
            &[ids, ("pixel_values", F32, &[1], &[0])],
            "takes no tensor `pixel_values`",
        );
        let whole = file(&[ids]);
        for len in 0..whole.len() {
            assert_eq!(read(&whole[..len], &manifest()).unwrap_err().exit_code(), 2);
        }
    }
}
