//! `rows`, `pool`, `substitute`, `l2_normalize` and `unfold`: rows that are chosen, joined, scaled or put beside
//! their neighbours as wholes.

use llmc_ir::{Inst, Operand, ops};

use super::{Lower, LowerError, row_width, weight_arg};
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

    pub(super) fn substitute(
        &mut self,
        inst: &'a Inst,
        op: &ops::Substitute,
    ) -> Result<(), LowerError> {
        let (x, y) = (self.operand(inst, 0)?, self.result(inst)?);
        let (z, z_stride) = match inst.operands.get(1) {
            Some(Operand::Weight(_)) => (weight_arg(self.weight(inst, 1)?.1), 0),
            _ => {
                let z = self.operand(inst, 1)?;
                (Arg::Arena(z.at), i64::from(z.stride))
            }
        };
        let kernel = kernels::Substitute {
            id: i64::from(op.id),
            width: i64::from(y.layout.width()),
            x_stride: i64::from(x.stride),
            z_stride,
            y_stride: i64::from(y.stride),
        };
        let args = vec![
            Arg::Rows(self.extent(inst.results[0])?),
            self.ids(self.value(inst, 2)?)?,
            Arg::Arena(x.at),
            z,
            Arg::Arena(y.at),
        ];
        self.push(Kernel::Substitute(kernel), args);
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

    pub(super) fn unfold(&mut self, inst: &'a Inst, op: &ops::Unfold) -> Result<(), LowerError> {
        let (x, y) = (self.operand(inst, 0)?, self.result(inst)?);
        for place in [x, y] {
            if !place.layout.is_plain() {
                return Err(self.error(format!("rows of {}, expected plain ones", place.layout)));
            }
        }
        let kernel = kernels::Unfold {
            width: i64::from(op.width),
            columns: i64::from(x.layout.len()),
            x_stride: i64::from(x.stride),
            y_stride: i64::from(y.stride),
        };
        let args = vec![
            Arg::Rows(Extent::Tokens),
            Arg::Batch(BatchField::Seq),
            Arg::Batch(BatchField::QStart),
            Arg::Arena(x.at),
            Arg::Arena(y.at),
        ];
        self.push(Kernel::Unfold(kernel), args);
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
