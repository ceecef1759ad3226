//! `quantize-weights`: the element types of weights, by a policy ([`policy`]) and by what can be done.
//!
//! ```text
//! weight @layer.wq[24] : bf16[2048, 2048] …        weight @layer.wq[12] : q4_k[2048, 2048] …
//! weight @layer.wv[24] : bf16[512, 2048] …    →    weight @layer.wv[12] : q6_k[512, 2048] …
//!                                                  weight @layer.1.wv[12] : q4_k[512, 2048] … (and so on)
//! ```
//!
//! Layers of one class that get different types become classes of their own. Weights that are in blocks
//! already are not quantised a second time: anything but `none` is refused then. Whatever the policy:
//! blocks are for the matrices of linears and for tables; vectors in blocks, and matrices whose x has
//! gaps when it is stored as f32 (heads that no SIMD group divides), become f32, or f16 where the policy
//! asked. A note tells every tensor's type, and why it is not the wanted one.
//!
//! Deliberately not here: values; the packer stores what the type says (`llmc_ir::quant::rows`).

mod policy;

use llmc_ir::{DType, FuncId, Module, Op, Operand, WeightId};

use crate::{
    Activations, Pass, PassError, Precision, Quant, Remarks, Stats,
    role::{Role, role},
    split_class::{Copies, split_class, stacked_operands},
};
use policy::Tensor;

/// Chooses the element types of weights; `kv` plays no part.
pub struct QuantizeWeights(pub Precision);

/// A type, and why it is not the wanted one.
type Choice = (DType, Option<String>);

impl Pass for QuantizeWeights {
    fn name(&self) -> &'static str {
        "quantize-weights"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Stats, PassError> {
        self.refuse(module)?;
        let choices: Vec<Vec<Choice>> = self.choices(module);
        let before = module.weights.clone();
        // By weight of the new module: the weight and the slots of the old one that it stands for.
        let mut origin: Vec<(usize, Vec<u32>)> = (0..before.len())
            .map(|w| (w, (0..before[w].slots.unwrap_or(1)).collect()))
            .collect();
        let names: Vec<String> = module.funcs.iter().map(|f| f.name.clone()).collect();
        let mut done: Vec<String> = Vec::new();
        for name in &names {
            if done.contains(name) {
                continue;
            }
            // Classes that share a state are split alike.
            let group = sharing(module, name);
            let parts = parts(module, &group, &origin, &choices);
            let mut copies = Copies::new();
            for name in group {
                let class = module.func(&name).map(FuncId::index);
                let Some(class) = class.filter(|_| parts.len() > 1) else {
                    done.push(name);
                    continue;
                };
                if module.funcs.iter().any(|f| !f.kernels.is_empty()) {
                    let what = "weights get their types before kernels are formed";
                    return Err(PassError::out_of_order(&name, what));
                }
                let stacked = stacked(module, class);
                let new = split_class(module, class, &parts, &mut copies);
                origin.resize(module.weights.len(), (0, Vec::new()));
                for (&class, part) in new.iter().zip(&parts) {
                    for (old, now) in stacked.iter().zip(self::stacked(module, class)) {
                        origin[now.index()] = (origin[old.index()].0, part.clone());
                    }
                }
                done.push(name);
            }
        }
        let mut rewrites = 0;
        for (w, (from, slots)) in origin.iter().enumerate() {
            let chosen = slots.first().and_then(|&s| choices[*from].get(s as usize));
            let Some((dtype, why)) = chosen else {
                continue;
            };
            let source = before[*from].ty.dtype;
            let weight = &mut module.weights[w];
            let changed = source != *dtype;
            weight.ty.dtype = *dtype;
            rewrites += usize::from(changed);
            if changed || why.is_some() {
                let at = weight.name.clone();
                let layers = layers_text(module, WeightId(w as u32));
                let why = why.as_ref().map_or(String::new(), |w| format!(" ({w})"));
                remarks.note(
                    &at,
                    format!("{} → {}{layers}{why}", source.name(), dtype.name()),
                );
            }
        }
        Ok(Stats::of(rewrites))
    }
}

impl QuantizeWeights {
    /// What is in blocks is not quantised again.
    fn refuse(&self, module: &Module) -> Result<(), PassError> {
        if self.0.quant == Quant::None {
            return Ok(());
        }
        let quantised = |d: DType| matches!(d, DType::Block(_) | DType::Int8);
        match module.weights.iter().find(|w| quantised(w.ty.dtype)) {
            None => Ok(()),
            Some(w) => {
                let (found, to) = (w.ty.dtype.name(), self.0.quant.name());
                let what = format!(
                    "it is {found} already, and {to} would quantise it a second time; expected weights in f32, f16 or bf16, or the choice none"
                );
                Err(PassError::refused(&w.name, what))
            }
        }
    }

