//! Made-up weights: any name holds numbers that depend on it alone.

use std::{borrow::Cow, ops::Range};

use llmc_ir::{
    DType, Module,
    source::{self, TensorInfo, TensorSource},
};

/// Made-up tensors: any name holds numbers that depend on it.
pub struct Weights(pub Vec<(String, TensorInfo)>);

impl Weights {
    /// The tensors that a module's weights name.
    pub fn of(module: &Module) -> Weights {
        let mut list = Vec::new();
        for w in &module.weights {
            let info = TensorInfo {
                dtype: w.ty.dtype,
                dims: w.ty.fixed_dims().unwrap(),
            };
            for layer in 0..module.layers().len() as u32 {
                let name = source::tensor_name(&w.source.parts[0].name, Some(layer));
                list.push((name.to_string(), info.clone()));
            }
        }
        Weights(list)
    }
}

impl TensorSource for Weights {
    fn info(&self, name: &str) -> Option<TensorInfo> {
        let found = self.0.iter().find(|(n, _)| n == name);
        found.map(|(_, info)| info.clone())
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>, String> {
        let dtype = self.info(name).ok_or("no such tensor")?.dtype;
        let size = dtype.row_bytes(1);
        let seed = name
            .bytes()
            .fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
        let numbers = (range.start / size)..(range.end / size);
        let bytes = numbers.flat_map(|i| {
            let mut h =
                (seed ^ i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
            h = (h ^ (h >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
            let x = ((h >> 40) as f32 / (1 << 23) as f32 - 1.0) * 0.5;
            let bits = x.to_bits();
            match dtype {
                DType::BF16 => ((bits >> 16) as u16).to_le_bytes().to_vec(),
                _ => bits.to_le_bytes().to_vec(),
            }
        });
        Ok(Cow::Owned(bytes.collect()))
    }

    fn release(&self, _: &str, _: Range<u64>) {}
}
