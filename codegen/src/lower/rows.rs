//! `rows`, `pool` and `l2_normalize`: from tokens to the rows that leave the step.

use llmc_ir::{Inst, ops};

use super::{Lower, LowerError, row_width};
use crate::{
    kernels,
    step::{Arg, BatchField, Extent, Kernel},
};

impl<'a> Lower<'a> {
    pub(super) fn rows(&mut self, inst: &'a Inst) -> Result<(), LowerError> {
        let (x, y) = (self.operand(inst, 0)?, self.result(inst)?);
        let kernel = kernels::SelectRows {
            width: i64::from(y.layout.width()),
            x_stride: i64::from(x.stride),
            y_stride: i64::from(y.stride),
        };
        let args = vec![
            Arg::Rows(Extent::Rows),
            Arg::Batch(BatchField::Rows),
            Arg::Arena(x.at),
            Arg::Arena(y.at),
        ];
        self.push(Kernel::SelectRows(kernel), args);
        Ok(())
    }

    pub(super) fn pool(&mut self, inst: &'a Inst, op: &ops::Pool) -> Result<(), LowerError> {
        let (x, y) = (self.operand(inst, 0)?, self.result(inst)?);
        let kernel = kernels::Pool {
            kind: match op.kind {
                ops::PoolKind::Mean => kernels::PoolKind::Mean,
                ops::PoolKind::Cls => kernels::PoolKind::Cls,
                ops::PoolKind::LastToken => kernels::PoolKind::Last,
                ops::PoolKind::Max => kernels::PoolKind::Max,
            },
            width: i64::from(y.layout.width()),
            x_stride: i64::from(x.stride),
            y_stride: i64::from(y.stride),
        };
        let args = vec![
            Arg::Rows(Extent::Sequences),
            Arg::Batch(BatchField::QStart),
            Arg::Arena(x.at),
            Arg::Arena(y.at),
        ];
        self.push(Kernel::Pool(kernel), args);
        Ok(())
    }

    pub(super) fn l2_normalize(
        &mut self,
        inst: &'a Inst,
        op: &ops::L2Normalize,
    ) -> Result<(), LowerError> {
        let (x, y) = (self.operand(inst, 0)?, self.result(inst)?);
        let kernel = kernels::L2Normalize {
            eps: op.eps,
            width: row_width(&x.layout),
            x_stride: i64::from(x.stride),
            y_stride: i64::from(y.stride),
        };
        let rows = Arg::Rows(self.extent(inst.results[0])?);
        self.push(
            Kernel::L2Normalize(kernel),
            vec![rows, Arg::Arena(x.at), Arg::Arena(y.at)],
        );
        Ok(())
    }
}
