//! `choose-layouts`: how the rows of every value, and every weight, are stored.
//!
//! ```text
//! %qr = rope %q, %angles : f32[N, 14, 64]      → stored as 14x(32, 32), and so are %q and the linear
//! weight @layer.wq : bf16[896, 896]            → panels<rows = 14x(32, 32), cols = 1x(896)>
//! ```
//!
//! Values get a place without an address (`plan-memory` finds the address); step values, kv_views and
//! an entry's ids get none. A weight takes the layouts of what it multiplies and makes; one that
//! would need two packings is an error naming both uses: nothing is stored twice silently.
//!
//! | weight of | packing |
//! |---|---|
//! | linear | panels: rows as the result, cols as x; with `glu`, gate and up alternate |
//! | experts | each expert's panels: rows as one expert's outputs, gate and up alternating, cols as what it multiplies |
//! | gather alone | rows as the result |
//! | gather and linear (tied) | panels |
//! | attention's position terms | rows as queries |
//! | norm (`quantize`'s too), bias, attention bias, `substitute` | vector, as the row that it goes with |

use llmc_ir::{
    DType, FuncId, Inst, Layout, Module, Op, Operand, Pack, Place, TensorType, ValueId, WeightId,
};

use crate::{
    AttentionOperands, ExpertsOperands, LinearOperands, Pass, PassError, Remarks, Stats,
    row_layouts::{RowLayouts, same_storage},
};

/// Chooses layouts.
pub struct ChooseLayouts;

/// How an instruction reads a weight.
struct Use {
    weight: WeightId,
    pack: Pack,
    by: String,
}

/// 4-byte units from one row of `ty` to the next: numbers in whole panels of 64; 8-bit activations as
/// their form says. None for what has no rows.
fn stride(ty: &TensorType, layout: &Layout) -> Option<u32> {
    let panels = Layout::plain(layout.width().next_multiple_of(64));
    match ty.dtype {
        _ if ty.dims.len() == 1 => Some(1),
        DType::Q8(_) => layout.checked_units(ty.dtype),
        dtype => panels.checked_units(dtype),
    }
}

impl Pass for ChooseLayouts {
    fn name(&self) -> &'static str {
        "choose-layouts"
    }

    fn run(&self, module: &mut Module, _: &mut Remarks) -> Result<Stats, PassError> {
        let layouts = RowLayouts::choose(module)?;
        let packs = choose_packs(module, &layouts)?;
        let mut rewrites = 0;
        for (w, pack) in module.weights.iter_mut().zip(packs) {
            rewrites += usize::from(pack.is_some());
            w.pack = pack;
        }
        for (f, func) in module.funcs.iter_mut().enumerate() {
            let entry = func.entry().is_some();
            for v in 0..func.values.len() {
                let id = ValueId(v as u32);
                let rows = func.ty(id).tensor().is_some_and(|t| t.dims.len() > 1);
                let outside = entry && !rows && func.params.contains(&id);
                let layout = layouts.get(FuncId(f as u32), id).filter(|_| !outside);
                let place = layout.zip(func.ty(id).tensor()).and_then(|(layout, ty)| {
                    Some(Place {
                        at: 0,
                        stride: stride(ty, layout)?,
                        layout: layout.clone(),
                    })
                });
                rewrites += usize::from(place.is_some());
                func.values[v].place = place;
            }
        }
        Ok(Stats::of(rewrites))
    }
}

