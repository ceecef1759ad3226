//! `quantize-activations`: products of quantised weights read quantised activations.
//!
//! ```text
//! %y = linear %h, @wq         (q4_k)        %h.q8 = quantize %h {to = q8_block}
//! %z = linear %h, @wv         (q6_k)   →    %y = linear %h.q8, @wq
//!                                           %z = linear %h.q8, @wv
//! ```
//!
//! | weights | `auto`, `int8` | `bf16` | `f32` |
//! |---|---|---|---|
//! | block formats | q8_block | refused | – |
//! | int8: attention's values | q8_pair | refused | – |
//! | int8: in front of the activation, rows of whole blocks | q8_block | refused | – |
//! | int8: others | q8_row | refused | – |
//! | bf16 | – | bf16 | – |
//! | f32, f16 | – | – | – |
//!
//! What int8 weights are for is read off their uses ([`role()`]). A single code with one scale for the row
//! is too little for what attention mixes, and, where outliers are, for what an activation is applied to.
//!
//! One quantised value for all linears that read the same in the same type; a norm that a linear has goes
//! along. The head's product is like others. `experts` read a quantised x likewise, and quantise the rows between
//! their products themselves (`inner`). `int8` and `bf16` are refused where no weight asks for them.

use llmc_ir::{
    DType, Func, Group, Inst, Module, Op, Operand, TensorType, Type, ValueId, WeightId,
    ops::{Experts, Norm, Quantize},
};

use crate::{
    Activations, ExpertsOperands, LinearOperands, Pass, PassError, Remarks, Stats, edit,
    role::{Role, role},
};

/// Quantises what linears read.
pub struct QuantizeActivations(pub Activations);

impl QuantizeActivations {
    /// What a product with weights of `w` reads, where codes are of `group`; None: f32.
    fn target(&self, w: DType, group: Group) -> Result<Option<DType>, String> {
        let int8 = matches!(self.0, Activations::Auto | Activations::Int8);
        match w {
            DType::Block(_) | DType::Int8 if self.0 == Activations::Bf16 => Err(format!(
                "weights of {} multiply int8 or f32, not bf16",
                w.name()
            )),
            DType::Block(_) | DType::Int8 => Ok(int8.then_some(DType::Q8(group))),
            DType::BF16 => Ok((self.0 == Activations::Bf16).then_some(DType::BF16)),
            DType::F32 | DType::F16 | DType::I32 | DType::Q8(_) => Ok(None),
        }
    }
}

/// The codes that a product with `weight` reads, where it reads codes.
fn group(module: &Module, weight: WeightId) -> Group {
    let ty = &module.weights[weight.index()].ty;
    if ty.dtype != DType::Int8 {
        return Group::Block;
    }
    let blocks = DType::Q8(Group::Block).block_len();
    match role(module, weight).0 {
        Role::AttnV => Group::Pair,
        Role::FfnUp if ty.last().is_some_and(|k| k.is_multiple_of(blocks)) => Group::Block,
        _ => Group::Row,
    }
}

/// A value that has been quantised.
struct Quantised {
    op: Quantize,
    operands: Vec<Operand>,
    result: ValueId,
}

impl Pass for QuantizeActivations {
    fn name(&self) -> &'static str {
        "quantize-activations"
    }

    fn run(&self, module: &mut Module, _: &mut Remarks) -> Result<Stats, PassError> {
        let ids = (0..module.weights.len()).map(|w| WeightId(w as u32));
        // Before anything stands between the products and what they read.
        let groups: Vec<Group> = ids.map(|w| group(module, w)).collect();
        let mut rewrites = 0;
        for func in &mut module.funcs {
            let mut known: Vec<Quantised> = Vec::new();
            let mut i = 0;
            while i < func.body.len() {
                if let Op::Quantize(op) = &func.body[i].op {
                    known.push(Quantised {
                        op: op.clone(),
                        operands: func.body[i].operands.clone(),
                        result: func.body[i].results[0],
                    });
                }
                let target = |w: WeightId| {
                    let weight = &module.weights[w.index()];
                    let refused = |what| PassError::refused(&weight.name, what);
                    let target = self.target(weight.ty.dtype, groups[w.index()]);
                    target.map_err(refused)
                };
                let args = match &func.body[i].op {
                    Op::Linear(op) => {
                        LinearOperands::read(op, &func.body[i].operands).map(|a| (a.x, a.w))
                    }
                    Op::Experts(op) => {
                        ExpertsOperands::read(op, &func.body[i].operands).map(|a| (a.x, a.w_in))
                    }
                    _ => None,
                };
                if let Op::Experts(op) = &func.body[i].op
                    && let Some(args) = ExpertsOperands::read(op, &func.body[i].operands)
                    && op.inner.is_none()
                    && let Some(to) = target(args.w_out)?
                {
                    let inner = Some(to);
                    func.body[i].op = Experts {
                        inner,
                        ..op.clone()
                    }
                    .into();
                    rewrites += 1;
                }
                i += 1;
                let Some((_, w)) = args.filter(|(x, _)| dtype(func, *x) == Some(DType::F32)) else {
                    continue;
                };
                if let Some(to) = target(w)? {
                    i += usize::from(quantise(func, i - 1, to, &mut known));
                    rewrites += 1;
                }
            }
            edit::renumber(func);
        }
        match self.0 {
            Activations::Int8 | Activations::Bf16 if rewrites == 0 => {
                let what = format!("no product of the model reads {}", self.0.name());
                Err(PassError::refused(&module.name, what))
            }
            _ => Ok(Stats::of(rewrites)),
        }
    }
}

fn dtype(func: &Func, v: ValueId) -> Option<DType> {
    func.ty(v).tensor().map(|t| t.dtype)
}

/// Lets the product at `at` read its x as `to`; tells whether an instruction came before it.
fn quantise(func: &mut Func, at: usize, to: DType, known: &mut Vec<Quantised>) -> bool {
    let Some(&Operand::Value(old)) = func.body[at].operands.first() else {
        return false;
    };
    let mut norm: Option<Norm> = None;
    let mut operands: Vec<Operand> = vec![old.into()];
    if let Op::Linear(linear) = &func.body[at].op
        && let Some(args) = LinearOperands::read(linear, &func.body[at].operands)
    {
        let mut linear = linear.clone();
        norm = linear.norm.take();
        operands.extend(args.norm.iter().map(|w: &WeightId| Operand::from(*w)));
        func.body[at].operands = LinearOperands {
            norm: vec![],
            ..args
        }
        .write();
        func.body[at].op = linear.into();
    }
    let op = Quantize { to, norm };
    let same = known.iter().find(|k| k.op == op && k.operands == operands);
    let found = same.map(|k| k.result);
    let x = found.unwrap_or_else(|| {
        let suffix = if to == DType::BF16 { "bf16" } else { "q8" };
        let hint = format!("{}.{suffix}", edit::name(func, old));
        let dims = func.ty(old).tensor().map(|t| t.dims.clone());
        let ty = TensorType::new(to, dims.unwrap_or_default());
        func.new_value(&hint, Type::Tensor(ty))
    });
    func.body[at].operands[0] = x.into();
    if found.is_some() {
        return false;
    }
    let inst = Inst {
        op: op.clone().into(),
        operands: operands.clone(),
        results: vec![x],
    };
    func.body.insert(at, inst);
    known.push(Quantised {
        op,
        operands,
        result: x,
    });
    true
}
