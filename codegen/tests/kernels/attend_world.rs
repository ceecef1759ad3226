//! Sequences to attend over: their queries, keys and values, a cache to put them into, a step of the
//! kernels over it, and attention in f64.

use crate::buffer::{Buffer, Random, pad, rounded_row};
use crate::harness::Loaded;
use llmc_codegen::kernels::{Attend, Bias, KvAppend, KvElem, KvLayout, Mask};
use llmc_codegen::pack::PositionRows;
use llmc_ir::ops::Disentangled;

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
    *const u8,
    *const u8,
    *mut u8,
    *mut u8,
    *mut u8,
);

pub struct Case {
    pub attend: Attend,
    pub append: KvAppend,
    /// Logical head widths.
    dk: usize,
    dv: usize,
    /// Position terms; `attend` has them for a context of `World`'s length.
    terms: Option<Disentangled>,
}

/// Sequences of the test's cache.
pub const SEQUENCES: usize = 3;
/// A page that is not mapped: far outside of memory that exists.
const NO_PAGE: i32 = i32::MIN;

pub fn case(dk: usize, dv: usize, heads: usize, group: usize, elem: KvElem) -> Case {
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
            pattern: None,
            bias: None,
            terms: None,
            sinks: false,
            // Room for one token of each sequence over some hundred keys.
            split: SEQUENCES as i64 * Attend::split_for(&kv, group as i64, 300),
        },
        append: KvAppend {
            kv,
            k_stride: heads as i64 * kv.k_width,
            v_stride: heads as i64 * kv.v_width + 16,
            by_heads: false,
        },
        dk,
        dv,
        terms: None,
    }
}

/// Attention with position terms over all keys, for sequences of up to `length` tokens.
pub fn disentangled(dk: usize, heads: usize, terms: Disentangled, length: usize) -> Case {
    let mut c = case(dk, dk, heads, 1, KvElem::F32);
    let rows = PositionRows {
        terms,
        context: length as u32,
    };
    c.attend.mask = Mask::Bidirectional;
    c.attend.split = 0;
    c.attend.terms = Some(rows.kernel());
    c.terms = Some(terms);
    c
}