/// The packing of every weight.
fn choose_packs(module: &Module, layouts: &RowLayouts) -> Result<Vec<Option<Pack>>, PassError> {
    let mut packs: Vec<Option<(Pack, String)>> = vec![None; module.weights.len()];
    for (f, func) in module.funcs.iter().enumerate() {
        for inst in &func.body {
            let layout = |v: Option<&Operand>| match v {
                Some(Operand::Value(v)) => layouts.get(FuncId(f as u32), *v),
                _ => None,
            };
            let x = layout(inst.operands.first());
            let result = inst.results.first().map(|v| Operand::Value(*v));
            let y = layout(result.as_ref());
            let by = format!("{} in @{}", inst.op.name(), func.name);
            for new in uses(module, inst, x, y, &by) {
                let weight = &module.weights[new.weight.index()];
                let slot = &mut packs[new.weight.index()];
                let agreed = match slot.take() {
                    None => Some((new.pack.clone(), new.by.clone())),
                    Some((old, by)) => agree(&old, &new.pack)
                        .map(|pack| (pack, by.clone()))
                        .ok_or((old, by))
                        .map_err(|(old, by)| two_packs(&func.name, &weight.name, &old, &by, &new))
                        .map(Some)?,
                };
                let blocks = weight.ty.dtype.element_bytes().is_none();
                if let Some((pack, by)) = agreed.as_ref().filter(|(p, _)| blocks && has_gaps(p)) {
                    let what = format!(
                        "@{} is stored in blocks of {}, which cannot be {} for {by}",
                        weight.name,
                        weight.ty.dtype.name(),
                        describe(pack)
                    );
                    return Err(PassError::unsupported(&func.name, what));
                }
                *slot = agreed;
            }
        }
    }
    Ok(packs.into_iter().map(|p| p.map(|(pack, _)| pack)).collect())
}

/// The weights that an op reads, where x and y are the layouts of its first operand and result.
fn uses(
    module: &Module,
    inst: &Inst,
    x: Option<&Layout>,
    y: Option<&Layout>,
    by: &str,
) -> Vec<Use> {
    let weights = inst.operands.iter().filter_map(|o| match o {
        Operand::Weight(w) => Some(*w),
        Operand::Value(_) | Operand::State(_) => None,
    });
    let (Some(x), Some(y)) = (x, y) else {
        // Gather's ids have no layout where they are an entry's.
        return match (&inst.op, y) {
            (Op::Gather(_), Some(y)) => weights.map(|w| table(w, y, by)).collect(),
            _ => vec![],
        };
    };
    let vector = |weight: WeightId, layout: Layout| Use {
        weight,
        pack: Pack::Vector { layout },
        by: by.to_string(),
    };
    match &inst.op {
        Op::Linear(op) => {
            let Some(args) = LinearOperands::read(op, &inst.operands) else {
                return vec![];
            };
            let glu = op.glu.is_some();
            let rows = match glu {
                true => Layout::heads(2, &[y.len()]),
                false => y.clone(),
            };
            let panels = Pack::Panels {
                rows: rows.clone(),
                cols: x.clone(),
                glu,
            };
            let mut list = vec![Use {
                weight: args.w,
                pack: panels,
                by: by.to_string(),
            }];
            list.extend(args.bias.map(|b| vector(b, rows)));
            list.extend(args.norm.iter().map(|n| vector(*n, x.clone())));
            list
        }
        Op::Experts(op) => match ExpertsOperands::read(op, &inst.operands) {
            Some(args) => experts(module, args, x, y, by),
            None => vec![],
        },
        Op::Gather(_) => weights.map(|w| table(w, y, by)).collect(),
        Op::Quantize(_) | Op::Substitute(_) => weights.map(|w| vector(w, x.clone())).collect(),
        Op::RmsNorm(_) | Op::LayerNorm(_) => {
            let len = |w: WeightId| module.weights[w.index()].ty.last();
            weights.map(|w| vector(w, of_norm(x, len(w)))).collect()
        }
        Op::Attention(op) => {
            let positions = AttentionOperands::read(op, &inst.operands)
                .map_or([None; 2], |args| args.positions);
            weights
                .map(|w| match positions.contains(&Some(w)) {
                    true => table(w, x, by),
                    false => {
                        let heads = y.0.first().map_or(0, |s| s.count);
                        vector(w, Layout::plain(heads))
                    }
                })
                .collect()
        }
        _ => vec![],
    }
}

