//! Speed of the kernels on this machine, against its own peaks.
//!
//! `cargo run --release -p llmc-codegen --example kernel_bench [LEVEL] [FILTER]`
//!
//! In: a feature level name (default: the best of the machine) and a part of a line's name. Out:
//! one line per kernel, shape and thread count: time, and GFLOP/s with the share of the multiply-
//! add peak, or GB/s with the share of the read bandwidth; both peaks measured first, in this
//! process, and again right before each line of quantised weights (GOP/s there, of byte products).

#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../tests/kernels/buffer.rs"]
mod buffer;
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../tests/kernels/harness.rs"]
mod harness;

use buffer::{Buffer, Random, pad};
use harness::{Loaded, levels};
use llmc_codegen::blocks::Blocks;
use llmc_codegen::kernel::{BYTES, Elem, KernelBuilder, LANES, Param, SUMS};
use llmc_codegen::kernels::{
    Activation, Attend, BlockLinear, Epilogue, Input, KvAppend, KvElem, KvLayout, Linear, Mask,
};
use llmc_codegen::target::FeatureLevel;
use llmc_ir::quant::{Format, activation::RowForm};
use llmc_ir::{DType, Group};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

type LinearFn = unsafe extern "C" fn(
    u64,
    u64,
    u64,
    *const u8,
    *const u8,
    *const u8,
    *const u8,
    *mut u8,
    *mut u8,
);
type AttendFn = unsafe extern "C" fn(
    u64,
    u64,
    u64,
    *const u8,
    *const u8,
    *const u8,
    u64,
    *const u8,
    *const u8,
    *const u8,
    *const u8,
    *const u8,
    *const u8,
    *const u8,
    *mut u8,
    *mut u8,
    *mut u8,
);
type AppendFn = unsafe extern "C" fn(
    u64,
    u64,
    u64,
    *const u8,
    *const u8,
    *const u8,
    *const u8,
    *mut u8,
    *const u8,
    u64,
);
type PeakFn = unsafe extern "C" fn(u64, *mut u8);
type ReadFn = unsafe extern "C" fn(u64, *const u8, *mut u8);

/// A pointer that threads share.
#[derive(Clone, Copy)]
struct Shared(*mut u8);
// SAFETY: the kernels write disjoint parts.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Seconds that this thread has spent on a processor.
fn thread_seconds() -> f64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes the structure it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

/// Best seconds of one call of `work(thread)` on all threads, over some rounds: processor time
/// for one thread, so that neighbours disturb less; wall time for more.
fn time(threads: u64, rounds: usize, work: impl Fn(u64, usize) + Sync) -> f64 {
    if threads == 1 {
        return (0..rounds)
            .map(|round| {
                let start = thread_seconds();
                work(0, round);
                thread_seconds() - start
            })
            .fold(f64::MAX, f64::min);
    }
    let arrived = AtomicUsize::new(0);
    let wait = |round: usize| {
        arrived.fetch_add(1, Ordering::AcqRel);
        while arrived.load(Ordering::Acquire) < round * threads as usize {
            std::hint::spin_loop();
        }
    };
    let mut best = f64::MAX;
    std::thread::scope(|scope| {
        for t in 1..threads {
            let (wait, work) = (&wait, &work);
            scope.spawn(move || {
                for round in 0..rounds {
                    wait(2 * round + 1);
                    work(t, round);
                    wait(2 * round + 2);
                }
            });
        }
        for round in 0..rounds {
            wait(2 * round + 1);
            let start = Instant::now();
            work(0, round);
            wait(2 * round + 2);
            best = best.min(start.elapsed().as_secs_f64());
        }
    });
    best
}

/// Groups of 16 lanes that the peak loop keeps going: enough to hide the latency, no spills.
fn peak_chains(level: &FeatureLevel) -> u32 {
    (level.vector_registers / level.registers_per_group() - 2).min(12)
}

