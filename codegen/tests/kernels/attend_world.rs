//! Sequences to attend over: their queries, keys and values, a cache to put them into, a step of the
//! kernels over it, and attention in f64.

use crate::buffer::{Buffer, Random, pad, rounded};
use crate::harness::Loaded;
use llmc_codegen::kernel::Elem;
use llmc_codegen::kernels::{Attend, KvAppend, KvLayout, Mask};

pub type AppendFn = unsafe extern "C" fn(
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
    *mut u8,
    *mut u8,
);

pub struct Case {
    pub attend: Attend,
    pub append: KvAppend,
    /// Logical head widths.
    dk: usize,
    dv: usize,
}

/// Pages per sequence, and sequences, of the test's cache.
const PAGES: usize = 8;
pub const SEQUENCES: usize = 3;
/// A page that is not mapped: far outside of memory that exists.
const NO_PAGE: i32 = i32::MIN;

pub fn case(dk: usize, dv: usize, heads: usize, group: usize, elem: Elem) -> Case {
    let kv = KvLayout {
        heads: heads as i64,
        k_width: pad(dk, 16) as i64,
        v_width: pad(dv, 16) as i64,
        elem,
    };
    Case {
        attend: Attend {
            kv,
            group: group as i64,
            q_stride: heads as i64 * group as i64 * kv.k_width + 16,
            out_stride: heads as i64 * group as i64 * kv.v_width,
            scale: 1.0 / (dk as f32).sqrt(),
            softcap: None,
            mask: Mask::Causal { window: None },
            bias: None,
            sinks: false,
        },
        append: KvAppend {
            kv,
            k_stride: heads as i64 * kv.k_width,
            v_stride: heads as i64 * kv.v_width + 16,
        },
        dk,
        dv,
    }
}

/// Whole sequences of q, k, v, and a cache to put them into.
pub struct World<'a> {
    pub c: &'a Case,
    /// `[sequence][position][stride]`
    q: Vec<Vec<f32>>,
    k: Vec<Vec<f32>>,
    v: Vec<Vec<f32>>,
    bias: Vec<f32>,
    sinks: Vec<f32>,
    stale: Buffer,
}

/// New tokens of a sequence in a step: sequence, first position, count.
pub type Part = (usize, usize, usize);

