//! The step function in code: phases, barriers, the loop over layers.

use std::mem::offset_of;

use llmc_abi::{Batch, Best, KvState, MARK_PASSED, MARK_WORKED, StepCtx};

use super::plan::{Arg, BatchField, Call, EntryPlan, Extent, Logits, Routine, StepPlan};
use crate::{
    kernel::{KernelBuilder, Linkage, Param, Ty, Value},
    kernels,
    target::FeatureLevel,
};

/// What every routine has at hand.
#[derive(Clone, Copy)]
struct Frame {
    ctx: Value,
    thread: Value,
    threads: Value,
    slot: Value,
}

/// Parameters of a routine: `ctx, thread, threads, slot`.
const ROUTINE: [Param; 4] = [Param::ptr(), Param::i64(), Param::i64(), Param::i64()];

/// The symbol of an entry's step.
pub fn step_symbol(level: &FeatureLevel, entry: &EntryPlan) -> String {
    let name = entry.routines.last().map_or("", |r| &r.name);
    level.symbol(&format!("llmc_step_{name}"))
}

/// Emits the steps of all entries and everything that they call.
pub fn emit_steps(b: &mut KernelBuilder<'_>, plan: &StepPlan) {
    for entry in &plan.entries {
        emit_step(b, plan, entry);
    }
}

fn emit_step(b: &mut KernelBuilder<'_>, plan: &StepPlan, entry: &EntryPlan) {
    let symbol = step_symbol(b.level(), entry);
    let (_, classes) = entry.routines.split_last().expect("the entry is one");
    for (index, class) in classes.iter().enumerate() {
        let name = routine_symbol(b, class);
        b.function(&name, Linkage::Internal, &ROUTINE, &[], |b, args| {
            phases(b, (plan, entry), index, frame(args), true);
            Vec::new()
        });
    }
    let params = [Param::ptr(), Param::i64(), Param::i64()];
    b.function(&symbol, Linkage::Exported, &params, &[], |b, args| {
        let slot = b.i64(0);
        let frame = Frame {
            ctx: args[0],
            thread: args[1],
            threads: args[2],
            slot,
        };
        phases(b, (plan, entry), classes.len(), frame, false);
        if let Some(at) = entry.last_hidden_at {
            let last = b.i64(i64::from(entry.taps.count) - 1);
            tap(b, (plan, entry), frame, at, last);
        }
        if let Some(logits) = entry.logits {
            best(b, (plan, entry), frame, logits);
        }
        Vec::new()
    });
}

fn routine_symbol(b: &KernelBuilder<'_>, routine: &Routine) -> String {
    b.level()
        .symbol(&format!("layer_{}", routine.name.replace('.', "_")))
}

fn frame(args: &[Value]) -> Frame {
    Frame {
        ctx: args[0],
        thread: args[1],
        threads: args[2],
        slot: args[3],
    }
}

/// Emits the phases of a routine in order; `last_too` puts a barrier behind the last one as well.
fn phases(
    b: &mut KernelBuilder<'_>,
    (plan, entry): (&StepPlan, &EntryPlan),
    routine: usize,
    frame: Frame,
    last_too: bool,
) {
    let phases = &entry.routines[routine].phases;
    let first = entry.first_phase(routine);
    for (i, phase) in phases.iter().enumerate() {
        for call in &phase.calls {
            match call {
                Call::Kernel { kernel, args } => {
                    let symbol = kernel.emit(b);
                    let mut values = vec![frame.thread, frame.threads];
                    values.extend(args.iter().map(|a| argument(b, plan, frame, *a)));
                    b.call(&symbol, &values, &[]);
                }
                Call::Layers(which) => layers(b, (plan, entry), *which, frame),
            }
        }
        // The layers end with a barrier and marks of their own.
        if matches!(phase.calls.as_slice(), [Call::Layers(_)]) {
            continue;
        }
        mark(b, frame, first + i, MARK_WORKED);
        let last_hidden_read = entry.last_hidden_at.is_some();
        if last_too || i + 1 < phases.len() || last_hidden_read {
            barrier(b, frame);
            mark(b, frame, first + i, MARK_PASSED);
        }
    }
}