fn emit_peaks(b: &mut KernelBuilder<'_>) {
    let chains = peak_chains(b.level());
    b.kernel("peak", &[Param::i64(), Param::output()], |b, args| {
        let (x, zero) = (b.load_group(args[1]), b.i64(0));
        let start = vec![x; chains as usize];
        let sums = b.for_carried(zero, args[0], 1, &start, |b, _, sums| {
            let mut sums = sums.to_vec();
            for _ in 0..4 {
                sums = sums.iter().map(|s| b.fma(*s, x, x)).collect();
            }
            sums
        });
        for s in sums {
            let old = b.load_group(args[1]);
            let v = b.add(old, s);
            b.store(v, args[1]);
        }
    });
    b.kernel("peak_bytes", &[Param::i64(), Param::output()], |b, args| {
        let (x, zero) = (b.load(BYTES, args[1]), b.i64(0));
        let start = vec![b.constant(SUMS, 0.0); chains as usize];
        let sums = b.for_carried(zero, args[0], 1, &start, |b, _, sums| {
            let mut sums = sums.to_vec();
            for _ in 0..4 {
                sums = sums.iter().map(|s| b.dot_u8_s8(*s, x, x)).collect();
            }
            sums
        });
        for s in sums {
            let old = b.load(SUMS, args[1]);
            let v = b.add(old, s);
            b.store(v, args[1]);
        }
    });
    let params = [Param::i64(), Param::input(), Param::output()];
    b.kernel("read", &params, |b, args| {
        let zeros = b.splat(0.0);
        let zero = b.i64(0);
        let sums = b.for_carried(zero, args[0], 8, &[zeros; 8], |b, i, sums| {
            let p = b.at(args[1], i, LANES * 4);
            (0..8)
                .map(|g| {
                    let p = b.offset(p, g * LANES * 4);
                    let v = b.load_group(p);
                    b.add(sums[g as usize], v)
                })
                .collect()
        });
        for s in sums {
            let old = b.load_group(args[2]);
            let v = b.add(old, s);
            b.store(v, args[2]);
        }
    });
}

struct Bench {
    lib: Loaded,
    filter: String,
    /// GFLOP/s and GB/s with one thread and with two.
    peak: [f64; 2],
    bandwidth: [f64; 2],
}

fn epilogue(width: i64, activation: Activation, glu: bool) -> Epilogue {
    Epilogue {
        width,
        y_stride: pad(width as usize, 16) as i64,
        bias: true,
        activation,
        glu,
        limit: None,
        shift: 0.0,
        scale: None,
        softcap: None,
        residual: None,
    }
}

fn linear(k: i64, m: i64, elem: Elem, activation: Activation, glu: bool) -> Linear {
    let width = if glu { m / 2 } else { m };
    Linear {
        k,
        m: pad(m as usize, 64) as i64,
        x: Elem::F32,
        x_stride: k,
        elem,
        out: epilogue(width, activation, glu),
    }
}

fn linears() -> Vec<Linear> {
    let none = Activation::None;
    let mut all = vec![
        linear(384, 384, Elem::F32, none, false),
        linear(384, 1152, Elem::F32, none, false),
        linear(384, 1536, Elem::F32, Activation::Gelu, false),
        linear(1536, 384, Elem::F32, none, false),
        linear(768, 768, Elem::F32, none, false),
        linear(896, 9728, Elem::F32, Activation::Silu, true),
        linear(4864, 896, Elem::F32, none, false),
    ];
    for elem in [Elem::F16, Elem::BF16] {
        all.push(linear(896, 9728, elem, Activation::Silu, true));
        all.push(linear(4864, 896, elem, none, false));
    }
    all.push(linear(896, 151_936, Elem::BF16, none, false));
    all
}

fn block_linears() -> Vec<BlockLinear> {
    let reads = |group, dtype: DType, k: i64, m: i64, activation, glu| BlockLinear {
        k,
        m,
        x_stride: i64::from(RowForm::new(k as u32, group).bytes) / 4,
        form: Blocks::of_dtype(dtype).expect("a type of blocks"),
        input: Input::Q8(group),
        out: Epilogue {
            bias: false,
            ..epilogue(if glu { m / 2 } else { m }, activation, glu)
        },
    };
    let block = |dtype, k, m, activation, glu| reads(Group::Block, dtype, k, m, activation, glu);
    let (none, silu) = (Activation::None, Activation::Silu);
    let mut all = Vec::new();
    for format in Format::ALL {
        let dtype = DType::Block(format);
        if format.block_len() == 32 {
            all.push(block(dtype, 896, 9728, silu, true));
            all.push(block(dtype, 896, 1152, none, false));
        } else {
            all.push(block(dtype, 1280, 9728, silu, true));
        }
        all.push(block(dtype, 4864, 896, none, false));
        // Stays in the cache: what the arithmetic takes.
        all.push(block(dtype, 1280, 256, none, false));
    }
    for group in Group::ALL {
        all.push(reads(group, DType::Int8, 896, 9728, silu, true));
        all.push(reads(group, DType::Int8, 4864, 896, none, false));
        all.push(reads(group, DType::Int8, 1280, 256, none, false));
    }
    all.push(block(DType::Block(Format::Q8_0), 896, 151_936, none, false));
    all
}

