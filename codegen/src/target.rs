//! What a target is: facts as data, read by kernels and by the LLVM stage.
//!
//! In: nothing. Out: [`Target`] and [`FeatureLevel`] values from `targets/*.rs`.
//! Not here: decisions; a kernel asks for registers and widths, never for a CPU by name.

/// A machine to compile for.
#[derive(Debug)]
pub struct Target {
    /// LLVM triple.
    pub triple: &'static str,
    /// Feature levels, worst first; a multi-version program carries all of them.
    pub levels: &'static [FeatureLevel],
}

impl Target {
    /// The level of that name.
    pub fn level(&self, name: &str) -> Option<&'static FeatureLevel> {
        self.levels.iter().find(|l| l.name == name)
    }
}

/// One instruction-set level of a target.
#[derive(Debug)]
pub struct FeatureLevel {
    /// Name on the command line and in the manifest.
    pub name: &'static str,
    /// Ends the exported symbols of this level: `step_v3`.
    pub suffix: &'static str,
    pub llvm_cpu: &'static str,
    /// LLVM feature string, added to what the CPU implies.
    pub llvm_features: &'static str,
    /// Features to check before running, in `std::is_x86_feature_detected!` spelling.
    pub requires: &'static [&'static str],
    /// Bits of a vector register.
    pub vector_bits: u32,
    /// Vector registers.
    pub vector_registers: u32,
    /// Sums of four products of unsigned and signed bytes, in 16 lanes of i32 (`vpdpbusd`).
    pub byte_dots: bool,
    /// Bit matrices over bytes (`gf2p8affineqb`).
    pub bit_matrices: bool,
}

impl FeatureLevel {
    /// A symbol of this level.
    pub fn symbol(&self, stem: &str) -> String {
        format!("{stem}_{}", self.suffix)
    }

    /// Registers that 16 f32 lanes take.
    pub const fn registers_per_group(&self) -> u32 {
        16 * 32 / self.vector_bits
    }

    /// How many 16-lane column groups a register tile of `rows` rows can hold at once.
    ///
    /// Accumulators (`rows × groups`), the weight groups and one broadcast must fit; a single row
    /// needs no weight registers, because the multiply-add reads memory.
    pub const fn tile_groups(&self, rows: u32) -> u32 {
        let weights = if rows == 1 { 0 } else { 1 };
        let fit = (self.vector_registers - 1) / ((rows + weights) * self.registers_per_group());
        if fit >= 4 {
            4
        } else if fit >= 2 {
            2
        } else {
            1
        }
    }
}
