//! The rate at which memory can be read: every thread streams through its own part of a buffer that no cache holds.
//!
//! The buffer is 512 MiB in huge pages where the system gives them; reading is by the widest loads, eight at a time.

use std::sync::Barrier;
use std::time::Instant;

use memmap2::{Advice, MmapMut};

const BYTES: usize = 512 << 20;
/// Bytes of a step: eight registers of 512 bits.
const STEP: usize = 512;
/// Long enough to average over, short enough to alternate with.
const SECONDS: f64 = 0.2;

/// The buffer.
pub struct Stream(MmapMut);

impl Stream {
    /// Maps and fills the buffer.
    pub fn new() -> std::io::Result<Stream> {
        let mut buffer = MmapMut::map_anon(BYTES)?;
        // Where huge pages are off, small ones do.
        let _ = buffer.advise(Advice::HugePage);
        buffer.fill(1);
        Ok(Stream(buffer))
    }

    /// GB/s of `threads` threads together.
    pub fn gigabytes(&self, threads: usize) -> f64 {
        let part = BYTES / threads / STEP * STEP;
        let barrier = Barrier::new(threads);
        let rates: Vec<f64> = std::thread::scope(|scope| {
            let workers: Vec<_> = self
                .0
                .chunks_exact(part)
                .take(threads)
                .map(|part| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        barrier.wait();
                        let (start, mut bytes, mut done) = (Instant::now(), 0, 0.0);
                        while done < SECONDS {
                            std::hint::black_box(read(part));
                            bytes += part.len();
                            done = start.elapsed().as_secs_f64();
                        }
                        bytes as f64 / done / 1e9
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
}

/// Reads whole steps of `part`; the result depends on all of them.
fn read(part: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512F.
            return unsafe { read512(part) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { read256(part) };
        }
    }
    read_plain(part)
}

/// Exclusive or of the 64 words of every step, which compilers turn into what vectors there are.
#[inline(always)]
fn read_plain(part: &[u8]) -> u64 {
    let mut sums = [0u64; STEP / 8];
    for step in part.chunks_exact(STEP) {
        for (sum, word) in sums.iter_mut().zip(step.as_chunks::<8>().0) {
            *sum ^= u64::from_le_bytes(*word);
        }
    }
    sums.iter().fold(0, |x, y| x ^ y)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn read256(part: &[u8]) -> u64 {
    read_plain(part)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn read512(part: &[u8]) -> u64 {
    use std::arch::x86_64::*;
    let mut sums = [_mm512_setzero_si512(); STEP / 64];
    for step in part.chunks_exact(STEP) {
        for (sum, lanes) in sums.iter_mut().zip(step.as_chunks::<64>().0) {
            // SAFETY: `lanes` is 64 bytes, and the load takes any alignment.
            let lanes = unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) };
            *sum = _mm512_xor_si512(*sum, lanes);
        }
    }
    let sum = sums
        .into_iter()
        .fold(_mm512_setzero_si512(), |x, y| _mm512_xor_si512(x, y));
    _mm512_reduce_add_epi64(sum) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_step_is_read() {
        let mut bytes = vec![0u8; 4 * STEP];
        assert_eq!((read(&bytes), read_plain(&bytes)), (0, 0));
        for at in (0..bytes.len()).step_by(37) {
            bytes[at] = 3;
            assert_ne!(read(&bytes), 0, "{at}");
            assert_ne!(read_plain(&bytes), 0, "{at}");
            bytes[at] = 0;
        }
    }
}
