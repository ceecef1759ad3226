//! Measures the phases of steps: when each thread was done with its part, and when it went on.
//!
//! Input: the marks that a step gives (`StepCtx::mark`), and what the manifest says of each phase.
//! Output: for each phase its calls, time, waiting, bytes and operations. Invariants: a mark neither
//! locks nor allocates; a thread writes its own lane only.
//! Not here: running steps (`engine`), telling about them (`profile`).

use llmc_abi::{Arithmetic, MARK_WORKED, Manifest, MarkFn, PAGE_TOKENS, Per, Work};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::time::Instant;

/// What one thread has told, `[phases]` each; times in nanoseconds.
#[repr(align(128))]
struct Lane {
    epoch: Instant,
    last: u64,
    worked: Vec<u64>,
    waited: Vec<u64>,
    calls: Vec<u64>,
}

impl Lane {
    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }
}

/// The sums of one phase.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    pub calls: u64,
    /// Seconds of thread 0, waiting included.
    pub seconds: f64,
    /// Seconds at the barrier, the mean of all threads.
    pub waiting: f64,
    /// Weights, table rows, keys and values read.
    pub bytes: u64,
    /// A multiply-add counts as two.
    pub operations: BTreeMap<Arithmetic, u64>,
}

/// A sequence of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    /// Tokens of the step.
    pub new: u64,
    /// Those, and the past ones.
    pub keys: u64,
    /// Tokens of its source.
    pub source: u64,
}

/// Measures steps of one engine.
pub struct Recorder {
    lanes: Vec<Lane>,
    /// Calls that are accounted for `[phases]`.
    counted: Vec<u64>,
    sums: Vec<Measured>,
}

impl Recorder {
    /// A recorder for steps of `threads` threads.
    pub fn new(manifest: &Manifest, threads: u32) -> Recorder {
        let phases = manifest.phases.len();
        let epoch = Instant::now();
        let lane = || Lane {
            epoch,
            last: 0,
            worked: vec![0; phases],
            waited: vec![0; phases],
            calls: vec![0; phases],
        };
        Recorder {
            lanes: (0..threads).map(|_| lane()).collect(),
            counted: vec![0; phases],
            sums: vec![Measured::default(); phases],
        }
    }

    /// Starts a step: what its context gets.
    pub(crate) fn start(&mut self) -> (Option<MarkFn>, *mut c_void) {
        for lane in &mut self.lanes {
            lane.last = lane.now();
        }
        (Some(mark), self.lanes.as_mut_ptr().cast())
    }

    /// Ends a step of `n` tokens, `r` rows and these sequences.
    pub(crate) fn finish(
        &mut self,
        manifest: &Manifest,
        n: u64,
        r: u64,
        sequences: impl Iterator<Item = Keys> + Clone,
    ) {
        let Some(first) = self.lanes.first() else {
            return;
        };
        let phases = manifest.phases.iter().zip(&mut self.sums);
        for (i, (phase, sum)) in phases.enumerate() {
            let calls = first.calls[i] - self.counted[i];
            self.counted[i] = first.calls[i];
            if calls == 0 {
                continue;
            }
            sum.calls += calls;
            let rows = |per: Per| match per {
                Per::Token => n,
                Per::Row => r,
                Per::Sequence => sequences.clone().count() as u64,
            };
            for work in &phase.work {
                let (arithmetic, operations, bytes) = match *work {
                    Work::Weights { per, bytes } => {
                        (Arithmetic::F32, 0, if rows(per) > 0 { bytes } else { 0 })
                    }
                    Work::Rows { per, bytes } => (Arithmetic::F32, 0, bytes * rows(per)),
                    Work::Product {
                        per,
                        arithmetic,
                        operations,
                    } => (arithmetic, operations * rows(per), 0),
                    Work::Attention {
                        class,
                        causal,
                        window,
                        operations,
                    } => {
                        let class = manifest.kv.get(class as usize);
                        let source = class.is_some_and(|c| c.source && !causal);
                        let seen = sequences.clone().map(|s| {
                            let keys = if source { s.source } else { s.keys };
                            visible((s.new, keys), causal, window)
                        });
                        let (pairs, keys) = seen.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
                        let page = class.map_or(0, |c| c.page_bytes);
                        let bytes = keys * page / PAGE_TOKENS as u64;
                        (Arithmetic::F32, pairs * operations, bytes)
                    }
                };
                sum.bytes += bytes * calls;
                if operations > 0 {
                    *sum.operations.entry(arithmetic).or_default() += operations * calls;
                }
            }
        }
    }

