//! Embedding rows by id.
//!
//! In: ids, a table. Out: `y[i] = table[ids[i]] · scale`, or that added to y.
//! The table is row-major, or a linear layer's packed weight (a tied embedding is stored once).

use super::{F32, PANEL, tag};
use crate::kernel::{Elem, KernelBuilder, LANES, Param, Value};

/// How a row of the table lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableLayout {
    /// `[rows][stride]`, in elements.
    Rows { stride: i64 },
    /// `[rows/64][width][64]`, the panels of a linear layer whose K is `width`.
    Panels,
}

/// Emits `gather(thread, threads, n: i64, ids: *i32, table: *elem, y: *f32)`; ids are valid rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gather {
    pub elem: Elem,
    pub layout: TableLayout,
    /// Physical lanes of a row, a multiple of 16, pads zero in the table.
    pub width: i64,
    pub y_stride: i64,
    pub scale: Option<f32>,
    /// Adds to y instead of overwriting it.
    pub accumulate: bool,
}

impl Gather {
    pub fn symbol(&self) -> String {
        let layout = match self.layout {
            TableLayout::Rows { stride } => format!("r{stride}"),
            TableLayout::Panels => "p".to_string(),
        };
        format!(
            "gather_{}_{layout}_d{}_y{}{}{}",
            self.elem.name(),
            self.width,
            self.y_stride,
            self.scale
                .map_or(String::new(), |v| format!("_s{}", tag(v))),
            if self.accumulate { "_add" } else { "" }
        )
    }

    /// Emits the function and returns its symbol.
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        assert_eq!(self.width % LANES, 0, "physical sizes are padded");
        let params = [
            Param::i64(),
            Param::i64(),
            Param::i64(),
            Param::input(),
            Param::input(),
            Param::output(),
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [thread, threads, n, ids, table, y] = *args else {
                unreachable!("six parameters")
            };
            let (lo, hi) = b.slice(thread, threads, n);
            b.for_each(lo, hi, 1, |b, row| {
                let p = b.at(ids, row, 4);
                let id = b.load_i32(p);
                let y = b.at(y, row, self.y_stride * F32);
                match self.layout {
                    TableLayout::Rows { stride } => {
                        let from = b.at(table, id, stride * self.elem.bytes());
                        self.copy_row(b, from, y);
                    }
                    TableLayout::Panels => {
                        let panel = b.div_const(id, PANEL);
                        let column = b.rem_const(id, PANEL);
                        let from = b.at(table, panel, self.width * PANEL * self.elem.bytes());
                        let from = b.at(from, column, self.elem.bytes());
                        self.copy_column(b, from, y);
                    }
                }
            });
        })
    }

    fn copy_row(&self, b: &mut KernelBuilder<'_>, from: Value, y: Value) {
        b.for_unrolled(self.width / LANES, 4, |b, i| {
            let p = b.at(from, i, LANES * self.elem.bytes());
            let v = b.load_float(self.elem, p);
            let p = b.at(y, i, LANES * F32);
            self.put(b, v, p);
        });
    }

    /// A column of a panel: one element every 64.
    fn copy_column(&self, b: &mut KernelBuilder<'_>, from: Value, y: Value) {
        b.for_unrolled(self.width, LANES, |b, i| {
            let p = b.at(from, i, PANEL * self.elem.bytes());
            let v = b.load_float_scalar(self.elem, p);
            let p = b.at(y, i, F32);
            self.put(b, v, p);
        });
    }

    fn put(&self, b: &mut KernelBuilder<'_>, v: Value, p: Value) {
        let mut v = v;
        if let Some(scale) = self.scale {
            let scale = b.constant(v.ty, f64::from(scale));
            v = b.mul(v, scale);
        }
        if self.accumulate {
            let old = b.load(v.ty, p);
            v = b.add(old, v);
        }
        b.store(v, p);
    }
}
