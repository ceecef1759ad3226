//! Which values of a function share memory: views with what they view, results that are computed in
//! place with the operand that dies there, a layer's result with the value that it carries on.
//!
//! in: a function with kernels and layouts → out: its buffers, and for each value the columns of the
//! buffer in which it lies.
//!
//! A result may overwrite an operand where every element depends on that same element or row alone and
//! nobody reads the operand, or anything that overlaps it, later. A linear may overwrite its residual,
//! unless it also reads the same memory as its x. Results of `scale {factor = 1.0}` are copies: never in
//! place. Deliberately not here: addresses, and the life of buffers (`plan-memory`).

use llmc_ir::{Func, Inst, Kernel, Op, Operand, ValueId};

use crate::{
    LinearOperands, PassError,
    form_kernels::{Shape, shape},
    operands,
};

/// The columns of a buffer in which a value lies, in 4-byte units.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slice {
    pub buffer: usize,
    pub column: u32,
    pub width: u32,
}

impl Slice {
    fn overlaps(self, other: Slice) -> bool {
        self.buffer == other.buffer
            && self.column < other.column + other.width
            && other.column < self.column + self.width
    }
}

/// Memory of one function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Buffer {
    /// The first value in it.
    pub root: ValueId,
    /// The parameter whose memory the caller gives; None for the function's own.
    pub param: Option<usize>,
}

/// Buffers and slices of one function.
pub struct Storage {
    pub buffers: Vec<Buffer>,
    /// By value; None where there is no memory.
    pub slices: Vec<Option<Slice>>,
    /// The kernel of each instruction.
    pub kernel_of: Vec<usize>,
    last_use: Vec<Option<usize>>,
}

impl Storage {
    /// Decides for `func`; `carried`: parameter 0 may be overwritten, and the result has to be there.
    pub fn of(func: &Func, carried: bool) -> Result<Storage, PassError> {
        let kernel_of = kernels(func)?;
        let mut last_use = vec![None; func.values.len()];
        for (i, inst) in func.body.iter().enumerate() {
            operands::values(&inst.operands).for_each(|v| last_use[v.index()] = Some(i));
        }
        let mut s = Storage {
            buffers: vec![],
            slices: vec![None; func.values.len()],
            kernel_of,
            last_use,
        };
        for (i, &p) in func.params.iter().enumerate() {
            s.fresh(func, p, Some(i));
        }
        for (i, inst) in func.body.iter().enumerate() {
            s.place_results(func, i, inst, carried);
        }
        if carried {
            s.move_result_home(func);
        }
        Ok(s)
    }

    /// A buffer of its own for `v`, where it has a layout.
    fn fresh(&mut self, func: &Func, v: ValueId, param: Option<usize>) {
        if let Some(width) = func.value(v).row_units() {
            self.slices[v.index()] = Some(Slice {
                buffer: self.buffers.len(),
                column: 0,
                width,
            });
            self.buffers.push(Buffer { root: v, param });
        }
    }

    fn place_results(&mut self, func: &Func, i: usize, inst: &Inst, carried: bool) {
        let first = operands::values(&inst.operands).next();
        let source = first.and_then(|v| self.slices[v.index()]);
        if let (Shape::View, Some(source)) = (shape(&inst.op), source) {
            let mut column = source.column;
            for r in &inst.results {
                let width = func.value(*r).row_units().unwrap_or(0);
                self.slices[r.index()] = Some(Slice {
                    buffer: source.buffer,
                    column,
                    width,
                });
                column += width;
            }
            return;
        }
        for &r in &inst.results {
            match self.in_place(func, i, inst, r, carried) {
                Some(slice) => self.slices[r.index()] = Some(slice),
                None => self.fresh(func, r, None),
            }
        }
    }

    /// The operand's memory that `result` may take over; the carried value's first.
    fn in_place(
        &self,
        func: &Func,
        i: usize,
        inst: &Inst,
        result: ValueId,
        carried: bool,
    ) -> Option<Slice> {
        let width = func.value(result).row_units()?;
        let rows = |v: ValueId| func.ty(v).tensor().and_then(|t| t.dims.first().copied());
        let fits = |v: &ValueId| {
            let slice = self.slices[v.index()]?;
            let dies = self.dies_at(func, *v, i, carried);
            (slice.width == width && rows(*v) == rows(result) && dies).then_some(slice)
        };
        let slices: Vec<Slice> = overwritable(inst).iter().filter_map(fits).collect();
        let carried = |s: &&Slice| carried && self.buffers[s.buffer].param == Some(0);
        slices.iter().find(carried).or(slices.first()).copied()
    }

