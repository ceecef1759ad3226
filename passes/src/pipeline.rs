//! THE ordered list of passes, by phase.
//!
//! | phase | in → out | what it does |
//! |---|---|---|
//! | [`fused`] | `model` → `fused` | fewer, larger ops; nothing about memory |
//! | [`planned`] | `fused` → `planned` | kernels, layouts, every value's place in memory |
//!
//! The order within a phase matters where a comment says so.

use llmc_ir::Stage;

use crate::*;

/// Stage `model` → stage `fused`, in the precision of the weights' own types.
pub fn fused() -> Vec<Box<dyn Pass>> {
    fused_in(Precision::default())
}

/// Stage `model` → stage `fused`.
pub fn fused_in(precision: Precision) -> Vec<Box<dyn Pass>> {
    vec![
        Box::new(Cse),
        Box::new(Dce),
        Box::new(RaiseAttention),
        Box::new(ShareKvHeads),
        Box::new(SimplifyMasks),
        // Before fuse-qkv and fuse-gate-up: what they join is of one type for good.
        Box::new(QuantizeWeights(precision)),
        Box::new(FuseGateUp),
        // After fuse-gate-up, which wants the gate's activation; it copes with either order.
        Box::new(FuseActivation),
        // After the weights have their types, and gate and up are one matrix in front of the
        // activation; before fuse-norm-linear, so that linears which read the same norm share one
        // quantised value.
        Box::new(QuantizeActivations(precision.activations_of_weights())),
        // After quantize-activations: attention's values may read other codes than queries and keys,
        // and what is joined reads one x.
        Box::new(FuseQkv),
        Box::new(FuseNormQuantize),
        // After fuse-qkv and fuse-gate-up: only then has the norm a single user.
        Box::new(FuseNormLinear),
        Box::new(FuseResidual),
        // After quantize-activations: the arithmetic decides about the cache.
        Box::new(QuantizeKv(precision.kv)),
        Box::new(Dce),
        Box::new(EnterStage(Stage::Fused)),
    ]
}

/// Stage `fused` → stage `planned`.
pub fn planned(facts: TileFacts) -> Vec<Box<dyn Pass>> {
    vec![
        Box::new(FormKernels),
        Box::new(TileAttention(facts)),
        Box::new(ChooseLayouts),
        Box::new(PlanMemory),
        Box::new(EnterStage(Stage::Planned)),
    ]
}

/// The whole way from stage `model` to stage `planned`, in the precision of the weights' own types.
pub fn all(facts: TileFacts) -> Vec<Box<dyn Pass>> {
    all_in(Precision::default(), facts)
}

/// The whole way from stage `model` to stage `planned`.
pub fn all_in(precision: Precision, facts: TileFacts) -> Vec<Box<dyn Pass>> {
    let mut passes = fused_in(precision);
    passes.extend(planned(facts));
    passes
}

/// Every pass once, alphabetical.
fn registry() -> Vec<Box<dyn Pass>> {
    vec![
        Box::new(ChooseLayouts),
        Box::new(Cse),
        Box::new(Dce),
        Box::new(EnterStage(Stage::Fused)),
        Box::new(EnterStage(Stage::Planned)),
        Box::new(FormKernels),
        Box::new(FuseActivation),
        Box::new(FuseGateUp),
        Box::new(FuseNormLinear),
        Box::new(FuseNormQuantize),
        Box::new(FuseQkv),
        Box::new(FuseResidual),
        Box::new(PlanMemory),
        Box::new(QuantizeActivations(Activations::Auto)),
        Box::new(QuantizeKv(Kv::Auto)),
        Box::new(QuantizeWeights(Precision::default())),
        Box::new(RaiseAttention),
        Box::new(ShareKvHeads),
        Box::new(SimplifyMasks),
        Box::new(TileAttention(TileFacts::default())),
    ]
}

/// Names of all passes, alphabetical.
pub fn names() -> Vec<&'static str> {
    registry().iter().map(|p| p.name()).collect()
}

/// A name that no pass has, or a value that a pass does not take.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnknownPass {
    #[error("unknown pass `{name}`; passes are {}; phases are fused, planned, all", names().join(", "))]
    Name { name: String },
    #[error("{pass}: found `{value}`, expected one of {expected}")]
    Value {
        pass: String,
        value: String,
        expected: String,
    },
}

/// The passes of `--passes=a,b`; a phase's name stands for its passes. A pass that decides on types
/// takes its choice behind a sign: `quantize-weights=q4_0`.
pub fn passes_by_name(list: &str) -> Result<Vec<Box<dyn Pass>>, UnknownPass> {
    let mut passes = Vec::new();
    for name in list.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        match name {
            "fused" => passes.extend(fused()),
            "planned" => passes.extend(planned(TileFacts::default())),
            "all" => passes.extend(all(TileFacts::default())),
            _ => passes.push(match name.split_once('=') {
                Some((name, value)) => pass_with(name, value)?,
                None => pass(name)?,
            }),
        }
    }
    Ok(passes)
}

fn pass(name: &str) -> Result<Box<dyn Pass>, UnknownPass> {
    let found = registry().into_iter().find(|p| p.name() == name);
    found.ok_or_else(|| UnknownPass::Name {
        name: name.to_string(),
    })
}

/// The pass called `name` with its choice.
fn pass_with(name: &str, value: &str) -> Result<Box<dyn Pass>, UnknownPass> {
    let unknown = |expected: String| UnknownPass::Value {
        pass: name.to_string(),
        value: value.to_string(),
        expected,
    };
    Ok(match name {
        "quantize-weights" => {
            let quant = Quant::from_name(value).ok_or_else(|| unknown(Quant::names()))?;
            let precision = Precision {
                quant,
                ..Precision::default()
            };
            Box::new(QuantizeWeights(precision))
        }
        "quantize-activations" => {
            let found = Activations::from_name(value);
            Box::new(QuantizeActivations(
                found.ok_or_else(|| unknown(Activations::names()))?,
            ))
        }
        "quantize-kv" => {
            let found = Kv::from_name(value);
            Box::new(QuantizeKv(found.ok_or_else(|| unknown(Kv::names()))?))
        }
        _ => {
            pass(name)?;
            return Err(unknown("nothing: the pass takes no value".into()));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pass_of_the_pipeline_has_a_name() {
        let names = names();
        assert!(names.is_sorted(), "{names:?}");
        for pass in all(TileFacts::default()) {
            assert!(names.contains(&pass.name()), "{}", pass.name());
        }
    }

    #[test]
    fn finds_passes_and_phases() {
        let list = |s: &str| -> Vec<&str> {
            passes_by_name(s)
                .unwrap()
                .iter()
                .map(|p| p.name())
                .collect()
        };
        assert_eq!(list("fuse-qkv, dce"), ["fuse-qkv", "dce"]);
        assert_eq!(list("planned").len(), planned(TileFacts::default()).len());
        let error = passes_by_name("cse,nothing").err().unwrap();
        assert_eq!(
            error,
            UnknownPass::Name {
                name: "nothing".into()
            }
        );
        assert_eq!(list("quantize-kv=q8_0"), ["quantize-kv"]);
        for wrong in ["quantize-weights=q9", "quantize-kv=int8", "cse=1"] {
            let error = passes_by_name(wrong).err().unwrap();
            assert!(matches!(error, UnknownPass::Value { .. }), "{error}");
        }
    }
}