fn attends() -> Vec<(Attend, KvAppend)> {
    let mut all = Vec::new();
    let causal = Mask::Causal { window: None };
    let window = Mask::Causal { window: Some(512) };
    for (heads, group, width, mask, elem) in [
        (12, 1, 32, Mask::Bidirectional, KvElem::F32),
        (12, 1, 64, Mask::Bidirectional, KvElem::F32),
        (2, 7, 64, causal, KvElem::F32),
        (2, 7, 64, causal, KvElem::F16),
        (2, 7, 64, causal, KvElem::Q8_0),
        (1, 4, 256, causal, KvElem::F32),
        (1, 4, 256, causal, KvElem::F16),
        (1, 4, 256, causal, KvElem::Q8_0),
        (1, 4, 256, window, KvElem::F16),
        (8, 4, 128, causal, KvElem::F32),
    ] {
        let kv = KvLayout {
            heads,
            k_width: width,
            v_width: width,
            elem,
        };
        all.push((
            Attend {
                kv,
                group,
                q_stride: heads * group * width,
                out_stride: heads * group * width,
                scale: 0.125,
                softcap: None,
                mask,
                pattern: None,
                bias: None,
                terms: None,
                sinks: false,
                split: if mask == Mask::Bidirectional {
                    0
                } else {
                    Attend::split_for(&kv, group, 32768)
                },
            },
            KvAppend {
                kv,
                k_stride: heads * width,
                v_stride: heads * width,
                by_heads: true,
            },
        ));
    }
    all
}

impl Bench {
    fn wanted(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }

    fn peaks(&mut self) {
        let bytes = 1usize << 28;
        let mut big = Buffer::bytes(bytes);
        big.f32_mut().fill(1.0);
        let mut out = [Buffer::floats(16), Buffer::floats(16)];
        let big = Shared(big.ptr());
        let outs = [Shared(out[0].ptr()), Shared(out[1].ptr())];
        // SAFETY: the signatures of `emit_peaks`.
        let (peak, read): (PeakFn, ReadFn) =
            unsafe { (self.lib.get("peak"), self.lib.get("read")) };
        for threads in [1u64, 2] {
            let steps = 200_000u64;
            let seconds = time(threads, 10, |t, _| {
                // SAFETY: the buffers above.
                unsafe { peak(steps, outs[t as usize].0) };
            });
            let flops = threads as f64
                * steps as f64
                * f64::from(peak_chains(self.lib.level))
                * 4.0
                * 16.0
                * 2.0;
            self.peak[threads as usize - 1] = flops / seconds / 1e9;
            let seconds = time(threads, 8, |t, _| {
                let (big, outs) = (big, outs);
                let part = bytes as u64 / threads;
                // SAFETY: the buffers above.
                unsafe {
                    read(
                        part / 64,
                        big.0.add((t * part) as usize),
                        outs[t as usize].0,
                    );
                }
            });
            self.bandwidth[threads as usize - 1] = bytes as f64 / seconds / 1e9;
        }
        println!(
            "{}: peak {:.0} / {:.0} GFLOP/s, read {:.1} / {:.1} GB/s (1 / 2 threads)",
            self.lib.level.name, self.peak[0], self.peak[1], self.bandwidth[0], self.bandwidth[1]
        );
    }

    /// GOP/s of byte products and GB/s of reading, now.
    fn now(&self, threads: u64, big: Shared, bytes: usize) -> (f64, f64) {
        let mut out = [Buffer::floats(16), Buffer::floats(16)];
        let outs = [Shared(out[0].ptr()), Shared(out[1].ptr())];
        // SAFETY: the signatures of `emit_peaks`.
        let (peak, read): (PeakFn, ReadFn) =
            unsafe { (self.lib.get("peak_bytes"), self.lib.get("read")) };
        let steps = 50_000u64;
        let seconds = time(threads, 5, |t, _| {
            // SAFETY: the buffers above.
            unsafe { peak(steps, outs[t as usize].0) };
        });
        let chains = f64::from(peak_chains(self.lib.level));
        let gops = threads as f64 * steps as f64 * chains * 4.0 * 128.0 / seconds / 1e9;
        let part = (bytes as u64 / threads) & !511;
        let seconds = time(threads, 4, |t, _| {
            let (big, outs) = (big, outs);
            // SAFETY: the buffers above.
            unsafe {
                read(
                    part / 64,
                    big.0.add((t * part) as usize),
                    outs[t as usize].0,
                );
            }
        });
        (gops, (part * threads) as f64 / seconds / 1e9)
    }

