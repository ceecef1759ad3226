//! Functions of one or two rows, lane by lane.

use llmc_ir::{Inst, Op};

use super::{Lower, LowerError, norm::activation, row_width};
use crate::{
    kernels::{self, RowOp},
    step::{Arg, Kernel},
};

impl<'a> Lower<'a> {
    pub(super) fn elementwise(&mut self, inst: &'a Inst) -> Result<(), LowerError> {
        let (x, y) = (self.operand(inst, 0)?, self.result(inst)?);
        let mut second = x;
        let mut second_at = x.at;
        let op = match &inst.op {
            Op::Add(_) => RowOp::Add,
            Op::Mul(_) => RowOp::Mul,
            Op::Scale(s) => RowOp::Scale(s.factor),
            Op::Softcap(s) => RowOp::Softcap(s.cap),
            Op::Activation(a) => RowOp::Activate(activation(a.kind)),
            Op::Glu(g) => {
                // The halves are two segments of one row.
                second_at += u64::from(x.layout.width() / 2) * 4;
                RowOp::Gate(activation(g.kind))
            }
            other => return Err(self.error(format!("`{}` is not elementwise", other.name()))),
        };
        if matches!(op, RowOp::Add | RowOp::Mul) {
            second = self.operand(inst, 1)?;
            second_at = second.at;
            if second.layout != x.layout {
                return Err(self.error(format!("{} and {}", x.layout, second.layout)));
            }
        }
        let kernel = kernels::Elementwise {
            op,
            width: row_width(&y.layout),
            a_stride: i64::from(x.stride),
            b_stride: i64::from(second.stride),
            y_stride: i64::from(y.stride),
        };
        let rows = Arg::Rows(self.extent(inst.results[0])?);
        let args = vec![
            rows,
            Arg::Arena(x.at),
            Arg::Arena(second_at),
            Arg::Arena(y.at),
        ];
        self.push(Kernel::Elementwise(kernel), args);
        Ok(())
    }
}
