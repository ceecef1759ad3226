//! x86-64 Linux: the AVX2 and AVX-512 levels of the psABI.

use crate::target::{FeatureLevel, Target};

pub const X86_64_LINUX: Target = Target {
    triple: "x86_64-unknown-linux-gnu",
    levels: &[V3, V4],
};

/// Haswell and Zen 1 onwards: 16 registers of 8 floats.
pub const V3: FeatureLevel = FeatureLevel {
    name: "x86-64-v3",
    suffix: "v3",
    llvm_cpu: "x86-64-v3",
    llvm_features: "",
    requires: &[
        "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe", "popcnt",
    ],
    vector_bits: 256,
    vector_registers: 16,
    byte_dots: false,
    bit_matrices: false,
};

/// Ice Lake and Zen 4 onwards: 32 registers of 16 floats, dot products of bytes, bit matrices.
/// AVX-512 machines without those run the level below.
pub const V4: FeatureLevel = FeatureLevel {
    name: "x86-64-v4",
    suffix: "v4",
    llvm_cpu: "x86-64-v4",
    llvm_features: "+avx512vbmi,+avx512vnni,+gfni,-prefer-256-bit",
    requires: &[
        "avx2",
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512f",
        "avx512vbmi",
        "avx512vl",
        "avx512vnni",
        "bmi1",
        "bmi2",
        "f16c",
        "fma",
        "gfni",
        "lzcnt",
        "movbe",
        "popcnt",
    ],
    vector_bits: 512,
    vector_registers: 32,
    byte_dots: true,
    bit_matrices: true,
};

/// Whether the machine that this runs on has a feature of [`FeatureLevel::requires`].
#[cfg(target_arch = "x86_64")]
pub fn host_has(feature: &str) -> bool {
    macro_rules! known {
        ($($name:tt)*) => {
            match feature {
                $($name => std::is_x86_feature_detected!($name),)*
                _ => false,
            }
        };
    }
    known! {
        "avx2" "avx512bw" "avx512cd" "avx512dq" "avx512f" "avx512vbmi" "avx512vl" "avx512vnni"
        "bmi1" "bmi2" "f16c" "fma" "gfni" "lzcnt" "movbe" "popcnt"
    }
}

/// Another machine has none of them.
#[cfg(not(target_arch = "x86_64"))]
pub fn host_has(_: &str) -> bool {
    false
}
