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

/// Stage `model` → stage `fused`.
pub fn fused() -> Vec<Box<dyn Pass>> {
    vec![
        Box::new(Cse),
        Box::new(Dce),
        Box::new(RaiseAttention),
        Box::new(ShareKvHeads),
        Box::new(SimplifyMasks),
        Box::new(FuseQkv),
        Box::new(FuseGateUp),
        // After fuse-gate-up, which wants the gate's activation; it copes with either order.
        Box::new(FuseActivation),
        // After fuse-qkv and fuse-gate-up: only then has the norm a single user.
        Box::new(FuseNormLinear),
        Box::new(FuseResidual),
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

/// The whole way from stage `model` to stage `planned`.
pub fn all(facts: TileFacts) -> Vec<Box<dyn Pass>> {
    let mut passes = fused();
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
        Box::new(FuseQkv),
        Box::new(FuseResidual),
        Box::new(PlanMemory),
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

/// A name that no pass has.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown pass `{name}`; passes are {}; phases are fused, planned, all", names().join(", "))]
pub struct UnknownPass {
    pub name: String,
}

/// The passes of `--passes=a,b`; a phase's name stands for its passes.
pub fn passes_by_name(list: &str) -> Result<Vec<Box<dyn Pass>>, UnknownPass> {
    let mut passes = Vec::new();
    for name in list.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        match name {
            "fused" => passes.extend(fused()),
            "planned" => passes.extend(planned(TileFacts::default())),
            "all" => passes.extend(all(TileFacts::default())),
            name => match registry().into_iter().find(|p| p.name() == name) {
                Some(pass) => passes.push(pass),
                None => {
                    return Err(UnknownPass {
                        name: name.to_string(),
                    });
                }
            },
        }
    }
    Ok(passes)
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
        assert_eq!(error.name, "nothing");
    }
}
