//! `kv_append` and `attend` together, against attention in f64 over the whole sequence.

use crate::buffer::{Buffer, Random, assert_bits, assert_close, pad, rounded};
use crate::harness::{Loaded, load_all, same_bits};
use llmc_codegen::kernel::Elem;
use llmc_codegen::kernels::{Attend, KvAppend, KvLayout, Mask, RelativeBias};

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

struct Case {
    attend: Attend,
    append: KvAppend,
    /// Logical head widths.
    dk: usize,
    dv: usize,
}

/// Pages per sequence, and sequences, of the test's cache.
const PAGES: usize = 8;
const SEQUENCES: usize = 3;
/// A page that is not mapped: far outside of memory that exists.
const NO_PAGE: i32 = i32::MIN;

fn case(dk: usize, dv: usize, heads: usize, group: usize, elem: Elem) -> Case {
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
struct World<'a> {
    c: &'a Case,
    /// `[sequence][position][stride]`
    q: Vec<Vec<f32>>,
    k: Vec<Vec<f32>>,
    v: Vec<Vec<f32>>,
    bias: Vec<f32>,
    sinks: Vec<f32>,
    stale: Buffer,
}

/// New tokens of a sequence in a step: sequence, first position, count.
type Part = (usize, usize, usize);

impl World<'_> {
    fn new(c: &Case, length: usize) -> World<'_> {
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
    fn cache(&self) -> Buffer {
        self.stale.clone()
    }

    /// Appends and attends one step; returns the rows of `out`.
    fn step(&self, lib: &Loaded, threads: u64, cache: &mut Buffer, parts: &[Part]) -> Vec<f32> {
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
    fn naive(&self, s: usize, i: usize, keys: usize) -> Vec<f64> {
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

fn compare(world: &World<'_>, parts: &[Part], found: &[f32]) {
    let stride = world.c.attend.out_stride as usize;
    let mut rows = found.chunks(stride);
    for (s, from, count) in parts {
        for i in *from..from + count {
            let expected = world.naive(*s, i, from + count);
            let row = rows.next().expect("a row per token");
            for (x, e) in row.iter().zip(&expected) {
                assert_close(*x, *e, 2e-5, &world.c.attend.symbol());
            }
        }
    }
}

/// A prefill of three sequences at once, against the reference; then, for causal masks, each
/// sequence alone, in pieces, and its tail token by token, and all of them in steps that mix
/// prefill and decode: bitwise the same.
fn check(c: &Case, length: usize) {
    let loaded = load_all(|b| {
        c.append.emit(b);
        c.attend.emit(b);
    });
    let world = World::new(c, length);
    let lengths = [length, length / 2 + 1, 1];
    let whole: Vec<Part> = (0..SEQUENCES).map(|s| (s, 0, lengths[s])).collect();
    let all = same_bits(&loaded, |lib, threads| {
        world.step(lib, threads, &mut world.cache(), &whole)
    });
    compare(&world, &whole, &all);
    let stride = c.attend.out_stride as usize;
    let lib = &loaded[loaded.len() - 1];
    let mut first = 0;
    for (s, length) in lengths.into_iter().enumerate() {
        let expected = &all[first * stride..(first + length) * stride];
        first += length;
        let alone = world.step(lib, 2, &mut world.cache(), &[(s, 0, length)]);
        assert_bits(&alone, expected, "a sequence alone");
        if c.attend.mask == Mask::Bidirectional {
            continue;
        }
        let mut cache = world.cache();
        let tail = length.min(5);
        let head = length - tail;
        let mut pieces = Vec::new();
        if head > 1 {
            pieces.extend(world.step(lib, 1, &mut cache, &[(s, 0, head / 3)]));
            pieces.extend(world.step(lib, 3, &mut cache, &[(s, head / 3, head - head / 3)]));
        } else if head == 1 {
            pieces.extend(world.step(lib, 1, &mut cache, &[(s, 0, 1)]));
        }
        for i in head..length {
            pieces.extend(world.step(lib, 1, &mut cache, &[(s, i, 1)]));
        }
        assert_bits(&pieces, expected, "a sequence in pieces");
    }
    if c.attend.mask != Mask::Bidirectional && length > 1 {
        mixed_steps(&world, lib, lengths, &all);
    }
}

/// The first sequence but for its last token; then that token, the whole third sequence and the
/// second one in two parts, in another order than they lie in the cache.
fn mixed_steps(world: &World<'_>, lib: &Loaded, lengths: [usize; SEQUENCES], all: &[f32]) {
    let stride = world.c.attend.out_stride as usize;
    let starts = [0, lengths[0], lengths[0] + lengths[1]];
    let half = lengths[1] / 2;
    let steps: [&[Part]; 2] = [
        &[(1, 0, half), (0, 0, lengths[0] - 1)],
        &[
            (2, 0, lengths[2]),
            (0, lengths[0] - 1, 1),
            (1, half, lengths[1] - half),
        ],
    ];
    let mut cache = world.cache();
    for parts in steps {
        let found = world.step(lib, 2, &mut cache, parts);
        let mut rows = found.as_slice();
        for (s, from, count) in parts {
            let (part, rest) = rows.split_at(count * stride);
            let first = (starts[*s] + from) * stride;
            assert_bits(part, &all[first..first + count * stride], "a mixed step");
            rows = rest;
        }
    }
}

#[test]
fn head_widths() {
    for width in [6, 24, 40, 64, 72, 80, 128, 256] {
        check(&case(width, width, 2, 1, Elem::F32), 70);
    }
    check(&case(40, 24, 1, 2, Elem::F32), 70);
    for (width, elem) in [
        (6, Elem::F16),
        (40, Elem::BF16),
        (80, Elem::F16),
        (256, Elem::BF16),
    ] {
        check(&case(width, width, 1, 3, elem), 70);
    }
    check(&case(24, 72, 2, 1, Elem::F16), 70);
}

#[test]
fn lengths() {
    let c = case(32, 32, 2, 1, Elem::F32);
    for length in [1, 2, 5, 6, 7, 16, 48, 50, 64, 65, 130, 300] {
        check(&c, length);
    }
}

#[test]
fn groups_and_types() {
    for elem in [Elem::F32, Elem::F16, Elem::BF16] {
        for (heads, group) in [(1, 4), (2, 7), (3, 2)] {
            check(&case(32, 32, heads, group, elem), 100);
        }
        // A token's rows fill more than one unit.
        check(&case(24, 24, 1, 32, elem), 66);
    }
}

#[test]
fn masks() {
    let mut c = case(32, 48, 2, 2, Elem::F32);
    for window in [1, 16, 64, 100] {
        c.attend.mask = Mask::Causal {
            window: Some(window),
        };
        check(&c, 200);
    }
    for elem in [Elem::F16, Elem::BF16] {
        let mut c = case(40, 40, 1, 4, elem);
        c.attend.mask = Mask::Causal { window: Some(70) };
        check(&c, 200);
        c.attend.mask = Mask::Bidirectional;
        check(&c, 130);
    }
    c.attend.mask = Mask::Bidirectional;
    for length in [1, 63, 64, 130] {
        check(&c, length);
    }
}

#[test]
fn score_options() {
    let mut c = case(32, 32, 2, 2, Elem::F32);
    c.attend.softcap = Some(2.0);
    check(&c, 100);
    c.attend.sinks = true;
    check(&c, 100);
    c.attend.bias = Some(RelativeBias {
        stride: 2 * 100 + 64,
        zero: 100,
    });
    check(&c, 100);
    let mut windowed = case(24, 24, 1, 3, Elem::BF16);
    windowed.attend.mask = Mask::Causal { window: Some(30) };
    windowed.attend.bias = c.attend.bias;
    windowed.attend.softcap = Some(5.0);
    check(&windowed, 100);
    c.attend.mask = Mask::Bidirectional;
    check(&c, 100);
}
