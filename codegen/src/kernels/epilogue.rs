//! What follows a matrix product: from sums to y.
//!
//! In: sums of some rows and one panel of outputs. Out: rows of y. Shared by all linear layers.

use super::{Activation, F32, tag};
use crate::kernel::{KernelBuilder, LANES, Value};

/// `y = softcap(scale · activation(sums + bias)) + residual`, each part where asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Epilogue {
    /// Logical outputs (columns of y, after `glu`); y's lanes up to the next multiple of 16 are
    /// written as zeros, nothing behind them is touched.
    pub width: i64,
    pub y_stride: i64,
    pub bias: bool,
    pub activation: Activation,
    /// `activation(gate) * up`; rows of W interleaved by 16 (g0..15, u0..15, g16..31, …).
    pub glu: bool,
    /// Under `glu`: what bounds the gate from above and the up from both sides, before the activation.
    pub limit: Option<f32>,
    /// Under `glu`: added to the (bounded) up.
    pub shift: f32,
    /// Multiplies the activated value.
    pub scale: Option<f32>,
    /// `cap * tanh(v / cap)`, after `scale`.
    pub softcap: Option<f32>,
    /// Adds `residual`; its stride in floats. Last.
    pub residual: Option<i64>,
}

/// Where a product's sums go, at run time.
#[derive(Clone, Copy)]
pub(super) struct Target {
    /// `[m]`, in the order of the sums.
    pub bias: Value,
    pub residual: Value,
    pub y: Value,
}

impl Epilogue {
    /// Part of symbol names.
    pub(super) fn name(&self) -> String {
        let mut name = format!(
            "o{}_y{}_{}",
            self.width,
            self.y_stride,
            self.activation.name()
        );
        if self.glu {
            name += "_glu";
            if let Some(limit) = self.limit {
                name += &format!("_l{}", tag(limit));
            }
            if self.shift != 0.0 {
                name += &format!("_u{}", tag(self.shift));
            }
        }
        if self.bias {
            name += "_bias";
        }
        if let Some(v) = self.scale {
            name += &format!("_s{}", tag(v));
        }
        if let Some(v) = self.softcap {
            name += &format!("_c{}", tag(v));
        }
        if let Some(stride) = self.residual {
            name += &format!("_r{stride}");
        }
        name
    }

    /// Outputs of a panel of `columns` rows of W.
    pub(super) fn panel_width(&self, columns: i64) -> i64 {
        if self.glu { columns / 2 } else { columns }
    }

    /// Panels of `columns` rows of W that hold outputs.
    pub(super) fn panels(&self, columns: i64) -> i64 {
        let width = self.panel_width(columns);
        (self.width + width - 1) / width
    }

    /// Writes `rows` rows from `row` on of panel `panel`: `sums[rows][columns]` to y.
    #[allow(clippy::too_many_arguments, reason = "a piece of a matrix")]
    pub(super) fn write(
        &self,
        b: &mut KernelBuilder<'_>,
        to: Target,
        sums: Value,
        columns: i64,
        panel: Value,
        row: Value,
        rows: Value,
    ) {
        let panels = self.panels(columns);
        let per_panel = self.panel_width(columns);
        let last_width = self.width - (panels - 1) * per_panel;
        if last_width == per_panel || panels == 1 {
            self.write_rows(b, to, sums, columns, panel, row, rows, last_width);
            return;
        }
        let last = b.i64(panels - 1);
        let inner = b.ne(panel, last);
        b.choose(
            inner,
            |b| {
                self.write_rows(b, to, sums, columns, panel, row, rows, per_panel);
                Vec::new()
            },
            |b| {
                self.write_rows(b, to, sums, columns, panel, row, rows, last_width);
                Vec::new()
            },
        );
    }

    #[allow(clippy::too_many_arguments, reason = "as above")]
    fn write_rows(
        &self,
        b: &mut KernelBuilder<'_>,
        to: Target,
        sums: Value,
        columns: i64,
        panel: Value,
        row: Value,
        rows: Value,
        width: i64,
    ) {
        let bias = b.at(to.bias, panel, columns * F32);
        let y = b.at(to.y, row, self.y_stride * F32);
        let y = b.at(y, panel, self.panel_width(columns) * F32);
        let residual = self.residual.map(|stride| {
            let p = b.at(to.residual, row, stride * F32);
            b.at(p, panel, self.panel_width(columns) * F32)
        });
        let zero = b.i64(0);
        b.for_each(zero, rows, 1, |b, i| {
            let sums = b.at(sums, i, columns * F32);
            let y = b.at(y, i, self.y_stride * F32);
            let residual = residual.map(|p| b.at(p, i, self.residual.unwrap_or(0) * F32));
            for group in 0..(width + LANES - 1) / LANES {
                let valid = (width - group * LANES).min(LANES);
                // Whether pads come out as zeros, unless they are made so.
                let mut clean = self.activation.keeps_zero();
                let mut v = if self.glu {
                    let gate = self.sum(b, sums, bias, 2 * group);
                    let up = self.sum(b, sums, bias, 2 * group + 1);
                    let (gate, up) = self.bounded(b, gate, up);
                    clean |= self.shift == 0.0;
                    let gate = self.activation.apply(b, gate);
                    b.mul(gate, up)
                } else {
                    let v = self.sum(b, sums, bias, group);
                    self.activation.apply(b, v)
                };
                if valid < LANES && !clean {
                    let mask = b.lane_mask(valid);
                    v = b.mul(v, mask);
                }
                if let Some(scale) = self.scale {
                    let scale = b.splat(scale);
                    v = b.mul(v, scale);
                }
                if let Some(cap) = self.softcap {
                    v = b.softcap(v, cap);
                }
                if let Some(p) = residual {
                    let p = b.offset(p, group * LANES * F32);
                    let r = b.load_group(p);
                    v = b.add(v, r);
                }
                let p = b.offset(y, group * LANES * F32);
                b.store(v, p);
            }
        });
    }

    /// Gate and up as the activation and the product take them.
    fn bounded(&self, b: &mut KernelBuilder<'_>, gate: Value, up: Value) -> (Value, Value) {
        let (mut gate, mut up) = (gate, up);
        if let Some(limit) = self.limit {
            let (least, most) = (b.splat(-limit), b.splat(limit));
            gate = b.min(gate, most);
            up = b.min(up, most);
            up = b.max(up, least);
        }
        if self.shift != 0.0 {
            let shift = b.splat(self.shift);
            up = b.add(up, shift);
        }
        (gate, up)
    }

    /// Group `group` of a row's sums, with its bias.
    fn sum(&self, b: &mut KernelBuilder<'_>, sums: Value, bias: Value, group: i64) -> Value {
        let p = b.offset(sums, group * LANES * F32);
        let v = b.load_group(p);
        if !self.bias {
            return v;
        }
        let p = b.offset(bias, group * LANES * F32);
        let c = b.load_group(p);
        b.add(v, c)
    }
}