/// Tells of a phase, where somebody wants to know.
fn mark(b: &mut KernelBuilder<'_>, frame: Frame, phase: usize, event: u64) {
    let address = b.field(Ty::I64, frame.ctx, offset_of!(StepCtx, mark));
    let zero = b.i64(0);
    let wanted = b.ne(address, zero);
    b.when(wanted, |b| {
        let told = b.field(Ty::Ptr, frame.ctx, offset_of!(StepCtx, mark));
        let state = b.field(Ty::Ptr, frame.ctx, offset_of!(StepCtx, mark_state));
        let (phase, event) = (b.i64(phase as i64), b.i64(event as i64));
        b.call_pointer(told, &[state, frame.thread, phase, event]);
    });
}

/// The largest logit of each row, where the caller asked: every thread looks through its part of all
/// rows while they are in the caches.
fn best(
    b: &mut KernelBuilder<'_>,
    (plan, entry): (&StepPlan, &EntryPlan),
    frame: Frame,
    logits: Logits,
) {
    let address = b.field(Ty::I64, frame.ctx, offset_of!(StepCtx, best));
    let zero = b.i64(0);
    let wanted = b.ne(address, zero);
    let kernel = kernels::ArgMax {
        width: i64::from(logits.width),
        stride: i64::from(logits.stride),
    };
    b.when(wanted, |b| {
        barrier(b, frame);
        let symbol = kernel.emit(b);
        let rows = argument(b, plan, frame, Arg::Rows(Extent::Rows));
        let from = argument(b, plan, frame, Arg::Arena(logits.at));
        let to = b.field(Ty::Ptr, frame.ctx, offset_of!(StepCtx, best));
        let each = i64::from(logits.rows) * size_of::<Best>() as i64;
        let to = b.at(to, frame.thread, each);
        b.call(&symbol, &[frame.thread, frame.threads, rows, from, to], &[]);
        mark(b, frame, entry.first_phase(usize::MAX), MARK_WORKED);
    });
}

fn barrier(b: &mut KernelBuilder<'_>, frame: Frame) {
    let wait = b.field(Ty::Ptr, frame.ctx, offset_of!(StepCtx, barrier));
    let state = b.field(Ty::Ptr, frame.ctx, offset_of!(StepCtx, barrier_state));
    b.call_pointer(wait, &[state]);
}

/// `for layer in 0..layers { tap; class(slot) }`.
fn layers(
    b: &mut KernelBuilder<'_>,
    (plan, entry): (&StepPlan, &EntryPlan),
    which: usize,
    frame: Frame,
) {
    let layers = &entry.repeats[which];
    let class: Vec<i32> = layers.iter().map(|l| l.0 as i32).collect();
    let slot: Vec<i32> = layers.iter().map(|l| l.1 as i32).collect();
    let name = entry.routines.last().map_or("", |r| &r.name);
    let class_table = b.table_i32(&format!("{name}_{which}_classes"), &class);
    let slot_table = b.table_i32(&format!("{name}_{which}_slots"), &slot);
    let (lo, hi) = (b.i64(0), b.i64(layers.len() as i64));
    b.for_each(lo, hi, 1, |b, layer| {
        if let Some(at) = entry.stream_at.filter(|_| which == 0) {
            tap(b, (plan, entry), frame, at, layer);
        }
        let slot = b.at(slot_table, layer, 4);
        let slot = b.load_i32(slot);
        let class = b.at(class_table, layer, 4);
        let class = b.load_i32(class);
        let used: Vec<usize> = (0..entry.routines.len() - 1)
            .filter(|i| layers.iter().any(|l| l.0 == *i))
            .collect();
        for i in used {
            let this = b.i64(i as i64);
            let is = b.eq(class, this);
            b.when(is, |b| {
                let symbol = routine_symbol(b, &entry.routines[i]);
                b.call(
                    &symbol,
                    &[frame.ctx, frame.thread, frame.threads, slot],
                    &[],
                );
            });
        }
    });
}

