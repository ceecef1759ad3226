//! Passes keep the meaning: the evaluator computes the same after every prefix of the pipeline.
//!
//! Random small models ([`random`]) run two steps, two sequences and then a mixed step. Sums in f64 make
//! the results agree to rounding; the verifier looks at every module on the way, its memory included.

mod random;

use llmc_ir::{
    Module,
    eval::{Evaluator, SeqStep, StepInput, StepOutput},
};
use llmc_passes::{Activations, Kv, Manager, Precision, Quant, TileFacts, pipeline};
use proptest::prelude::*;

/// Two sequences' first tokens, then more of the second and a third one.
fn steps(decoder: bool) -> Vec<StepInput> {
    let step = |seqs: &[(u32, u32, u32)]| {
        let mut input = StepInput::default();
        for &(id, past, new) in seqs {
            for t in past..past + new {
                input.ids.push(((id * 17 + t * 7 + 3) % 50) as i32);
                input.pos.push(t as i32);
            }
            input.rows.push(input.ids.len() as u32 - 1);
            input.seqs.push(SeqStep { id, past, new });
        }
        input
    };
    let mut list = vec![step(&[(0, 0, 7), (1, 0, 13)])];
    if decoder {
        list.push(step(&[(1, 13, 1), (2, 0, 5), (0, 7, 20)]));
    }
    list
}

fn run(module: &Module, weights: &random::Weights, decoder: bool) -> Vec<StepOutput> {
    let mut evaluator = Evaluator::new(module, weights).unwrap_or_else(|e| panic!("{e}\n{module}"));
    let run = |s: &StepInput| {
        evaluator
            .step(s)
            .unwrap_or_else(|e| panic!("{e}\n{module}"))
    };
    steps(decoder).iter().map(run).collect()
}

/// The largest difference, relative to the largest number.
fn difference(a: &StepOutput, b: &StepOutput) -> f32 {
    let mut worst = 0.0f32;
    assert_eq!(a.results.len(), b.results.len());
    let results = a.results.iter().map(|(name, x)| (x, &b.results[name]));
    for (x, y) in results.chain(a.hidden.iter().zip(&b.hidden)) {
        assert_eq!(x.dims, y.dims);
        let size = x.data.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
        for (v, w) in x.data.iter().zip(&y.data) {
            let off = (v - w).abs() / size;
            worst = if off <= worst { worst } else { off };
        }
    }
    worst
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_prefix_computes_the_same(spec in random::spec()) {
        let mut module = random::module(&spec);
        let weights = random::Weights::of(&module);
        let decoder = !spec.encoder;
        let expected = run(&module, &weights, decoder);
        for pass in pipeline::all(TileFacts::default()) {
            let name = pass.name();
            let before = module.clone();
            if let Err(e) = Manager::new().run(&[pass], &mut module) {
                prop_assert!(false, "{name}: {e}\nfrom\n{before}\nto\n{module}");
            }
            let found = run(&module, &weights, decoder);
            for (e, f) in expected.iter().zip(&found) {
                let off = difference(e, f);
                prop_assert!(off < 1e-4, "{off} after {name}\nfrom\n{before}\nto\n{module}");
            }
        }
    }
}

/// A spec whose rows are blocks, more or less.
fn wide(mut spec: random::Spec) -> random::Spec {
    spec.width *= 16;
    spec.inner *= 8;
    (spec.head_dim, spec.rope) = (spec.head_dim * 4, spec.rope * 4);
    spec
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Once weights and activations have their types, the passes behind keep what the module computes:
    /// to rounding where products read f32, and nearly where they read 8 bits, since rounding moves
    /// values to other codes. The verifier looks at the memory of quantised values on the way.
    #[test]
    fn quantised_modules_compute_the_same(
        spec in random::spec(),
        quant in prop::sample::select(Quant::ALL.to_vec()),
        exact: bool,
        kv in prop::sample::select(vec![Kv::F32, Kv::Auto]),
    ) {
        let mut module = random::module(&wide(spec));
        let decoder = !module.states.is_empty();
        let weights = random::Weights::of(&module);
        let activations = if exact { Activations::F32 } else { Activations::Auto };
        let precision = Precision { quant, activations, kv: if exact { kv } else { Kv::F32 } };
        let mut expected = None;
        for pass in pipeline::all_in(precision, TileFacts::default()) {
            let (name, before) = (pass.name(), module.clone());
            if let Err(e) = Manager::new().run(&[pass], &mut module) {
                prop_assert!(false, "{name}: {e}\nfrom\n{before}\nto\n{module}");
            }
            if name == if exact { "quantize-weights" } else { "quantize-activations" } {
                expected = Some(run(&module, &weights, decoder));
            }
        }
        let bound = if exact { 1e-4 } else { 0.25 };
        for (e, f) in expected.iter().flatten().zip(&run(&module, &weights, decoder)) {
            let off = difference(e, f);
            prop_assert!(off < bound, "{off} of {precision:?} in\n{module}");
        }
    }
}
