//! Which of the compiled CPU feature levels this machine can run.
//!
//! Input: the manifest's levels, worst first, each with the features it needs by name. Output: the
//! index of the best one, or a refusal that names what is missing. Nothing of the runtime is
//! compiled for more than the target's baseline, so this runs before any instruction of a level.

use crate::{Error, Result};
use llmc_abi::LevelInfo;

macro_rules! known {
    ($detect:ident, $name:expr, $($feature:tt)*) => {
        match $name {
            $($feature => std::arch::$detect!($feature),)*
            _ => false,
        }
    };
}

/// Whether this CPU has a feature, by its name in `is_x86_feature_detected!` (or the macro of the
/// target). Names that this runtime does not know count as missing.
#[cfg(target_arch = "x86_64")]
pub fn has_feature(name: &str) -> bool {
    known!(is_x86_feature_detected, name,
        "adx" "aes" "avx" "avx2" "avx512bf16" "avx512bitalg" "avx512bw" "avx512cd" "avx512dq"
        "avx512f" "avx512fp16" "avx512ifma" "avx512vbmi" "avx512vbmi2" "avx512vl" "avx512vnni"
        "avx512vp2intersect" "avx512vpopcntdq" "avxifma" "avxneconvert" "avxvnni" "avxvnniint16"
        "avxvnniint8" "bmi1" "bmi2" "cmpxchg16b" "f16c" "fma" "fxsr" "gfni" "lzcnt" "movbe"
        "pclmulqdq" "popcnt" "rdrand" "rdseed" "sha" "sse" "sse2" "sse3" "sse4.1" "sse4.2" "ssse3"
        "vaes" "vpclmulqdq" "xsave" "xsavec" "xsaveopt" "xsaves")
}

/// Whether this CPU has a feature, by its name in `is_aarch64_feature_detected!`.
#[cfg(target_arch = "aarch64")]
pub fn has_feature(name: &str) -> bool {
    known!(is_aarch64_feature_detected, name,
        "asimd" "neon" "bf16" "crc" "dotprod" "fcma" "fhm" "fp16" "i8mm" "lse" "rdm" "sve" "sve2")
}

/// Whether this CPU has a feature: none are known on this architecture.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn has_feature(_name: &str) -> bool {
    false
}

/// The best level whose features are all there; `wanted` restricts the choice to one by name.
pub fn choose_level(
    levels: &[LevelInfo],
    wanted: Option<&str>,
    has: impl Fn(&str) -> bool,
) -> Result<usize> {
    let names = || {
        levels
            .iter()
            .map(|l| l.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    if let Some(name) = wanted
        && !levels.iter().any(|l| l.name == name)
    {
        return Err(Error::Usage(format!(
            "no level `{name}` in this executable: it has {}",
            names()
        )));
    }
    let candidates = || {
        levels
            .iter()
            .enumerate()
            .filter(|(_, l)| wanted.is_none_or(|w| l.name == w))
    };
    let runs = |l: &LevelInfo| l.features.iter().all(|f| has(f));
    if let Some((index, _)) = candidates().rev().find(|(_, l)| runs(l)) {
        return Ok(index);
    }
    // The least demanding candidate is what the user is nearest to.
    let Some((_, level)) = candidates().next() else {
        return Err(Error::Payload(
            "this executable holds no code for any CPU level".into(),
        ));
    };
    let missing: Vec<&str> = level
        .features
        .iter()
        .map(String::as_str)
        .filter(|f| !has(f))
        .collect();
    Err(Error::Machine(format!(
        "this CPU cannot run the compiled code: level `{}` needs {} (compile again with a lower --target-cpu)",
        level.name,
        missing.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels() -> Vec<LevelInfo> {
        let level = |name: &str, features: &[&str]| LevelInfo {
            name: name.into(),
            features: features.iter().map(|f| f.to_string()).collect(),
        };
        vec![
            level("x86-64-v3", &["avx2", "fma"]),
            level("x86-64-v4", &["avx2", "fma", "avx512f"]),
        ]
    }

    #[test]
    fn the_best_level_wins() {
        assert_eq!(choose_level(&levels(), None, |_| true).unwrap(), 1);
        assert_eq!(
            choose_level(&levels(), None, |f| f != "avx512f").unwrap(),
            0
        );
        assert_eq!(
            choose_level(&levels(), Some("x86-64-v3"), |_| true).unwrap(),
            0
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let e = choose_level(&levels(), None, |f| f == "avx2").unwrap_err();
        assert!(e.to_string().contains("needs fma"), "{e}");
        assert_eq!(e.exit_code(), 1);
        let e = choose_level(&levels(), Some("znver9"), |_| true).unwrap_err();
        assert_eq!(e.exit_code(), 2);
        assert!(choose_level(&[], None, |_| true).is_err());
    }

    #[test]
    fn unknown_features_are_missing() {
        assert!(!has_feature("avx1024"));
    }
}