impl World<'_> {
    pub fn new(c: &Case, length: usize) -> World<'_> {
        let a = &c.attend;
        let mut random = Random::new((c.dk + 1000 * length) as u64);
        let heads = a.kv.heads as usize;
        let all = heads * a.group as usize;
        let (kp, vp) = (a.kv.k_width as usize, a.kv.v_width as usize);
        let mut fill = |heads: usize, width: usize, physical: usize, stride: usize| {
            (0..SEQUENCES)
                .map(|_| {
                    let mut rows = vec![0.0; length * stride];
                    for row in rows.chunks_mut(stride) {
                        for h in 0..heads {
                            for x in &mut row[h * physical..h * physical + width] {
                                *x = random.unit() * 2.0;
                            }
                        }
                    }
                    rows
                })
                .collect::<Vec<_>>()
        };
        let q = fill(all, c.dk, kp, a.q_stride as usize);
        let k = fill(heads, c.dk, kp, c.append.k_stride as usize);
        let v = fill(heads, c.dv, vp, c.append.v_stride as usize);
        let stride = a.bias.map_or(1, |b| b.stride as usize);
        let bias = (0..all * stride).map(|_| random.unit()).collect();
        let sinks = (0..all).map(|_| random.unit()).collect();
        let mut stale = Buffer::bytes(a.kv.page_bytes() as usize * PAGES * SEQUENCES);
        stale.fill_stale(a.kv.elem, &mut random);
        World {
            c,
            q,
            k,
            v,
            bias,
            sinks,
            stale,
        }
    }

    /// A cache full of stale numbers.
    pub fn cache(&self) -> Buffer {
        self.stale.clone()
    }

    /// Appends and attends one step; returns the rows of `out`.
    pub fn step(&self, lib: &Loaded, threads: u64, cache: &mut Buffer, parts: &[Part]) -> Vec<f32> {
        let (a, append) = (&self.c.attend, &self.c.append);
        let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
        let (mut pos, mut seq, mut starts, mut lens) = (vec![], vec![], vec![0], vec![]);
        let mut table = Vec::new();
        let stride = PAGES + 2;
        for (i, (s, from, count)) in parts.iter().enumerate() {
            let rows = |all: &[f32], stride: i64| {
                all[from * stride as usize..(from + count) * stride as usize].to_vec()
            };
            q.extend(rows(&self.q[*s], a.q_stride));
            k.extend(rows(&self.k[*s], append.k_stride));
            v.extend(rows(&self.v[*s], append.v_stride));
            pos.extend((*from..from + count).map(|p| p as i32));
            seq.extend(std::iter::repeat_n(i as i32, *count));
            starts.push(pos.len() as i32);
            lens.push((from + count) as i32);
            // Pages of the sequences lie mixed, in falling order.
            table.extend((0..stride).map(|p| match p {
                p if p * 64 < from + count => ((PAGES - 1 - p) * SEQUENCES + s) as i32,
                _ => NO_PAGE,
            }));
        }
        let n = pos.len();
        let [mut q, mut k, mut v] = [q, k, v].map(|x| Buffer::from_f32(&x));
        let [mut pos, mut seq, mut starts, mut lens, mut table] =
            [pos, seq, starts, lens, table].map(|x| Buffer::from_i32(&x));
        let [mut bias, mut sinks] = [&self.bias, &self.sinks].map(|x| Buffer::from_f32(x));
        let mut out = Buffer::floats(n * a.out_stride as usize);
        out.f32_mut().fill(f32::NAN);
        // SAFETY: the documented signatures and sizes.
        unsafe {
            let f: AppendFn = lib.get(&append.symbol());
            let g: AttendFn = lib.get(&a.symbol());
            for t in 0..threads {
                f(
                    t,
                    threads,
                    n as u64,
                    k.ptr(),
                    v.ptr(),
                    pos.ptr(),
                    seq.ptr(),
                    cache.ptr(),
                    table.ptr(),
                    stride as u64,
                );
            }
            for t in 0..threads {
                let mut scratch = Buffer::scratch(a.scratch_bytes());
                g(
                    t,
                    threads,
                    parts.len() as u64,
                    q.ptr(),
                    cache.ptr(),
                    table.ptr(),
                    stride as u64,
                    pos.ptr(),
                    starts.ptr(),
                    lens.ptr(),
                    bias.ptr(),
                    sinks.ptr(),
                    out.ptr(),
                    scratch.ptr(),
                );
                scratch.assert_within(a.scratch_bytes());
            }
        }
        let behind = &out.f32()[n * a.out_stride as usize..];
        assert!(
            behind.iter().all(|v| v.is_nan()),
            "nothing is written behind out"
        );
        out.f32()[..n * a.out_stride as usize].to_vec()
    }

    /// One output row in f64: query `i` of sequence `s` over `keys` keys.
    pub fn naive(&self, s: usize, i: usize, keys: usize) -> Vec<f64> {
        let (a, append) = (&self.c.attend, &self.c.append);
        let (kp, vp) = (a.kv.k_width as usize, a.kv.v_width as usize);
        let group = a.group as usize;
        let mut out = vec![0.0; a.out_stride as usize];
        for h in 0..a.kv.heads as usize * group {
            let visible: Vec<usize> = (0..keys)
                .filter(|j| match a.mask {
                    Mask::Bidirectional => true,
                    Mask::Causal { window } => *j <= i && window.is_none_or(|w| i - j < w as usize),
                })
                .collect();
            let mut scores: Vec<f64> = visible
                .iter()
                .map(|j| {
                    let q = &self.q[s][i * a.q_stride as usize + h * kp..][..self.c.dk];
                    let k =
                        &self.k[s][j * append.k_stride as usize + h / group * kp..][..self.c.dk];
                    let dot: f64 = q
                        .iter()
                        .zip(k)
                        .map(|(x, y)| f64::from(*x) * f64::from(rounded(*y, a.kv.elem)))
                        .sum();
                    let mut score = dot * f64::from(a.scale);
                    if let Some(cap) = a.softcap {
                        score = f64::from(cap) * (score / f64::from(cap)).tanh();
                    }
                    if let Some(b) = a.bias {
                        let at = h as i64 * b.stride + *j as i64 - i as i64 + b.zero;
                        score += f64::from(self.bias[at as usize]);
                    }
                    score
                })
                .collect();
            let sink = a.sinks.then(|| f64::from(self.sinks[h]));
            let top = scores.iter().copied().chain(sink).fold(f64::MIN, f64::max);
            scores.iter_mut().for_each(|x| *x = (*x - top).exp());
            let total = scores.iter().sum::<f64>() + sink.map_or(0.0, |x| (x - top).exp());
            for (j, p) in visible.iter().zip(&scores) {
                let v = &self.v[s][j * append.v_stride as usize + h / group * vp..][..self.c.dv];
                for (o, x) in out[h * vp..].iter_mut().zip(v) {
                    *o += p / total * f64::from(rounded(*x, a.kv.elem));
                }
            }
        }
        out
    }
}
