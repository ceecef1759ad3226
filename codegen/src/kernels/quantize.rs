//! Rows of f32 to 8-bit codes and scales or to bf16, after a norm where asked for.
//!
//! In: rows of x, the norm's weight and bias. Out: rows as [`RowForm`] says, the bits those of
//! [`llmc_ir::quant::activation`] for the normalised row; or rows of bf16, pads zero.

use super::{F32, Norm};
use crate::kernel::{BYTES, Elem, KernelBuilder, LANES, Param, SUMS, Ty, Value};
use llmc_ir::{
    Group,
    quant::activation::{BLOCK, PAIR_BITS, RowForm, TINY, most},
};

/// Blocks that are taken together: their halves' sums fill a vector.
const AT_ONCE: i64 = LANES / 2;

/// What rows become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// bf16, one after another, rounded to nearest even.
    Bf16,
    /// 8-bit codes.
    Q8(Group),
}

/// Emits `quantize(thread, threads, n: i64, x: *f32, weight: *f32, bias: *f32, y: *u8,
/// scratch: *u8)`; weight and bias are those of the norm, not read without it.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantize {
    pub to: Rows,
    /// Over plain rows, from `x_stride` to anything.
    pub norm: Option<Norm>,
    /// Logical lanes of a row; a multiple of 32 under [`Group::Block`].
    pub width: i64,
    /// Runs of logical lanes `(start, length)` within a row of x, ascending; their starts are
    /// multiples of 16, and pads behind them are zero.
    pub segments: Vec<(i64, i64)>,
    pub x_stride: i64,
    /// 4-byte units from one row of y to the next.
    pub y_stride: i64,
}

/// The scale of a group and what its values are multiplied by, from its largest magnitude.
struct Scale {
    scale: Value,
    inverse: Value,
}

impl Quantize {
    pub fn symbol(&self) -> String {
        let to = match self.to {
            Rows::Bf16 => "bf16",
            Rows::Q8(Group::Block) => "block",
            Rows::Q8(Group::Row) => "row",
            Rows::Q8(Group::Pair) => "pair",
        };
        let mut name = format!("quantize_{to}_x{}_y{}", self.x_stride, self.y_stride);
        for (start, length) in &self.segments {
            name += &format!("_{start}p{length}");
        }
        if let Some(norm) = &self.norm {
            name += &format!("_{}", norm.symbol());
        }
        name
    }

    /// Bytes of scratch that a call uses: a row.
    pub fn scratch_bytes(&self) -> i64 {
        // Runs are copied in whole vectors.
        (self.width + 2 * LANES) / LANES * LANES * F32
    }

    /// Bytes of a row of y.
    fn bytes(&self) -> i64 {
        match self.to {
            Rows::Bf16 => self.groups() * LANES * Elem::BF16.bytes(),
            Rows::Q8(group) => i64::from(self.form(group).bytes),
        }
    }

    fn form(&self, group: Group) -> RowForm {
        RowForm::new(self.width as u32, group)
    }

    fn groups(&self) -> i64 {
        (self.width + LANES - 1) / LANES
    }

