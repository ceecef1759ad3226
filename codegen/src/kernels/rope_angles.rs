//! Cosines and sines of the rotary positions of a step.
//!
//! In: positions, lengths of sequences, inverse frequencies. Out: `cos[n][half]`, `sin[n][half]`, times a scale.
//! The angle is an f32 product, as Hugging Face computes it; its sine is accurate for long
//! contexts. A pad lane has frequency 0: cosine `scale`, sine 0, which keeps zeros zero.
//!
//! What lengths are for stands in `llmc_ir::rope`.

use super::{F32, tag};
use crate::kernel::{Elem, KernelBuilder, LANES, Param, Ty, Value};

/// How the frequencies depend on the length of a token's sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lengths {
    /// Not at all.
    Any,
    /// Sequences longer than `at` take the second table.
    Switch { at: i64 },
    /// They are multiplied by `growth^second`, where growth is factor · length / context −
    /// (factor − 1), and the length at least the context and the token's position + 1.
    Growing { factor: f32, context: i64 },
}

/// Emits `rope_angles(thread, threads, n: i64, pos: *i32, seq: *i32, lengths: *i32, inv_freq: *f32,
/// second: *f32, cos: *f32, sin: *f32)`; `seq` is `[n]`, `lengths` are by sequence, `inv_freq` and
/// `second` are `[half]`, the outputs are `[n][half]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeAngles {
    /// Physical frequencies, a multiple of 16.
    pub half: i64,
    /// Factor of both outputs (the attention factor of scaled variants).
    pub scale: f32,
    pub lengths: Lengths,
}

impl RopeAngles {
    pub fn symbol(&self) -> String {
        let lengths = match self.lengths {
            Lengths::Any => String::new(),
            Lengths::Switch { at } => format!("_switch{at}"),
            Lengths::Growing { factor, context } => format!("_grow{context}_{}", tag(factor)),
        };
        format!("rope_angles_d{}_s{}{lengths}", self.half, tag(self.scale))
    }

    /// Emits the function and returns its symbol.
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        assert_eq!(self.half % LANES, 0, "physical sizes are padded");
        let params = [
            Param::i64(),
            Param::i64(),
            Param::i64(),
            Param::input(),
            Param::input(),
            Param::input(),
            Param::input(),
            Param::input(),
            Param::output(),
            Param::output(),
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [
                thread,
                threads,
                n,
                pos,
                seq,
                lengths,
                inv_freq,
                second,
                cos,
                sin,
            ] = *args
            else {
                unreachable!("ten parameters")
            };
            let (lo, hi) = b.slice(thread, threads, n);
            b.for_each(lo, hi, 1, |b, row| {
                let p = b.at(pos, row, 4);
                let position = b.load(Ty::I32, p);
                let mut frequencies = inv_freq;
                let mut growth = None;
                match self.lengths {
                    Lengths::Any => {}
                    Lengths::Switch { at } => {
                        let length = length(b, seq, lengths, row);
                        let at = b.i64(at);
                        let long = b.gt(length, at);
                        frequencies = b.select(long, second, inv_freq);
                    }
                    Lengths::Growing { factor, context } => {
                        let length = length(b, seq, lengths, row);
                        let own = b.sign_extend(position, Elem::I64);
                        let own = b.add_const(own, 1);
                        let (length, least) = (b.max(length, own), b.i64(context));
                        let length = b.max(length, least);
                        growth = Some(log_growth(b, length, factor, context));
                    }
                }
                let position = b.to_float(position, Elem::F32);
                let position = b.broadcast(position);
                let cos = b.at(cos, row, self.half * F32);
                let sin = b.at(sin, row, self.half * F32);
                b.for_unrolled(self.half / LANES, 1, |b, i| {
                    let p = b.at(frequencies, i, LANES * F32);
                    let mut frequency = b.load_group(p);
                    if let Some(growth) = growth {
                        let p = b.at(second, i, LANES * F32);
                        let power = b.load_group(p);
                        let power = b.mul(power, growth);
                        let power = b.exp(power);
                        frequency = b.mul(frequency, power);
                    }
                    let angle = b.mul(position, frequency);
                    let (s, c) = b.sin_cos(angle);
                    let scale = b.splat(self.scale);
                    for (v, to) in [(c, cos), (s, sin)] {
                        let v = b.mul(v, scale);
                        let p = b.at(to, i, LANES * F32);
                        b.store(v, p);
                    }
                });
            });
        })
    }
}

/// The length of the sequence of token `row`, i64.
fn length(b: &mut KernelBuilder<'_>, seq: Value, lengths: Value, row: Value) -> Value {
    let p = b.at(seq, row, 4);
    let sequence = b.load_i32(p);
    let p = b.at(lengths, sequence, 4);
    b.load_i32(p)
}

/// The logarithm of what the base grows by, in all lanes.
fn log_growth(b: &mut KernelBuilder<'_>, length: Value, factor: f32, context: i64) -> Value {
    let length = b.truncate(length, Elem::I32);
    let length = b.to_float(length, Elem::F32);
    let length = b.broadcast(length);
    // factor · length / context - (factor - 1) = 1 + factor · (length - context) / context
    let context = b.splat(context as f32);
    let more = b.sub(length, context);
    let more = b.div(more, context);
    let (factor, one) = (b.splat(factor), b.splat(1.0));
    let growth = b.fma(more, factor, one);
    b.ln(growth)
}
