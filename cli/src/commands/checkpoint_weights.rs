//! A checkpoint as the source of a module in text form.
//!
//! A module names tensors as its family does; a checkpoint may have or lack the prefix of the base
//! model. Which family it is a text does not say, so the prefixes of all are tried, the plain name
//! first. Deliberately not here: shapes, which the evaluator compares with the module's.

use std::{borrow::Cow, ops::Range, path::Path};

use llmc_frontend::{
    WeightSource,
    models::FAMILIES,
    weights::{StoredType, bound::Naming, checkpoint::Checkpoint},
};
use llmc_ir::{DType, TensorSource, source::TensorInfo};

/// The tensors of a checkpoint, or none.
pub struct CheckpointWeights(Option<Checkpoint>);

impl CheckpointWeights {
    /// Opens a directory, a .safetensors file or an index.
    pub fn open(path: &Path) -> llmc::Result<CheckpointWeights> {
        Ok(CheckpointWeights(Some(Checkpoint::open(path)?)))
    }

    /// No tensors.
    pub fn none() -> CheckpointWeights {
        CheckpointWeights(None)
    }

    /// What the checkpoint calls a tensor.
    fn stored(&self, name: &str) -> Option<(&Checkpoint, String)> {
        let source = self.0.as_ref()?;
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
        let dtype = match info.stored {
            StoredType::F32 => DType::F32,
            StoredType::F16 => DType::F16,
            StoredType::BF16 => DType::BF16,
            _ => return None,
        };
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
