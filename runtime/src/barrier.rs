//! The barrier between the phases of a step: spin for about 20 µs, then sleep on a futex.
//!
//! Input: `threads` callers of [`Barrier::wait`]. Output: none returns before all have come.
//! Invariants: no allocation; reusable at once (a generation counter, so a fast thread cannot
//! lap a slow one); what a thread wrote before the barrier is seen by all after it.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a waiting thread spins before it sleeps.
const SPIN: Duration = Duration::from_micros(20);

/// A reusable barrier for a fixed number of threads.
#[derive(Debug)]
pub struct Barrier {
    threads: u32,
    spin: Duration,
    arrived: AtomicU32,
    /// Counts the times the barrier opened; the futex word.
    generation: AtomicU32,
    sleepers: AtomicU32,
}

impl Barrier {
    /// A barrier of `threads` threads. Without `spin` they sleep at once, which is right when
    /// there are more of them than cores.
    pub fn new(threads: u32, spin: bool) -> Barrier {
        Barrier {
            threads,
            spin: if spin { SPIN } else { Duration::ZERO },
            arrived: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
        }
    }

    /// Waits for the others.
    pub fn wait(&self) {
        if self.threads <= 1 {
            return;
        }
        let generation = self.generation.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            // Sequentially consistent on both sides: either we see the sleeper, or it sees the
            // new generation and does not sleep.
            self.generation.fetch_add(1, Ordering::SeqCst);
            if self.sleepers.load(Ordering::SeqCst) > 0 {
                futex_wake_all(&self.generation);
            }
            return;
        }
        if self.spun(generation) {
            return;
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.generation.load(Ordering::SeqCst) == generation {
            futex_wait(&self.generation, generation);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// True if the barrier opened while we were spinning.
    fn spun(&self, generation: u32) -> bool {
        let start = Instant::now();
        loop {
            for _ in 0..64 {
                if self.generation.load(Ordering::Acquire) != generation {
                    return true;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() >= self.spin {
                return false;
            }
        }
    }
}

/// [`llmc_abi::BarrierFn`]: `state` is a [`Barrier`].
///
/// # Safety
/// `state` points to a live `Barrier`, whose number of threads is the step's.
pub unsafe extern "C" fn step_barrier(state: *mut c_void) {
    // SAFETY: the engine puts its barrier into the step's context.
    unsafe { &*state.cast_const().cast::<Barrier>() }.wait();
}

fn futex_wait(word: &AtomicU32, expected: u32) {
    // SAFETY: the word outlives the call; errors (EAGAIN, EINTR) mean "look again".
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            expected,
            std::ptr::null::<libc::timespec>(),
        );
    }
}

fn futex_wake_all(word: &AtomicU32) {
    // SAFETY: only the address is used.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            i32::MAX,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn check(threads: usize, rounds: usize, spin: bool) {
        let barrier = Barrier::new(threads as u32, spin);
        let counter = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for round in 0..rounds {
                        counter.fetch_add(1, Ordering::Relaxed);
                        barrier.wait();
                        assert_eq!(counter.load(Ordering::Relaxed), (round + 1) * threads);
                        barrier.wait();
                    }
                });
            }
        });
    }

    #[test]
    fn nobody_passes_before_all_have_come() {
        check(1, 100, true);
        check(2, 2000, true);
        check(5, 300, true);
        check(3, 300, false);
    }
}
