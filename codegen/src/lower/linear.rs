//! `linear`: its norm into the workspace, then the matrix kernel with everything else fused in.

use llmc_ir::{DType, Inst, ValueId, ops};

use super::{Lower, LowerError, norm, row_width, weight_arg};
use crate::{
    kernel::Elem,
    kernels,
    pack::{Form, Stored},
    step::{Arg, Kernel},
};

/// The kernels' name of an element type.
pub fn elem(dtype: DType) -> Elem {
    match dtype {
        DType::F32 => Elem::F32,
        DType::F16 => Elem::F16,
        DType::BF16 => Elem::BF16,
        DType::I32 => Elem::I32,
        DType::Block(_) | DType::Int8 | DType::Q8(_) => unreachable!("the packer refuses them"),
    }
}

impl<'a> Lower<'a> {
    pub(super) fn linear(&mut self, inst: &'a Inst, op: &ops::Linear) -> Result<(), LowerError> {
        let (x, y) = (self.operand(inst, 0)?, self.result(inst)?);
        let extent = self.extent(inst.results[0])?;
        let (_, w) = self.weight(inst, 1)?;
        let mut next = 2;
        let mut take = || {
            next += 1;
            next - 1
        };
        let bias = op.bias.then(&mut take);
        let norm = op.norm.map(|n| {
            let w = take();
            (n, w, matches!(n, ops::Norm::Layer { .. }).then(&mut take))
        });
        let residual = op.residual.then(&mut take);

        let mut x_arg = Arg::Arena(x.at);
        let mut x_stride = i64::from(x.stride);
        if let Some((kind, weight, shift)) = norm {
            x_stride = i64::from(x.layout.width());
            let bytes = self.bound(extent) * x_stride as u64 * 4;
            self.workspace = self.workspace.max(bytes);
            let (kind, eps) = norm::kind(kind);
            let kernel = kernels::Norm::rows(
                kind,
                eps,
                i64::from(x.layout.len()),
                i64::from(x.stride),
                x_stride,
            );
            let weight = weight_arg(self.weight(inst, weight)?.1);
            let shift = match shift {
                Some(i) => weight_arg(self.weight(inst, i)?.1),
                None => weight,
            };
            let args = vec![Arg::Rows(extent), x_arg, weight, shift, Arg::Workspace(0)];
            self.push(Kernel::Norm(kernel), args);
            self.end_phase("norm");
            x_arg = Arg::Workspace(0);
        }
        let act = |a: Option<ops::ActKind>| a.map_or(kernels::Activation::None, norm::activation);
        let residual_place = residual.map(|i| self.operand(inst, i)).transpose()?;
        let out = kernels::Epilogue {
            width: row_width(&y.layout),
            y_stride: i64::from(y.stride),
            bias: op.bias,
            activation: act(op.glu.or(op.act)),
            glu: op.glu.is_some(),
            limit: None,
            shift: 0.0,
            scale: None,
            softcap: None,
            residual: residual_place.map(|p| i64::from(p.stride)),
        };
        let x_dtype = self.dtype(self.value(inst, 0)?)?;
        let product = self.product(w, 1, x_dtype, x_stride, out)?;
        self.scratch = self.scratch.max(product.scratch_bytes() as u64);
        let kernel = match product {
            kernels::Product::Plain(p) => Kernel::Linear(p),
            kernels::Product::Blocks(p) => Kernel::BlockLinear(p),
        };
        let y_arg = Arg::Arena(y.at);
        let bias = match bias {
            Some(i) => weight_arg(self.weight(inst, i)?.1),
            None => y_arg,
        };
        let residual = residual_place.map_or(y_arg, |p| Arg::Arena(p.at));
        let args = vec![
            Arg::Rows(extent),
            x_arg,
            weight_arg(w),
            bias,
            residual,
            y_arg,
            Arg::Scratch,
        ];
        self.push(kernel, args);
        Ok(())
    }

    /// The product of rows of type `x` with one of the `count` matrices of a weight.
    pub(super) fn product(
        &self,
        w: &Stored,
        count: u32,
        x: DType,
        x_stride: i64,
        out: kernels::Epilogue,
    ) -> Result<kernels::Product, LowerError> {
        let each = |rows: &[Option<u32>]| rows.len() as i64 / i64::from(count);
        Ok(match &w.form {
            Form::Blocks {
                form, rows, cols, ..
            } => kernels::Product::Blocks(kernels::BlockLinear {
                k: i64::from(*cols),
                m: each(rows),
                x_stride,
                form: *form,
                input: match x {
                    DType::F32 => kernels::Input::F32,
                    DType::Q8(group) => kernels::Input::Q8(group),
                    _ => return Err(self.error("an x that is neither f32 nor quantised")),
                },
                out,
            }),
            Form::Panels { dtype, rows, cols } => kernels::Product::Plain(kernels::Linear {
                k: cols.len() as i64,
                m: each(rows),
                x: match x {
                    DType::F32 => Elem::F32,
                    DType::BF16 => Elem::BF16,
                    _ => return Err(self.error("an x that is neither f32 nor bf16")),
                },
                x_stride,
                elem: elem(*dtype),
                out,
            }),
            Form::Positions(_)
            | Form::Relative { .. }
            | Form::Rows { .. }
            | Form::Vector { .. } => {
                return Err(self.error("the weight is not packed as a matrix"));
            }
        })
    }

    /// The element type of a tensor.
    pub(super) fn dtype(&self, v: ValueId) -> Result<DType, LowerError> {
        let tensor = self.func.ty(v).tensor();
        tensor
            .map(|t| t.dtype)
            .ok_or_else(|| self.error("an operand is no tensor"))
    }
}
