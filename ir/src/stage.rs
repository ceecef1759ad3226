//! What each stage demands (V13), and what a family may write.
//!
//! | stage | demands |
//! |---|---|
//! | `model` | nothing: a family's module, or one on its way to `fused` |
//! | `fused` | attention is one op: no `alibi`, `attn_bias`, `attn_disentangled`, `attn_mix`, `attn_scores`, `kv_read`, `mask`, `softmax` |
//! | `planned` | that, and: kernels in every function, a schedule for every attention, the arena's size (places and packs: V15, V17) |
//!
//! A stage is what has been reached: passes work towards the next one, so that a module at stage
//! `fused` may have kernels already. What a family writes is stricter ([`fresh`]): nothing fused into a
//! linear, no quantised activations, nothing planned.

use crate::{
    Func, Inst, Module, Op, Stage,
    verify::{Found, Violation, verify},
};

/// Whether the op is a part of decomposed attention.
pub fn is_decomposed_attention(op: &Op) -> bool {
    match op {
        Op::Alibi(_)
        | Op::AttnBias(_)
        | Op::AttnDisentangled(_)
        | Op::AttnMix(_)
        | Op::AttnScores(_)
        | Op::KvRead(_)
        | Op::MaskScores(_)
        | Op::Softmax(_) => true,
        Op::Activation(_)
        | Op::Add(_)
        | Op::Attention(_)
        | Op::Experts(_)
        | Op::Gather(_)
        | Op::Glu(_)
        | Op::KvAppend(_)
        | Op::KvSource(_)
        | Op::L2Normalize(_)
        | Op::LayerNorm(_)
        | Op::Linear(_)
        | Op::MergeHeads(_)
        | Op::Mul(_)
        | Op::Pool(_)
        | Op::PositionIds(_)
        | Op::Quantize(_)
        | Op::Repeat(_)
        | Op::RmsNorm(_)
        | Op::Rope(_)
        | Op::RopeAngles(_)
        | Op::Route(_)
        | Op::Rows(_)
        | Op::Scale(_)
        | Op::Softcap(_)
        | Op::Split(_)
        | Op::SplitHeads(_)
        | Op::Substitute(_)
        | Op::Unfold(_) => false,
    }
}

/// V13.
pub(crate) fn check(found: &mut Found<'_>) {
    let module = found.module;
    for func in &module.funcs {
        for inst in &func.body {
            if let Err(message) = at_stage(module.stage, inst) {
                found.inst("V13", func, inst, message);
            }
        }
        if module.stage == Stage::Planned && func.kernels.is_empty() && !func.body.is_empty() {
            found.func("V13", func, "stage planned: no kernels");
        }
    }
    if module.stage == Stage::Planned && module.arena_bytes.is_none() {
        found.global("V13", "stage planned: the arena has no size");
    }
}

fn at_stage(stage: Stage, inst: &Inst) -> Result<(), String> {
    if stage >= Stage::Fused && is_decomposed_attention(&inst.op) {
        return Err(format!("stage {}: attention is one op", stage.name()));
    }
    match &inst.op {
        Op::Attention(a) if stage == Stage::Planned && a.schedule.is_none() => {
            Err("stage planned: attention has no schedule".into())
        }
        _ => Ok(()),
    }
}

/// What [`verify`] finds, and what a family must not write: anything fused or planned.
pub fn fresh(module: &Module) -> Vec<Violation> {
    let mut list = verify(module);
    let mut push = |func: Option<&Func>, inst: Option<&Inst>, message: &str| {
        list.push(Violation {
            code: "V13",
            func: func.map(|f| f.name.clone()),
            inst: func
                .zip(inst)
                .map(|(f, i)| crate::print::inst_text(module, f, i)),
            message: format!("a family's module: {message}"),
        });
    };
    if module.stage != Stage::Model || module.arena_bytes.is_some() {
        push(None, None, "it is at stage model, without an arena");
    }
    if module.weights.iter().any(|w| w.pack.is_some()) {
        push(None, None, "a weight is packed");
    }
    for func in &module.funcs {
        if !func.kernels.is_empty() || func.values.iter().any(|v| v.place.is_some()) {
            push(Some(func), None, "it has kernels or places");
        }
        for inst in &func.body {
            match &inst.op {
                Op::Linear(l)
                    if l.norm.is_some() || l.act.is_some() || l.glu.is_some() || l.residual =>
                {
                    push(Some(func), Some(inst), "something is fused into a linear");
                }
                Op::Quantize(_) => push(Some(func), Some(inst), "an activation is quantised"),
                Op::Experts(e) if e.inner.is_some() => {
                    push(Some(func), Some(inst), "an activation is quantised");
                }
                Op::Attention(a) if a.schedule.is_some() => {
                    push(Some(func), Some(inst), "attention has a schedule");
                }
                _ => {}
            }
        }
    }
    list
}