/// Copies the rows at `at` to tap `index`, where the caller asked for taps.
fn tap(
    b: &mut KernelBuilder<'_>,
    (plan, entry): (&StepPlan, &EntryPlan),
    frame: Frame,
    at: u64,
    index: Value,
) {
    let address = b.field(Ty::I64, frame.ctx, offset_of!(StepCtx, taps));
    let zero = b.i64(0);
    let wanted = b.ne(address, zero);
    let stride = i64::from(entry.taps.stride);
    let copy = kernels::Elementwise {
        op: kernels::RowOp::Scale(1.0),
        width: i64::from(entry.taps.width),
        a_stride: stride,
        b_stride: stride,
        y_stride: stride,
    };
    b.when(wanted, |b| {
        let symbol = copy.emit(b);
        let rows = b.field(Ty::I64, frame.ctx, offset_of!(StepCtx, tap_rows));
        let bytes = b.mul_const(rows, stride * 4);
        let skip = b.mul(bytes, index);
        let taps = b.field(Ty::Ptr, frame.ctx, offset_of!(StepCtx, taps));
        let to = b.offset_by(taps, skip);
        let n = argument(b, plan, frame, Arg::Rows(Extent::Tokens));
        let from = argument(b, plan, frame, Arg::Arena(at));
        b.call(
            &symbol,
            &[frame.thread, frame.threads, n, from, from, to],
            &[],
        );
    });
}

fn argument(b: &mut KernelBuilder<'_>, plan: &StepPlan, frame: Frame, arg: Arg) -> Value {
    let field = |b: &mut KernelBuilder<'_>, offset| b.field(Ty::Ptr, frame.ctx, offset);
    match arg {
        Arg::Rows(extent) => {
            let batch = field(b, offset_of!(StepCtx, batch));
            let at = match extent {
                Extent::Tokens => offset_of!(Batch, n),
                Extent::Rows => offset_of!(Batch, r),
                Extent::Sequences => offset_of!(Batch, b),
            };
            b.field(Ty::I64, batch, at)
        }
        Arg::Arena(at) => {
            let arena = field(b, offset_of!(StepCtx, arena));
            b.offset(arena, at as i64)
        }
        Arg::Workspace(at) => argument(b, plan, frame, Arg::Arena(plan.workspace_at + at)),
        Arg::WorkspaceInt(at) => {
            let p = argument(b, plan, frame, Arg::Workspace(at));
            b.load_i32(p)
        }
        Arg::Partials => argument(b, plan, frame, Arg::Arena(plan.partials_at)),
        Arg::Weight {
            offset,
            slot_stride,
        } => {
            let weights = field(b, offset_of!(StepCtx, weights));
            let entry = b.offset(weights, offset as i64);
            if slot_stride == 0 {
                entry
            } else {
                b.at(entry, frame.slot, slot_stride as i64)
            }
        }
        Arg::Batch(which) => {
            let batch = field(b, offset_of!(StepCtx, batch));
            let at = match which {
                BatchField::Ids => offset_of!(Batch, ids),
                BatchField::Pos => offset_of!(Batch, pos),
                BatchField::Types => offset_of!(Batch, types),
                BatchField::Seq => offset_of!(Batch, seq),
                BatchField::QStart => offset_of!(Batch, q_start),
                BatchField::KvLen => offset_of!(Batch, kv_len),
                BatchField::RopeLength => offset_of!(Batch, rope_length),
                BatchField::SourceLen => offset_of!(Batch, source_len),
                BatchField::Rows => offset_of!(Batch, rows),
            };
            b.field(Ty::Ptr, batch, at)
        }
        Arg::KvPages(i) => {
            let state = kv_state(b, frame, i);
            let base = b.field(Ty::Ptr, state, offset_of!(KvState, base));
            let stride = b.field(Ty::I64, state, offset_of!(KvState, slot_stride));
            let skip = b.mul(stride, frame.slot);
            b.offset_by(base, skip)
        }
        Arg::KvTable(i) => {
            let state = kv_state(b, frame, i);
            b.field(Ty::Ptr, state, offset_of!(KvState, table))
        }
        Arg::KvTableStride(i) => {
            let state = kv_state(b, frame, i);
            b.field(Ty::I64, state, offset_of!(KvState, table_stride))
        }
        Arg::Table(i) => b.table_f32(&format!("table_{i}"), &plan.tables[i]),
        Arg::Scratch => {
            let scratch = field(b, offset_of!(StepCtx, scratch));
            b.at(scratch, frame.thread, plan.scratch_bytes as i64)
        }
    }
}

fn kv_state(b: &mut KernelBuilder<'_>, frame: Frame, index: usize) -> Value {
    let states = b.field(Ty::Ptr, frame.ctx, offset_of!(StepCtx, kv));
    b.offset(states, (index * size_of::<KvState>()) as i64)
}
