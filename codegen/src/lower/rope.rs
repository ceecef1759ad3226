//! `rope_angles` and `rope`: cos and sin once a step, then pairs of each head's elements.

use llmc_abi::LANES;
use llmc_ir::{Inst, Place, ops, rope::inv_freq};

use super::{Lower, LowerError};
use crate::{
    kernels,
    step::{Arg, Extent, Kernel},
};

impl<'a> Lower<'a> {
    pub(super) fn rope_angles(
        &mut self,
        inst: &'a Inst,
        op: &ops::RopeAngles,
    ) -> Result<(), LowerError> {
        let y = self.result(inst)?;
        let pos = self.ids(self.value(inst, 0)?)?;
        let mut frequencies = inv_freq(op.theta, op.dim, &op.scaling);
        frequencies.resize(frequencies.len().next_multiple_of(LANES), 0.0);
        let kernel = kernels::RopeAngles {
            half: frequencies.len() as i64,
            scale: op.scaling.attention_factor(),
        };
        let table = self
            .tables
            .iter()
            .position(|t| *t == frequencies)
            .unwrap_or_else(|| {
                self.tables.push(frequencies);
                self.tables.len() - 1
            });
        let rows = Arg::Rows(self.extent(inst.results[0])?);
        let (cos, sin) = self.angles(y, kernel.half);
        self.push(
            Kernel::RopeAngles(kernel),
            vec![rows, pos, Arg::Table(table), cos, sin],
        );
        Ok(())
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