    /// The type of every slot of every weight.
    fn choices(&self, module: &Module) -> Vec<Vec<Choice>> {
        let roles: Vec<(Role, bool)> = (0..module.weights.len())
            .map(|w| role(module, WeightId(w as u32)))
            .collect();
        let has_output = roles.iter().any(|(r, _)| matches!(r, Role::Output { .. }));
        let mut all = Vec::with_capacity(roles.len());
        for (w, (role, padded)) in roles.into_iter().enumerate() {
            let weight = &module.weights[w];
            let class = module.class_of_weight(WeightId(w as u32));
            let layers = class.and_then(|c| Some(module.repeat_of(c)?.layers.len()));
            let of_slot = |slot: u32| {
                let tensor = Tensor {
                    role,
                    layer: class.and_then(|c| module.layer_of(c, slot)).unwrap_or(0),
                    layers: layers.unwrap_or_else(|| module.layers().len()) as u32,
                    cols: weight.ty.last().unwrap_or(1),
                    has_output,
                };
                let matrix = weight.ty.dims.len() == 2;
                let chosen = policy::choose(self.0.quant, &tensor).filter(|_| matrix);
                let fallback = if chosen.is_some() {
                    DType::F16
                } else {
                    DType::F32
                };
                let chosen = chosen.unwrap_or((weight.ty.dtype, None));
                self.legal(role, padded, chosen, fallback)
            };
            all.push((0..weight.slots.unwrap_or(1)).map(of_slot).collect());
        }
        all
    }

    /// The choice, or `fallback` where it cannot be.
    fn legal(&self, role: Role, padded: bool, (dtype, why): Choice, fallback: DType) -> Choice {
        let blocks = matches!(dtype, DType::Block(_) | DType::Int8);
        let name = dtype.name();
        if blocks && role == Role::Vector {
            return (DType::F32, Some(format!("{name}: vectors are f32")));
        }
        if blocks && padded && self.0.activations == Activations::F32 {
            let why = format!("{name}: x is stored in heads with gaps, and stays f32");
            return (fallback, Some(why));
        }
        (dtype, why)
    }
}

/// The weights of a class that are stacked by slot, in the order of their first use.
fn stacked(module: &Module, class: usize) -> Vec<WeightId> {
    let weight = |o: Operand| match o {
        Operand::Weight(w) => Some(w),
        Operand::Value(_) | Operand::State(_) => None,
    };
    let operands = stacked_operands(module, class).into_iter();
    operands.filter_map(weight).collect()
}

/// The classes that share a stacked state with `class`: it, and its partners' partners.
fn sharing(module: &Module, class: &str) -> Vec<String> {
    let mut group = vec![class.to_string()];
    let mut next = 0;
    while let Some(at) = group.get(next).and_then(|name| module.func(name)) {
        let states: Vec<Operand> = stacked_operands(module, at.index())
            .into_iter()
            .filter(|o| matches!(o, Operand::State(_)))
            .collect();
        for func in &module.funcs {
            let mut operands = func.body.iter().flat_map(|i| &i.operands);
            if operands.any(|o| states.contains(o)) && !group.contains(&func.name) {
                group.push(func.name.clone());
            }
        }
        next += 1;
    }
    group
}

/// The slots of classes that are split alike, in parts that agree in the types of all weights.
fn parts(
    module: &Module,
    classes: &[String],
    origin: &[(usize, Vec<u32>)],
    choices: &[Vec<Choice>],
) -> Vec<Vec<u32>> {
    let all = classes.iter().filter_map(|c| module.func(c));
    let stacked: Vec<WeightId> = all.flat_map(|c| stacked(module, c.index())).collect();
    // In the order in which the layers run; slots that no layer runs go with the first.
    let repeats = module.funcs.iter().flat_map(|f| &f.body);
    let listed = repeats.filter_map(|i| match &i.op {
        Op::Repeat(r) => Some(r.layers.iter()),
        _ => None,
    });
    let listed = listed.flatten();
    let listed = listed.filter(|(c, _)| classes.contains(c)).map(|(_, s)| *s);
    let slots = stacked
        .iter()
        .filter_map(|w| module.weights[w.index()].slots)
        .min();
    let mut order: Vec<u32> = Vec::new();
    for slot in listed.chain(0..slots.unwrap_or(0)) {
        if !order.contains(&slot) {
            order.push(slot);
        }
    }
    let types = |slot: u32| -> Vec<Option<DType>> {
        let of = |w: &WeightId| {
            let (from, _) = &origin[w.index()];
            choices[*from].get(slot as usize).map(|(dtype, _)| *dtype)
        };
        stacked.iter().map(of).collect()
    };
    let mut parts: Vec<(Vec<Option<DType>>, Vec<u32>)> = Vec::new();
    for slot in order {
        let types = types(slot);
        match parts.iter_mut().find(|(t, _)| *t == types) {
            Some((_, part)) => part.push(slot),
            None => parts.push((types, vec![slot])),
        }
    }
    parts.into_iter().map(|(_, part)| part).collect()
}

/// `, layers 0-2, 5`, for the weights of layers.
fn layers_text(module: &Module, weight: WeightId) -> String {
    let (Some(slots), Some(class)) = (
        module.weights[weight.index()].slots,
        module.class_of_weight(weight),
    ) else {
        return String::new();
    };
    let mut layers: Vec<u32> = (0..slots)
        .filter_map(|s| module.layer_of(class, s))
        .collect();
    layers.sort_unstable();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for l in layers {
        match runs.last_mut() {
            Some((_, end)) if *end + 1 == l => *end = l,
            _ => runs.push((l, l)),
        }
    }
    let text = |&(a, b): &(u32, u32)| {
        if a == b {
            a.to_string()
        } else {
            format!("{a}-{b}")
        }
    };
    let runs: Vec<String> = runs.iter().map(text).collect();
    match runs.is_empty() {
        true => String::new(),
        false => format!(", layers {}", runs.join(", ")),
    }
}
