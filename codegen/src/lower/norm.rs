//! `rms_norm`, `layer_norm` and `l2_normalize`, over rows or over each head of a row.

use llmc_ir::{Inst, Op, ops};

use super::{Lower, LowerError, lanes, weight_arg};
use crate::{
    kernels::{self, NormKind},
    step::{Arg, Kernel},
};

/// The kernels' name of a fused norm, and its epsilon.
pub fn kind(norm: ops::Norm) -> (NormKind, f32) {
    match norm {
        ops::Norm::Rms { eps, offset } => (NormKind::Rms { offset }, eps),
        ops::Norm::Layer { eps } => (NormKind::Layer, eps),
    }
}

/// The kernels' name of an activation.
pub fn activation(kind: ops::ActKind) -> kernels::Activation {
    use ops::ActKind;
    match kind {
        ActKind::Silu => kernels::Activation::Silu,
        ActKind::Gelu => kernels::Activation::Gelu,
        ActKind::GeluTanh => kernels::Activation::GeluTanh,
        ActKind::QuickGelu => kernels::Activation::QuickGelu,
        ActKind::Relu => kernels::Activation::Relu,
        ActKind::Tanh => kernels::Activation::Tanh,
        ActKind::Sigmoid => kernels::Activation::Sigmoid,
    }
}

impl<'a> Lower<'a> {
    pub(super) fn norm(&mut self, inst: &'a Inst) -> Result<(), LowerError> {
        let (kind, eps) = match &inst.op {
            Op::RmsNorm(n) => (NormKind::Rms { offset: n.offset }, n.eps),
            Op::LayerNorm(n) => (NormKind::Layer, n.eps),
            other => return Err(self.error(format!("`{}` is no norm", other.name()))),
        };
        let (x, y) = (self.operand(inst, 0)?, self.result(inst)?);
        let (heads, parts) = self.heads(x)?;
        if x.layout != y.layout {
            return Err(self.error(format!("{} in, {} out", x.layout, y.layout)));
        }
        let kernel = kernels::Norm {
            kind,
            eps,
            heads,
            width: parts.iter().map(|&p| i64::from(p)).sum(),
            physical: i64::from(x.layout.0[0].group_width()),
            segments: lanes(&parts),
            x_stride: i64::from(x.stride),
            y_stride: i64::from(y.stride),
        };
        let weight = weight_arg(self.weight(inst, 1)?.1);
        let shift = match kind {
            NormKind::Rms { .. } => weight,
            NormKind::Layer => weight_arg(self.weight(inst, 2)?.1),
        };
        let rows = Arg::Rows(self.extent(inst.results[0])?);
        self.push(
            Kernel::Norm(kernel),
            vec![rows, Arg::Arena(x.at), weight, shift, Arg::Arena(y.at)],
        );
        Ok(())
    }
}
