//! What one token costs in weights: how much a step reads, and how much it multiplies.
//!
//! In: a planned module and where its weights lie. Out: [`Traffic`], for `info` and for shares of the
//! machine's limits. A weight counts once for every instruction and layer that reads it,
//! so layers that share slots count again; of experts those that a token goes through.
//!
//! Not here: activations, the KV cache, attention's own products.

use llmc_abi::Traffic;
use llmc_ir::{Dim, Func, Inst, Module, Op, Operand, Sym, Type, ops::Experts};

use super::WeightPlan;

impl WeightPlan {
    /// Adds up what the main entry and its layers read.
    pub fn traffic(&self, module: &Module) -> Traffic {
        let mut all = Traffic::default();
        if let Some((_, entry)) = module.main_entry() {
            self.add(&mut all, module, entry);
        }
        for (class, _) in module.layers() {
            if let Some(layer) = module.funcs.iter().find(|f| f.name == *class) {
                self.add(&mut all, module, layer);
            }
        }
        all
    }

    fn add(&self, all: &mut Traffic, module: &Module, func: &Func) {
        for inst in &func.body {
            for operand in &inst.operands {
                let Operand::Weight(id) = operand else {
                    continue;
                };
                let bytes = self.weights[id.index()].form.bytes();
                let dims = module.weights[id.index()]
                    .ty
                    .fixed_dims()
                    .unwrap_or_default();
                all.step_bytes += match (&inst.op, dims.first()) {
                    (Op::Experts(_), _) => Experts::share(func, inst, bytes),
                    (Op::Gather(_), Some(&rows)) => bytes / u64::from(rows.max(1)),
                    _ => bytes,
                };
                if let (Op::Experts(_), [rows, cols]) = (&inst.op, dims.as_slice()) {
                    let elements = u64::from(*rows) * u64::from(*cols);
                    all.token_parameters += Experts::share(func, inst, elements);
                }
                if let (Op::Linear(_), [rows, cols]) = (&inst.op, dims.as_slice()) {
                    let count = if leading(func, inst) == Some(Sym::R) {
                        &mut all.row_parameters
                    } else {
                        &mut all.token_parameters
                    };
                    *count += u64::from(*rows) * u64::from(*cols);
                }
            }
        }
    }
}

/// The extent that an instruction's rows are counted by.
fn leading(func: &Func, inst: &Inst) -> Option<Sym> {
    match &func.values[inst.results.first()?.index()].ty {
        Type::Tensor(ty) => match ty.dims.first()? {
            Dim::Sym(sym) => Some(*sym),
            Dim::Fixed(_) => None,
        },
        Type::KvView { .. } | Type::Step => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmc_ir::{DType, Dims, FuncBuilder, Layout, Pack, Source, TensorType, Weight, ops};

    fn weight(name: &str, dims: &[u32], pack: Pack) -> Weight {
        Weight {
            name: name.into(),
            slots: None,
            ty: TensorType::weight(DType::F16, dims),
            source: Source::tensor(name),
            pack: Some(pack),
        }
    }

    #[test]
    fn a_tied_table_is_read_whole_by_the_head_and_by_the_row_for_tokens() {
        let dims = Dims {
            n: 4,
            r: 4,
            b: 1,
            t: 8,
        };
        let mut module = Module::new("m", dims);
        let panels = |rows| Pack::Panels {
            rows: Layout::plain(rows),
            cols: Layout::plain(32),
            glu: false,
        };
        let table = module.add_weight(weight("table", &[128, 32], panels(128)));
        let up = module.add_weight(weight("up", &[32, 32], panels(32)));
        let mut f = FuncBuilder::new(&mut module, "forward");
        let ids = f.param("ids", Type::ids());
        let x = f
            .push1("x", ops::Gather { scale: 1.0 }, &[ids.into(), table.into()])
            .unwrap();
        let y = f
            .push1("y", ops::Linear::default(), &[x.into(), up.into()])
            .unwrap();
        let rows = f.param("rows", Type::f32(&[Sym::R.into(), 32.into()]));
        let z = f
            .push1("z", ops::Linear::default(), &[rows.into(), table.into()])
            .unwrap();
        f.finish(&[("y", y), ("z", z)]);
        let plan = WeightPlan::new(&module).unwrap();
        let found = plan.traffic(&module);
        // A panel is 64 outputs wide, so `up` is stored as [64, 32].
        let bytes = 32 * 2 + 64 * 32 * 2 + 128 * 32 * 2;
        let expected = Traffic {
            step_bytes: bytes,
            token_parameters: 32 * 32,
            row_parameters: 128 * 32,
        };
        assert_eq!(found, expected);
    }
}