/// Whole sequences of q, k, v, and a cache to put them into.
pub struct World<'a> {
    pub c: &'a Case,
    /// `[sequence][position][stride]`
    q: Vec<Vec<f32>>,
    k: Vec<Vec<f32>>,
    v: Vec<Vec<f32>>,
    /// k and v as they come back from the cache.
    stored: [Vec<Vec<f32>>; 2],
    /// Pages of a sequence.
    pages: usize,
    bias: Vec<f32>,
    /// What the terms add to, and their tables: `[heads][rows][k_width]` of keys, of queries.
    terms: Option<(PositionRows, [Vec<f32>; 2])>,
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
        let back = |all: &[Vec<f32>], physical: usize, stride: usize| {
            let row = |row: &[f32]| -> Vec<f32> {
                let (lanes, behind) = row.split_at(heads * physical);
                let lanes = lanes.chunks(physical);
                let lanes = lanes.flat_map(|x| rounded_row(x, a.kv.elem));
                lanes.chain(behind.iter().copied()).collect()
            };
            let rows = |rows: &Vec<f32>| rows.chunks(stride).flat_map(row).collect();
            all.iter().map(rows).collect::<Vec<Vec<f32>>>()
        };
        let stored = [
            back(&k, kp, c.append.k_stride as usize),
            back(&v, vp, c.append.v_stride as usize),
        ];
        let pages = length.div_ceil(64);
        let stride = match a.bias {
            Some(Bias::Relative(b)) => b.stride as usize,
            Some(Bias::Slopes) | None => 1,
        };
        let bias = (0..all * stride).map(|_| random.unit()).collect();
        let sinks = (0..all).map(|_| random.unit()).collect();
        let terms = c.terms.map(|terms| {
            let rows = PositionRows {
                terms,
                context: length as u32,
            };
            let mut table = || {
                let mut table = vec![0.0; heads * rows.padded() as usize * kp];
                for (i, row) in table.chunks_mut(kp).enumerate() {
                    if i % (rows.padded() as usize) < 2 * terms.span as usize {
                        row[..c.dk].fill_with(|| random.unit());
                    }
                }
                table
            };
            let tables = [table(), table()];
            (rows, tables)
        });
        let mut stale = Buffer::bytes(a.kv.page_bytes() as usize * pages * SEQUENCES);
        stale.fill_stale(a.kv.elem, &mut random);
        World {
            c,
            q,
            k,
            v,
            stored,
            pages,
            bias,
            terms,
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
        self.append(lib, threads, cache, parts);
        self.attend(lib, threads, cache, parts)
    }

    /// The rows of `all` that a step takes.
    fn rows(all: &[Vec<f32>], stride: i64, parts: &[Part]) -> Buffer {
        let stride = stride as usize;
        let rows = parts
            .iter()
            .flat_map(|(s, from, count)| &all[*s][from * stride..(from + count) * stride]);
        Buffer::from_f32(&rows.copied().collect::<Vec<_>>())
    }

    fn positions(parts: &[Part]) -> Buffer {
        let pos = parts
            .iter()
            .flat_map(|(_, from, count)| *from..from + count);
        Buffer::from_i32(&pos.map(|p| p as i32).collect::<Vec<_>>())
    }

    /// Entries of a row of the table.
    fn table_stride(&self) -> usize {
        self.pages + 2
    }

    /// Pages of the sequences lie mixed, in falling order.
    fn table(&self, parts: &[Part]) -> Buffer {
        let entry = |s: usize, keys: usize, p: usize| match p {
            p if p * 64 < keys => ((self.pages - 1 - p) * SEQUENCES + s) as i32,
            _ => NO_PAGE,
        };
        let rows = parts.iter().flat_map(|&(s, from, count)| {
            (0..self.table_stride()).map(move |p| entry(s, from + count, p))
        });
        Buffer::from_i32(&rows.collect::<Vec<_>>())
    }

    /// Makes the values of a page of sequence `s` NaN, which shows in every row that reads the page, with
    /// whatever probability; a cache of f32.
    pub fn poison(&self, cache: &mut Buffer, s: usize, page: usize) {
        let kv = &self.c.attend.kv;
        let keys = (kv.heads * 64 * kv.k_width) as usize;
        let floats = kv.page_bytes() as usize / 4;
        let at = ((self.pages - 1 - page) * SEQUENCES + s) * floats;
        cache.f32_mut()[at + keys..at + floats].fill(f32::NAN);
    }

    /// Puts the keys and values of a step into the cache.
    pub fn append(&self, lib: &Loaded, threads: u64, cache: &mut Buffer, parts: &[Part]) {
        let append = &self.c.append;
        let n: usize = parts.iter().map(|p| p.2).sum();
        let mut k = Self::rows(&self.k, append.k_stride, parts);
        let mut v = Self::rows(&self.v, append.v_stride, parts);
        let (mut pos, mut table) = (Self::positions(parts), self.table(parts));
        let seq = parts.iter().enumerate();
        let seq: Vec<i32> = seq
            .flat_map(|(i, p)| std::iter::repeat_n(i as i32, p.2))
            .collect();
        let mut seq = Buffer::from_i32(&seq);
        // SAFETY: the documented signature and sizes.
        unsafe {
            let f: AppendFn = lib.get(&append.symbol());
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
                    self.table_stride() as u64,
                );
            }
        }
    }

    /// Attends the tokens of a step, whose keys are in the cache; returns the rows of `out`.
    pub fn attend(
        &self,
        lib: &Loaded,
        threads: u64,
        cache: &mut Buffer,
        parts: &[Part],
    ) -> Vec<f32> {
        let a = &self.c.attend;
        let n: usize = parts.iter().map(|p| p.2).sum();
        let mut q = Self::rows(&self.q, a.q_stride, parts);
        let (mut pos, mut table) = (Self::positions(parts), self.table(parts));
        let mut starts = vec![0];
        for (_, _, count) in parts {
            starts.push(starts[starts.len() - 1] + *count as i32);
        }
        let lens: Vec<i32> = parts.iter().map(|p| (p.1 + p.2) as i32).collect();
        let [mut starts, mut lens] = [starts, lens].map(|x| Buffer::from_i32(&x));
        let [mut bias, mut sinks] = [&self.bias, &self.sinks].map(|x| Buffer::from_f32(x));
        let [mut pos_key, mut pos_query] = self.term_tables();
        let mut out = Buffer::floats(n * a.out_stride as usize);
        out.f32_mut().fill(f32::NAN);
        let mut partials = Buffer::scratch(a.partial_bytes());
        const COUNTERS: usize = 64;
        if a.split > 0 {
            partials.f32_mut()[..COUNTERS].fill(0.0);
        }
        // SAFETY: the documented signature and sizes.
        unsafe {
            let f: AttendFn = lib.get(&a.symbol());
            for t in 0..threads {
                let mut scratch = Buffer::scratch(a.scratch_bytes());
                f(
                    t,
                    threads,
                    parts.len() as u64,
                    q.ptr(),
                    cache.ptr(),
                    table.ptr(),
                    self.table_stride() as u64,
                    pos.ptr(),
                    starts.ptr(),
                    lens.ptr(),
                    bias.ptr(),
                    pos_key.ptr(),
                    pos_query.ptr(),
                    sinks.ptr(),
                    out.ptr(),
                    scratch.ptr(),
                    partials.ptr(),
                );
                scratch.assert_within(a.scratch_bytes());
            }
        }
        partials.assert_within(a.partial_bytes());
        if a.split > 0 {
            let counters = &partials.f32()[..COUNTERS];
            assert!(
                counters.iter().all(|c| c.to_bits() == 0),
                "the counters are back at zero"
            );
        }
        let behind = &out.f32()[n * a.out_stride as usize..];
        assert!(
            behind.iter().all(|v| v.is_nan()),
            "nothing is written behind out"
        );
        out.f32()[..n * a.out_stride as usize].to_vec()
    }

    /// The tables of position terms as the kernel reads them.
    fn term_tables(&self) -> [Buffer; 2] {
        let Some((rows, [keys, queries])) = &self.terms else {
            return [Buffer::bytes(64), Buffer::bytes(64)];
        };
        let facts = rows.kernel();
        let numbers = (0..facts.entries).map(|i| rows.terms.row(i - facts.origin) as f32);
        let numbers: Vec<f32> = numbers.map(|n| f32::from_bits(n as u32)).collect();
        let (width, padded) = (self.c.attend.kv.k_width as usize, rows.padded() as usize);
        let across = keys.chunks(width * padded).flat_map(|head| {
            let at = move |lane: usize, r: usize| head[r * width + lane];
            (0..width).flat_map(move |lane| (0..padded).map(move |r| at(lane, r)))
        });
        let keys: Vec<f32> = numbers.iter().copied().chain(across).collect();
        let queries = [&numbers[..], queries].concat();
        [Buffer::from_f32(&keys), Buffer::from_f32(&queries)]
    }

    /// The position terms of query i and key j.
    fn term(&self, h: usize, (i, q): (usize, &[f32]), (j, k): (usize, &[f32])) -> f64 {
        let Some((rows, [keys, queries])) = &self.terms else {
            return 0.0;
        };
        let width = self.c.attend.kv.k_width as usize;
        let r = rows.terms.row(i as i64 - j as i64) as usize + h * rows.padded() as usize;
        let dot = |x: &[f32], table: &[f32]| -> f64 {
            let y = &table[r * width..];
            x.iter()
                .zip(y)
                .map(|(x, y)| f64::from(*x) * f64::from(*y))
                .sum()
        };
        let c2p = if rows.terms.c2p { dot(q, keys) } else { 0.0 };
        let p2c = if rows.terms.p2c { dot(k, queries) } else { 0.0 };
        (c2p + p2c) * f64::from(self.c.attend.scale)
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
                .filter(|&j| {
                    let pattern = a.pattern.as_ref();
                    pattern.is_none_or(|p| p.visible(i as i64, j as i64))
                })
                .collect();
            let mut scores: Vec<f64> = visible
                .iter()
                .map(|j| {
                    let q = &self.q[s][i * a.q_stride as usize + h * kp..][..self.c.dk];
                    let k = &self.stored[0][s][j * append.k_stride as usize + h / group * kp..]
                        [..self.c.dk];
                    let dot: f64 = q
                        .iter()
                        .zip(k)
                        .map(|(x, y)| f64::from(*x) * f64::from(*y))
                        .sum();
                    let mut score = dot * f64::from(a.scale) + self.term(h, (i, q), (*j, k));
                    if let Some(cap) = a.softcap {
                        score = f64::from(cap) * (score / f64::from(cap)).tanh();
                    }
                    let distance = *j as i64 - i as i64;
                    match a.bias {
                        Some(Bias::Relative(b)) => {
                            let at = h as i64 * b.stride + distance + b.zero;
                            score += f64::from(self.bias[at as usize]);
                        }
                        Some(Bias::Slopes) => score += f64::from(self.bias[h]) * distance as f64,
                        None => {}
                    }
                    score
                })
                .collect();
            let sink = a.sinks.then(|| f64::from(self.sinks[h]));
            let top = scores.iter().copied().chain(sink).fold(f64::MIN, f64::max);
            scores.iter_mut().for_each(|x| *x = (*x - top).exp());
            let total = scores.iter().sum::<f64>() + sink.map_or(0.0, |x| (x - top).exp());
            for (j, p) in visible.iter().zip(&scores) {
                let v = &self.stored[1][s][j * append.v_stride as usize + h / group * vp..]
                    [..self.c.dv];
                for (o, x) in out[h * vp..].iter_mut().zip(v) {
                    *o += p / total * f64::from(*x);
                }
            }
        }
        out
    }
}
