//! RMS and layer normalisation over the last dimension, whole rows or heads.
//!
//! In: x `[n, heads, physical]`, weight and bias `[physical]`. Out: y of the same shape; in place
//! is fine. Mean and variance are over the logical lanes only, and pad lanes come out as zero.

use super::{F32, tag};
use crate::kernel::{KernelBuilder, LANES, Param, Value};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormKind {
    /// `x / √(mean x² + eps) · (offset + w)`; `offset` is 0 or 1.
    Rms { offset: f32 },
    /// `(x - mean) / √(var + eps) · w + bias`.
    Layer,
}

/// Emits `norm(thread, threads, n: i64, x: *f32, weight: *f32, bias: *f32, y: *f32)`; `bias` is
/// not read by [`NormKind::Rms`]. Weight and bias have zeros in pad lanes.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    pub kind: NormKind,
    pub eps: f32,
    /// Vectors per row, each normalised alone; 1 for plain rows.
    pub heads: i64,
    /// Logical lanes of a vector.
    pub width: i64,
    /// Physical lanes of a vector, a multiple of 16; heads follow one another at this distance.
    pub physical: i64,
    /// Runs of logical lanes `(start, length)` within a vector, ascending.
    pub segments: Vec<(i64, i64)>,
    pub x_stride: i64,
    pub y_stride: i64,
}

impl Norm {
    /// A norm over plain rows: `width` lanes from the start of the row.
    pub fn rows(kind: NormKind, eps: f32, width: i64, x_stride: i64, y_stride: i64) -> Norm {
        Norm {
            kind,
            eps,
            heads: 1,
            width,
            physical: (width + LANES - 1) / LANES * LANES,
            segments: vec![(0, width)],
            x_stride,
            y_stride,
        }
    }

    pub fn symbol(&self) -> String {
        let kind = match self.kind {
            NormKind::Rms { offset } => format!("rms{offset}"),
            NormKind::Layer => "layer".to_string(),
        };
        format!(
            "norm_{kind}_e{}_h{}_{}_x{}_y{}",
            tag(self.eps),
            self.heads,
            self.lanes_name(),
            self.x_stride,
            self.y_stride
        )
    }

    fn lanes_name(&self) -> String {
        let mut name = format!("d{}", self.physical);
        for (start, length) in &self.segments {
            name += &format!("_{start}p{length}");
        }
        name
    }

    /// Emits the function and returns its symbol.
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        assert_eq!(self.physical % LANES, 0, "physical sizes are padded");
        assert_eq!(
            self.segments.iter().map(|s| s.1).sum::<i64>(),
            self.width,
            "segments cover the logical lanes"
        );
        let params = [
            Param::i64(),
            Param::i64(),
            Param::i64(),
            Param::ptr(),
            Param::input(),
            Param::input(),
            Param::ptr(),
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [thread, threads, n, x, weight, bias, y] = *args else {
                unreachable!("seven parameters")
            };
            // Rows are never shared between threads: what follows without a barrier relies on it.
            let (lo, hi) = b.slice(thread, threads, n);
            b.for_each(lo, hi, 1, |b, row| {
                let x = b.at(x, row, self.x_stride * F32);
                let y = b.at(y, row, self.y_stride * F32);
                let (first, end) = (b.i64(0), b.i64(self.heads));
                b.for_each(first, end, 1, |b, head| {
                    let x = b.at(x, head, self.physical * F32);
                    let y = b.at(y, head, self.physical * F32);
                    match self.kind {
                        NormKind::Rms { offset } => self.rms(b, x, weight, y, offset),
                        NormKind::Layer => self.layer(b, x, weight, bias, y),
                    }
                });
            });
        })
    }

    fn groups(&self) -> i64 {
        self.physical / LANES
    }

    /// Sum of `term` over all groups: four chains in turn, then lanes pairwise.
    fn sum(
        &self,
        b: &mut KernelBuilder<'_>,
        mut add: impl FnMut(&mut KernelBuilder<'_>, Value, Value) -> Value,
    ) -> Value {
        let zero = b.splat(0.0);
        let chains = b.for_unrolled_carried(self.groups(), 4, &[zero; 4], |b, i, chains| {
            let next = add(b, i, chains[0]);
            vec![chains[1], chains[2], chains[3], next]
        });
        let a = b.add(chains[0], chains[1]);
        let c = b.add(chains[2], chains[3]);
        let all = b.add(a, c);
        b.sum_lanes(all)
    }

    /// `1 / √(sum / width + eps)` in all lanes.
    fn inverse_root(&self, b: &mut KernelBuilder<'_>, sum: Value) -> Value {
        let width = b.f32(self.width as f32);
        let mean = b.div(sum, width);
        let eps = b.f32(self.eps);
        let shifted = b.add(mean, eps);
        let root = b.sqrt(shifted);
        let one = b.f32(1.0);
        let inverse = b.div(one, root);
        b.broadcast(inverse)
    }

    fn rms(&self, b: &mut KernelBuilder<'_>, x: Value, weight: Value, y: Value, offset: f32) {
        let squares = self.sum(b, |b, i, chain| {
            let p = b.at(x, i, LANES * F32);
            let v = b.load_group(p);
            b.fma(v, v, chain)
        });
        let factor = self.inverse_root(b, squares);
        b.for_unrolled(self.groups(), 4, |b, i| {
            let p = b.at(x, i, LANES * F32);
            let v = b.load_group(p);
            let p = b.at(weight, i, LANES * F32);
            let mut w = b.load_group(p);
            if offset != 0.0 {
                let offset = b.splat(offset);
                w = b.add(w, offset);
            }
            let v = b.mul(v, factor);
            let v = b.mul(v, w);
            let p = b.at(y, i, LANES * F32);
            b.store(v, p);
        });
    }

    fn layer(&self, b: &mut KernelBuilder<'_>, x: Value, weight: Value, bias: Value, y: Value) {
        let total = self.sum(b, |b, i, chain| {
            let p = b.at(x, i, LANES * F32);
            let v = b.load_group(p);
            b.add(chain, v)
        });
        let width = b.f32(self.width as f32);
        let mean = b.div(total, width);
        let mean = b.broadcast(mean);
        let mask = self.mask(b);
        let squares = self.sum(b, |b, i, chain| {
            let p = b.at(x, i, LANES * F32);
            let v = b.load_group(p);
            let mut v = b.sub(v, mean);
            if let Some(mask) = mask {
                let p = b.at(mask, i, LANES * F32);
                let mask = b.load_group(p);
                v = b.mul(v, mask);
            }
            b.fma(v, v, chain)
        });
        let factor = self.inverse_root(b, squares);
        b.for_unrolled(self.groups(), 4, |b, i| {
            let p = b.at(x, i, LANES * F32);
            let v = b.load_group(p);
            let v = b.sub(v, mean);
            let v = b.mul(v, factor);
            let p = b.at(weight, i, LANES * F32);
            let w = b.load_group(p);
            let p = b.at(bias, i, LANES * F32);
            let c = b.load_group(p);
            let v = b.fma(v, w, c);
            let p = b.at(y, i, LANES * F32);
            b.store(v, p);
        });
    }

    /// A table with 1 in logical lanes and 0 in pads; none if there are no pads.
    fn mask(&self, b: &mut KernelBuilder<'_>) -> Option<Value> {
        if self.width == self.physical {
            return None;
        }
        let mut lanes = vec![0.0; self.physical as usize];
        for (start, length) in &self.segments {
            lanes[*start as usize..(start + length) as usize].fill(1.0);
        }
        let name = format!("mask_{}", self.lanes_name());
        Some(b.table_f32(&name, &lanes))
    }
}
