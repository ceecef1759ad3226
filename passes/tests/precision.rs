//! What a choice of precision does to a whole module.

use llmc_ir::{Module, parse::parse};
use llmc_passes::{Activations, Manager, Precision, Quant, TileFacts, pipeline};

fn compiled(text: &str, precision: Precision) -> (Module, Vec<String>) {
    let mut module = parse(text).unwrap_or_else(|e| panic!("{e}"));
    let passes = pipeline::all_in(precision, TileFacts::default());
    let report = Manager::new()
        .run(&passes, &mut module)
        .unwrap_or_else(|e| panic!("{e}"));
    (
        module,
        report.remarks.iter().map(ToString::to_string).collect(),
    )
}

const LLAMA: &str = include_str!("../../tests/filetests/passes/whole-pipeline/llama.tir");
const HEADS_OF_24: &str =
    include_str!("../../tests/filetests/passes/quantize-weights/fallback.tir");

fn body(module: &Module) -> String {
    module
        .to_string()
        .lines()
        .filter(|l| !l.starts_with("weight"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// One type for all weights, products in f32: nothing but the weights' types differs.
#[test]
fn uniform_types_fuse_as_plain_ones() {
    let (plain, _) = compiled(LLAMA, Precision::default());
    let quant = Quant::Q8_0;
    let exact = Precision {
        quant,
        activations: Activations::F32,
        ..Precision::default()
    };
    let (quantised, _) = compiled(LLAMA, exact);
    assert_eq!(body(&quantised), body(&plain));
    let weights = |m: &Module| {
        m.weights
            .iter()
            .map(|w| (w.name.clone(), w.pack.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(weights(&quantised), weights(&plain));
    let q8_0 = |m: &Module| {
        m.weights
            .iter()
            .filter(|w| w.ty.dtype.name() == "q8_0")
            .count()
    };
    // The table, queries to values, gate and up; heads of 24 and rows of 200 have no blocks.
    assert_eq!((q8_0(&plain), q8_0(&quantised)), (0, 3));
}

/// f32 activations of heads that no SIMD group divides are stored with gaps: their matrix is f16.
#[test]
fn matrices_behind_gaps_fall_back() {
    let of = |activations| {
        let precision = Precision {
            quant: Quant::Q8_0,
            activations,
            ..Precision::default()
        };
        let (module, remarks) = compiled(HEADS_OF_24, precision);
        let wo = module
            .weights
            .iter()
            .find(|w| w.name == "layer.wo")
            .expect("the output projection");
        (wo.ty.dtype.name(), remarks)
    };
    let (exact, remarks) = of(Activations::F32);
    let note = "note: quantize-weights: @layer.wo: f32 → f16, layers 0-1 (q8_0: x is stored in heads with gaps, and stays f32)";
    assert!(
        exact == "f16" && remarks.iter().any(|r| r == note),
        "{exact}: {remarks:#?}"
    );
    assert_eq!(of(Activations::Auto).0, "q8_0");
}

#[test]
fn weights_asked_to_be_bf16_multiply_bf16() {
    let count = |activations| {
        let precision = Precision {
            quant: Quant::Bf16,
            activations,
            ..Precision::default()
        };
        let text = compiled(HEADS_OF_24, precision).0.to_string();
        (text.contains("= quantize %"), text.contains("kv_cache<f16"))
    };
    assert_eq!(count(Activations::Auto), (true, true));
    assert_eq!(count(Activations::F32), (false, false));
}
