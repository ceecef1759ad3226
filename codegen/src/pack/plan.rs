//! Where every weight lies in the payload's first region.

use llmc_ir::{
    DType, Layout, Module, Op, Operand, Pack, WeightId,
    ops::{Disentangled, RelativeBias},
};

use super::{
    PackError,
    form::{Form, expert_map, output_map},
    positions::{PositionRows, PositionTable},
};
use crate::blocks::Blocks;

/// Alignment of every weight and of every slot.
const ALIGN: u64 = 64;

/// One weight: its form and its place.
#[derive(Clone, PartialEq, Debug)]
pub struct Stored {
    pub form: Form,
    /// Bytes from the region's start.
    pub offset: u64,
    /// Bytes from one slot to the next.
    pub slot_stride: u64,
    /// The absolute layer of every slot; one None for weights of the entry.
    pub layers: Vec<Option<u32>>,
}

/// All weights of a module, in its order.
#[derive(Clone, PartialEq, Debug)]
pub struct WeightPlan {
    pub weights: Vec<Stored>,
    /// Bytes of the whole region.
    pub bytes: u64,
}

impl WeightPlan {
    /// Plans the weights of a planned module.
    pub fn new(module: &Module) -> Result<WeightPlan, PackError> {
        let mut at = 0u64;
        let mut weights = Vec::with_capacity(module.weights.len());
        for index in 0..module.weights.len() {
            let id = WeightId(index as u32);
            let form = form_of(module, id)?;
            let layers = layers_of(module, id)?;
            let slot_stride = form.bytes().next_multiple_of(ALIGN);
            weights.push(Stored {
                offset: at,
                slot_stride,
                form,
                layers,
            });
            at += slot_stride * weights[index].layers.len() as u64;
        }
        Ok(WeightPlan { weights, bytes: at })
    }

    /// Bytes of each element type, for the report.
    pub fn bytes_by_type(&self) -> std::collections::BTreeMap<String, u64> {
        let mut out = std::collections::BTreeMap::new();
        for w in &self.weights {
            let dtype = match &w.form {
                Form::Blocks { dtype, .. }
                | Form::Panels { dtype, .. }
                | Form::Rows { dtype, .. } => *dtype,
                Form::Vector { .. } | Form::Relative { .. } | Form::Positions(_) => DType::F32,
            };
            *out.entry(dtype.name().to_string()).or_insert(0) +=
                w.slot_stride * w.layers.len() as u64;
        }
        out
    }
}

/// Which absolute layer each slot of a weight stands for.
fn layers_of(module: &Module, id: WeightId) -> Result<Vec<Option<u32>>, PackError> {
    let weight = &module.weights[id.index()];
    let unplanned = |message| PackError::Unplanned {
        weight: weight.name.clone(),
        message,
    };
    match weight.slots {
        None => Ok(vec![None]),
        Some(slots) => {
            let class = module
                .class_of_weight(id)
                .ok_or(unplanned("is stacked, but no layer uses it"))?;
            (0..slots)
                .map(|s| {
                    module
                        .layer_of(class, s)
                        .map(Some)
                        .ok_or(unplanned("has unused slots"))
                })
                .collect()
        }
    }
}

