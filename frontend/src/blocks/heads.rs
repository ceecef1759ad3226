//! Heads of encoders: tokens, classes, labels and spans out of the last hidden state.
//!
//! In: the last hidden state `[N, hidden]`. Out:
//!
//! ```text
//! masked LM      logits = norm(act(dense(rows))) · tableᵀ + bias      [R, vocabulary]
//! sequence       logits = out(act(dense(first token)))                [B, labels]
//! tokens         logits = out(x)                                      [N, labels]
//! span           start_logits, end_logits = out(x)                    [N, 1] twice
//! ```
//!
//! The rows of a masked LM are those whose logits are wanted.
//!
//! Not here: which head a class of transformers has (`models::heads`), what scores mean (the runtime).

use llmc_ir::ops::{ActKind, Activation, Linear, Pool, PoolKind, Rows};
use llmc_ir::{ValueId, WeightId};

use super::{Norm, Projection, Scope};
use crate::error::Result;

/// What a hidden state becomes.
#[derive(Clone, Debug)]
pub enum TaskHead {
    /// A token for every wanted row.
    MaskedLm(MaskedLm),
    /// A class for every sequence, or a number.
    Sequence {
        /// On the first token: the tensor, without `.weight`, and what follows.
        dense: (&'static str, ActKind),
        /// The tensor, without `.weight`.
        out: &'static str,
        /// Classes.
        labels: u32,
    },
    /// A class for every token.
    Tokens {
        /// The tensor, without `.weight`.
        out: &'static str,
        /// Classes.
        labels: u32,
    },
    /// Where an answer begins and ends.
    Span {
        /// The tensor, without `.weight`.
        out: &'static str,
    },
}

/// The parts of a masked language model's head; tensors are without `.weight`.
#[derive(Clone, Copy, Debug)]
pub struct MaskedLm {
    /// From the hidden state to the token table's width, and what follows.
    pub dense: (&'static str, ActKind),
    /// The norm behind it.
    pub norm: (Norm, &'static str),
    /// The vector that is added to the logits.
    pub bias: &'static str,
    /// The matrix, where it is not the token table; its `.bias` may stand for the vector.
    pub decoder: &'static str,
    /// Whether the matrix is the token table.
    pub tied: bool,
}

impl TaskHead {
    /// The results and their names. `x` is the hidden state and its width, `table` the token table and its shape.
    pub fn apply(
        &self,
        scope: &mut Scope,
        (x, hidden): (ValueId, u32),
        table: (WeightId, [u32; 2]),
        step: ValueId,
    ) -> Result<Vec<(&'static str, ValueId)>> {
        let width = format!("columns = hidden_size ({hidden})");
        match self {
            Self::MaskedLm(head) => {
                let logits = head.apply(scope, (x, hidden), table, step)?;
                Ok(vec![("logits", logits)])
            }
            Self::Sequence { dense, out, labels } => {
                let kind = PoolKind::Cls;
                let first = scope.op("first", Pool { kind }, &[x.into(), step.into()])?;
                let why = format!("rows = columns = hidden_size ({hidden})");
                let dense = dense_layer(scope, first, *dense, [hidden; 2], &why)?;
                let why = format!("rows = the number of labels ({labels}), {width}");
                let logits = classify(scope, dense, out, [*labels, hidden], &why)?;
                Ok(vec![("logits", logits)])
            }
            Self::Tokens { out, labels } => {
                let why = format!("rows = the number of labels ({labels}), {width}");
                let logits = classify(scope, x, out, [*labels, hidden], &why)?;
                Ok(vec![("logits", logits)])
            }
            Self::Span { out } => {
                let why = format!("rows = start and end, {width}");
                let [start, end] = Projection::plain(out).with_bias(true).split([1, 1]);
                let mut part =
                    |names, part: Projection| part.apply(scope, x, names, [1, hidden], &why);
                let start = part(("w_start", "b_start"), start)?;
                let end = part(("w_end", "b_end"), end)?;
                Ok(vec![("start_logits", start), ("end_logits", end)])
            }
        }
    }
}

impl MaskedLm {
    fn apply(
        &self,
        scope: &mut Scope,
        (x, hidden): (ValueId, u32),
        (table, shape): (WeightId, [u32; 2]),
        step: ValueId,
    ) -> Result<ValueId> {
        let [vocabulary, width] = shape;
        let rows = scope.op("r", Rows, &[x.into(), step.into()])?;
        let why =
            format!("rows = the token table's width ({width}), columns = hidden_size ({hidden})");
        let dense = dense_layer(scope, rows, self.dense, [width, hidden], &why)?;
        let (norm, tensor) = self.norm;
        let normed = norm.apply(
            scope,
            dense,
            "head_norm",
            tensor,
            (width, "the token table's width"),
        )?;
        let why = format!(
            "rows = vocab_size ({vocabulary}), columns = the token table's width ({width})"
        );
        let matrix = match self.tied {
            true => table,
            false => scope.matrix("lm_head", &format!("{}.weight", self.decoder), shape, why),
        };
        let other = format!("{}.bias", self.decoder);
        // A matrix of its own may have a bias of its own, which then counts.
        let own = scope.has(&other) && (!self.tied || !scope.has(self.bias));
        let bias = if own { &other } else { self.bias };
        let why = format!("entries = vocab_size ({vocabulary})");
        let bias = scope.vector("b_lm_head", bias, vocabulary, why, 0.0);
        let linear = Linear {
            bias: true,
            ..Linear::default()
        };
        scope.op(
            "logits",
            linear,
            &[normed.into(), matrix.into(), bias.into()],
        )
    }
}

/// `act(linear(x))` of `{tensor}`.
fn dense_layer(
    scope: &mut Scope,
    x: ValueId,
    (tensor, kind): (&'static str, ActKind),
    shape: [u32; 2],
    why: &str,
) -> Result<ValueId> {
    let names = ("w_head_dense", "b_head_dense");
    let dense = Projection::plain(tensor).with_bias(true);
    let dense = dense.apply(scope, x, names, shape, why)?;
    scope.op("dense", Activation { kind }, &[dense.into()])
}

fn classify(
    scope: &mut Scope,
    x: ValueId,
    tensor: &'static str,
    shape: [u32; 2],
    why: &str,
) -> Result<ValueId> {
    let names = ("w_logits", "b_logits");
    let out = Projection::plain(tensor).with_bias(true);
    out.apply(scope, x, names, shape, why)
}
