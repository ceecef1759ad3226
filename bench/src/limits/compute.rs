//! The machine's arithmetic peaks: independent multiply-adds in registers, on all threads at once.
//!
//! f32 by fused multiply-add, bf16 by `vdpbf16ps`, int8 by `vpdpbusd`, with the widest registers that the processor
//! has for each. The accumulators cover the latency of an instruction times the units that execute it: 24 of 512 bits,
//! 12 of 256, so that nothing is spilled.

use std::sync::Barrier;
use std::time::Instant;

/// Long enough for the clock to settle, short enough to alternate with.
const SECONDS: f64 = 0.15;

/// Which peak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peak {
    F32,
    Bf16,
    Int8,
}

/// A loop of multiply-adds.
#[derive(Clone, Copy)]
struct Loop {
    /// Does as many steps as told. The processor has what it needs.
    run: unsafe fn(usize),
    /// Operations of a step.
    ops: f64,
}

/// 10⁹ operations a second of `threads` threads together; None where the processor lacks the instruction.
pub fn giga_ops(peak: Peak, threads: usize) -> Option<f64> {
    let Loop { run, ops } = choose(peak)?;
    let barrier = Barrier::new(threads);
    let rates: Vec<f64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let (start, mut steps, mut done) = (Instant::now(), 0, 0.0);
                    while done < SECONDS {
                        // SAFETY: `choose` has seen that the processor has the instructions.
                        unsafe { run(100_000) };
                        steps += 100_000;
                        done = start.elapsed().as_secs_f64();
                    }
                    ops * f64::from(steps) / done / 1e9
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|w| w.join().unwrap_or(0.0))
            .collect()
    });
    Some(rates.iter().sum())
}

#[cfg(not(target_arch = "x86_64"))]
fn choose(_: Peak) -> Option<Loop> {
    None
}

#[cfg(target_arch = "x86_64")]
fn choose(peak: Peak) -> Option<Loop> {
    use x86_64::*;
    // Lanes of a register × products of a lane × two operations × accumulators.
    let wide = |run, products: f64| Loop {
        run,
        ops: 16.0 * products * 2.0 * WIDE as f64,
    };
    let narrow = |run, products: f64| Loop {
        run,
        ops: 8.0 * products * 2.0 * NARROW as f64,
    };
    match peak {
        Peak::F32 if is_x86_feature_detected!("avx512f") => Some(wide(fma512, 1.0)),
        Peak::F32 if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") => {
            Some(narrow(fma256, 1.0))
        }
        Peak::Bf16 if is_x86_feature_detected!("avx512bf16") => Some(wide(dpbf16_512, 2.0)),
        Peak::Int8 if is_x86_feature_detected!("avx512vnni") => Some(wide(dpbusd512, 4.0)),
        Peak::Int8 if is_x86_feature_detected!("avxvnni") => Some(narrow(dpbusd256, 4.0)),
        Peak::F32 | Peak::Bf16 | Peak::Int8 => None,
    }
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Accumulators of 512 and of 256 bits.
    pub const WIDE: usize = 24;
    pub const NARROW: usize = 12;

    macro_rules! register_loop {
        ($name:ident, $features:literal, $count:ident; $zero:expr, $step:ident($a:expr, $b:expr)) => {
            #[target_feature(enable = $features)]
            pub fn $name(steps: usize) {
                let (a, b) = ($a, $b);
                let mut sums = [$zero; $count];
                for _ in 0..steps {
                    for sum in &mut sums {
                        *sum = $step(*sum, a, b);
                    }
                }
                black_box(sums);
            }
        };
    }

    register_loop!(
        fma512, "avx512f",
        WIDE; _mm512_setzero_ps(),
        _mm512_fmadd_ps(_mm512_set1_ps(0.999), _mm512_set1_ps(black_box(1e-3)))
    );
    register_loop!(
        fma256, "avx2,fma",
        NARROW; _mm256_setzero_ps(),
        _mm256_fmadd_ps(_mm256_set1_ps(0.999), _mm256_set1_ps(black_box(1e-3)))
    );
    register_loop!(
        dpbf16_512, "avx512f,avx512bf16",
        WIDE; _mm512_setzero_ps(),
        _mm512_dpbf16_ps(ones(), ones())
    );
    register_loop!(
        dpbusd512, "avx512f,avx512vnni",
        WIDE; _mm512_setzero_si512(),
        _mm512_dpbusd_epi32(_mm512_set1_epi8(1), _mm512_set1_epi8(black_box(1)))
    );
    register_loop!(
        dpbusd256, "avx2,avxvnni",
        NARROW; _mm256_setzero_si256(),
        _mm256_dpbusd_avx_epi32(_mm256_set1_epi8(1), _mm256_set1_epi8(black_box(1)))
    );

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn ones() -> __m512bh {
        let one = _mm512_set1_ps(black_box(1.0));
        _mm512_cvtne2ps_pbh(one, one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_has_plausible_peaks() {
        for peak in [Peak::F32, Peak::Bf16, Peak::Int8] {
            let found = giga_ops(peak, 1);
            assert_eq!(found.is_some(), choose(peak).is_some(), "{peak:?}");
            assert!(
                found.is_none_or(|f| f > 0.0 && f < 20_000.0),
                "{peak:?} {found:?}"
            );
        }
    }
}