fn form_of(module: &Module, id: WeightId) -> Result<Form, PackError> {
    let weight = &module.weights[id.index()];
    let unplanned = |message| PackError::Unplanned {
        weight: weight.name.clone(),
        message,
    };
    let dims = weight
        .ty
        .fixed_dims()
        .ok_or(unplanned("has no fixed extents"))?;
    if let Some((bias, heads, keys)) = relative_bias(module, id) {
        let origin = keys - 1;
        let stride = (2 * keys).next_multiple_of(64) + 64;
        return Ok(Form::Relative {
            bias,
            heads,
            origin,
            stride,
        });
    }
    let pack = weight.pack.as_ref().ok_or(unplanned("has no packing"))?;
    if let Some((terms, queries)) = position_terms(module, id) {
        let Pack::Rows { cols } = pack else {
            return Err(unplanned("is a table of positions, but not packed in rows"));
        };
        let [head] = cols.0.as_slice() else {
            return Err(unplanned(
                "is a table of positions, but its rows are no heads",
            ));
        };
        return Ok(Form::Positions(PositionTable {
            rows: PositionRows {
                terms,
                context: module.dims.t,
            },
            queries,
            heads: head.count,
            head: Layout::heads(1, &head.parts).stored(),
        }));
    }
    if weight.source.projected.is_some() {
        return Err(unplanned("is computed, which only tables of positions are"));
    }
    if let Some(form) = Blocks::of_dtype(weight.ty.dtype) {
        let [count, cols] = *dims.as_slice() else {
            return Err(unplanned("is stored in blocks, but no matrix"));
        };
        let (rows, layout) = match pack {
            Pack::Panels { rows, cols, glu } => (output_map(rows, *glu), cols),
            Pack::Experts {
                count,
                rows,
                cols,
                glu,
            } => (expert_map(*count, rows, *glu), cols),
            Pack::Rows { cols } => (output_map(&Layout::plain(count), false), cols),
            Pack::Vector { .. } => return Err(unplanned("is stored in blocks, but no matrix")),
        };
        if layout
            .stored()
            .iter()
            .take(cols as usize)
            .any(Option::is_none)
        {
            return Err(unplanned("is stored in blocks, but its columns are padded"));
        }
        return Ok(Form::Blocks {
            dtype: weight.ty.dtype,
            form,
            rows,
            cols,
        });
    }
    Ok(match pack {
        Pack::Panels { rows, cols, glu } => Form::Panels {
            dtype: weight.ty.dtype,
            rows: output_map(rows, *glu),
            cols: cols.stored(),
        },
        Pack::Experts {
            count,
            rows,
            cols,
            glu,
        } => Form::Panels {
            dtype: weight.ty.dtype,
            rows: expert_map(*count, rows, *glu),
            cols: cols.stored(),
        },
        Pack::Rows { cols } => Form::Rows {
            dtype: weight.ty.dtype,
            count: *dims.first().ok_or(unplanned("is no table"))?,
            cols: cols.stored(),
        },
        Pack::Vector { layout } => Form::Vector {
            map: match expert_bias(module, id) {
                Some((count, rows, glu)) => expert_map(count, rows, glu),
                None => output_map(layout, is_glu_bias(module, id)),
            },
        },
    })
}

/// The attention bias that a weight is the table of, its heads, and the most keys of a sequence.
fn relative_bias(module: &Module, id: WeightId) -> Option<(RelativeBias, u32, u32)> {
    let mut found = None;
    for func in &module.funcs {
        for inst in &func.body {
            let (Op::Attention(a), true) = (&inst.op, inst.operands.contains(&Operand::Weight(id)))
            else {
                continue;
            };
            if position_terms(module, id).is_some() {
                return None;
            }
            // The sinks are a vector of heads.
            let &[_, heads] = module.weights[id.index()].ty.fixed_dims()?.as_slice() else {
                return None;
            };
            let keys = found
                .map_or(0, |(_, _, keys)| keys)
                .max(module.dims_of(func).t);
            found = Some((a.bias?, heads, keys));
        }
    }
    found
}

/// The position terms that a weight is a table of, and whether it is that of queries.
fn position_terms(module: &Module, id: WeightId) -> Option<(Disentangled, bool)> {
    let inst = user(module, id)?;
    let Op::Attention(op) = &inst.op else {
        return None;
    };
    let terms = op.disentangled?;
    // The tables stand behind the bias, that of keys first.
    let mut weights = inst.operands.iter().filter_map(|o| match o {
        Operand::Weight(w) => Some(*w),
        Operand::Value(_) | Operand::State(_) => None,
    });
    let at = weights.position(|w| w == id)?;
    let tables = [(terms.c2p, false), (terms.p2c, true)];
    let mut tables = tables.into_iter().filter(|(there, _)| *there);
    let (_, queries) = tables.nth(at.checked_sub(usize::from(op.bias.is_some()))?)?;
    Some((terms, queries))
}

/// The packing of the matrix that a weight is the experts' bias of: count, rows of one, and `glu`.
fn expert_bias(module: &Module, id: WeightId) -> Option<(u32, &Layout, bool)> {
    let inst = user(module, id)?;
    let (Op::Experts(_), Some(at)) = (
        &inst.op,
        inst.operands.iter().position(|o| *o == Operand::Weight(id)),
    ) else {
        return None;
    };
    // A bias stands behind its matrix.
    let Some(Operand::Weight(matrix)) = inst.operands.get(at.checked_sub(1)?) else {
        return None;
    };
    match module.weights[matrix.index()].pack.as_ref()? {
        Pack::Experts {
            count, rows, glu, ..
        } if module.weights[id.index()].ty.dims.len() == 1 => Some((*count, rows, *glu)),
        _ => None,
    }
}

/// Whether the weight is the bias of a linear with `glu`, so that it is stored as the outputs are.
fn is_glu_bias(module: &Module, id: WeightId) -> bool {
    user(module, id).is_some_and(|inst| match &inst.op {
        Op::Linear(l) => {
            l.glu.is_some() && l.bias && inst.operands.get(2) == Some(&Operand::Weight(id))
        }
        _ => false,
    })
}

fn user(module: &Module, id: WeightId) -> Option<&llmc_ir::Inst> {
    module
        .funcs
        .iter()
        .flat_map(|f| &f.body)
        .find(|i| i.operands.contains(&Operand::Weight(id)))
}
