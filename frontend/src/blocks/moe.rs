//! Mixtures of experts: feed-forward parts of which every token goes through few.
//!
//! In: the normalised residual stream `[N, hidden]`. Out: what the part adds to it, `[N, hidden]`.
//!
//! ```text
//! weights = route(router(x))                          [N, experts], zero but for top_k of a row
//! out     = Σ weights[e] · down_e(gate(gate_e(x), up_e(x)))
//! ```
//!
//! Checkpoints store the experts' matrices in three ways ([`ExpertTensors`]); the module sees all of one kind over
//! one another.
//!
//! Not here: how the weights are made of logits (op `route`), shared experts.

use llmc_ir::ops::{Experts, Gate, Route};
use llmc_ir::{DType, Operand, ValueId};

use super::scope::{StackPart, Stored};
use super::{Projection, Scope};
use crate::config::Config;
use crate::error::Result;
use crate::limits;

/// The mixture of one layer class.
#[derive(Clone, Debug)]
pub struct Moe {
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width between an expert's projections, and the field that says it.
    pub inner: (u32, &'static str),
    /// How many experts there are, and how many of them a token goes through.
    pub sizes: ExpertCount,
    /// Whether the weights of the chosen add up to 1.
    pub renormalize: bool,
    /// How gate and up are joined.
    pub gate: Gate,
    /// `[experts, hidden]`.
    pub router: Projection,
    /// Whether the experts' projections have biases.
    pub bias: bool,
    /// How their tensors are called.
    pub tensors: ExpertTensors,
}

/// Experts of a mixture.
#[derive(Clone, Copy, Debug)]
pub struct ExpertCount {
    /// All of them.
    pub all: u32,
    /// Those of a token.
    pub chosen: u32,
    /// The field of `all`.
    pub field: &'static str,
}

/// The names of the experts' tensors. Whatever a family's own way, a checkpoint may have all experts' matrices in
/// one tensor for each projection, `stacked` and `.gate_proj`, `.up_proj` `[experts, inner, hidden]` and
/// `.down_proj` `[experts, hidden, inner]`, as GGUF files do.
#[derive(Clone, Copy, Debug)]
pub struct ExpertTensors {
    /// What is before `.gate_proj` and so on in stacked tensors.
    pub stacked: &'static str,
    /// The family's own way.
    pub own: OwnTensors,
}

/// A family's way to store experts.
#[derive(Clone, Copy, Debug)]
pub enum OwnTensors {
    /// Matrices of each expert, without `.weight`, with `{expert}`: gate, up, down.
    Each([&'static str; 3]),
    /// Gate and up of all experts in one tensor, their outputs alternating, then down: `[experts, in, out]`, or
    /// `[experts, out, in]` in blocks. Biases are called `_bias`.
    Interleaved([&'static str; 2]),
}

impl ExpertCount {
    /// Reads the number of experts from the first of `fields` that is there, and that of a token's; `defaults` are
    /// the family's, `widths` those of the stream and between an expert's projections.
    pub fn of(
        c: &Config,
        fields: &[&'static str],
        defaults: (u32, u32),
        widths: [u32; 2],
    ) -> Result<Self> {
        let range = 1..=limits::EXPERTS;
        let field = fields.iter().find(|f| c.has(f)).or(fields.first());
        let field = field.copied().unwrap_or("num_experts");
        let all = c.count_or(field, range.clone(), defaults.0)?;
        let chosen = c.count_or("num_experts_per_tok", range, defaults.1)?;
        if chosen > all {
            let what = format!("found {chosen}, expected at most {field} ({all})");
            return Err(c.problem("num_experts_per_tok", what).input());
        }
        let [hidden, inner] = widths;
        let matrices = u64::from(all) * u64::from(c.layers()?);
        let rows = 2 * u64::from(all) * u64::from(inner.max(hidden));
        if matrices > limits::EXPERT_MATRICES || rows > limits::EXPERT_ROWS {
            let what = format!(
                "found {all} experts of {hidden} × {inner}, expected at most {} of all layers, and at most {} rows",
                limits::EXPERT_MATRICES,
                limits::EXPERT_ROWS
            );
            return Err(c.problem(field, what).input());
        }
        Ok(Self { all, chosen, field })
    }
}

impl Moe {
    /// `[N, hidden] → [N, hidden]`.
    pub fn apply(&self, scope: &mut Scope, x: ValueId) -> Result<ValueId> {
        let ExpertCount { all, chosen, field } = self.sizes;
        let why = format!(
            "rows = {field} ({all}), columns = hidden_size ({})",
            self.hidden
        );
        let logits =
            self.router
                .apply(scope, x, ("w_router", "b_router"), [all, self.hidden], &why)?;
        let route = Route {
            top_k: chosen,
            renormalize: self.renormalize,
        };
        let weights = scope.op("route", route, &[logits.into()])?;
        let ((inner, inner_field), hidden) = (self.inner, self.hidden);
        let why = |rows: &str, columns: &str| {
            format!("{field} ({all}) matrices, rows = {rows}, columns = {columns}")
        };
        let (wide, narrow) = (
            format!("{inner_field} ({inner})"),
            format!("hidden_size ({hidden})"),
        );
        let (in_why, out_why) = (why(&wide, &narrow), why(&narrow, &wide));
        let both = 2 * all * inner;
        let (ins, in_biases) = self.parts(scope, true);
        let (outs, out_biases) = self.parts(scope, false);
        let mut operands: Vec<Operand> = vec![x.into(), weights.into()];
        operands.push(
            scope
                .stack("w_experts_in", &ins, &[both, hidden], &in_why)?
                .into(),
        );
        if self.bias {
            operands.push(
                scope
                    .stack("b_experts_in", &in_biases, &[both], &in_why)?
                    .into(),
            );
        }
        operands.push(
            scope
                .stack("w_experts_out", &outs, &[all * hidden, inner], &out_why)?
                .into(),
        );
        if self.bias {
            operands.push(
                scope
                    .stack("b_experts_out", &out_biases, &[all * hidden], &out_why)?
                    .into(),
            );
        }
        let op = Experts {
            bias: self.bias,
            gate: self.gate,
            inner: None,
        };
        scope.op("experts", op, &operands)
    }

    /// Where the matrices and the biases lie: gates and ups, or downs.
    fn parts(&self, scope: &Scope, ins: bool) -> (Vec<StackPart>, Vec<StackPart>) {
        let (all, (inner, _), hidden) = (self.sizes.all, self.inner, self.hidden);
        let (rows, cols) = if ins {
            (inner, hidden)
        } else {
            (hidden, inner)
        };
        let names: &[&str] = if ins {
            &["gate_proj", "up_proj"]
        } else {
            &["down_proj"]
        };
        let stacked = self.tensors.stacked;
        if scope.has_in_layers(&format!("{stacked}.{}.weight", names[0])) {
            let part = |kind: &str, shape: &[u32]| {
                let of = |name: &&str| StackPart::whole(format!("{stacked}.{name}.{kind}"), shape);
                names.iter().map(of).collect()
            };
            return (
                part("weight", &[all, rows, cols]),
                part("bias", &[all, rows]),
            );
        }
        match self.tensors.own {
            OwnTensors::Each([gate, up, down]) => {
                let names = if ins { vec![gate, up] } else { vec![down] };
                let part = |kind: &str, shape: &[u32]| {
                    let of = |name: &&str| StackPart {
                        experts: Some(all),
                        ..StackPart::whole(format!("{name}.{kind}"), shape)
                    };
                    names.iter().map(of).collect()
                };
                (part("weight", &[rows, cols]), part("bias", &[rows]))
            }
            OwnTensors::Interleaved([gate_up, down]) => {
                let (tensor, rows) = if ins {
                    (gate_up, 2 * rows)
                } else {
                    (down, rows)
                };
                let blocks = matches!(scope.dtype_in_layers(tensor), Some(DType::Block(_)));
                let stored = match blocks {
                    true => Stored {
                        shape: vec![all, rows, cols],
                        transposed: false,
                    },
                    false => Stored {
                        shape: vec![all, cols, rows],
                        transposed: true,
                    },
                };
                let weight = StackPart {
                    stored,
                    ..StackPart::whole(tensor.to_owned(), &[])
                };
                let bias = StackPart::whole(format!("{tensor}_bias"), &[all, rows]);
                // Gates are the even outputs, ups the odd ones.
                let cut = |part: StackPart| match ins {
                    false => vec![part],
                    true => [0, 1]
                        .map(|first| StackPart {
                            rows: Some((first, all * rows, 2)),
                            ..part.clone()
                        })
                        .to_vec(),
                };
                (cut(weight), cut(bias))
            }
        }
    }
}
