//! Passes keep the meaning: the evaluator computes the same after every prefix of the pipeline.
//!
//! Random small models ([`random`]) run two steps, two sequences and then a mixed step. Sums in f64 make
//! the results agree to rounding; the verifier looks at every module on the way, its memory included.

mod random;

use llmc_ir::{
    Module,
    eval::{Evaluator, SeqStep, StepInput, StepOutput},
};
use llmc_passes::{Manager, TileFacts, pipeline};
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
