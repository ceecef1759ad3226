//! Pictures through the entry `vision`: pixel values → patches → results, a row for every picture; and through
//! `qformer`, where queries ask what the first entry has left of them.
//!
//! A picture is one sequence: a row of zeros for the class token, then its patches row by row; a patch is
//! channel by channel, row by row.

use super::{
    EvalError, Evaluator, SeqStep, StepInput, Tensor,
    infer::{InferOutput, over},
};
use crate::{Entry, Func, Module, Op, Operand, Sym, ValueId};

/// What the entry's parameter is called.
const PATCHES: &str = "patches";
/// Results of this name are hidden states, which the evaluator gives anyway.
const HIDDEN_STATES: &str = "hidden_states.";
/// What entries of texts call the rows of pictures that they take.
pub(super) const IMAGE_FEATURES: &str = "image_features";
/// The type of tokens that stand for such a row.
pub(super) const IMAGE_TYPE: i32 = 1;

/// Width of the rows of pictures that an entry takes; 0: none.
pub(super) fn features(entry: &Func) -> usize {
    let named = |p: &&ValueId| entry.value(**p).name == IMAGE_FEATURES;
    let param = entry.params.iter().find(named);
    let width = param.and_then(|p| entry.ty(*p).tensor()?.last());
    width.unwrap_or(0) as usize
}

/// `[B, C, H, W]` → `[B, 1 + patches, C · patch²]`.
pub fn patches(pixels: &Tensor, patch: usize) -> Result<Tensor, EvalError> {
    let fits = |n: usize| patch > 0 && n > 0 && n.is_multiple_of(patch);
    let &[b, c, h, w] = pixels.dims.as_slice() else {
        return Err(format!("pixels are {:?}, expected four extents", pixels.dims).into());
    };
    if !fits(h) || !fits(w) {
        return Err(format!("{h} × {w} pixels are no whole patches of {patch}").into());
    }
    let (rows, columns) = (h / patch, w / patch);
    let mut out = Tensor::zeros(&[b, 1 + rows * columns, c * patch * patch]);
    let mut at = 0;
    for picture in pixels.data.chunks_exact(c * h * w) {
        at += out.last();
        for (row, column) in (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))) {
            for (channel, y) in (0..c).flat_map(|c| (0..patch).map(move |y| (c, y))) {
                let from = (channel * h + row * patch + y) * w + column * patch;
                out.data[at..at + patch].copy_from_slice(&picture[from..from + patch]);
                at += patch;
            }
        }
    }
    Ok(out)
}

/// A step of `sequences` whole sequences of `tokens` tokens each.
fn whole(sequences: usize, tokens: usize) -> StepInput {
    let mut input = StepInput::default();
    for id in 0..sequences as u32 {
        input.pos.extend(0..tokens as i32);
        let (past, new) = (0, tokens as u32);
        input.seqs.push(SeqStep { id, past, new });
    }
    input
}

/// How many queries ask about a picture: the rows of their table.
fn queries(module: &Module, entry: &Func) -> Result<usize, EvalError> {
    let table = entry
        .body
        .iter()
        .find_map(|i| match (&i.op, i.operands.as_slice()) {
            (Op::Gather(_), [_, Operand::Weight(w)]) => {
                module.weights.get(w.index())?.ty.fixed_dims()
            }
            _ => None,
        });
    match table.as_deref() {
        Some(&[rows, _]) if rows > 0 => Ok(rows as usize),
        _ => Err("the queries about pictures have no table"
            .to_string()
            .into()),
    }
}

/// Runs pictures, `[B, C, H, W]`, in as few steps as the module's bounds allow. The evaluator forgets what sequences of
/// their numbers have left.
pub fn see(
    evaluator: &mut Evaluator<'_>,
    pixels: &Tensor,
    hidden_states: bool,
) -> Result<InferOutput, EvalError> {
    let module = evaluator.module();
    let Some(entry) = module.entry(Entry::Vision) else {
        return Err("the module reads no pictures".to_string().into());
    };
    let over = over(entry);
    let param = entry
        .params
        .iter()
        .find(|&&p| entry.value(p).name == PATCHES);
    let width = param
        .and_then(|p| entry.ty(*p).tensor()?.last())
        .unwrap_or(0) as usize;
    let channels = pixels.dims.get(1).copied().unwrap_or(1).max(1);
    let patches = patches(pixels, (width / channels).isqrt())?;
    let (tokens, bounds) = (patches.dims[1], module.dims_of_entry(Entry::Vision));
    let mut at_once = (bounds.n as usize / tokens).min(bounds.b as usize);
    if at_once == 0 || tokens > bounds.t as usize {
        let most = bounds.n.min(bounds.t);
        return Err(format!("a picture is {tokens} tokens, at most {most} fit").into());
    }
    let mut output = InferOutput::default();
    // As many positions as there are queries.
    let queries = module
        .entry(Entry::Qformer)
        .map(|entry| queries(module, entry))
        .transpose()?;
    if let Some(queries) = queries {
        let bounds = module.dims_of_entry(Entry::Qformer);
        let most = (bounds.n as usize / queries).min(bounds.b as usize);
        at_once = at_once.min(most);
    }
    let mut add = |name: String, part: &Tensor, pictures: usize, per_picture: bool| {
        let dims = match per_picture {
            true => vec![0, part.last()],
            false => vec![0, part.dims[0] / pictures, part.last()],
        };
        let whole = output.tensors.entry(name);
        let whole = whole.or_insert_with(|| Tensor {
            dims,
            data: Vec::new(),
        });
        whole.dims[0] += pictures;
        whole.data.extend_from_slice(&part.data);
    };
    for group in patches.data.chunks(at_once * tokens * patches.last()) {
        let pictures = group.len() / (tokens * patches.last());
        let mut input = whole(pictures, tokens);
        let rows = Tensor {
            dims: vec![pictures * tokens, patches.last()],
            data: group.to_vec(),
        };
        input.rows_in.insert(PATCHES.into(), rows);
        let out = evaluator.step_of(Entry::Vision, &input)?;
        let shown = out.results.iter();
        for (name, part) in shown.filter(|(n, _)| !n.starts_with(HIDDEN_STATES)) {
            add(
                name.clone(),
                part,
                pictures,
                over.get(name) == Some(&Sym::B),
            );
        }
        for (i, h) in out.hidden.iter().enumerate().filter(|_| hidden_states) {
            add(format!("{HIDDEN_STATES}{i}"), h, pictures, false);
        }
        if let Some(queries) = queries {
            let out = evaluator.step_of(Entry::Qformer, &whole(pictures, queries))?;
            for (name, part) in &out.results {
                add(name.clone(), part, pictures, false);
            }
        }
        (0..pictures as u32).for_each(|id| evaluator.forget(id));
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_go_row_by_row() {
        // Two channels of 2 × 4 pixels, patches of 2.
        let pixels = Tensor {
            dims: vec![1, 2, 2, 4],
            data: (0..16).map(|x| x as f32).collect(),
        };
        let patches = patches(&pixels, 2).expect("whole patches");
        assert_eq!(patches.dims, [1, 3, 8]);
        assert_eq!(patches.data[..8], [0.0; 8]);
        assert_eq!(
            patches.data[8..16],
            [0.0, 1.0, 4.0, 5.0, 8.0, 9.0, 12.0, 13.0]
        );
        assert_eq!(
            patches.data[16..],
            [2.0, 3.0, 6.0, 7.0, 10.0, 11.0, 14.0, 15.0]
        );
        assert!(super::patches(&pixels, 3).is_err());
    }
}
