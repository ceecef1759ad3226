//! An instruction's operands as values, read one by one like [`crate::op::Operands`].

use super::{Tensor, Val};
use crate::StateId;
use std::sync::Arc;

/// An operand's value.
#[derive(Clone, Debug)]
pub enum Arg {
    Val(Arc<Val>),
    Weight(Arc<Tensor>),
    State(StateId),
}

/// Reads operands from the first on. The module is verified, so that errors are bugs in the evaluator.
pub struct Args {
    left: std::vec::IntoIter<Arg>,
}

impl Args {
    /// Reads `all`.
    pub fn new(all: Vec<Arg>) -> Args {
        Args {
            left: all.into_iter(),
        }
    }

    /// The next value.
    pub fn value(&mut self) -> Result<Arc<Val>, String> {
        match self.left.next() {
            Some(Arg::Val(v)) => Ok(v),
            other => Err(format!("expected a value, found {}", kind(&other))),
        }
    }

    /// The next value, a dense tensor.
    pub fn tensor(&mut self) -> Result<Tensor, String> {
        match Arc::unwrap_or_clone(self.value()?) {
            Val::F32(t) => Ok(t),
            _ => Err("expected a dense tensor".into()),
        }
    }

    /// The next value, `[N]` whole numbers.
    pub fn ids(&mut self) -> Result<Vec<i32>, String> {
        match Arc::unwrap_or_clone(self.value()?) {
            Val::I32(v) => Ok(v),
            _ => Err("expected whole numbers".into()),
        }
    }

    /// The next value, scores: `[H, T]` for every token.
    pub fn scores(&mut self) -> Result<Vec<Tensor>, String> {
        match Arc::unwrap_or_clone(self.value()?) {
            Val::PerToken(s) => Ok(s),
            _ => Err("expected scores".into()),
        }
    }

    /// The next weight.
    pub fn weight(&mut self) -> Result<Arc<Tensor>, String> {
        match self.left.next() {
            Some(Arg::Weight(w)) => Ok(w),
            other => Err(format!("expected a weight, found {}", kind(&other))),
        }
    }

    /// The next operand, a value or a weight.
    pub fn value_or_weight(&mut self) -> Result<Arg, String> {
        match self.left.next() {
            Some(arg @ (Arg::Val(_) | Arg::Weight(_))) => Ok(arg),
            other => Err(format!(
                "expected a value or a weight, found {}",
                kind(&other)
            )),
        }
    }

    /// The next state.
    pub fn state(&mut self) -> Result<StateId, String> {
        match self.left.next() {
            Some(Arg::State(s)) => Ok(s),
            other => Err(format!("expected a state, found {}", kind(&other))),
        }
    }

    /// Whatever is left.
    pub fn rest(self) -> impl Iterator<Item = Arg> {
        self.left
    }
}

fn kind(arg: &Option<Arg>) -> &'static str {
    match arg {
        None => "nothing",
        Some(Arg::Val(_)) => "a value",
        Some(Arg::Weight(_)) => "a weight",
        Some(Arg::State(_)) => "a state",
    }
}
