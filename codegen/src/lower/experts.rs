//! `route` and `experts`: rows are sorted by the experts that they go to, go through their products
//! expert by expert, and come back together.
//!
//! Phases of `experts`, over the pairs (row, expert) of nonzero weight, `P` of them at most:
//!
//! ```text
//! dispatch   weights [n, E]             → which pairs each expert has, sorted by expert
//! gather     x [n, K]                   → rows [P, K]
//! in         rows [P, K]                → gated [P, I]       one product an expert
//! quantize   gated [P, I]               → codes [P, I]       where the next product wants it
//! out        gated or codes             → rows [P, M]        one product an expert
//! combine    rows [P, M]                → y [n, M]
//! ```
//!
//! All between x and y lies in the workspace.

use llmc_abi::LANES;
use llmc_ir::{DType, Inst, Layout, ops};

use super::{Lower, LowerError, norm::activation, row_width, weight_arg};
use crate::{
    kernels,
    step::{Arg, Kernel},
};

/// Places in the workspace.
#[derive(Default)]
struct Room {
    end: u64,
}

impl Room {
    fn take(&mut self, bytes: u64) -> u64 {
        let at = self.end;
        self.end = (at + bytes).next_multiple_of(64);
        at
    }
}

impl<'a> Lower<'a> {
    pub(super) fn route(&mut self, inst: &'a Inst, op: &ops::Route) -> Result<(), LowerError> {
        let (x, y) = (self.operand(inst, 0)?, self.result(inst)?);
        let kernel = kernels::Route {
            experts: i64::from(x.layout.len()),
            top_k: i64::from(op.top_k),
            renormalize: op.renormalize,
            x_stride: i64::from(x.stride),
            y_stride: i64::from(y.stride),
        };
        self.scratch = self.scratch.max(kernel.scratch_bytes() as u64);
        let rows = Arg::Rows(self.extent(inst.results[0])?);
        let args = vec![rows, Arg::Arena(x.at), Arg::Arena(y.at), Arg::Scratch];
        self.push(Kernel::Route(kernel), args);
        Ok(())
    }

    pub(super) fn experts(&mut self, inst: &'a Inst, op: &ops::Experts) -> Result<(), LowerError> {
        let (x, weights, y) = (
            self.operand(inst, 0)?,
            self.operand(inst, 1)?,
            self.result(inst)?,
        );
        let extent = self.extent(inst.results[0])?;
        let experts = weights.layout.len();
        let top_k = self.most_experts(inst)?;
        let (w_in, w_out) = (2, if op.bias { 4 } else { 3 });
        let x_dtype = self.dtype(self.value(inst, 0)?)?;

        let pairs = self.bound(extent) * u64::from(top_k);
        let mut room = Room::default();
        let ints = |n: u64| n * 4;
        let starts = room.take(ints(u64::from(experts) + 1));
        let cursors = room.take(ints(experts.into()));
        let rows = room.take(ints(pairs));
        let places = room.take(ints(pairs));
        let shares = room.take(ints(pairs));
        let starts_arg = Arg::Workspace(starts);
        let count = Arg::WorkspaceInt(starts + ints(experts.into()));

        let dispatch = kernels::Dispatch {
            experts: experts.into(),
            top_k: top_k.into(),
            w_stride: i64::from(weights.stride),
        };
        let mut args = vec![Arg::Rows(extent), Arg::Arena(weights.at)];
        args.extend([starts, cursors, rows, places, shares].map(Arg::Workspace));
        self.push(Kernel::Dispatch(dispatch), args);
        self.end_part("dispatch");

        let x_units = self.row_units(&x.layout, x_dtype)?;
        let inner = self.inner(inst, experts, w_out)?;
        let inner_layout = Layout::plain(inner);
        let plain = DType::F32;
        let (gated_units, y_units) = (
            self.row_units(&inner_layout, plain)?,
            self.row_units(&y.layout, plain)?,
        );
        // What goes into the first product is not needed any more when the second one writes.
        let ends = room.take(pairs * 4 * x_units.max(y_units));
        let gated = room.take(pairs * 4 * gated_units);
        let gather = kernels::SelectRows {
            width: x_units as i64,
            x_stride: i64::from(x.stride),
            y_stride: x_units as i64,
        };
        let args = vec![
            count,
            Arg::Workspace(rows),
            Arg::Arena(x.at),
            Arg::Workspace(ends),
        ];
        self.push(Kernel::SelectRows(gather), args);
        self.end_part("gather");

        let gate = kernels::Epilogue {
            width: i64::from(inner),
            y_stride: gated_units as i64,
            bias: op.bias,
            activation: activation(op.gate.act),
            glu: true,
            limit: op.gate.limit,
            shift: op.gate.shift,
            scale: None,
            softcap: None,
            residual: None,
        };
        let first = (x_dtype, x_units, Arg::Workspace(ends));
        let to = Arg::Workspace(gated);
        self.products(inst, (experts, w_in, op.bias), starts_arg, first, gate, to)?;
        self.end_part("in");

        let mut second = (plain, gated_units, Arg::Workspace(gated));
        if let Some(to) = op.inner {
            let units = self.row_units(&inner_layout, to)?;
            let codes = room.take(pairs * 4 * units);
            let kernel = kernels::Quantize {
                to: match to {
                    DType::Q8(group) => kernels::Rows::Q8(group),
                    _ => kernels::Rows::Bf16,
                },
                norm: None,
                width: inner.into(),
                segments: vec![(0, inner.into())],
                x_stride: gated_units as i64,
                y_stride: units as i64,
            };
            self.scratch = self.scratch.max(kernel.scratch_bytes() as u64);
            let (from, unread) = (Arg::Workspace(gated), Arg::Workspace(gated));
            let args = vec![
                count,
                from,
                unread,
                unread,
                Arg::Workspace(codes),
                Arg::Scratch,
            ];
            self.push(Kernel::Quantize(kernel), args);
            self.end_part("quantize");
            second = (to, units, Arg::Workspace(codes));
        }
        let out = kernels::Epilogue {
            width: row_width(&y.layout),
            y_stride: y_units as i64,
            bias: op.bias,
            activation: kernels::Activation::None,
            glu: false,
            limit: None,
            shift: 0.0,
            scale: None,
            softcap: None,
            residual: None,
        };
        let to = Arg::Workspace(ends);
        self.products(inst, (experts, w_out, op.bias), starts_arg, second, out, to)?;
        self.end_part("out");

        let combine = kernels::Combine {
            top_k: top_k.into(),
            width: i64::from(y.layout.width()),
            pair_stride: y_units as i64,
            y_stride: i64::from(y.stride),
        };
        let args = vec![
            Arg::Rows(extent),
            Arg::Workspace(ends),
            Arg::Workspace(places),
            Arg::Workspace(shares),
            Arg::Arena(y.at),
        ];
        self.push(Kernel::Combine(combine), args);
        self.workspace = self.workspace.max(room.end);
        Ok(())
    }

