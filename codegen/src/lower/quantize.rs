//! `quantize`: rows to the form that a product reads, their norm included.

use llmc_ir::{DType, Inst, ops};

use super::{Lower, LowerError, norm, weight_arg};
use crate::{
    kernel::LANES,
    kernels,
    step::{Arg, Kernel},
};

impl<'a> Lower<'a> {
    pub(super) fn quantize(
        &mut self,
        inst: &'a Inst,
        op: &ops::Quantize,
    ) -> Result<(), LowerError> {
        let (x, y) = (self.operand(inst, 0)?, self.result(inst)?);
        let to = match op.to {
            DType::Q8(group) => kernels::Rows::Q8(group),
            DType::BF16 => kernels::Rows::Bf16,
            DType::F32 | DType::F16 | DType::I32 | DType::Block(_) | DType::Int8 => {
                return Err(self.error(format!("rows of {}", op.to.name())));
            }
        };
        let width = i64::from(x.layout.len());
        let mut weights = [Arg::Arena(y.at); 2];
        let norm = match op.norm {
            None => None,
            Some(kind) => {
                if !x.layout.is_plain() {
                    return Err(self.error(format!("a norm over rows of {}", x.layout)));
                }
                weights[0] = weight_arg(self.weight(inst, 1)?.1);
                weights[1] = match kind {
                    ops::Norm::Rms { .. } => weights[0],
                    ops::Norm::Layer { .. } => weight_arg(self.weight(inst, 2)?.1),
                };
                let (kind, eps) = norm::kind(kind);
                let stride = (width + LANES - 1) / LANES * LANES;
                let x_stride = i64::from(x.stride);
                Some(kernels::Norm::rows(kind, eps, width, x_stride, stride))
            }
        };
        let kernel = kernels::Quantize {
            to,
            norm,
            width,
            segments: segments(&x.layout),
            x_stride: i64::from(x.stride),
            y_stride: i64::from(y.stride),
        };
        self.scratch = self.scratch.max(kernel.scratch_bytes() as u64);
        let rows = Arg::Rows(self.extent(inst.results[0])?);
        let args = vec![
            rows,
            Arg::Arena(x.at),
            weights[0],
            weights[1],
            Arg::Arena(y.at),
            Arg::Scratch,
        ];
        self.push(Kernel::Quantize(kernel), args);
        Ok(())
    }
}

/// Runs of logical lanes `(start, length)` of a row as stored, joined where nothing is between them.
fn segments(layout: &llmc_ir::Layout) -> Vec<(i64, i64)> {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for (at, logical) in (0..).zip(layout.stored()) {
        if logical.is_none() {
            continue;
        }
        match runs.last_mut() {
            Some((start, length)) if *start + *length == at => *length += 1,
            _ => runs.push((at, 1)),
        }
    }
    runs
}
