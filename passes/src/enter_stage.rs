//! `enter-fused`, `enter-planned`: from here on the module answers to the next stage's legality.
//!
//! ```text
//! stage = model   →   stage = fused
//! ```

use llmc_ir::{Module, Stage};

use crate::{Pass, PassError, Remarks, Stats};

/// Declares the module to be at the stage.
pub struct EnterStage(pub Stage);

impl Pass for EnterStage {
    fn name(&self) -> &'static str {
        match self.0 {
            Stage::Model => "enter-model",
            Stage::Fused => "enter-fused",
            Stage::Planned => "enter-planned",
        }
    }

    fn run(&self, module: &mut Module, _: &mut Remarks) -> Result<Stats, PassError> {
        if module.stage > self.0 {
            return Err(PassError::out_of_order(
                &module.name,
                format!("the module is at stage {} already", module.stage.name()),
            ));
        }
        let moved = module.stage != self.0;
        module.stage = self.0;
        Ok(Stats::of(moved.into()))
    }
}