    /// A part of the op ends at a barrier.
    fn end_part(&mut self, part: &str) {
        let name = format!("{}.experts.{part}", self.func.name);
        self.end_phase(&name);
    }

    /// The products with one stack of matrices, operand `w` and its bias behind it.
    fn products(
        &mut self,
        inst: &'a Inst,
        (experts, w, bias): (u32, usize, bool),
        starts: Arg,
        (dtype, stride, x): (DType, u64, Arg),
        out: kernels::Epilogue,
        y: Arg,
    ) -> Result<(), LowerError> {
        let (id, stored) = self.weight(inst, w)?;
        self.count_experts(inst, id, dtype);
        let w_arg = weight_arg(stored);
        let bias = match bias {
            true => weight_arg(self.weight(inst, w + 1)?.1),
            false => w_arg,
        };
        let product = self.product(stored, experts, dtype, stride as i64, out)?;
        self.scratch = self.scratch.max(product.scratch_bytes() as u64);
        let kernel = kernels::Experts {
            product,
            experts: experts.into(),
            w_bytes: (stored.form.bytes() / u64::from(experts)) as i64,
        };
        let args = vec![starts, x, w_arg, bias, y, Arg::Scratch];
        self.push(Kernel::Experts(kernel), args);
        Ok(())
    }

    /// The most experts of a row: what the op that makes the weights chooses, else all.
    fn most_experts(&self, inst: &Inst) -> Result<u32, LowerError> {
        let weights = self.value(inst, 1)?;
        Ok(ops::Experts::most(self.func, weights))
    }

    /// The width between the products: columns of `w_out`.
    fn inner(&self, inst: &Inst, experts: u32, w_out: usize) -> Result<u32, LowerError> {
        let (id, _) = self.weight(inst, w_out)?;
        let inner = self.module.weights[id.index()].ty.last();
        inner.ok_or_else(|| self.error(format!("matrices of {experts} experts without columns")))
    }

    /// 4-byte units of a row on its own.
    fn row_units(&self, layout: &Layout, dtype: DType) -> Result<u64, LowerError> {
        let units = layout.checked_units(dtype);
        // Rows are copied in whole groups.
        units
            .map(|n| u64::from(n).next_multiple_of(LANES as u64))
            .ok_or_else(|| self.error(format!("rows of {} {layout}", dtype.name())))
    }
}
