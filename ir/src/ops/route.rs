//! `route %logits {top_k, renormalize}`: which experts a row goes to, and with what weights.
//! `[n, E] → [n, E]`: the weights of the `top_k` greatest logits (of equals the first), zero for the rest.
//!
//! With `renormalize` the weights are the softmax over the chosen logits: what Mixtral and Qwen3-MoE
//! (`norm_topk_prob`) get by a softmax over all and a division by the sum of the chosen, and gpt-oss by
//! a softmax of the chosen alone. Without it they are the chosen's shares of the softmax over all.
//! Logits that are NaN or −∞ are never chosen.

use std::cmp::Ordering;

use crate::{
    OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Val},
    op::{Operands, last},
};

#[derive(Clone, PartialEq, Debug)]
pub struct Route {
    pub top_k: u32,
    pub renormalize: bool,
}

impl OpDef for Route {
    const NAME: &'static str = "route";

    fn attrs(&self) -> Attrs {
        Attrs::new().int("top_k", self.top_k).flag("renormalize", self.renormalize)
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(Route { top_k: attrs.u32("top_k")?, renormalize: attrs.flag("renormalize")? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.f32("logits", 2)?;
        o.end()?;
        let experts = last(x, "logits")?;
        if !(1..=experts).contains(&self.top_k) {
            return Err(format!("top_k is {}, expected 1 to {experts}", self.top_k));
        }
        Ok(vec![Type::Tensor(x.clone())])
    }

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let x = args.tensor()?;
        Ok(vec![Val::F32(x.map_rows(x.last(), |row| self.weights(row)))])
    }
}

impl Route {
    fn weights(&self, logits: &[f32]) -> Vec<f32> {
        let mut order: Vec<usize> = (0..logits.len()).filter(|&i| logits[i] > f32::NEG_INFINITY).collect();
        // Stable: of equals the first.
        order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap_or(Ordering::Equal));
        let exp = |i: &usize| (f64::from(logits[*i]) - f64::from(logits[order[0]])).exp();
        let (chosen, all) = (&order[..order.len().min(self.top_k as usize)], &order[..]);
        let sum: f64 = if self.renormalize { chosen } else { all }.iter().map(exp).sum();
        let mut weights = vec![0.0; logits.len()];
        for i in chosen {
            weights[*i] = (exp(i) / sum) as f32;
        }
        weights
    }
}
