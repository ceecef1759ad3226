//! Feed-forward parts.
//!
//! In: the normalised residual stream `[N, hidden]`. Out: what the part adds to it, `[N, hidden]`.
//!
//! Gated: `down(act(gate(x)) · up(x))`. Plain: `down(act(up(x)))`.
//!
//! Not here: mixtures of experts.

use llmc_ir::ValueId;
use llmc_ir::ops::{ActKind, Activation, Mul};

use super::Scope;
use super::attention::linear;
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
    /// The tensor of the gate, without `.weight`; `None`: not gated.
    pub gate: Option<&'static str>,
    /// The tensor of the first projection.
    pub up: &'static str,
    /// The tensor of the second.
    pub down: &'static str,
    /// Whether all of them have a bias.
    pub bias: bool,
}

impl Mlp {
    /// Llama's, under its names.
    pub fn gated(hidden: u32, inner: u32, act: ActKind, bias: bool) -> Self {
        Self {
            hidden,
            inner,
            act,
            gate: Some("model.layers.{layer}.mlp.gate_proj"),
            up: "model.layers.{layer}.mlp.up_proj",
            down: "model.layers.{layer}.mlp.down_proj",
            bias,
        }
    }

    /// BERT's, under its names.
    pub fn plain(hidden: u32, inner: u32, act: ActKind) -> Self {
        Self {
            hidden,
            inner,
            act,
            gate: None,
            up: "encoder.layer.{layer}.intermediate.dense",
            down: "encoder.layer.{layer}.output.dense",
            bias: true,
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
        let inner = match self.gate {
            Some(gate) => {
                let g = linear(
                    scope,
                    x,
                    ("w_gate", "b_gate"),
                    gate,
                    wide,
                    self.bias,
                    &in_why,
                )?;
                let u = linear(
                    scope,
                    x,
                    ("w_up", "b_up"),
                    self.up,
                    wide,
                    self.bias,
                    &in_why,
                )?;
                let g = scope.op("g", act, &[g.into()])?;
                scope.op("gu", Mul, &[g.into(), u.into()])?
            }
            None => {
                let u = linear(
                    scope,
                    x,
                    ("w_up", "b_up"),
                    self.up,
                    wide,
                    self.bias,
                    &in_why,
                )?;
                scope.op("g", act, &[u.into()])?
            }
        };
        linear(
            scope,
            inner,
            ("w_down", "b_down"),
            self.down,
            narrow,
            self.bias,
            &out_why,
        )
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
