//! `rope_angles` and `rope`: cos and sin once a step, then pairs of each head's elements.

use llmc_abi::LANES;
use llmc_ir::{
    Inst, Place, ops,
    rope::{RopeScaling, inv_freq_at},
};

use super::{Lower, LowerError};
use crate::{
    kernels::{self, Lengths},
    step::{Arg, BatchField, Extent, Kernel},
};

impl<'a> Lower<'a> {
    pub(super) fn rope_angles(
        &mut self,
        inst: &'a Inst,
        op: &ops::RopeAngles,
    ) -> Result<(), LowerError> {
        let y = self.result(inst)?;
        let pos = self.ids(self.value(inst, 0)?)?;
        let rule = op.scaling.length_rule();
        if rule.is_some() && rule != self.module.length_rule() {
            return Err(self.error("ropes that go by lengths in more than one way"));
        }
        let padded = |mut lanes: Vec<f32>| {
            lanes.resize(lanes.len().next_multiple_of(LANES), 0.0);
            lanes
        };
        let at = |length: u32| padded(inv_freq_at(op.theta, op.dim, &op.scaling, length));
        let frequencies = at(0);
        let half = frequencies.len() as i64;
        let (lengths, second) = match op.scaling {
            RopeScaling::LongRope {
                original_context, ..
            } => {
                let long = at(original_context.saturating_add(1));
                (
                    Lengths::Switch {
                        at: i64::from(original_context),
                    },
                    long,
                )
            }
            RopeScaling::Dynamic {
                factor,
                original_context,
            } => {
                // freq = theta^(-2i / dim) · growth^(-2i / (dim - 2))
                let dim = f64::from(op.dim);
                let powers = (0..op.dim / 2).map(|i| (-2.0 * f64::from(i) / (dim - 2.0)) as f32);
                let context = i64::from(original_context);
                (
                    Lengths::Growing { factor, context },
                    padded(powers.collect()),
                )
            }
            RopeScaling::Default
            | RopeScaling::Linear { .. }
            | RopeScaling::Llama3 { .. }
            | RopeScaling::Yarn { .. } => (Lengths::Any, frequencies.clone()),
        };
        let kernel = kernels::RopeAngles {
            half,
            scale: op.scaling.attention_factor(),
            lengths,
        };
        let [first, second] = [frequencies, second].map(|t| Arg::Table(self.table(t)));
        let rows = Arg::Rows(self.extent(inst.results[0])?);
        let (cos, sin) = self.angles(y, half);
        let (seq, length) = (BatchField::Seq, BatchField::RopeLength);
        let args = vec![
            rows,
            pos,
            Arg::Batch(seq),
            Arg::Batch(length),
            first,
            second,
            cos,
            sin,
        ];
        self.push(Kernel::RopeAngles(kernel), args);
        Ok(())
    }

    /// The number of a constant table.
    pub(super) fn table(&mut self, table: Vec<f32>) -> usize {
        let known = self.tables.iter().position(|t| *t == table);
        known.unwrap_or_else(|| {
            self.tables.push(table);
            self.tables.len() - 1
        })
    }

    /// Where cos and sin lie in the place of a `rope_angles`: `[N][half]` each, one behind the other.
    fn angles(&self, place: &Place, half: i64) -> (Arg, Arg) {
        let bytes = self.bound(Extent::Tokens) * half as u64 * 4;
        (Arg::Arena(place.at), Arg::Arena(place.at + bytes))
    }

    pub(super) fn rope(&mut self, inst: &'a Inst) -> Result<(), LowerError> {
        let (x, angles, y) = (
            self.operand(inst, 0)?,
            self.operand(inst, 1)?,
            self.result(inst)?,
        );
        let (heads, parts) = self.heads(x)?;
        let (_, angle_parts) = self.heads(angles)?;
        let (&[half], [first, second, rest @ ..]) = (angle_parts.as_slice(), parts.as_slice())
        else {
            return Err(self.error(format!("{} rotated by {}", x.layout, angles.layout)));
        };
        if (*first, *second) != (half, half) || rest.len() > 1 || x.layout != y.layout {
            return Err(self.error(format!("{} rotated by {}", x.layout, angles.layout)));
        }
        let kernel = kernels::Rope {
            heads,
            half: i64::from(half.next_multiple_of(16)),
            rest: rest
                .first()
                .map_or(0, |&r| i64::from(r.next_multiple_of(16))),
            x_stride: i64::from(x.stride),
            y_stride: i64::from(y.stride),
        };
        let rows = Arg::Rows(self.extent(inst.results[0])?);
        let (cos, sin) = self.angles(angles, kernel.half);
        let args = vec![rows, Arg::Arena(x.at), cos, sin, Arg::Arena(y.at)];
        self.push(Kernel::Rope(kernel), args);
        Ok(())
    }
}
