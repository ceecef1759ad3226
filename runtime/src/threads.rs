//! The pool that runs steps: persistent threads, the caller being thread 0.
//!
//! Input: a [`StepFn`] and its context. Output: the step, run by all threads; [`Pool::run`]
//! returns when all are done. Invariants: no allocation in `run`; idle threads spin shortly, then
//! sleep. Not here: what a step does, and the barrier between its phases.

use crate::barrier::Barrier;
use crate::{Error, Result};
use llmc_abi::{StepCtx, StepFn};
use std::cell::UnsafeCell;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Most threads that `--threads` may ask for.
pub const MAX_THREADS: u32 = 1024;

/// The cores that the affinity mask and the cgroup's CPU quota grant to this process.
pub fn granted_cores() -> u32 {
    // The standard library reads sched_getaffinity, then the quotas of the cgroup and its
    // ancestors (cpu.max in v2, cpu.cfs_quota_us in v1).
    std::thread::available_parallelism()
        .map_or(1, |n| n.get() as u32)
        .min(MAX_THREADS)
}

#[derive(Clone, Copy)]
enum Job {
    Step(StepFn, *const StepCtx),
    Quit,
}

struct Shared {
    /// All threads meet here before and after a job.
    gate: Barrier,
    threads: u32,
    /// Written by thread 0 before the gate opens, read by the others after.
    job: UnsafeCell<Job>,
}

// SAFETY: `job` is written only while the workers wait at the gate.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointers in `job` are used only during `Pool::run`.
unsafe impl Send for Shared {}

/// Persistent threads for SPMD steps.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads - 1` threads; spins only if the machine grants a core to each.
    pub fn new(threads: u32) -> Result<Pool> {
        let shared = Arc::new(Shared {
            gate: Barrier::new(threads, threads <= granted_cores()),
            threads,
            job: UnsafeCell::new(Job::Quit),
        });
        let mut pool = Pool {
            shared,
            workers: Vec::new(),
        };
        for thread in 1..threads {
            let shared = pool.shared.clone();
            let worker = std::thread::Builder::new()
                .name(format!("llmc-{thread}"))
                .stack_size(4 << 20)
                .spawn(move || work(&shared, u64::from(thread)));
            match worker {
                Ok(w) => pool.workers.push(w),
                Err(e) => {
                    // The gate waits for threads that do not exist: the ones that do stay there.
                    pool.workers.clear();
                    return Err(Error::Machine(format!(
                        "cannot start thread {thread} of {threads}: {e}"
                    )));
                }
            }
        }
        Ok(pool)
    }

    /// Threads, the caller included.
    pub fn threads(&self) -> u32 {
        self.shared.threads
    }

    /// Runs one step on all threads.
    ///
    /// # Safety
    /// `ctx` and all it points to are valid for `step`, and its barrier is for [`Pool::threads`].
    pub unsafe fn run(&mut self, step: StepFn, ctx: &StepCtx) {
        // SAFETY: the workers wait at the gate, nobody reads the job.
        unsafe { *self.shared.job.get() = Job::Step(step, ctx) };
        self.shared.gate.wait();
        // SAFETY: the caller's promise.
        unsafe { step(ctx, 0, u64::from(self.shared.threads)) };
        self.shared.gate.wait();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.workers.is_empty() {
            return;
        }
        // SAFETY: the workers wait at the gate.
        unsafe { *self.shared.job.get() = Job::Quit };
        self.shared.gate.wait();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, thread: u64) {
    loop {
        shared.gate.wait();
        // SAFETY: thread 0 wrote the job before the gate opened and waits at the next one.
        match unsafe { *shared.job.get() } {
            // SAFETY: the promise of `Pool::run`.
            Job::Step(step, ctx) => unsafe { step(ctx, thread, u64::from(shared.threads)) },
            Job::Quit => return,
        }
        shared.gate.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::barrier::step_barrier;
    use std::ptr;

    /// Every thread adds its number + 1 to its own cell, waits, and thread 0 sums the cells.
    unsafe extern "C" fn sum_cells(ctx: *const StepCtx, thread: u64, threads: u64) {
        // SAFETY: the test's arena has 64 cells.
        unsafe {
            let cells = (*ctx).arena.cast::<u64>();
            *cells.add(1 + thread as usize) += thread + 1;
            ((*ctx).barrier)((*ctx).barrier_state);
            if thread == 0 {
                *cells = (0..threads).map(|t| *cells.add(1 + t as usize)).sum();
            }
        }
    }

    #[test]
    fn all_threads_run_each_step_once() {
        for threads in [1, 2, 4, 7] {
            let mut pool = Pool::new(threads).unwrap();
            let barrier = Barrier::new(threads, false);
            let mut cells = [0u64; 64];
            let ctx = StepCtx {
                version: 1,
                weights: ptr::null(),
                arena: cells.as_mut_ptr().cast(),
                scratch: ptr::null_mut(),
                kv: ptr::null(),
                batch: ptr::null(),
                taps: ptr::null_mut(),
                tap_rows: 0,
                barrier: step_barrier,
                barrier_state: ptr::from_ref(&barrier).cast_mut().cast(),
                mark: None,
                mark_state: ptr::null_mut(),
                best: ptr::null_mut(),
            };
            for round in 1..=50 {
                // SAFETY: the context is complete as far as `sum_cells` reads it.
                unsafe { pool.run(sum_cells, &ctx) };
                let t = u64::from(threads);
                assert_eq!(cells[0], round * t * (t + 1) / 2);
            }
        }
    }

    #[test]
    fn some_core_is_granted() {
        assert!((1..=MAX_THREADS).contains(&granted_cores()));
    }
}
