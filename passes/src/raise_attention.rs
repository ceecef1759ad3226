//! `raise-attention`: scores, mask, softmax and mix → one op.
//!
//! ```text
//! %kk, %vv = kv_read %c, %step {n_rep = 7}          %kk, %vv = kv_read %c, %step {n_rep = 7}
//! %s = attn_scores %q, %kk, %step {scale = 0.125}
//! %m = mask %s, %step {mask = causal}          →    %o = attention %q, %kk, %vv, %step
//! %p = softmax %m                                        {kv_group = 1, mask = causal, scale = 0.125}
//! %o = attn_mix %p, %vv, %step
//! ```
//!
//! The softmax's `sinks` go along. `attn_bias` or `alibi`, then `attn_disentangled` of the same queries and keys,
//! then `softcap` may stand between scores and mask, in the order that the op has. Keys and values must
//! be of one `kv_read`, or both tensors of this step. A step in between with other users,
//! or another order of ops, leaves the pattern alone, with a remark.

use llmc_ir::{Func, Inst, Module, Op, Operand, ValueId, ops::Attention};

use crate::{AttentionOperands, Keys, Pass, PassError, Remarks, Stats, edit};

/// Recognises attention.
pub struct RaiseAttention;

impl Pass for RaiseAttention {
    fn name(&self) -> &'static str {
        "raise-attention"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Stats, PassError> {
        let mut rewrites = 0;
        for func in &mut module.funcs {
            let mut i = 0;
            while i < func.body.len() {
                if matches!(func.body[i].op, Op::AttnMix(_)) {
                    match raise(func, i) {
                        Ok((inst, gone)) => {
                            func.body[i] = inst;
                            edit::remove(func, &gone);
                            i -= gone.len();
                            rewrites += 1;
                        }
                        Err(why) => {
                            let at = func.body[i].results.first().copied();
                            let at = at.map_or(String::new(), |v| edit::name(func, v).to_string());
                            remarks.missed(&func.name, &at, why);
                        }
                    }
                }
                i += 1;
            }
            edit::renumber(func);
        }
        Ok(Stats::of(rewrites))
    }
}

/// The instruction that makes `v`, which has no other use than the pattern's next step.
fn step(func: &Func, v: ValueId) -> Result<(usize, &Inst), String> {
    if edit::only_user(func, v).is_none() {
        return Err(format!("%{} has other uses", edit::name(func, v)));
    }
    let def = func.def(v);
    def.map(|d| (d, &func.body[d]))
        .ok_or_else(|| format!("%{} is a parameter", edit::name(func, v)))
}

/// The attention that ends in the `attn_mix` at `mix`, and the instructions that it replaces.
fn raise(func: &Func, mix: usize) -> Result<(Inst, Vec<usize>), String> {
    let expected = |what: &str, found: &Inst| format!("{}, expected {what}", found.op.name());
    let value = |o: Option<&Operand>| match o {
        Some(Operand::Value(v)) => Ok(*v),
        _ => Err("an operand is missing".to_string()),
    };
    let args = &func.body[mix].operands;
    let (p, v, meta) = (
        value(args.first())?,
        value(args.get(1))?,
        value(args.get(2))?,
    );

    let (at, inst) = step(func, p)?;
    let Op::Softmax(softmax) = &inst.op else {
        return Err(expected("softmax", inst));
    };
    let sinks = match inst.operands.get(1) {
        Some(Operand::Weight(w)) => Some(*w),
        None if !softmax.sinks => None,
        _ => return Err("the softmax has no sinks".into()),
    };
    let mut gone = vec![at];
    let (at, inst) = step(func, value(inst.operands.first())?)?;
    let Op::MaskScores(masked) = &inst.op else {
        return Err(expected("mask", inst));
    };
    let mask = masked.mask.clone();
    gone.push(at);

    let (mut at, mut inst) = step(func, value(inst.operands.first())?)?;
    let (mut bias, mut table, mut softcap, mut terms) = (None, None, None, None);
    if let Op::Softcap(s) = &inst.op {
        softcap = Some(s.cap);
        gone.push(at);
        (at, inst) = step(func, value(inst.operands.first())?)?;
    }
    if let Op::AttnDisentangled(d) = &inst.op {
        terms = Some((d.clone(), inst.operands.clone()));
        gone.push(at);
        (at, inst) = step(func, value(inst.operands.first())?)?;
    }
    let mut alibi = None;
    if let Op::Alibi(a) = &inst.op {
        alibi = Some(*a);
        gone.push(at);
        (at, inst) = step(func, value(inst.operands.first())?)?;
    } else if let Op::AttnBias(b) = &inst.op {
        bias = Some(b.bias);
        table = match inst.operands.get(1) {
            Some(Operand::Weight(w)) => Some(*w),
            _ => return Err("the bias has no table".into()),
        };
        gone.push(at);
        (at, inst) = step(func, value(inst.operands.first())?)?;
    }
    let Op::AttnScores(scores) = &inst.op else {
        return Err(expected("attn_scores", inst));
    };
    gone.push(at);
    let (q, k) = (value(inst.operands.first())?, value(inst.operands.get(1))?);
    check_keys(func, k, v)?;
    let (disentangled, positions) = match &terms {
        None => (None, [None; 2]),
        Some((op, operands)) => {
            if op.scale != scores.scale {
                let (a, b) = (op.scale, scores.scale);
                return Err(format!("position terms are scaled by {a}, scores by {b}"));
            }
            if operands.get(1..3) != Some(&[Operand::from(q), k.into()][..]) {
                return Err("position terms are of other queries or keys".into());
            }
            let mut tables = operands[3..].iter().filter_map(|o| match o {
                Operand::Weight(w) => Some(*w),
                Operand::Value(_) | Operand::State(_) => None,
            });
            let mut table = |there: bool| if there { tables.next() } else { None };
            (Some(op.terms), [table(op.terms.c2p), table(op.terms.p2c)])
        }
    };

    let op = Attention {
        kv_group: 1,
        mask,
        scale: scores.scale,
        softcap,
        bias,
        alibi,
        disentangled,
        sinks: sinks.is_some(),
        schedule: None,
    };
    let operands = AttentionOperands {
        q,
        keys: Keys::Tensors(k, v),
        bias: table,
        positions,
        sinks,
        step: meta,
    };
    let inst = Inst {
        op: op.into(),
        operands: operands.write(),
        results: func.body[mix].results.clone(),
    };
    Ok((inst, gone))
}

/// Keys and values are the two results of one `kv_read`, or both of this step.
fn check_keys(func: &Func, k: ValueId, v: ValueId) -> Result<(), String> {
    let rank = |v| func.ty(v).tensor().map_or(0, |t| t.dims.len());
    match (rank(k), rank(v)) {
        (3, 3) => Ok(()),
        (4, 4) => {
            let read = func.def(k).map(|d| &func.body[d]);
            match read {
                Some(Inst {
                    op: Op::KvRead(_),
                    results,
                    ..
                }) if results.as_slice() == [k, v] => Ok(()),
                _ => Err("keys and values are not those of one kv_read".into()),
            }
        }
        _ => Err("keys are of the past, values of this step, or the reverse".into()),
    }
}