    fn block_linear(&self, l: &BlockLinear) {
        let weight_bytes = (l.m / 32 * l.form.strip_bytes(l.k)) as usize;
        for n in [1usize, 4, 8, 16, 64, 512] {
            let name = format!(
                "linear {}x{} {}{} n={n}",
                l.k,
                l.m,
                l.form.name,
                if l.out.glu { " glu" } else { "" }
            );
            if !self.wanted(&name) || (n > 16 && l.m > 20_000) {
                continue;
            }
            let copies = if l.m < 512 {
                1
            } else if n <= 16 {
                (420_000_000 / weight_bytes).max(2)
            } else {
                2
            };
            let bytes = weight_bytes * copies;
            let mut w = Buffer::bytes(bytes);
            // Bytes whose pairs are sensible scales.
            for (i, x) in w.u16_mut().iter_mut().enumerate() {
                *x = 0x2020 + ((i * 37 % 16) << 8 | (i * 11 % 16)) as u16;
            }
            let mut x = Buffer::bytes(n * l.x_stride as usize * 4);
            for (i, x) in x.u16_mut().iter_mut().enumerate() {
                *x = 0x2020 + ((i * 29 % 32) << 8 | (i * 13 % 32)) as u16;
            }
            let mut y = Buffer::floats(n * l.out.y_stride as usize);
            let mut scratch = [0, 1].map(|_| Buffer::bytes(l.scratch_bytes() as usize));
            let [w, x, y] = [&mut w, &mut x, &mut y].map(|b| Shared(b.ptr()));
            let scratch = [Shared(scratch[0].ptr()), Shared(scratch[1].ptr())];
            // SAFETY: the documented signature.
            let f: LinearFn = unsafe { self.lib.get(&l.symbol()) };
            for threads in [1u64, 2] {
                let (peak, bandwidth) = self.now(threads, w, bytes);
                let ops = 2.0 * n as f64 * l.k as f64 * l.m as f64;
                let calls = if l.m < 512 {
                    50
                } else if n <= 16 {
                    copies
                } else {
                    1
                };
                let rounds = ((2e10 / ops / calls as f64) as usize).clamp(5, 40);
                let seconds = time(threads, rounds, |t, round| {
                    let (w, x, y, scratch) = (w, x, y, scratch);
                    let none = std::ptr::null();
                    for call in 0..calls {
                        let copy = (round + call) % copies;
                        // SAFETY: the documented sizes.
                        unsafe {
                            f(
                                t,
                                threads,
                                n as u64,
                                x.0,
                                w.0.add(copy * weight_bytes),
                                none,
                                none,
                                y.0,
                                scratch[t as usize].0,
                            );
                        }
                    }
                }) / calls as f64;
                let (gops, gbytes) = (ops / seconds / 1e9, weight_bytes as f64 / seconds / 1e9);
                println!(
                    "{name:<34} t{threads} {:>9.1} us {gops:>7.1} GOP/s {:>3.0}% of {peak:.0} {gbytes:>6.1} GB/s {:>3.0}% of {bandwidth:.1}",
                    seconds * 1e6,
                    100.0 * gops / peak,
                    100.0 * gbytes / bandwidth,
                );
            }
        }
    }

