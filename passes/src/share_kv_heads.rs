//! `share-kv-heads`: repeated key and value heads → the heads of the state, each read by a group.
//!
//! ```text
//! %kk, %vv = kv_read %c, %step {n_rep = 7}
//! %o = attention %q, %kk, %vv, %step {kv_group = 1, …}   →   %o = attention %q, %c, %step {kv_group = 7, …}
//! ```
//!
//! With `n_rep = 1` this is MHA, with one head in the state MQA, else GQA. Query head h reads head
//! h / kv_group of `%kk`, which is head h / kv_group / n_rep of the state. A `kv_read` with other
//! users stays for them.

use llmc_ir::{Func, Inst, Module, Op, Operand, ValueId};

use crate::{AttentionOperands, Keys, Pass, PassError, Remarks, Stats, edit};

/// Lets attention read the cache itself.
pub struct ShareKvHeads;

impl Pass for ShareKvHeads {
    fn name(&self) -> &'static str {
        "share-kv-heads"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Stats, PassError> {
        let mut rewrites = 0;
        for func in &mut module.funcs {
            for i in 0..func.body.len() {
                let Op::Attention(op) = &func.body[i].op else {
                    continue;
                };
                let Some(args) = AttentionOperands::read(op, &func.body[i].operands) else {
                    continue;
                };
                let Keys::Tensors(k, v) = args.keys else {
                    continue;
                };
                let Some((view, n_rep)) = read_of(func, k, v) else {
                    continue;
                };
                let Some(kv_group) = op.kv_group.checked_mul(n_rep) else {
                    let at = edit::name(func, args.q);
                    remarks.missed(&func.name, at, "the group of query heads overflows");
                    continue;
                };
                let mut op = op.clone();
                op.kv_group = kv_group;
                let keys = Keys::View(view);
                let inst = &mut func.body[i];
                inst.operands = AttentionOperands { keys, ..args }.write();
                inst.op = op.into();
                rewrites += 1;
            }
            let unread = |i: &Inst| {
                i.results
                    .iter()
                    .all(|&r| func.users(r).is_empty() && !func.returns(r))
            };
            let gone: Vec<usize> = (0..func.body.len())
                .filter(|&i| matches!(func.body[i].op, Op::KvRead(_)) && unread(&func.body[i]))
                .collect();
            if rewrites > 0 {
                edit::remove(func, &gone);
                edit::renumber(func);
            }
        }
        Ok(Stats::of(rewrites))
    }
}

/// View and repetition of the `kv_read` whose results are `k` and `v`.
fn read_of(func: &Func, k: ValueId, v: ValueId) -> Option<(ValueId, u32)> {
    let inst = &func.body[func.def(k)?];
    match (&inst.op, inst.operands.first()) {
        (Op::KvRead(r), Some(Operand::Value(view))) if inst.results == [k, v] => {
            Some((*view, r.n_rep))
        }
        _ => None,
    }
}
