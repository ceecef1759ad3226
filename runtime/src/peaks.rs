//! What this machine can do: read bandwidth, and products a second.
//!
//! Input: threads. Output: rates, the best of a few rounds of small loops that all threads run at
//! once. What the processor lacks is left out.
//! Not here: what a model makes of it (`profile`).

use std::sync::Barrier;
use std::time::Instant;

/// Rates of all threads together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Peaks {
    /// GB/s from memory.
    pub read: f64,
    /// GFLOP/s of f32 multiply-adds, each counted as two.
    pub f32: Option<f64>,
    /// GFLOP/s of bf16 dot products.
    pub bf16: Option<f64>,
    /// GOP/s of 8-bit dot products.
    pub int8: Option<f64>,
}

/// Bytes that are read: far more than caches hold.
const BYTES: usize = 256 << 20;
const ROUNDS: usize = 5;
/// Rounds of the inner loop of products: some milliseconds.
const STEPS: u64 = 1 << 20;

/// A loop: how often it goes round, and operations of a round.
type Product = (unsafe fn(u64), u64);

/// Measures with `threads` threads.
pub fn measure(threads: u32) -> Peaks {
    let products = products();
    let rate = |product: Option<Product>| {
        let (run, operations) = product?;
        // SAFETY: `products` gives what the processor has.
        let seconds = best(threads, &|_| unsafe { run(STEPS) });
        Some(operations as f64 * STEPS as f64 * f64::from(threads) / seconds * 1e-9)
    };
    let words = vec![1u64; BYTES / 8];
    let part = words.len().div_ceil(threads as usize);
    let seconds = best(threads, &|thread| {
        let from = (thread as usize * part).min(words.len());
        let to = (from + part).min(words.len());
        std::hint::black_box(sum(&words[from..to]));
    });
    Peaks {
        read: BYTES as f64 / seconds * 1e-9,
        f32: rate(products[0]),
        bf16: rate(products[1]),
        int8: rate(products[2]),
    }
}

/// Least seconds in which all threads are through with `work`.
fn best(threads: u32, work: &(dyn Fn(u32) + Sync)) -> f64 {
    let gate = Barrier::new(threads as usize);
    let run = |thread: u32| {
        let mut least = f64::MAX;
        for _ in 0..ROUNDS {
            gate.wait();
            let start = Instant::now();
            work(thread);
            gate.wait();
            least = least.min(start.elapsed().as_secs_f64());
        }
        least
    };
    std::thread::scope(|scope| {
        for thread in 1..threads {
            let run = &run;
            scope.spawn(move || run(thread));
        }
        run(0)
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn products() -> [Option<Product>; 3] {
    [None; 3]
}

#[cfg(not(target_arch = "x86_64"))]
fn sum(words: &[u64]) -> u64 {
    words.iter().fold(0, |a, b| a.wrapping_add(*b))
}

#[cfg(target_arch = "x86_64")]
use x86::{products, sum};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Product;
    use std::arch::is_x86_feature_detected as has;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Independent chains: enough for the latency of any of these instructions on two ports.
    const CHAINS: usize = 12;

    /// f32, bf16 and int8.
    pub fn products() -> [Option<Product>; 3] {
        let each = |wide: bool, run: unsafe fn(u64), operations: u64| {
            wide.then_some((run, operations * CHAINS as u64))
        };
        let wide = has!("avx512f");
        let narrow = has!("avx2") && has!("fma");
        [
            each(wide, f32_512, 32).or(each(narrow, f32_256, 16)),
            each(wide && has!("avx512bf16"), bf16_512, 64),
            each(wide && has!("avx512vnni"), i8_512, 128).or(each(narrow, i8_256, 64)),
        ]
    }

    pub fn sum(words: &[u64]) -> u64 {
        if has!("avx2") {
            // SAFETY: the processor has it.
            unsafe { sum_256(words) }
        } else {
            words.iter().fold(0, |a, b| a.wrapping_add(*b))
        }
    }

    #[target_feature(enable = "avx2")]
    fn sum_256(words: &[u64]) -> u64 {
        let mut sums = [_mm256_setzero_si256(); 8];
        for chunk in words.chunks_exact(32) {
            for (sum, part) in sums.iter_mut().zip(chunk.chunks_exact(4)) {
                // SAFETY: four words.
                let v = unsafe { _mm256_loadu_si256(part.as_ptr().cast()) };
                *sum = _mm256_add_epi64(*sum, v);
            }
        }
        black_box(sums);
        0
    }

    #[target_feature(enable = "avx512f")]
    fn f32_512(steps: u64) {
        let x = black_box(_mm512_set1_ps(0.5));
        let mut sums = [x; CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, x, x);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    fn f32_256(steps: u64) {
        let x = black_box(_mm256_set1_ps(0.5));
        let mut sums = [x; CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, x, x);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn bf16_512(steps: u64) {
        let zero = _mm512_set1_ps(0.0);
        let x = black_box(_mm512_cvtne2ps_pbh(zero, zero));
        let mut sums = [zero; CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, x, x);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn i8_512(steps: u64) {
        let x = black_box(_mm512_set1_epi8(1));
        let mut sums = [x; CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, x, x);
            }
        }
        black_box(sums);
    }

    /// Without a dot product: bytes to pairs, pairs to fours, added up.
    #[target_feature(enable = "avx2")]
    fn i8_256(steps: u64) {
        let x = black_box(_mm256_set1_epi8(1));
        let ones = black_box(_mm256_set1_epi16(1));
        let mut sums = [x; CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                let pairs = _mm256_maddubs_epi16(*sum, x);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        black_box(sums);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn rates_are_told() {
        let peaks = super::measure(2);
        assert!(peaks.read > 0.0);
        let rates = [peaks.f32, peaks.bf16, peaks.int8];
        assert!(rates.iter().flatten().all(|r| r.is_finite() && *r > 0.0));
    }
}
