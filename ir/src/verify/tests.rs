//! Invariants that no text can break: the parser resolves names to ids in range, and refuses what is
//! defined twice or later. The others have filetests: `tests/filetests/verify/v<n>.tir`.

use super::verify;
use crate::{
    Dims, Func, FuncBuilder, Inst, Kernel, Module, Operand, Place, StateId, Sym, Type, ValueId,
    Weight, WeightId,
    ops::{Add, Scale},
};

/// `%x = gather %ids, @t; %y = add %x, %x; return y = %y`.
fn module() -> Module {
    let mut m = Module::new(
        "m",
        Dims {
            n: 8,
            r: 8,
            b: 4,
            t: 16,
        },
    );
    let ty = crate::TensorType::weight(crate::DType::F32, &[8, 4]);
    let source = crate::Source::tensor("t");
    let t = m.add_weight(Weight {
        name: "t".into(),
        slots: None,
        ty,
        source,
        pack: None,
    });
    let mut b = FuncBuilder::new(&mut m, "forward");
    let ids = b.param("ids", Type::ids());
    let gather = crate::ops::Gather { scale: 1.0 };
    let x = b
        .push1("x", gather, &[ids.into(), t.into()])
        .expect("gather");
    let y = b.push1("y", Add, &[x.into(), x.into()]).expect("add");
    b.finish(&[("y", y)]);
    m
}

#[track_caller]
fn check(change: impl Fn(&mut Module, &mut Func), expected: &[&str]) {
    let mut m = module();
    let mut f = m.funcs.remove(0);
    change(&mut m, &mut f);
    m.funcs.push(f);
    let list = verify(&m);
    let codes: Vec<&str> = list.iter().map(|v| v.code).collect();
    assert_eq!(codes, expected, "{list:#?}\n{m}");
}

#[test]
fn a_legal_module_has_no_violation() {
    check(|_, _| {}, &[]);
}

#[test]
fn names_are_unique() {
    check(|m, _| m.weights.push(m.weights[0].clone()), &["V1"]);
    check(|m, f| m.funcs.push(f.clone()), &["V1"]);
    check(|_, f| f.values[2].name = "x".into(), &["V1"]);
    // A value that nobody defines any more may have any name.
    check(|_, f| f.values.push(f.values[1].clone()), &[]);
}

#[test]
fn ids_are_in_range() {
    check(|_, f| f.params.push(ValueId(99)), &["V2"]);
    check(|_, f| f.body[1].operands[0] = ValueId(99).into(), &["V2"]);
    check(|_, f| f.body[0].operands[1] = WeightId(99).into(), &["V2"]);
    check(
        |_, f| f.body[0].operands[1] = StateId(u32::MAX).into(),
        &["V2"],
    );
    check(|_, f| f.body[1].results[0] = ValueId(99), &["V2", "V3"]);
    check(|_, f| f.results[0].1 = ValueId(99), &["V2"]);
}

#[test]
fn definitions_stand_before_uses() {
    check(|_, f| f.body.swap(0, 1), &["V3", "V3"]);
    check(|_, f| f.body[1].results[0] = ValueId(1), &["V3", "V3"]);
    check(|_, f| f.params.push(ValueId(0)), &["V3"]);
    check(
        |_, f| {
            f.body.pop();
        },
        &["V3"],
    );
}

#[test]
fn every_violation_is_told() {
    check(
        |m, f| {
            m.dims.n = 0;
            m.weights[0].source.parts.clear();
            f.body[1].operands.pop();
            f.results.clear();
        },
        &["V9", "V11", "V4", "V8"],
    );
}

#[test]
fn hostile_plans_do_not_panic() {
    let layout = crate::Layout::heads(u32::MAX, &[u32::MAX, u32::MAX]);
    check(
        |m, f| {
            m.stage = crate::Stage::Planned;
            m.arena_bytes = Some(u64::MAX);
            m.weights[0].pack = Some(crate::Pack::Rows {
                cols: layout.clone(),
            });
            f.kernels.push(Kernel {
                name: "k".into(),
                len: u32::MAX,
            });
            for v in &mut f.values {
                v.place = Some(Place {
                    at: u64::MAX,
                    stride: u32::MAX,
                    layout: layout.clone(),
                });
            }
        },
        &["V14", "V17", "V15", "V15", "V15"],
    );
}

#[test]
fn slots_out_of_range_do_not_panic() {
    check(
        |m, f| {
            let scale = Scale { factor: f32::NAN }.into();
            let results = vec![ValueId(7)];
            f.body.push(Inst {
                op: scale,
                operands: vec![Operand::State(StateId(3))],
                results,
            });
            f.values[0].ty = Type::f32(&[Sym::T.into()]);
            m.weights.clear();
        },
        &["V2", "V2", "V2", "V5", "V8"],
    );
}
