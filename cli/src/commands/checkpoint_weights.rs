//! A checkpoint as the source of a module in text form.
//!
//! A module names tensors as its family does; a checkpoint may have or lack the prefix of the base
//! model. Which family it is a text does not say, so the prefixes of all are tried, the plain name
//! first. Deliberately not here: shapes, which the evaluator compares with the module's.

use std::{borrow::Cow, ops::Range, path::Path};

use llmc_frontend::{
    WeightSource,
    models::FAMILIES,
    weights::{self, bound::Naming},
};
use llmc_ir::{TensorSource, source::TensorInfo};

/// The tensors of a checkpoint, or none.
pub struct CheckpointWeights(Option<Box<dyn WeightSource>>);

impl CheckpointWeights {
    /// Opens a directory, a .safetensors file, an index or a GGUF file.
    pub fn open(path: &Path) -> llmc::Result<CheckpointWeights> {
        Ok(CheckpointWeights(Some(weights::open(path)?)))
    }

    /// No tensors.
    pub fn none() -> CheckpointWeights {
        CheckpointWeights(None)
    }

    /// What the checkpoint calls a tensor.
    fn stored(&self, name: &str) -> Option<(&dyn WeightSource, String)> {
        let source = self.0.as_deref()?;
        let mut prefixes = FAMILIES.iter().map(|family| family.prefix);
        let found = prefixes.find_map(|prefix| {
            let naming = Naming { source, prefix };
            naming.stored(name).map(|(stored, _)| stored)
        });
        found.map(|stored| (source, stored))
    }
}

impl TensorSource for CheckpointWeights {
    fn info(&self, name: &str) -> Option<TensorInfo> {
        let (source, stored) = self.stored(name)?;
        let info = source.info(&stored)?;
        let dtype = info.stored.dtype()?;
        let dims = info
            .shape
            .iter()
            .map(|&dim| u32::try_from(dim).ok())
            .collect::<Option<_>>()?;
        Some(TensorInfo { dtype, dims })
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>, String> {
        let (source, stored) = self
            .stored(name)
            .ok_or_else(|| format!("the checkpoint has no `{name}`"))?;
        source.read(&stored, range).map_err(|e| e.to_string())
    }

    fn release(&self, name: &str, range: Range<u64>) {
        if let Some((source, stored)) = self.stored(name) {
            source.release(&stored, range);
        }
    }
}
