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
//! | int8 | q8_row | refused | – |
//! | bf16 | – | bf16 | – |
//! | f32, f16 | – | – | – |
//!
//! One quantised value for all linears that read the same; a norm that a linear has goes along. The
//! head's product is like others. `int8` and `bf16` are refused where no weight asks for them.

use llmc_ir::{
    DType, Func, Group, Inst, Module, Op, Operand, TensorType, Type, ValueId, WeightId,
    ops::{Norm, Quantize},
};

use crate::{Activations, LinearOperands, Pass, PassError, Remarks, Stats, edit};

/// Quantises what linears read.
pub struct QuantizeActivations(pub Activations);

impl QuantizeActivations {
    /// What a product with weights of `w` reads; None: f32.
    fn target(&self, w: DType) -> Result<Option<DType>, String> {
        let int8 = matches!(self.0, Activations::Auto | Activations::Int8);
        match w {
            DType::Block(_) | DType::Int8 if self.0 == Activations::Bf16 => Err(format!(
                "weights of {} multiply int8 or f32, not bf16",
                w.name()
            )),
            DType::Block(_) => Ok(int8.then_some(DType::Q8(Group::Block))),
            DType::Int8 => Ok(int8.then_some(DType::Q8(Group::Row))),
            DType::BF16 => Ok((self.0 == Activations::Bf16).then_some(DType::BF16)),
            DType::F32 | DType::F16 | DType::I32 | DType::Q8(_) => Ok(None),
        }
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
        let types: Vec<DType> = module.weights.iter().map(|w| w.ty.dtype).collect();
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
                let args = match &func.body[i].op {
                    Op::Linear(op) => LinearOperands::read(op, &func.body[i].operands),
                    _ => None,
                };
                i += 1;
                let Some(args) = args.filter(|a| dtype(func, a.x) == Some(DType::F32)) else {
                    continue;
                };
                let target = self.target(types[args.w.index()]);
                let target = target.map_err(|what| {
                    PassError::refused(&module.weights[args.w.index()].name, what)
                })?;
                if let Some(to) = target {
                    i += usize::from(quantise(func, i - 1, to, args, &mut known));
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

/// Lets the linear at `at` read its x as `to`; tells whether an instruction came before it.
fn quantise(
    func: &mut Func,
    at: usize,
    to: DType,
    args: LinearOperands,
    known: &mut Vec<Quantised>,
) -> bool {
    let Op::Linear(linear) = &func.body[at].op else {
        return false;
    };
    let mut linear = linear.clone();
    let norm: Option<Norm> = linear.norm.take();
    let op = Quantize { to, norm };
    let weights = args.norm.iter().copied();
    let operands: Vec<Operand> = std::iter::once(Operand::from(args.x))
        .chain(weights.map(|w: WeightId| w.into()))
        .collect();
    let same = known.iter().find(|k| k.op == op && k.operands == operands);
    let found = same.map(|k| k.result);
    let x = found.unwrap_or_else(|| {
        let suffix = if to == DType::BF16 { "bf16" } else { "q8" };
        let hint = format!("{}.{suffix}", edit::name(func, args.x));
        let dims = func.ty(args.x).tensor().map(|t| t.dims.clone());
        let ty = TensorType::new(to, dims.unwrap_or_default());
        func.new_value(&hint, Type::Tensor(ty))
    });
    let operands_of_linear = LinearOperands {
        x,
        norm: vec![],
        ..args
    };
    func.body[at].op = linear.into();
    func.body[at].operands = operands_of_linear.write();
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
