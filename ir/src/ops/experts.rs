//! `experts %x, %weights, @w_in[, @b_in], @w_out[, @b_out] {gate, …}`: gated feed-forward parts of
//! which every row goes through few. `[n, K], [n, E] → [n, M]`:
//!
//! ```text
//! y[i] = Σ_e weights[i, e] · (w_out[e] · gate(w_in[e] · x[i] + b_in[e]) + b_out[e])     e with weights[i, e] ≠ 0
//! ```
//!
//! The experts' matrices lie over one another: `@w_in` `[2 · E · I, K]` holds the gates of all experts,
//! then the ups of all; `@w_out` is `[E · M, I]`. Biases `[2 · E · I]` and `[E · M]` are there with
//! `bias`. With `inner` the rows between the products are quantised as `quantize` would. Which element
//! types go together is as for `linear`. `route` makes the weights.

use crate::{
    DType, Dim, Func, Inst, Op, OpDef, Operand, OperandType, Type, ValueId,
    attr::{AttrReader, AttrValue, Attrs},
    eval::{Args, EvalError, Frame, Tensor, Val, dot},
    op::{Operands, last},
    ops::Gate,
};

use super::{linear::multiplies, quantize::quantized};

#[derive(Clone, PartialEq, Debug)]
pub struct Experts {
    pub bias: bool,
    pub gate: Gate,
    /// Element type of what `@w_out` multiplies, where it is not f32.
    pub inner: Option<DType>,
}

impl Experts {
    /// The most experts that a row of `weights` has: what `route` chose, else all.
    pub fn most(func: &Func, weights: ValueId) -> u32 {
        match func.def(weights).map(|d| &func.body[d].op) {
            Some(Op::Route(route)) => route.top_k,
            _ => func.ty(weights).tensor().and_then(|t| t.last()).unwrap_or(1),
        }
    }
}

impl Experts {
    /// What a row uses of `all` bytes or elements that the experts of `inst` have together.
    pub fn share(func: &Func, inst: &Inst, all: u64) -> u64 {
        let Some(Operand::Value(weights)) = inst.operands.get(1) else {
            return all;
        };
        let experts = func.ty(*weights).tensor().and_then(|t| t.last()).unwrap_or(1);
        all / u64::from(experts.max(1)) * u64::from(Self::most(func, *weights))
    }
}

impl OpDef for Experts {
    const NAME: &'static str = "experts";

    fn attrs(&self) -> Attrs {
        let inner = self.inner.map(|d| AttrValue::Word(d.name().into()));
        Attrs::new()
            .flag("bias", self.bias)
            .with("gate", self.gate.attr())
            .with_some("inner", inner)
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        let inner = match attrs.opt_word("inner")? {
            None => None,
            Some(w) => match DType::from_name(&w) {
                Some(d @ (DType::BF16 | DType::Q8(_))) => Some(d),
                _ => return Err(format!("`inner` is {w}, expected bf16, q8_block, q8_row or q8_pair")),
            },
        };
        Ok(Experts { bias: attrs.flag("bias")?, gate: Gate::read(attrs)?, inner })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.value("x")?;
        let x = x.tensor().filter(|t| t.dims.len() == 2);
        let x = x.ok_or("operand 1 (x) is no tensor of two extents")?;
        let k = last(x, "x")?;
        let weights = o.f32("weights", 2)?;
        let experts = last(weights, "weights")?;
        if weights.dims[0] != x.dims[0] {
            return Err(format!("weights are {weights}, expected the rows of x: {x}"));
        }
        let pairs = |rows: u32, each: u32| rows.is_multiple_of(each).then_some(rows / each);
        let w_in = o.any_weight("w_in")?;
        let (rows, cols) = matrix(w_in)?;
        let inner = experts.checked_mul(2).and_then(|n| pairs(rows, n));
        let inner = inner.filter(|_| cols == k).ok_or_else(|| {
            format!("w_in is {w_in}, expected a multiple of 2 × {experts} rows of {k}")
        })?;
        if self.bias {
            o.weight("b_in", &[rows])?;
        }
        let w_out = o.any_weight("w_out")?;
        let (rows, cols) = matrix(w_out)?;
        let m = pairs(rows, experts).filter(|_| cols == inner).ok_or_else(|| {
            format!("w_out is {w_out}, expected a multiple of {experts} rows of {inner}")
        })?;
        if self.bias {
            o.weight("b_out", &[rows])?;
        }
        o.end()?;
        let between = self.inner.unwrap_or(DType::F32);
        for (x, w) in [(x.dtype, w_in.dtype), (between, w_out.dtype)] {
            if !multiplies(x, w) {
                return Err(format!("rows of {} do not go with weights of {}", x.name(), w.name()));
            }
        }
        if !inner.is_multiple_of(between.block_len()) {
            return Err(format!("rows of {inner} are not whole blocks of {}", between.name()));
        }
        Ok(vec![Type::f32(&[x.dims[0], Dim::Fixed(m)])])
    }

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let (x, weights, w_in) = (args.tensor()?, args.tensor()?, args.weight()?);
        let b_in = if self.bias { Some(args.weight()?) } else { None };
        let w_out = args.weight()?;
        let b_out = if self.bias { Some(args.weight()?) } else { None };
        let bias = |b: &Option<std::sync::Arc<Tensor>>, i: usize| b.as_ref().map_or(0.0, |b| f64::from(b.data[i]));
        let experts = weights.last();
        let (inner, m) = (w_in.dims[0] / (2 * experts), w_out.dims[0] / experts);
        let row = |i: usize| -> Result<Vec<f32>, String> {
            let mut y = vec![0.0f64; m];
            for (e, &weight) in weights.at(i).iter().enumerate().filter(|(_, w)| **w != 0.0) {
                let product = |row: usize| {
                    // As f32: what the gate joins are results of a product.
                    f64::from((dot(x.at(i), w_in.at(row)) + bias(&b_in, row)) as f32)
                };
                let gated = |j: usize| {
                    let (gate, up) = (e * inner + j, (experts + e) * inner + j);
                    self.gate.apply(product(gate), product(up)) as f32
                };
                let mut between: Vec<f32> = (0..inner).map(gated).collect();
                if let Some(to) = self.inner {
                    let rows = Tensor { dims: vec![1, inner], data: between };
                    between = quantized(rows, to)?.data;
                }
                for (j, y) in y.iter_mut().enumerate() {
                    let row = e * m + j;
                    let out = (dot(&between, w_out.at(row)) + bias(&b_out, row)) as f32;
                    *y += f64::from(weight) * f64::from(out);
                }
            }
            Ok(y.into_iter().map(|y| y as f32).collect())
        };
        let rows = (0..x.dims[0]).map(row).collect::<Result<Vec<_>, _>>()?;
        let y = Tensor { dims: vec![x.dims[0], m], data: rows.concat() };
        Ok(vec![Val::F32(y)])
    }
}

/// Rows and columns of a weight.
fn matrix(w: &crate::TensorType) -> Result<(u32, u32), String> {
    match w.fixed_dims().as_deref() {
        Some(&[rows, cols]) => Ok((rows, cols)),
        _ => Err(format!("weight {w}: expected two extents")),
    }
}