    fn linear(&self, l: &Linear) {
        let weight_bytes = (l.k * l.m * l.elem.bytes()) as usize;
        for n in [1usize, 2, 6, 16, 128, 512] {
            let name = format!(
                "linear {}x{} {}{} n={n}",
                l.k,
                l.m,
                l.elem.name(),
                if l.out.glu { " glu" } else { "" }
            );
            if !self.wanted(&name) || (n > 16 && l.m > 20_000) {
                continue;
            }
            // Few rows stream the weights from memory: cycle through enough copies.
            let copies = if n <= 16 {
                (400_000_000 / weight_bytes).max(2)
            } else {
                2
            };
            let mut random = Random::new(7);
            let some = random.rows(1, 1 << 16, 1 << 16);
            let mut w = Buffer::bytes(weight_bytes * copies);
            match l.elem {
                Elem::F32 => {
                    for (i, x) in w.f32_mut().iter_mut().enumerate() {
                        *x = some[i & 0xffff];
                    }
                }
                elem => {
                    let mut pattern = Buffer::from_elems(&some, elem);
                    let pattern = pattern.u16_mut();
                    for (i, x) in w.u16_mut().iter_mut().enumerate() {
                        *x = pattern[i & 0xffff];
                    }
                }
            }
            let mut x = Buffer::from_f32(&random.rows(n, l.k as usize, l.x_stride as usize));
            let mut bias = Buffer::from_f32(&random.rows(1, l.m as usize, l.m as usize));
            let mut y = Buffer::floats(n * l.out.y_stride as usize);
            let mut scratch = [0, 1].map(|_| Buffer::bytes(l.scratch_bytes() as usize));
            let [w, x, bias, y] = [&mut w, &mut x, &mut bias, &mut y].map(|b| Shared(b.ptr()));
            let scratch = [Shared(scratch[0].ptr()), Shared(scratch[1].ptr())];
            // SAFETY: the documented signature.
            let f: LinearFn = unsafe { self.lib.get(&l.symbol()) };
            for threads in [1u64, 2] {
                let flops = 2.0 * n as f64 * l.k as f64 * l.m as f64;
                let calls = if n <= 16 { copies } else { 1 };
                let work = flops * calls as f64;
                let rounds = ((2e10 / work) as usize).clamp(5, 60);
                let seconds = time(threads, rounds, |t, round| {
                    let (w, x, bias, y, scratch) = (w, x, bias, y, scratch);
                    for call in 0..calls {
                        let copy = (round + call) % copies;
                        // SAFETY: the documented sizes.
                        unsafe {
                            f(
                                t,
                                threads,
                                n as u64,
                                x.0,
                                w.0.add(copy * weight_bytes),
                                bias.0,
                                std::ptr::null(),
                                y.0,
                                scratch[t as usize].0,
                            );
                        }
                    }
                }) / calls as f64;
                let (gflops, gbytes) = (flops / seconds / 1e9, weight_bytes as f64 / seconds / 1e9);
                let at = threads as usize - 1;
                println!(
                    "{name:<34} t{threads} {:>9.1} us {gflops:>7.1} GFLOP/s {:>3.0}% {gbytes:>6.1} GB/s {:>3.0}%",
                    seconds * 1e6,
                    100.0 * gflops / self.peak[at],
                    100.0 * gbytes / self.bandwidth[at],
                );
            }
        }
    }

