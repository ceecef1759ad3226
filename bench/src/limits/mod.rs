//! What the machine can do at this moment, so that figures can be told as shares of it.
//!
//! In: a number of threads. Out: operations a second in registers (`compute`), bytes a second out of memory
//! (`memory`), the load average. They are measured between the runs that they are compared with, because a virtual
//! machine's limits move with its neighbours.

pub mod compute;
pub mod memory;

use crate::median::median;
use compute::Peak;
use memory::Stream;

/// The limits of a number of threads together; None for instructions that the processor lacks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Reading memory that no cache holds, in GB/s.
    pub read: f64,
    pub f32: Option<f64>,
    pub bf16: Option<f64>,
    /// In GOP/s, as the other two are in GFLOP/s: a multiplication and an addition are two.
    pub int8: Option<f64>,
}

impl Limits {
    /// About 0.6 seconds of work.
    pub fn measure(stream: &Stream, threads: usize) -> Limits {
        Limits {
            read: stream.gigabytes(threads),
            f32: compute::giga_ops(Peak::F32, threads),
            bf16: compute::giga_ops(Peak::Bf16, threads),
            int8: compute::giga_ops(Peak::Int8, threads),
        }
    }

    /// The median of each limit. `all` holds one or more.
    pub fn median(all: &[Limits]) -> Limits {
        let of = |limit: fn(&Limits) -> Option<f64>| {
            let values: Option<Vec<f64>> = all.iter().map(limit).collect();
            values.map(|v| median(&v))
        };
        Limits {
            read: of(|l| Some(l.read)).unwrap_or(0.0),
            f32: of(|l| l.f32),
            bf16: of(|l| l.bf16),
            int8: of(|l| l.int8),
        }
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "read_gb_s": self.read, "f32_gflop_s": self.f32, "bf16_gflop_s": self.bf16, "int8_gop_s": self.int8,
        })
    }
}

/// The load average of the last minute, where the system tells.
pub fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg")
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Says on standard error what else the machine is doing.
pub fn tell_load() {
    let cores = cores() as f64;
    if let Some(load) = load() {
        eprintln!("load average {load} on {cores} core(s)");
        if load > 0.5 * cores {
            eprintln!(
                "warning: other processes are running; take no figure from this run, and its ratios with care"
            );
        }
    }
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Of the numbers of threads asked for, those that the machine has cores for; the others are named on standard error.
pub fn possible_threads(asked: &[usize]) -> Vec<usize> {
    let cores = cores();
    let (possible, not): (Vec<usize>, Vec<usize>) =
        asked.iter().partition(|&&t| t >= 1 && t <= cores);
    for threads in not {
        eprintln!("warning: {threads} thread(s) left out, there are {cores} core(s)");
    }
    possible
}
