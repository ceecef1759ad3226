//! `quantize-kv`: the element type of the caches of keys and values.
//!
//! ```text
//! state @kv[24] : kv_cache<f32, heads = 2, …>   →   state @kv[24] : kv_cache<f16, heads = 2, …>
//! ```
//!
//! `auto` makes f16 of f32 where some product reads quantised activations, and leaves the rest. q8_0
//! wants heads of whole blocks of 32.

use llmc_ir::{DType, Module, Op};

use crate::{Kv, Pass, PassError, Remarks, Stats};

/// Sets the element type of states.
pub struct QuantizeKv(pub Kv);

impl Pass for QuantizeKv {
    fn name(&self) -> &'static str {
        "quantize-kv"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Stats, PassError> {
        let mut insts = module.funcs.iter().flat_map(|f| &f.body);
        let quantised = insts.any(|i| matches!(i.op, Op::Quantize(_)));
        let mut rewrites = 0;
        for state in &mut module.states {
            let auto = match state.dtype {
                DType::F32 if quantised => DType::F16,
                dtype => dtype,
            };
            let dtype = self.0.dtype().unwrap_or(auto);
            let block = dtype.block_len();
            if !state.k_dim.is_multiple_of(block) || !state.v_dim.is_multiple_of(block) {
                let (k, v) = (state.k_dim, state.v_dim);
                let what = format!(
                    "a cache of {} holds heads of whole blocks of {block}; keys have {k} elements, values {v}",
                    dtype.name()
                );
                return Err(PassError::refused(&state.name, what));
            }
            if dtype != state.dtype {
                let (from, to) = (state.dtype.name(), dtype.name());
                remarks.note(&state.name, format!("{from} → {to}"));
                state.dtype = dtype;
                rewrites += 1;
            }
        }
        Ok(Stats::of(rewrites))
    }
}
