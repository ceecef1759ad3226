//! `fuse-qkv`: the projections of one value to heads → one linear over all their rows.
//!
//! ```text
//! %q = linear %h, @wq                         %qkv = linear %h, @wq_wk_wv
//! %k = linear %h, @wk                    →    %q, %k, %v = split %qkv {sizes = [896, 128, 128]}
//! %v = linear %h, @wv
//! ```
//!
//! Each result goes to `split_heads` alone. Projections with biases and such without, and weights of
//! different types, are not joined with each other, but each kind with its like; a remark says so.

use llmc_ir::{
    Inst, Module, Op, Operand, Type, ValueId, WeightId,
    ops::{Linear, Split},
};

use crate::{LinearOperands, Pass, PassError, Remarks, Stats, edit, join_weights};

/// Joins query, key and value projections.
pub struct FuseQkv;

/// A projection to heads.
struct Projection {
    at: usize,
    x: ValueId,
    y: ValueId,
    w: WeightId,
    bias: Option<WeightId>,
}

impl Pass for FuseQkv {
    fn name(&self) -> &'static str {
        "fuse-qkv"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Stats, PassError> {
        let mut rewrites = 0;
        for f in 0..module.funcs.len() {
            let mut groups: Vec<Vec<Projection>> = Vec::new();
            for p in projections(module, f) {
                let mut obstacle = None;
                let home = groups.iter_mut().find(|g| {
                    g[0].x == p.x && {
                        let why = fits(module, &g[0], &p);
                        let fits = why.is_none();
                        obstacle = obstacle.take().or(why);
                        fits
                    }
                });
                match home {
                    Some(group) => group.push(p),
                    None => {
                        if let Some(why) = obstacle {
                            let func = &module.funcs[f];
                            remarks.missed(&func.name, edit::name(func, p.y), why);
                        }
                        groups.push(vec![p]);
                    }
                }
            }
            groups.retain(|g| g.len() > 1);
            rewrites += groups.len();
            // From the last on, so that the indices of the others stay.
            groups.sort_by_key(|g| std::cmp::Reverse(g[0].at));
            let mut gone = Vec::new();
            let mut added = Vec::new();
            for group in &groups {
                if let Some(insts) = fuse(module, f, group) {
                    gone.extend(group.iter().map(|p| p.at));
                    added.push((group[0].at, insts));
                }
            }
            let func = &mut module.funcs[f];
            let mut body = Vec::with_capacity(func.body.len());
            for (i, inst) in std::mem::take(&mut func.body).into_iter().enumerate() {
                if let Some((_, insts)) = added.iter_mut().find(|(at, _)| *at == i) {
                    body.append(insts);
                }
                if !gone.contains(&i) {
                    body.push(inst);
                }
            }
            func.body = body;
            edit::renumber(func);
        }
        Ok(Stats::of(rewrites))
    }
}

/// The function's plain linears whose results go to `split_heads` alone.
fn projections(module: &Module, f: usize) -> Vec<Projection> {
    let func = &module.funcs[f];
    let mut found = Vec::new();
    for (at, inst) in func.body.iter().enumerate() {
        let (Op::Linear(op), &[y]) = (&inst.op, inst.results.as_slice()) else {
            continue;
        };
        let plain = Linear {
            bias: op.bias,
            ..Linear::default()
        };
        let to_heads =
            edit::only_user(func, y).is_some_and(|u| matches!(func.body[u].op, Op::SplitHeads(_)));
        if *op != plain || !to_heads {
            continue;
        }
        if let Some(o) = LinearOperands::read(op, &inst.operands) {
            found.push(Projection {
                at,
                x: o.x,
                y,
                w: o.w,
                bias: o.bias,
            });
        }
    }
    found
}

/// Why two projections of one value cannot be joined; None where they can.
fn fits(module: &Module, a: &Projection, b: &Projection) -> Option<String> {
    match (a.bias, b.bias) {
        (None, None) => {}
        (Some(x), Some(y)) => {
            if let Some(why) = join_weights::obstacle(module, &[x, y]) {
                return Some(why);
            }
        }
        _ => {
            let name = |p: &Projection| &module.weights[p.w.index()].name;
            return Some(format!("of @{} and @{} one has a bias", name(a), name(b)));
        }
    }
    join_weights::obstacle(module, &[a.w, b.w])
}

/// The linear and the split that stand for `group`.
fn fuse(module: &mut Module, f: usize, group: &[Projection]) -> Option<Vec<Inst>> {
    let weights: Vec<WeightId> = group.iter().map(|p| p.w).collect();
    let biases: Vec<WeightId> = group.iter().filter_map(|p| p.bias).collect();
    let func = &module.funcs[f];
    let row = |p: &Projection| func.ty(p.y).tensor().and_then(|t| t.last());
    let sizes: Vec<u32> = group.iter().map(row).collect::<Option<_>>()?;
    let sum = sizes.iter().try_fold(0u32, |n, s| n.checked_add(*s))?;
    let first = func.ty(group[0].y).tensor()?;
    let ty = Type::f32(&[*first.dims.first()?, sum.into()]);
    let names: Vec<&str> = group.iter().map(|p| edit::name(func, p.y)).collect();
    let hint = names.join("_");

    let w = join_weights::join(module, &weights)?;
    let bias = match biases.is_empty() {
        true => None,
        false => Some(join_weights::join(module, &biases)?),
    };
    let joined = module.funcs[f].new_value(&hint, ty);
    let op = Linear {
        bias: bias.is_some(),
        ..Linear::default()
    };
    let operands = LinearOperands {
        x: group[0].x,
        w,
        bias,
        norm: vec![],
        residual: None,
    };
    let linear = Inst {
        op: op.into(),
        operands: operands.write(),
        results: vec![joined],
    };
    let split = Inst {
        op: Split { sizes }.into(),
        operands: vec![Operand::Value(joined)],
        results: group.iter().map(|p| p.y).collect(),
    };
    Some(vec![linear, split])
}