    /// Emits the function and returns its symbol.
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        assert!(
            self.to != Rows::Q8(Group::Block) || self.width % BLOCK as i64 == 0,
            "rows are whole blocks"
        );
        assert!(
            self.y_stride * F32 >= self.bytes(),
            "rows of y hold their parts"
        );
        let params = [
            Param::i64(),
            Param::i64(),
            Param::i64(),
            Param::input(),
            Param::input(),
            Param::input(),
            Param::output(),
            Param::output(),
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [thread, threads, n, x, weight, bias, y, scratch] = *args else {
                unreachable!("eight parameters")
            };
            let (lo, hi) = b.slice(thread, threads, n);
            b.for_each(lo, hi, 1, |b, row| {
                let mut x = b.at(x, row, self.x_stride * F32);
                let y = b.at(y, row, self.y_stride * F32);
                if let Some(norm) = &self.norm {
                    let symbol = norm.emit(b);
                    let (zero, one) = (b.i64(0), b.i64(1));
                    b.call(&symbol, &[zero, one, one, x, weight, bias, scratch], &[]);
                    x = scratch;
                } else if self.segments.len() > 1 {
                    self.gather(b, x, scratch);
                    x = scratch;
                }
                match self.to {
                    Rows::Bf16 => self.narrow(b, x, y),
                    Rows::Q8(Group::Block) => self.blocks(b, x, y),
                    Rows::Q8(group @ (Group::Row | Group::Pair)) => self.row(b, group, x, y),
                }
            });
        })
    }

    /// Copies the runs of a row together, in order, so that a run's pads are overwritten.
    fn gather(&self, b: &mut KernelBuilder<'_>, x: Value, to: Value) {
        let mut done = 0;
        for (start, length) in &self.segments {
            let (from, to) = (b.offset(x, start * F32), b.offset(to, done * F32));
            b.for_unrolled((length + LANES - 1) / LANES, 4, |b, i| {
                let p = b.at(from, i, LANES * F32);
                let v = b.load_group(p);
                let p = b.at(to, i, LANES * F32);
                b.store(v, p);
            });
            done += length;
        }
        let zeros = b.splat(0.0);
        let p = b.offset(to, done * F32);
        b.store(zeros, p);
        assert_eq!(done, self.width, "the runs make up a row");
    }

    fn scale(&self, b: &mut KernelBuilder<'_>, group: Group, largest: Value) -> Scale {
        let [most, zero, tiny] = [most(group), 0.0, TINY].map(|v| b.constant(largest.ty, v.into()));
        let none = b.lt(largest, tiny);
        let inverse = b.div(most, largest);
        let scale = b.div(largest, most);
        Scale {
            scale: b.select(none, zero, scale),
            inverse: b.select(none, zero, inverse),
        }
    }

    /// 16 values in steps of their scale, i32.
    fn steps(&self, b: &mut KernelBuilder<'_>, v: Value, inverse: Value) -> Value {
        let v = b.mul(v, inverse);
        b.to_nearest_int(v)
    }

    /// Stores 16 codes, i32, at `p`.
    fn put_codes(&self, b: &mut KernelBuilder<'_>, codes: Value, p: Value) {
        let bytes = b.truncate(codes, Elem::I8);
        b.store(bytes, p);
    }

    /// One behind the other, several blocks at a time.
    fn blocks(&self, b: &mut KernelBuilder<'_>, x: Value, y: Value) {
        let (count, mut done) = (self.width / BLOCK as i64, 0);
        for together in [AT_ONCE, 4, 2, 1] {
            let rounds = (count - done) / together;
            b.for_unrolled(rounds, 1, |b, i| {
                let first = b.mul_const(i, together);
                let first = b.add_const(first, done);
                self.some_blocks(b, x, y, first, together);
            });
            done += rounds * together;
        }
    }

    /// `count` blocks from `first` on, with one vector of what each block has. A single one is the
    /// row's last: a block of zeros behind it fills the unit.
    fn some_blocks(&self, b: &mut KernelBuilder<'_>, x: Value, y: Value, first: Value, count: i64) {
        let x = b.at(x, first, BLOCK as i64 * F32);
        let to = b.at(y, first, BLOCK as i64);
        let mut values: Vec<Value> = (0..2 * count)
            .map(|half| {
                let p = b.offset(x, half * LANES * F32);
                b.load_group(p)
            })
            .collect();
        let count = count.max(2);
        values.resize(2 * count as usize, b.splat(0.0));
        let largest: Vec<Value> = values
            .chunks(2)
            .map(|v| {
                let (low, high) = (b.abs(v[0]), b.abs(v[1]));
                b.max(low, high)
            })
            .collect();
        let largest = b.max_of_each(&largest);
        let scale = self.scale(b, Group::Block, largest);
        let (none, ones) = (b.constant(SUMS, 0.0), b.constant(BYTES, 1.0));
        let units = values.chunks(4).zip(0..);
        let fours: Vec<Value> = units
            .map(|(values, unit)| {
                let codes = [0, 1, 2, 3].map(|half| {
                    let lane = [2 * unit + half as i64 / 2; LANES as usize];
                    let inverse = b.shuffle(scale.inverse, scale.inverse, &lane);
                    self.steps(b, values[half], inverse)
                });
                let codes = b.low_bytes(codes);
                let p = b.offset(to, unit * 2 * BLOCK as i64);
                b.store(codes, p);
                b.dot_u8_s8(none, ones, codes)
            })
            .collect();
        let halves = b.sum_of_fours(&fours);
        let [low, high] = [0, 1].map(|half| {
            let lanes: Vec<i64> = (0..count).map(|block| 2 * block + half).collect();
            b.shuffle(halves, halves, &lanes)
        });
        let sums = b.add(low, high);
        let starts = b.mul_const(sums, -128);
        let form = self.form(Group::Block);
        for (v, at, each) in [
            (scale.scale, form.scales, F32),
            (sums, form.sums, F32),
            (halves, form.half_sums, 2 * F32),
            (starts, form.starts, F32),
        ] {
            let p = b.offset(y, at.into());
            let p = b.at(p, first, each);
            b.store(v, p);
        }
    }

    fn narrow(&self, b: &mut KernelBuilder<'_>, x: Value, y: Value) {
        b.for_unrolled(self.groups(), 4, |b, i| {
            let p = b.at(x, i, LANES * F32);
            let v = b.load_group(p);
            let v = b.narrow(v, Elem::BF16);
            let p = b.at(y, i, LANES * Elem::BF16.bytes());
            b.store(v, p);
        });
    }

    fn row(&self, b: &mut KernelBuilder<'_>, group: Group, x: Value, y: Value) {
        let form = self.form(group);
        let groups = self.groups();
        let zero = b.splat(0.0);
        let load = |b: &mut KernelBuilder<'_>, i: Value| {
            let p = b.at(x, i, LANES * F32);
            b.load_group(p)
        };
        let largest = b.for_unrolled_carried(groups, 4, &[zero], |b, i, most| {
            let v = load(b, i);
            let v = b.abs(v);
            vec![b.max(v, most[0])]
        });
        let largest = b.max_lanes(largest[0]);
        let scale = self.scale(b, group, largest);
        let inverse = b.broadcast(scale.inverse);
        // One behind the other: the codes of the row, or the high and then the low ones.
        let rows: Vec<Value> = (0..group.codes())
            .map(|code| b.offset(y, i64::from(code * form.each)))
            .collect();
        let none = b.constant(SUMS, 0.0);
        let sums = vec![none; rows.len()];
        let sums = b.for_unrolled_carried(groups, 4, &sums, |b, i, sums| {
            let v = load(b, i);
            let steps = self.steps(b, v, inverse);
            let codes = match group {
                Group::Pair => pair(b, steps).to_vec(),
                Group::Block | Group::Row => vec![steps],
            };
            let each = codes.into_iter().zip(&rows).zip(sums);
            each.map(|((codes, row), sum)| {
                let p = b.at(*row, i, LANES);
                self.put_codes(b, codes, p);
                b.add(*sum, codes)
            })
            .collect()
        });
        let mut scales = vec![scale.scale];
        if group == Group::Pair {
            let step = b.f32((1 << PAIR_BITS) as f32);
            scales.insert(0, b.mul(scale.scale, step));
        }
        let none = b.constant(Ty::Vector(Elem::I8, LANES as u32), 0.0);
        for ((row, sum), scale) in rows.into_iter().zip(sums).zip(scales) {
            let sum = b.sum_lanes(sum);
            let start = b.mul_const(sum, -128);
            let ends = [(scale, form.scales), (start, form.starts)];
            let pads = (groups..i64::from(form.scales) / LANES).map(|i| (none, i * LANES));
            for (v, at) in ends.map(|(v, at)| (v, at.into())).into_iter().chain(pads) {
                let p = b.offset(row, at);
                b.store(v, p);
            }
        }
    }
}

/// The codes (high, low) of 16 steps, as [`llmc_ir::quant::activation::pair`] tells them.
fn pair(b: &mut KernelBuilder<'_>, steps: Value) -> [Value; 2] {
    let high = b.add_const(steps, 1 << (PAIR_BITS - 1));
    let high = b.shr_signed(high, PAIR_BITS);
    let whole = b.shl(high, PAIR_BITS);
    [high, b.sub(steps, whole)]
}
