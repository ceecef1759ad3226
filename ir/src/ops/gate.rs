//! How an expert's gate and up are joined: an attribute of `experts`.

use super::ActKind;
use crate::attr::{AttrReader, AttrValue, Attrs};

/// `act(min(gate, limit)) · (clamp(up, ±limit) + shift)`.
///
/// gpt-oss: `gate<act = quick_gelu, limit = 7.0, shift = 1.0>` (HF `GptOssExperts._apply_gate`, whose
/// `gate · σ(1.702 · gate)` is the quick GELU).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Gate {
    pub act: ActKind,
    /// Bound of the gate from above, and of the up from both sides.
    pub limit: Option<f32>,
    /// Added to the up.
    pub shift: f32,
}

impl Gate {
    /// `act(gate) · up`.
    pub fn plain(act: ActKind) -> Gate {
        Gate {
            act,
            limit: None,
            shift: 0.0,
        }
    }

    /// The function itself.
    pub fn apply(self, gate: f64, up: f64) -> f64 {
        let limit = self.limit.map_or(f64::INFINITY, f64::from);
        self.act.apply(gate.min(limit)) * (up.clamp(-limit, limit) + f64::from(self.shift))
    }

    pub(super) fn attr(self) -> AttrValue {
        let limit = self.limit.map(|l| AttrValue::Float(crate::attr::short(l)));
        let mut attrs = Attrs::new()
            .word("act", self.act.name())
            .with_some("limit", limit);
        if self.shift != 0.0 {
            attrs = attrs.float("shift", self.shift);
        }
        AttrValue::Struct("gate".into(), attrs)
    }

    pub(super) fn read(attrs: &mut AttrReader) -> Result<Gate, String> {
        let Some((name, mut a)) = attrs.opt_struct("gate")? else {
            return Err("attribute `gate` is missing".into());
        };
        if name != "gate" {
            return Err(format!("attribute `gate` is {name}<…>, expected gate<…>"));
        }
        let gate = Gate {
            act: ActKind::from_name(&a.word("act")?)?,
            limit: a.opt_float("limit")?,
            shift: a.opt_float("shift")?.unwrap_or(0.0),
        };
        a.finish()?;
        match gate.limit {
            Some(l) if l.is_nan() || l <= 0.0 => Err(format!("`limit` is {l}")),
            _ => Ok(gate),
        }
    }
}