    /// The sums so far, one for each of the manifest's phases.
    pub fn measured(&self) -> Vec<Measured> {
        let threads = self.lanes.len() as f64;
        let seconds = |nanoseconds: u64| nanoseconds as f64 * 1e-9;
        let mut sums = self.sums.clone();
        for (i, sum) in sums.iter_mut().enumerate() {
            if let Some(first) = self.lanes.first() {
                sum.seconds = seconds(first.worked[i] + first.waited[i]);
            }
            let waited: u64 = self.lanes.iter().map(|l| l.waited[i]).sum();
            sum.waiting = seconds(waited) / threads;
        }
        sums
    }
}

/// (query, key) pairs, and keys that any query sees, of a sequence of `keys` keys, `new` of them new.
fn visible((new, keys): (u64, u64), causal: bool, window: Option<u32>) -> (u64, u64) {
    if !causal {
        return (new * keys, keys);
    }
    let window = window.map_or(u64::MAX, u64::from);
    let past = keys - new.min(keys);
    let pairs = (past..keys).map(|p| (p + 1).min(window)).sum();
    (pairs, keys.min(window.saturating_add(new) - 1))
}

/// [`MarkFn`]: `state` is the recorder's lanes.
unsafe extern "C" fn mark(state: *mut c_void, thread: u64, phase: u64, event: u64) {
    // SAFETY: the engine makes a lane for each thread, which alone writes it while a step runs.
    let lane = unsafe { &mut *state.cast::<Lane>().add(thread as usize) };
    let now = lane.now();
    let passed = now - lane.last;
    lane.last = now;
    let phase = phase as usize;
    if event == MARK_WORKED {
        lane.worked[phase] += passed;
        lane.calls[phase] += 1;
    } else {
        lane.waited[phase] += passed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmc_abi::{KvClass, MARK_PASSED, Phase};

    #[test]
    fn keys_that_are_seen() {
        assert_eq!(visible((1, 10), true, None), (10, 10));
        assert_eq!(visible((10, 10), true, None), (55, 10));
        assert_eq!(visible((1, 10), true, Some(4)), (4, 4));
        assert_eq!(visible((3, 10), true, Some(4)), (12, 6));
        assert_eq!(visible((3, 3), true, Some(2)), (5, 3));
        assert_eq!(visible((5, 5), false, None), (25, 5));
    }

    #[test]
    fn work_is_counted_by_call() {
        let work = vec![
            Work::Weights {
                per: Per::Row,
                bytes: 100,
            },
            Work::Rows {
                per: Per::Token,
                bytes: 10,
            },
            Work::Product {
                per: Per::Token,
                arithmetic: Arithmetic::Int8,
                operations: 7,
            },
            Work::Attention {
                class: 0,
                causal: true,
                window: None,
                operations: 3,
            },
        ];
        let manifest = Manifest {
            phases: vec![Phase {
                name: "p".into(),
                work,
            }],
            kv: vec![KvClass {
                page_bytes: 64 * 5,
                ..KvClass::default()
            }],
            ..Manifest::default()
        };
        let mut recorder = Recorder::new(&manifest, 2);
        for rows in [0, 1] {
            let (told, state) = recorder.start();
            for thread in [0, 1] {
                for _ in 0..2 {
                    // SAFETY: the state and the threads of this recorder.
                    unsafe {
                        told.unwrap()(state, thread, 0, MARK_WORKED);
                        told.unwrap()(state, thread, 0, MARK_PASSED);
                    }
                }
            }
            let keys = |new, keys| Keys {
                new,
                keys,
                source: 9,
            };
            recorder.finish(&manifest, 3, rows, [keys(1, 4), keys(2, 2)].into_iter());
        }
        let [sum] = recorder.measured().try_into().unwrap();
        assert_eq!(sum.calls, 4);
        // Keys 4 + 2, pairs 4 + 3; the weights are read by the second step alone.
        assert_eq!(sum.bytes, 4 * (10 * 3 + 5 * 6) + 2 * 100);
        let expected = [(Arithmetic::F32, 4 * 3 * 7), (Arithmetic::Int8, 4 * 21)];
        assert_eq!(sum.operations, BTreeMap::from(expected));
        assert!(sum.seconds > 0.0 && sum.waiting >= 0.0);
    }
}