    /// Whether nobody needs the memory of `v` after instruction `at`, which may overwrite it.
    pub fn dies_at(&self, func: &Func, v: ValueId, at: usize, carried: bool) -> bool {
        let Some(slice) = self.slices[v.index()] else {
            return false;
        };
        match self.buffers[slice.buffer].param {
            None => {}
            Some(0) if carried => {}
            Some(_) => return false,
        }
        let inst = &func.body[at];
        (0..func.values.len()).map(|w| ValueId(w as u32)).all(|w| {
            let Some(other) = self.slices[w.index()].filter(|o| o.overlaps(slice)) else {
                return true;
            };
            if func.returns(w) {
                return false;
            }
            match self.last_use[w.index()] {
                Some(last) if last > at => false,
                Some(last) if last == at => other == slice && !reads_across(inst, w),
                _ => true,
            }
        })
    }

    /// The slice of the parameter that the function carries on.
    fn home(&self, func: &Func) -> Option<Slice> {
        self.slices[func.params.first()?.index()]
    }

    /// Whether the function's result lies where its first parameter did.
    pub fn is_home(&self, func: &Func) -> bool {
        let result = func
            .results
            .first()
            .and_then(|(_, r)| self.slices[r.index()]);
        result.is_some() && result == self.home(func)
    }

    /// Lets the result's buffer be that of parameter 0, where that is dead before the buffer's life.
    fn move_result_home(&mut self, func: &Func) {
        let result = func
            .results
            .first()
            .and_then(|(_, r)| self.slices[r.index()]);
        let (Some(result), Some(home)) = (result, self.home(func)) else {
            return;
        };
        let own = self.buffers[result.buffer].param.is_none();
        if result.buffer == home.buffer || !own || (result.column, result.width) != (0, home.width)
        {
            return;
        }
        let Some(start) = func.def(self.buffers[result.buffer].root) else {
            return;
        };
        let row_local = shape(&func.body[start].op) == Shape::Rows;
        let free = (0..func.values.len()).all(|v| match self.slices[v] {
            Some(s) if s.buffer == home.buffer => match self.last_use[v] {
                Some(last) => {
                    let (last_kernel, kernel) = (self.kernel_of[last], self.kernel_of[start]);
                    last_kernel < kernel || (last_kernel == kernel && row_local && last < start)
                }
                None => true,
            },
            _ => true,
        });
        if free {
            for slice in self.slices.iter_mut().flatten() {
                if slice.buffer == result.buffer {
                    slice.buffer = home.buffer;
                }
            }
        }
    }
}

/// The operands that the op could overwrite, were they dead.
fn overwritable(inst: &Inst) -> Vec<ValueId> {
    let value = |i: usize| match inst.operands.get(i) {
        Some(Operand::Value(v)) => vec![*v],
        _ => vec![],
    };
    match &inst.op {
        Op::Scale(s) if s.factor == 1.0 => vec![],
        Op::Activation(_)
        | Op::L2Normalize(_)
        | Op::LayerNorm(_)
        | Op::RmsNorm(_)
        | Op::Rope(_)
        | Op::Scale(_)
        | Op::Softcap(_)
        | Op::Substitute(_) => value(0),
        Op::Add(_) | Op::Mul(_) => [value(0), value(1)].concat(),
        Op::Linear(op) => LinearOperands::read(op, &inst.operands)
            .and_then(|o| o.residual)
            .into_iter()
            .collect(),
        // The layers work in the memory of the value that they carry.
        Op::Repeat(_) => value(0),
        Op::Attention(_)
        | Op::Alibi(_)
        | Op::AttnBias(_)
        | Op::AttnDisentangled(_)
        | Op::AttnMix(_)
        | Op::AttnScores(_)
        | Op::Experts(_)
        | Op::Gather(_)
        | Op::Glu(_)
        | Op::KvAppend(_)
        | Op::KvRead(_)
        | Op::KvSource(_)
        | Op::MaskScores(_)
        | Op::MergeHeads(_)
        | Op::Pool(_)
        | Op::PositionIds(_)
        | Op::Quantize(_)
        | Op::RopeAngles(_)
        | Op::Route(_)
        | Op::Rows(_)
        | Op::Softmax(_)
        | Op::Split(_)
        | Op::SplitHeads(_)
        | Op::Unfold(_) => vec![],
    }
}

/// Whether the op reads `v` otherwise than at the element or row that it writes.
fn reads_across(inst: &Inst, v: ValueId) -> bool {
    match &inst.op {
        Op::Linear(_) => inst.operands.first() == Some(&Operand::Value(v)),
        Op::Rope(_) => inst.operands.get(1) == Some(&Operand::Value(v)),
        Op::Repeat(_) => inst.operands[1..].contains(&Operand::Value(v)),
        _ => false,
    }
}

/// The kernel of each instruction.
fn kernels(func: &Func) -> Result<Vec<usize>, PassError> {
    let mut of = Vec::with_capacity(func.body.len());
    for (k, Kernel { len, .. }) in func.kernels.iter().enumerate() {
        of.extend((0..*len).map(|_| k));
    }
    if of.len() == func.body.len() {
        Ok(of)
    } else {
        let what = "the kernels do not cover the function: form-kernels has to run first";
        Err(PassError::out_of_order(&func.name, what))
    }
}
