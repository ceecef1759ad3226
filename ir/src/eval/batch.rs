//! Batches as Hugging Face writes them, `[B, S]` with a mask, and the packed tokens of steps.
//!
//! Masked positions are dropped before a step, whichever side pads, and come back as zeros. A row's
//! tokens stand at positions 0, 1, … of the row: cumsum(mask) − 1.

use super::{
    EvalError, SeqStep, StepInput, Tensor,
    pictures::{IMAGE_FEATURES, IMAGE_TYPE},
};

/// The inputs of `infer`: `rows` × `len` ids.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Batch {
    pub rows: usize,
    pub len: usize,
    /// `input_ids`, `[rows, len]`.
    pub ids: Vec<i32>,
    /// `attention_mask`, `[rows, len]`; all ones where left out.
    pub mask: Option<Vec<bool>>,
    /// `token_type_ids`, `[rows, len]`.
    pub types: Option<Vec<i32>>,
    /// The token that stands for a row of a picture, and the rows of all pictures in order, `[…, D]`.
    pub pictures: Option<(u32, Tensor)>,
}

/// One row's tokens.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Row {
    pub ids: Vec<i32>,
    pub types: Vec<i32>,
    /// Where each token stands in the batch's row.
    pub columns: Vec<usize>,
    /// The rows of pictures that stand for the first tokens, zeros for those that are tokens; empty: all are.
    pub features: Vec<f32>,
}

impl Batch {
    /// One row without padding.
    pub fn single(ids: &[i32]) -> Batch {
        Batch {
            rows: 1,
            len: ids.len(),
            ids: ids.to_vec(),
            ..Batch::default()
        }
    }

    /// The rows without their padding.
    pub fn unpad(&self) -> Result<Vec<Row>, EvalError> {
        let want = self.rows.checked_mul(self.len);
        let given = |n: usize| Some(n) == want;
        let mask = self.mask.as_ref().is_none_or(|m| given(m.len()));
        if !given(self.ids.len()) || !mask || !self.types.as_ref().is_none_or(|t| given(t.len())) {
            let (rows, len) = (self.rows, self.len);
            return Err(EvalError::Input(format!(
                "the inputs are not all of [{rows}, {len}]"
            )));
        }
        let row = |r: usize| {
            let mut row = Row::default();
            for column in 0..self.len {
                let i = r * self.len + column;
                if self.mask.as_ref().is_none_or(|m| m[i]) {
                    row.ids.push(self.ids[i]);
                    row.types.push(self.types.as_ref().map_or(0, |t| t[i]));
                    row.columns.push(column);
                }
            }
            row
        };
        Ok((0..self.rows).map(row).collect())
    }

    /// The rows without their padding, pictures in their places.
    pub fn rows_with_pictures(&self) -> Result<Vec<Row>, EvalError> {
        let mut rows = self.unpad()?;
        if let Some((id, features)) = &self.pictures {
            place(&mut rows, *id, features)?;
        }
        Ok(rows)
    }
}

/// Puts pictures into rows: the tokens `id` of all rows, in order, stand for the rows of `features`, `[…, D]`.
fn place(rows: &mut [Row], id: u32, features: &Tensor) -> Result<(), EvalError> {
    let width = features.last();
    let mut given = features.data.chunks_exact(width.max(1));
    let stands = |i: &i32| u32::try_from(*i) == Ok(id);
    let tokens = rows
        .iter()
        .flat_map(|r| &r.ids)
        .filter(|i| stands(i))
        .count();
    if tokens != given.len() {
        let rows = given.len();
        let message = format!("{tokens} tokens {id} stand for {rows} rows of pictures");
        return Err(EvalError::Input(message));
    }
    for row in rows {
        row.features = vec![0.0; row.ids.len() * width];
        let places = row.features.chunks_exact_mut(width.max(1));
        for ((id, ty), place) in row.ids.iter().zip(&mut row.types).zip(places) {
            if let Some(given) = Some(id).filter(|id| stands(id)).and_then(|_| given.next()) {
                *ty = IMAGE_TYPE;
                place.copy_from_slice(given);
            }
        }
    }
    Ok(())
}