/// The weights of `experts`, where x and y are the layouts of its first operand and result.
fn experts(module: &Module, args: ExpertsOperands, x: &Layout, y: &Layout, by: &str) -> Vec<Use> {
    let dim = |w: WeightId, i: usize| {
        module.weights[w.index()]
            .ty
            .dims
            .get(i)
            .and_then(|d| d.fixed())
    };
    let (Some(rows), Some(inner)) = (dim(args.w_out, 0), dim(args.w_out, 1)) else {
        return vec![];
    };
    let count = rows / y.len().max(1);
    let used = |weight: WeightId, pack: Pack| Use {
        weight,
        pack,
        by: by.to_string(),
    };
    let pack = |rows: &Layout, cols: &Layout, glu: bool| Pack::Experts {
        count,
        rows: rows.clone(),
        cols: cols.clone(),
        glu,
    };
    let (both, plain) = (Layout::heads(2, &[inner]), Layout::plain(inner));
    let mut list = vec![
        used(args.w_in, pack(&both, x, true)),
        used(args.w_out, pack(y, &plain, false)),
    ];
    for (bias, rows) in [(args.b_in, &both), (args.b_out, y)] {
        let layout = match rows.0.as_slice() {
            [one] => Layout::heads(one.count * count, &one.parts),
            _ => Layout::concat(&vec![rows.clone(); count as usize]),
        };
        list.extend(bias.map(|b| used(b, Pack::Vector { layout })));
    }
    list
}

/// A table whose rows are gathered.
fn table(weight: WeightId, row: &Layout, by: &str) -> Use {
    Use {
        weight,
        pack: Pack::Rows { cols: row.clone() },
        by: by.to_string(),
    }
}

/// The layout of a norm's weight: of a row, or of one head of it.
fn of_norm(x: &Layout, len: Option<u32>) -> Layout {
    match x.0.as_slice() {
        [heads] if len == Some(heads.group_len()) => Layout::heads(1, &heads.parts),
        _ => x.clone(),
    }
}

/// One packing for two uses; None where there is none.
fn agree(a: &Pack, b: &Pack) -> Option<Pack> {
    let fits = match (a, b) {
        (
            Pack::Panels { rows, cols, glu },
            Pack::Panels {
                rows: r,
                cols: c,
                glu: g,
            },
        ) => same_storage(rows, r) && same_storage(cols, c) && glu == g,
        (
            Pack::Experts {
                count,
                rows,
                cols,
                glu,
            },
            Pack::Experts {
                count: n,
                rows: r,
                cols: c,
                glu: g,
            },
        ) => same_storage(rows, r) && same_storage(cols, c) && (count, glu) == (n, g),
        (Pack::Rows { cols }, Pack::Rows { cols: c }) => same_storage(cols, c),
        (Pack::Vector { layout }, Pack::Vector { layout: l }) => same_storage(layout, l),
        // A tied table: gather reads the panels.
        (Pack::Panels { cols, glu, .. }, Pack::Rows { cols: c }) => same_storage(cols, c) && !glu,
        (Pack::Rows { .. }, Pack::Panels { .. }) => return agree(b, a),
        _ => false,
    };
    fits.then(|| a.clone())
}

/// Whether there is padding within the rows.
fn has_gaps(pack: &Pack) -> bool {
    match pack {
        Pack::Experts { cols, .. } | Pack::Panels { cols, .. } | Pack::Rows { cols } => {
            !cols.is_plain()
        }
        // Vectors are f32: nothing of them is in blocks.
        Pack::Vector { .. } => true,
    }
}

fn two_packs(func: &str, weight: &str, old: &Pack, by: &str, new: &Use) -> PassError {
    let what = format!(
        "@{weight} is stored as {} for {by}, and as {} for {}",
        describe(old),
        describe(&new.pack),
        new.by
    );
    PassError::unsupported(func, what)
}

fn describe(pack: &Pack) -> String {
    match pack {
        Pack::Panels { rows, cols, glu } => {
            let glu = if *glu {
                ", gate and up alternating"
            } else {
                ""
            };
            format!("panels of {rows} by {cols}{glu}")
        }
        Pack::Experts {
            count, rows, cols, ..
        } => format!("panels of {count} experts of {rows} by {cols}"),
        Pack::Rows { cols } => format!("rows of {cols}"),
        Pack::Vector { layout } => format!("a vector of {layout}"),
    }
}
