//! `linear`: its norm into the workspace, then the matrix kernel with everything else fused in.

use llmc_ir::{DType, Inst, ops};

use super::{Lower, LowerError, norm, row_width, weight_arg};
use crate::{
    kernel::{Elem, LANES},
    kernels,
    pack::Form,
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
        // Stored inputs and outputs of the weight.
        let (k, m) = match &w.form {
            Form::Panels { rows, cols, .. } => (cols.len() as i64, rows.len() as i64),
            Form::Blocks { rows, cols, .. } => (i64::from(*cols), rows.len() as i64),
            Form::Rows { .. } | Form::Vector { .. } | Form::Relative { .. } => {
                return Err(self.error("the weight is not packed as a matrix"));
            }
        };
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
            x_stride = (k + LANES - 1) / LANES * LANES;
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
            scale: None,
            softcap: None,
            residual: residual_place.map(|p| i64::from(p.stride)),
        };
        let (kernel, scratch) = match &w.form {
            Form::Blocks { form, .. } => {
                let kernel = kernels::BlockLinear {
                    k,
                    m,
                    x_stride,
                    form: *form,
                    input: self.input(inst)?,
                    out,
                };
                let scratch = kernel.scratch_bytes();
                (Kernel::BlockLinear(kernel), scratch)
            }
            Form::Panels { dtype, .. } => {
                let kernel = kernels::Linear {
                    k,
                    m,
                    x: self.x_elem(inst)?,
                    x_stride,
                    elem: elem(*dtype),
                    out,
                };
                let scratch = kernel.scratch_bytes();
                (Kernel::Linear(kernel), scratch)
            }
            Form::Rows { .. } | Form::Vector { .. } | Form::Relative { .. } => {
                unreachable!("refused above")
            }
        };
        self.scratch = self.scratch.max(scratch as u64);
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

    /// What the x of a linear with floats for weights is.
    fn x_elem(&self, inst: &Inst) -> Result<Elem, LowerError> {
        let x = self.value(inst, 0)?;
        match self.func.ty(x).tensor().map(|t| t.dtype) {
            Some(DType::F32) => Ok(Elem::F32),
            Some(DType::BF16) => Ok(Elem::BF16),
            _ => Err(self.error("an x that is neither f32 nor bf16")),
        }
    }

    /// What the x of a linear with weights in blocks is.
    fn input(&self, inst: &Inst) -> Result<kernels::Input, LowerError> {
        let x = self.value(inst, 0)?;
        match self.func.ty(x).tensor().map(|t| t.dtype) {
            Some(DType::F32) => Ok(kernels::Input::F32),
            Some(DType::Q8(_)) => Ok(kernels::Input::Q8),
            _ => Err(self.error("an x that is neither f32 nor quantised")),
        }
    }
}