    fn attend(&self, a: &Attend, append: &KvAppend) {
        let all = a.mask == Mask::Bidirectional;
        for (new, past) in [
            (128usize, 0usize),
            (512, 0),
            (1, 127),
            (1, 511),
            (1, 4095),
            (1, 32767),
        ] {
            let name = format!(
                "attend {}x{} d{} {}{} {new}+{past}",
                a.kv.heads,
                a.group,
                a.kv.k_width,
                a.kv.elem.name(),
                match a.mask {
                    Mask::Bidirectional => " all",
                    Mask::Causal { window: None } => " causal",
                    Mask::Causal { .. } => " window",
                }
            );
            if !self.wanted(&name) || (all && past > 0) {
                continue;
            }
            let keys = new + past;
            let pages = keys.div_ceil(64);
            let mut random = Random::new(9);
            let width = a.kv.k_width as usize;
            let (q_stride, kv_stride) = (a.q_stride as usize, append.k_stride as usize);
            let mut q = Buffer::from_f32(&random.rows(new, q_stride, q_stride));
            let mut k = Buffer::from_f32(&random.rows(keys, kv_stride, kv_stride));
            let mut out = Buffer::floats(new * a.out_stride as usize);
            let cache_bytes = pages * a.kv.page_bytes() as usize;
            // One token streams the cache from memory, as other layers and weights come between.
            let copies = if new == 1 {
                (200_000_000 / cache_bytes).clamp(2, 200)
            } else {
                1
            };
            let mut cache = Buffer::bytes(copies * cache_bytes);
            let mut partials = Buffer::bytes(a.partial_bytes() as usize);
            let list = |v: Vec<usize>| {
                Buffer::from_i32(&v.into_iter().map(|x| x as i32).collect::<Vec<_>>())
            };
            let mut table = list((0..pages).collect());
            let mut every = list((0..keys).collect());
            let mut zeros = list(vec![0; keys]);
            let mut pos = list((past..keys).collect());
            let mut starts = list(vec![0, new]);
            let mut lens = list(vec![keys]);
            let mut scratch = [0, 1].map(|_| Buffer::bytes(a.scratch_bytes() as usize));
            // SAFETY: the documented signatures and sizes.
            let (f, seconds) = unsafe {
                let g: AppendFn = self.lib.get(&append.symbol());
                let start = Instant::now();
                for copy in 0..copies {
                    g(
                        0,
                        1,
                        keys as u64,
                        k.ptr(),
                        k.ptr(),
                        every.ptr(),
                        zeros.ptr(),
                        cache.ptr().add(copy * cache_bytes),
                        table.ptr(),
                        pages as u64,
                    );
                }
                let f: AttendFn = self.lib.get(&a.symbol());
                (f, start.elapsed().as_secs_f64() / copies as f64)
            };
            println!("{name:<34} append of {keys} keys {:>9.1} us", seconds * 1e6);
            let [q, out, cache, partials, table, pos, starts, lens] = [
                &mut q,
                &mut out,
                &mut cache,
                &mut partials,
                &mut table,
                &mut pos,
                &mut starts,
                &mut lens,
            ]
            .map(|b| Shared(b.ptr()));
            let scratch = [Shared(scratch[0].ptr()), Shared(scratch[1].ptr())];
            let seen = match a.mask {
                Mask::Causal { window: Some(w) } if new == 1 => keys.min(w as usize),
                _ => keys,
            };
            let pairs = if all {
                (new * keys) as f64
            } else {
                (new * (seen - new) + new * (new + 1) / 2) as f64
            };
            let flops = pairs * (a.kv.heads * a.group) as f64 * width as f64 * 4.0;
            let bytes = seen as f64 * (a.kv.page_bytes() / 64) as f64;
            for threads in [1u64, 2] {
                let rounds = ((1e10 / flops) as usize).clamp(5, 200.max(copies));
                let seconds = time(threads, rounds, |t, round| {
                    let (q, out, cache, table) = (q, out, cache, table);
                    let (pos, starts, lens, scratch, partials) =
                        (pos, starts, lens, scratch, partials);
                    // SAFETY: the documented sizes.
                    unsafe {
                        f(
                            t,
                            threads,
                            1,
                            q.0,
                            cache.0.add(round % copies * cache_bytes),
                            table.0,
                            pages as u64,
                            pos.0,
                            starts.0,
                            lens.0,
                            std::ptr::null(),
                            std::ptr::null(),
                            std::ptr::null(),
                            std::ptr::null(),
                            out.0,
                            scratch[t as usize].0,
                            partials.0,
                        );
                    }
                });
                let gflops = flops / seconds / 1e9;
                println!(
                    "{name:<34} t{threads} {:>9.1} us {gflops:>7.1} GFLOP/s {:>3.0}% {:>6.1} GB/s",
                    seconds * 1e6,
                    100.0 * gflops / self.peak[threads as usize - 1],
                    bytes / seconds / 1e9,
                );
            }
        }
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let known = levels();
    let first = args.next();
    let level = match first.as_deref().map(|n| known.iter().find(|l| l.name == n)) {
        Some(Some(level)) => level,
        Some(None) => panic!("this machine runs none of that name: {first:?}"),
        None => known.last().expect("a level that this machine runs"),
    };
    let filter = args.next().unwrap_or_default();
    let (linears, blocks, attends) = (linears(), block_linears(), attends());
    let start = Instant::now();
    let lib = Loaded::new(level, |b| {
        emit_peaks(b);
        for l in &linears {
            l.emit(b);
        }
        for l in &blocks {
            l.emit(b);
        }
        for (attend, append) in &attends {
            attend.emit(b);
            append.emit(b);
        }
    });
    println!(
        "compiled and loaded in {:.2} s",
        start.elapsed().as_secs_f64()
    );
    let mut bench = Bench {
        lib,
        filter,
        peak: [0.0; 2],
        bandwidth: [0.0; 2],
    };
    bench.peaks();
    for l in &linears {
        bench.linear(l);
    }
    for l in &blocks {
        bench.block_linear(l);
    }
    for (attend, append) in &attends {
        bench.attend(attend, append);
    }
}
