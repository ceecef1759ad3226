//! Feed-forward parts.
//!
//! In: the normalised residual stream `[N, hidden]`. Out: what the part adds to it, `[N, hidden]`.
//!
//! Gated: `down(act(gate(x)) · up(x))`. Plain: `down(act(up(x)))`.
//!
//! Not here: mixtures of experts (`moe`).

use llmc_ir::ValueId;
use llmc_ir::ops::{ActKind, Activation, Mul};

use super::{Projection, Scope};
use crate::config::Config;
use crate::error::Result;

/// The feed-forward part of one layer class.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width between the projections.
    pub inner: u32,
    /// The nonlinearity.
    pub act: ActKind,
    /// `[inner, hidden]`; `None`: not gated.
    pub gate: Option<Projection>,
    /// `[inner, hidden]`.
    pub up: Projection,
    /// `[hidden, inner]`.
    pub down: Projection,
}

impl Mlp {
    /// Llama's, under its names.
    pub fn gated(hidden: u32, inner: u32, act: ActKind, bias: bool) -> Self {
        let part = |tensor| Projection::plain(tensor).with_bias(bias);
        Self {
            hidden,
            inner,
            act,
            gate: Some(part("model.layers.{layer}.mlp.gate_proj")),
            up: part("model.layers.{layer}.mlp.up_proj"),
            down: part("model.layers.{layer}.mlp.down_proj"),
        }
    }

    /// `[N, hidden] → [N, hidden]`.
    pub fn apply(&self, scope: &mut Scope, x: ValueId) -> Result<ValueId> {
        let (wide, narrow) = ([self.inner, self.hidden], [self.hidden, self.inner]);
        let why = |rows: &str, columns: &str| {
            let size = |field: &str| {
                if field == "hidden_size" {
                    self.hidden
                } else {
                    self.inner
                }
            };
            format!(
                "rows = {rows} ({}), columns = {columns} ({})",
                size(rows),
                size(columns)
            )
        };
        let (in_why, out_why) = (
            why("intermediate_size", "hidden_size"),
            why("hidden_size", "intermediate_size"),
        );
        let act = Activation { kind: self.act };
        let up = ("w_up", "b_up");
        let inner = match &self.gate {
            Some(gate) => {
                let g = gate.apply(scope, x, ("w_gate", "b_gate"), wide, &in_why)?;
                let u = self.up.apply(scope, x, up, wide, &in_why)?;
                let g = scope.op("g", act, &[g.into()])?;
                scope.op("gu", Mul, &[g.into(), u.into()])?
            }
            None => {
                let u = self.up.apply(scope, x, up, wide, &in_why)?;
                scope.op("g", act, &[u.into()])?
            }
        };
        self.down
            .apply(scope, inner, ("w_down", "b_down"), narrow, &out_why)
    }
}

/// The nonlinearity that a configuration names, or the family's default.
pub fn activation(c: &Config, field: &str, default: &str) -> Result<ActKind> {
    match c.optional_text(field)?.unwrap_or(default) {
        "silu" | "swish" => Ok(ActKind::Silu),
        "gelu" | "gelu_python" => Ok(ActKind::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(ActKind::GeluTanh),
        "quick_gelu" => Ok(ActKind::QuickGelu),
        "relu" => Ok(ActKind::Relu),
        "tanh" => Ok(ActKind::Tanh),
        "sigmoid" => Ok(ActKind::Sigmoid),
        _ => Err(c.refuse(
            field,
            "silu, gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, relu, tanh or sigmoid",
        )),
    }
}
