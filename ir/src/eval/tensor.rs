//! What the evaluator computes with: dense f32 tensors, and values of every type of the IR.
//!
//! A value over `T` is ragged: one tensor a token (scores, `[H, T]` each) or one a sequence (keys and
//! values, `[T, H, D]` each). Deliberately not here: what ops do with them.

use crate::StateId;

/// A dense f32 tensor, row-major.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tensor {
    pub dims: Vec<usize>,
    pub data: Vec<f32>,
}

impl Tensor {
    /// Zeros of `dims`.
    pub fn zeros(dims: &[usize]) -> Tensor {
        Tensor {
            dims: dims.to_vec(),
            data: vec![0.0; dims.iter().product()],
        }
    }

    /// `data` seen as `dims`; None where the numbers do not fit.
    pub fn new(dims: &[usize], data: Vec<f32>) -> Option<Tensor> {
        (dims.iter().product::<usize>() == data.len()).then(|| Tensor {
            dims: dims.to_vec(),
            data,
        })
    }

    /// The innermost extent; 1 for a scalar.
    pub fn last(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// The rows of the innermost extent.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.data.chunks_exact(self.last().max(1))
    }

    /// Numbers that belong to one index of the outermost extent.
    pub fn stride(&self) -> usize {
        self.dims.iter().skip(1).product()
    }

    /// What belongs to index `i` of the outermost extent; empty where there is none.
    pub fn at(&self, i: usize) -> &[f32] {
        let n = self.stride();
        self.data.get(i * n..(i + 1) * n).unwrap_or(&[])
    }

    /// Every number through `f`.
    pub fn map(&self, f: impl Fn(f32) -> f32) -> Tensor {
        Tensor {
            dims: self.dims.clone(),
            data: self.data.iter().map(|&x| f(x)).collect(),
        }
    }

    /// Every innermost row through `f`, which returns a row of `width` numbers.
    pub fn map_rows(&self, width: usize, mut f: impl FnMut(&[f32]) -> Vec<f32>) -> Tensor {
        let mut dims = self.dims.clone();
        if let Some(d) = dims.last_mut() {
            *d = width;
        }
        let data = self.rows().flat_map(&mut f).collect();
        Tensor { dims, data }
    }
}

/// A value of the IR.
#[derive(Clone, PartialEq, Debug)]
pub enum Val {
    F32(Tensor),
    I32(Vec<i32>),
    /// `[N, H, T]`: `[H, T]` for every token.
    PerToken(Vec<Tensor>),
    /// `[B, T, H, D]`: `[T, H, D]` for every sequence.
    PerSeq(Vec<Tensor>),
    /// The keys and values of a state's slot: those of the step's sequences, or of their sources.
    View {
        state: StateId,
        slot: u32,
        source: bool,
    },
    Step,
}

impl Val {
    /// Every number through `f`.
    pub fn map(&self, f: impl Fn(f32) -> f32) -> Result<Val, String> {
        self.map_tensors(|t| t.map(&f))
    }

    /// Every tensor through `f`.
    pub fn map_tensors(&self, f: impl Fn(&Tensor) -> Tensor) -> Result<Val, String> {
        match self {
            Val::F32(t) => Ok(Val::F32(f(t))),
            Val::PerToken(l) => Ok(Val::PerToken(l.iter().map(f).collect())),
            Val::PerSeq(l) => Ok(Val::PerSeq(l.iter().map(f).collect())),
            Val::I32(_) | Val::View { .. } | Val::Step => Err("not a tensor of floats".into()),
        }
    }

    /// Both values' numbers, pair by pair, through `f`.
    pub fn zip(&self, other: &Val, f: impl Fn(f32, f32) -> f32) -> Result<Val, String> {
        let one = |a: &Tensor, b: &Tensor| {
            if a.dims != b.dims {
                return Err(format!("extents {:?} and {:?} differ", a.dims, b.dims));
            }
            let data = a.data.iter().zip(&b.data).map(|(&a, &b)| f(a, b)).collect();
            Ok(Tensor {
                dims: a.dims.clone(),
                data,
            })
        };
        let all = |a: &[Tensor], b: &[Tensor]| -> Result<Vec<Tensor>, String> {
            a.iter().zip(b).map(|(a, b)| one(a, b)).collect()
        };
        match (self, other) {
            (Val::F32(a), Val::F32(b)) => Ok(Val::F32(one(a, b)?)),
            (Val::PerToken(a), Val::PerToken(b)) => Ok(Val::PerToken(all(a, b)?)),
            (Val::PerSeq(a), Val::PerSeq(b)) => Ok(Val::PerSeq(all(a, b)?)),
            _ => Err("values of two kinds".into()),
        }
    }
}

/// Σ a · b, accumulated in f64.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| f64::from(a) * f64::from(b))
        .sum()
}
