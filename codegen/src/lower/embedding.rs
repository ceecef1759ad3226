//! `gather` and `position_ids`: from ids to rows.

use llmc_ir::{Inst, ops};

use super::{Lower, LowerError, linear::elem, weight_arg};
use crate::{
    kernels::{self, TableLayout},
    pack::Form,
    step::{Arg, BatchField, Extent, Kernel},
};

impl<'a> Lower<'a> {
    pub(super) fn gather(&mut self, inst: &'a Inst, op: &ops::Gather) -> Result<(), LowerError> {
        let y = self.result(inst)?;
        let ids = self.ids(self.value(inst, 0)?)?;
        let (_, table) = self.weight(inst, 1)?;
        let rows = Arg::Rows(self.extent(inst.results[0])?);
        let scale = (op.scale != 1.0).then_some(op.scale);
        if let Form::Blocks { form, cols, .. } = &table.form {
            let kernel = kernels::BlockGather {
                form: *form,
                width: i64::from(*cols),
                y_stride: i64::from(y.stride),
                scale,
            };
            self.scratch = self.scratch.max(kernel.scratch_bytes() as u64);
            let y = Arg::Arena(y.at);
            let args = vec![rows, ids, weight_arg(table), y, Arg::Scratch];
            self.push(Kernel::BlockGather(kernel), args);
            return Ok(());
        }
        let (dtype, layout, width) = match &table.form {
            Form::Panels { dtype, cols, .. } => (*dtype, TableLayout::Panels, cols.len()),
            Form::Rows { dtype, cols, .. } => (
                *dtype,
                TableLayout::Rows {
                    stride: cols.len() as i64,
                },
                cols.len(),
            ),
            Form::Blocks { .. }
            | Form::Positions(_)
            | Form::Relative { .. }
            | Form::Vector { .. } => {
                return Err(self.error("the weight is not packed as a table"));
            }
        };
        let kernel = kernels::Gather {
            elem: elem(dtype),
            layout,
            width: width as i64,
            y_stride: i64::from(y.stride),
            scale,
            accumulate: false,
        };
        self.push(
            Kernel::Gather(kernel),
            vec![rows, ids, weight_arg(table), Arg::Arena(y.at)],
        );
        Ok(())
    }

    pub(super) fn position_ids(
        &mut self,
        inst: &'a Inst,
        op: &ops::PositionIds,
    ) -> Result<(), LowerError> {
        let y = self.result(inst)?;
        let ids = self.ids(self.value(inst, 0)?)?;
        let kernel = kernels::PositionIds {
            pad: i64::from(op.pad),
        };
        let rows = Arg::Rows(Extent::Sequences);
        let args = vec![rows, Arg::Batch(BatchField::QStart), ids, Arg::Arena(y.at)];
        self.push(Kernel::PositionIds(kernel), args);
        Ok(())
    }
}