/// Packs shares of rows into a step: row index, tokens already seen, tokens to take. `features` is the width of the
/// rows of pictures that the entry takes, 0 where it takes none.
pub fn pack(rows: &[Row], shares: &[SeqStep], features: usize) -> StepInput {
    let mut input = StepInput {
        types: Some(Vec::new()),
        ..StepInput::default()
    };
    for s in shares {
        let Some(row) = rows.get(s.id as usize) else {
            continue;
        };
        let range = s.past as usize..(s.past + s.new) as usize;
        input.pos.extend(range.clone().map(|p| p as i32));
        if features > 0 {
            let rows = input.rows_in.entry(IMAGE_FEATURES.into());
            let rows = rows.or_insert_with(|| Tensor::zeros(&[0, features]));
            let given = row.features.iter().skip(range.start * features);
            rows.data.extend(given.take(range.len() * features));
            rows.dims[0] += range.len();
            rows.data.resize(rows.dims[0] * features, 0.0);
        }
        input.ids.extend(row.ids.get(range.clone()).unwrap_or(&[]));
        if let Some(types) = &mut input.types {
            types.extend(row.types.get(range).unwrap_or(&[]));
        }
        input.seqs.push(*s);
    }
    input
}

/// Writes the packed rows of a step's result, which are those of its tokens from `first` on, to their
/// places in `[B, S, …]`.
pub fn scatter(out: &mut Tensor, packed: &Tensor, rows: &[Row], shares: &[SeqStep], first: usize) {
    let (len, width) = (out.dims[1], packed.stride());
    let places = shares.iter().flat_map(|s| {
        let columns = rows
            .get(s.id as usize)
            .map_or(&[][..], |r| r.columns.as_slice());
        let taken = columns.iter().skip(s.past as usize).take(s.new as usize);
        taken.map(move |c| s.id as usize * len + c)
    });
    for (i, place) in places.skip(first).take(packed.dims[0]).enumerate() {
        if let Some(to) = out.data.get_mut(place * width..(place + 1) * width) {
            to.copy_from_slice(packed.at(i));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_side_may_pad() {
        let batch = Batch {
            rows: 2,
            len: 3,
            ids: vec![9, 1, 2, 3, 4, 9],
            mask: Some(vec![false, true, true, true, true, false]),
            ..Batch::default()
        };
        let rows = batch.unpad().expect("rows");
        assert_eq!((&rows[0].ids, &rows[0].columns), (&vec![1, 2], &vec![1, 2]));
        assert_eq!((&rows[1].ids, &rows[1].columns), (&vec![3, 4], &vec![0, 1]));
        let shares = [
            SeqStep {
                id: 0,
                past: 1,
                new: 1,
            },
            SeqStep {
                id: 1,
                past: 0,
                new: 2,
            },
        ];
        let step = pack(&rows, &shares, 0);
        assert_eq!((step.ids, step.pos), (vec![2, 3, 4], vec![1, 0, 1]));
        let mut pictured = rows.clone();
        let features = Tensor {
            dims: vec![1, 2],
            data: vec![0.5, 0.25],
        };
        assert!(place(&mut pictured, 9, &features).is_err());
        place(&mut pictured, 3, &features).expect("one token");
        let step = pack(&pictured, &shares, 2);
        assert_eq!(step.types, Some(vec![0, IMAGE_TYPE, 0]));
        assert_eq!(
            step.rows_in[IMAGE_FEATURES].data,
            [0.0, 0.0, 0.5, 0.25, 0.0, 0.0]
        );
        let mut out = Tensor::zeros(&[2, 3, 1]);
        let packed = Tensor {
            dims: vec![3, 1],
            data: vec![2.0, 3.0, 4.0],
        };
        scatter(&mut out, &packed, &rows, &shares, 0);
        assert_eq!(out.data, [0.0, 0.0, 2.0, 3.0, 4.0, 0.0]);
        let packed = Tensor {
            dims: vec![1, 1],
            data: vec![5.0],
        };
        scatter(&mut out, &packed, &rows, &shares, 1);
        assert_eq!(out.data, [0.0, 0.0, 2.0, 5.0, 4.0, 0.0]);
    }
}
