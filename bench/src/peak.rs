//! The machine's f32 peak: independent fused multiply-adds in registers, on all threads at once.
//!
//! AVX-512 where the processor has it, else AVX2; 0 where it has neither. Twelve accumulators cover the latency of
//! four cycles times two units. Not here: bf16 and int8 peaks.

use std::sync::Barrier;
use std::time::Instant;

/// Long enough for the clock to settle, short enough to alternate with.
const SECONDS: f64 = 0.15;

/// GFLOP/s of `threads` threads together.
pub fn gflops(threads: usize) -> f64 {
    let barrier = Barrier::new(threads);
    let rates: Vec<f64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let (start, mut done, mut flops) = (Instant::now(), 0.0, 0.0);
                    while done < SECONDS {
                        flops += round(100_000);
                        done = start.elapsed().as_secs_f64();
                    }
                    flops / done / 1e9
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|w| w.join().unwrap_or(0.0))
            .collect()
    });
    rates.iter().sum()
}

/// Does `count` steps of twelve vectors and returns their floating-point operations.
#[cfg(target_arch = "x86_64")]
fn round(count: usize) -> f64 {
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has AVX-512F.
        unsafe { fma512(count) };
        count as f64 * 12.0 * 16.0 * 2.0
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has AVX2 and FMA.
        unsafe { fma256(count) };
        count as f64 * 12.0 * 8.0 * 2.0
    } else {
        0.0
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn round(_count: usize) -> f64 {
    std::thread::sleep(std::time::Duration::from_millis(1));
    0.0
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn fma512(count: usize) {
    use std::arch::x86_64::*;
    let (a, b) = (
        _mm512_set1_ps(0.999),
        _mm512_set1_ps(std::hint::black_box(1e-3)),
    );
    let mut sums = [_mm512_setzero_ps(); 12];
    for _ in 0..count {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, a, b);
        }
    }
    std::hint::black_box(sums.into_iter().fold(b, |x, y| _mm512_add_ps(x, y)));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn fma256(count: usize) {
    use std::arch::x86_64::*;
    let (a, b) = (
        _mm256_set1_ps(0.999),
        _mm256_set1_ps(std::hint::black_box(1e-3)),
    );
    let mut sums = [_mm256_setzero_ps(); 12];
    for _ in 0..count {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, a, b);
        }
    }
    std::hint::black_box(sums.into_iter().fold(b, |x, y| _mm256_add_ps(x, y)));
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_thread_has_a_plausible_peak() {
        let found = super::gflops(1);
        assert!((0.0..2000.0).contains(&found), "{found}");
    }
}
