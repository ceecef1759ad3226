//! Weights in block formats and int8: every path against the reference dequantisation of `ir`.
//!
//! Dequantised rows (`BlockGather`) have its bits; products in f32 are one chain of multiply-adds
//! over it; products with quantised rows follow the formula of the kernels in plain Rust, to the
//! bit, and stay near the product in f64.

use crate::buffer::{Buffer, Random, assert_bits, assert_close, pad};
use crate::harness::{Loaded, load_all, same_bits};
use crate::linear::activation;
use half::{bf16, f16};
use llmc_codegen::blocks::{Blocks, STRIP, Scales};
use llmc_codegen::kernels::{
    Activation, BlockGather, BlockLinear, Epilogue, Input, Norm, NormKind, Quantize, Rows,
};
use llmc_codegen::pack::pack_strip;
use llmc_ir::quant::Format;
use llmc_ir::quant::activation::{self, RowForm};
use llmc_ir::quant::rows::{row_values, store_rows};
use llmc_ir::{DType, Group};

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
type GatherFn = unsafe extern "C" fn(u64, u64, u64, *const u8, *const u8, *mut u8, *mut u8);
type QuantizeFn =
    unsafe extern "C" fn(u64, u64, u64, *const u8, *const u8, *const u8, *mut u8, *mut u8);

type NormFn = unsafe extern "C" fn(u64, u64, u64, *const u8, *const u8, *const u8, *mut u8);

/// Stands where nothing may be written.
const SENTINEL: f32 = 12345.5;

/// Blocks of random codes whose values have magnitudes near 1.
pub fn random_blocks(format: Format, count: usize, random: &mut Random) -> Vec<u8> {
    let bytes = format.block_bytes();
    let mut out: Vec<u8> = (0..count * bytes).map(|_| random.next() as u8).collect();
    let halves: &[(usize, f32)] = match format {
        Format::MXFP4 => &[],
        Format::Q2_K => &[(80, 0.02), (82, 0.02)],
        Format::Q3_K => &[(108, 0.01)],
        Format::Q4_0 | Format::Q5_0 => &[(0, 0.1)],
        Format::Q4_1 | Format::Q5_1 => &[(0, 0.1), (2, 0.5)],
        Format::Q4_K | Format::Q5_K => &[(0, 0.002), (2, 0.01)],
        Format::Q6_K => &[(208, 0.0005)],
        Format::Q8_0 => &[(0, 0.01)],
    };
    for block in out.chunks_exact_mut(bytes) {
        if format == Format::MXFP4 {
            block[0] = 120 + (random.next() % 6) as u8;
        }
        for (at, size) in halves {
            let d = f16::from_f32(random.unit() * size);
            block[*at..at + 2].copy_from_slice(&d.to_le_bytes());
        }
    }
    out
}

/// A weight: rows as the checkpoint has them (None: padding), their values, and the strips.
struct Weight {
    values: Vec<Vec<f32>>,
    packed: Buffer,
    source: Vec<Option<Vec<u8>>>,
}

fn weight(dtype: DType, rows: &[bool], k: usize, random: &mut Random) -> Weight {
    let form = Blocks::of_dtype(dtype).expect("a type of blocks");
    let source: Vec<Option<Vec<u8>>> = rows
        .iter()
        .map(|some| {
            some.then(|| match dtype {
                DType::Block(format) => random_blocks(format, k / format.block_len(), random),
                _ => {
                    let values = random.rows(1, k, k);
                    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                    let row = store_rows(DType::F32, dtype, k, bytes.into());
                    row.expect("numbers have codes").into_owned()
                }
            })
        })
        .collect();
    let values = source
        .iter()
        .map(|row| match row {
            Some(row) => row_values(dtype, k, row),
            None => vec![0.0; k],
        })
        .collect();
    let strip = form.strip_bytes(k as i64) as usize;
    let mut bytes = vec![0u8; rows.len() / STRIP as usize * strip];
    for (rows, out) in source.chunks(STRIP as usize).zip(bytes.chunks_mut(strip)) {
        let rows: Vec<Option<&[u8]>> = rows.iter().map(|r| r.as_deref()).collect();
        pack_strip(dtype, &rows, k, out);
    }
    Weight {
        values,
        packed: Buffer::from_bytes(&bytes),
        source,
    }
}

/// The types that are stored in strips.
fn dtypes() -> impl Iterator<Item = DType> {
    let blocks = Format::ALL.into_iter().map(DType::Block);
    blocks.chain([DType::Int8])
}

/// Rows are multiples of it; int8 rows may have any length.
fn block_len(dtype: DType) -> usize {
    match dtype {
        DType::Int8 => 30,
        other => other.block_len() as usize,
    }
}

/// What products with weights of `dtype` read.
fn inputs(dtype: DType) -> Vec<Input> {
    let groups: &[Group] = match dtype {
        DType::Int8 => &[Group::Row, Group::Pair, Group::Block],
        _ => &[Group::Block],
    };
    let quantised = groups.iter().map(|g| Input::Q8(*g));
    quantised.chain([Input::F32]).collect()
}

#[test]
fn gathered_rows_are_the_dequantised_ones() {
    for dtype in dtypes() {
        let mut random = Random::new(dtype.row_bytes(256));
        for (blocks, scale) in [(2, Some(0.3)), (3, None)] {
            if scale.is_some() && dtype != DType::Block(Format::Q5_0) {
                continue;
            }
            let (k, count) = (blocks * block_len(dtype), 70);
            let rows: Vec<bool> = (0..pad(count, 64)).map(|r| r < count).collect();
            let mut w = weight(dtype, &rows, k, &mut random);
            {
                let gather = BlockGather {
                    form: Blocks::of_dtype(dtype).expect("a type of blocks"),
                    width: k as i64,
                    y_stride: pad(k, 16) as i64 + 16,
                    scale,
                };
                let loaded = load_all(|b| {
                    gather.emit(b);
                });
                let ids: Vec<i32> = (0..rows.len() as i32).rev().collect();
                let mut list = Buffer::from_i32(&ids);
                let (lanes, stride) = (pad(k, 16), pad(k, 16) + 16);
                let found = same_bits(&loaded, |lib, threads| {
                    // SAFETY: the documented signature.
                    let f: GatherFn = unsafe { lib.get(&gather.symbol()) };
                    let mut y = Buffer::floats(ids.len() * stride);
                    y.f32_mut().fill(SENTINEL);
                    for t in 0..threads {
                        let mut scratch = Buffer::scratch(gather.scratch_bytes());
                        // SAFETY: buffers of the documented sizes.
                        unsafe {
                            f(
                                t,
                                threads,
                                ids.len() as u64,
                                list.ptr(),
                                w.packed.ptr(),
                                y.ptr(),
                                scratch.ptr(),
                            );
                        }
                        scratch.assert_within(gather.scratch_bytes());
                    }
                    y.f32()[..ids.len() * stride].to_vec()
                });
                for (row, id) in found.chunks_exact(stride).zip(&ids) {
                    let expected: Vec<f32> = w.values[*id as usize]
                        .iter()
                        .map(|v| scale.map_or(*v, |s| v * s))
                        .collect();
                    if w.source[*id as usize].is_some() {
                        assert_bits(&row[..k], &expected, &format!("{} row {id}", dtype.name()));
                    } else {
                        assert!(row[..k].iter().all(|v| *v == 0.0), "padding is zero");
                    }
                    assert!(row[k..lanes].iter().all(|v| *v == 0.0), "pads are zero");
                    assert!(row[lanes..].iter().all(|v| *v == SENTINEL));
                }
            }
        }
    }
}

/// A quantised row as `RowForm` lays it out, from codes and scales.
fn quantised(row: &[f32], group: Group) -> Vec<u8> {
    let form = RowForm::new(row.len() as u32, group);
    let (codes, scales) = activation::quantize(row, group);
    let each = group.codes() as usize;
    let (length, groups) = (codes.len() / each, scales.len() / each);
    let halves = codes.chunks(length).zip(scales.chunks(groups));
    let mut out = Vec::new();
    for (codes, scales) in halves {
        let mut padded = codes.to_vec();
        padded.resize(form.scales as usize, 0);
        let sum = |codes: &[i8]| -> i32 { codes.iter().map(|c| i32::from(*c)).sum() };
        let sums_of = |size| padded.chunks(size).map(sum).collect::<Vec<i32>>();
        let (sums, halves, starts) = match group {
            Group::Block => (sums_of(32), sums_of(16), sums_of(32)),
            Group::Row | Group::Pair => (vec![], vec![], sums_of(padded.len())),
        };
        let starts: Vec<i32> = starts.iter().map(|s| -128 * s).collect();
        let first = out.len();
        out.extend(padded.iter().map(|c| *c as u8));
        let mut put = |at: u32, bytes: Vec<u8>| {
            out.resize(first + at as usize, 0);
            out.extend(bytes);
        };
        let ints = |v: &[i32]| v.iter().flat_map(|s| s.to_le_bytes()).collect();
        put(
            form.scales,
            scales.iter().flat_map(|s| s.to_le_bytes()).collect(),
        );
        put(form.sums, ints(&sums));
        put(form.half_sums, ints(&halves));
        put(form.starts, ints(&starts));
        out.resize(first + form.each as usize, 0);
    }
    out
}

/// The bytes of a quantised row that mean something: `(start, end)` of its rows of codes.
fn written(width: usize, group: Group) -> Vec<(usize, usize)> {
    let form = RowForm::new(width as u32, group);
    let starts = match group {
        Group::Block => form.scales / 8,
        Group::Row | Group::Pair => 4,
    };
    let each = (0..group.codes()).map(|code| code * form.each);
    each.map(|at| (at as usize, (at + form.starts + starts) as usize))
        .collect()
}

#[test]
fn quantised_rows_are_those_of_the_reference() {
    for (group, widths) in [
        (
            Group::Block,
            &[32usize, 64, 96, 128, 256, 480, 512, 768, 896, 1056][..],
        ),
        (Group::Row, &[1, 15, 16, 100, 896]),
        (Group::Pair, &[1, 15, 16, 64, 100, 384, 896]),
    ] {
        for &width in widths {
            for parts in [vec![width], vec![width / 3, width - width / 3]] {
                if parts[0] == 0 {
                    continue;
                }
                let mut at = 0;
                let segments: Vec<(i64, i64)> = parts
                    .iter()
                    .map(|p| {
                        let run = (at as i64, *p as i64);
                        at += pad(*p, 16);
                        run
                    })
                    .collect();
                let form = RowForm::new(width as u32, group);
                let kernel = Quantize {
                    to: Rows::Q8(group),
                    norm: None,
                    width: width as i64,
                    segments: segments.clone(),
                    x_stride: at as i64 + 16,
                    y_stride: i64::from(form.bytes) / 4 + 16,
                };
                let loaded = load_all(|b| {
                    kernel.emit(b);
                });
                let n = 5;
                let mut random = Random::new(width as u64);
                let stride = kernel.x_stride as usize;
                let mut logical = random.rows(n, width, width);
                // A row of zeros, tiny groups, ties and large numbers.
                logical[width..2 * width].fill(0.0);
                logical[2 * width..][..width.min(40)].fill(1e-33);
                logical[3 * width..4 * width]
                    .iter_mut()
                    .for_each(|v| *v *= 1e9);
                for (i, v) in logical[4 * width..].iter_mut().enumerate() {
                    // With 127 times 128 as the largest, halves of a pair's high codes as well.
                    *v = match (i % 32, group) {
                        (0, Group::Block | Group::Row) => 127.0,
                        (0, Group::Pair) => 16256.0,
                        (_, Group::Pair) if i % 2 == 0 => 128.0 * (i % 9) as f32 - 576.0 + 64.0,
                        _ => (i % 9) as f32 + 0.5,
                    };
                }
                let mut x = vec![0.0; n * stride];
                for (row, logical) in x.chunks_mut(stride).zip(logical.chunks(width)) {
                    row[at..].fill(f32::NAN);
                    let mut done = 0;
                    for (start, length) in &segments {
                        let length = *length as usize;
                        row[*start as usize..][..length]
                            .copy_from_slice(&logical[done..done + length]);
                        done += length;
                    }
                }
                let mut x = Buffer::from_f32(&x);
                let bytes = kernel.y_stride as usize * 4;
                let found = same_bits(&loaded, |lib, threads| {
                    // SAFETY: the documented signature.
                    let f: QuantizeFn = unsafe { lib.get(&kernel.symbol()) };
                    let mut y = Buffer::bytes(n * bytes);
                    y.f32_mut().fill(SENTINEL);
                    for t in 0..threads {
                        let mut scratch = Buffer::scratch(kernel.scratch_bytes());
                        let none = std::ptr::null();
                        // SAFETY: buffers of the documented sizes.
                        unsafe {
                            f(
                                t,
                                threads,
                                n as u64,
                                x.ptr(),
                                none,
                                none,
                                y.ptr(),
                                scratch.ptr(),
                            );
                        }
                        scratch.assert_within(kernel.scratch_bytes());
                    }
                    y.f32()[..n * bytes / 4].to_vec()
                });
                for (row, logical) in found.chunks(bytes / 4).zip(logical.chunks(width)) {
                    let row: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
                    let expected = quantised(logical, group);
                    for (at, end) in written(width, group) {
                        assert_eq!(row[at..end], expected[at..end], "{}", kernel.symbol());
                    }
                    let behind = SENTINEL.to_le_bytes().repeat(16);
                    assert_eq!(row[form.bytes as usize..], behind, "behind the row");
                }
            }
        }
    }
}

#[test]
fn rows_are_normalised_and_narrowed() {
    let (n, width, stride) = (7, 100, 128);
    let mut random = Random::new(11);
    let x = random.rows(n, width, stride);
    let gain = random.rows(2, width, 112);
    for kind in [NormKind::Rms { offset: 1.0 }, NormKind::Layer] {
        let norm = Norm::rows(kind, 1e-5, width as i64, stride as i64, 112);
        let kernel = |to| Quantize {
            to,
            norm: Some(norm.clone()),
            width: width as i64,
            segments: vec![(0, width as i64)],
            x_stride: stride as i64,
            y_stride: 96,
        };
        let kernels = [
            kernel(Rows::Bf16),
            kernel(Rows::Q8(Group::Row)),
            kernel(Rows::Q8(Group::Pair)),
        ];
        let alone = Norm {
            x_stride: stride as i64,
            y_stride: 112,
            ..norm.clone()
        };
        let loaded = load_all(|b| {
            alone.emit(b);
            for kernel in &kernels {
                kernel.emit(b);
            }
        });
        let mut x = Buffer::from_f32(&x);
        let mut gain = Buffer::from_f32(&gain);
        let normed = same_bits(&loaded, |lib, threads| {
            // SAFETY: the documented signature, without scratch.
            let f: NormFn = unsafe { lib.get(&alone.symbol()) };
            let mut y = Buffer::floats(n * 112);
            for t in 0..threads {
                // SAFETY: buffers of the documented sizes.
                unsafe {
                    let (w, c) = (gain.ptr(), gain.ptr().add(112 * 4));
                    f(t, threads, n as u64, x.ptr(), w, c, y.ptr());
                }
            }
            y.f32()[..n * 112].to_vec()
        });
        for kernel in &kernels {
            let found = same_bits(&loaded, |lib, threads| {
                // SAFETY: the documented signature.
                let f: QuantizeFn = unsafe { lib.get(&kernel.symbol()) };
                let mut y = Buffer::floats(n * 96);
                for t in 0..threads {
                    let mut scratch = Buffer::scratch(kernel.scratch_bytes());
                    // SAFETY: buffers of the documented sizes.
                    unsafe {
                        let (w, c) = (gain.ptr(), gain.ptr().add(112 * 4));
                        let (x, y, scratch) = (x.ptr(), y.ptr(), scratch.ptr());
                        f(t, threads, n as u64, x, w, c, y, scratch);
                    }
                    scratch.assert_within(kernel.scratch_bytes());
                }
                y.f32()[..n * 96].to_vec()
            });
            for (row, normed) in found.chunks(96).zip(normed.chunks(112)) {
                let row: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
                let (expected, parts): (Vec<u8>, _) = match kernel.to {
                    Rows::Bf16 => {
                        let narrow = normed.iter().map(|v| bf16::from_f32(*v));
                        let bytes = narrow.flat_map(|v| v.to_le_bytes());
                        (bytes.collect(), vec![(0, normed.len() * 2)])
                    }
                    Rows::Q8(group) => (quantised(&normed[..width], group), written(width, group)),
                };
                for (at, end) in parts {
                    assert_eq!(row[at..end], expected[at..end], "{}", kernel.symbol());
                }
            }
        }
    }
}

/// `sum` of one output as the kernels define it.
fn product(dtype: DType, source: Option<&[u8]>, x: &[u8], k: usize, group: Group) -> f32 {
    let rows = RowForm::new(k as u32, group);
    let t = |x: &[u8], i: usize| {
        let at = rows.scales as usize + 4 * i;
        f32::from_le_bytes(x[at..at + 4].try_into().expect("four bytes"))
    };
    let dot = |w: &[u8], x: &[u8]| -> f32 {
        let terms = w.iter().zip(x);
        let terms = terms.map(|(w, a)| i32::from(*w as i8) * i32::from(*a as i8));
        terms.sum::<i32>() as f32
    };
    let DType::Block(format) = dtype else {
        let Some((codes, scale)) = source.map(|row| row.split_at(k)) else {
            return 0.0;
        };
        let sum = match group {
            Group::Row => dot(codes, x) * t(x, 0),
            Group::Pair => {
                let second = &x[x.len() / 2..];
                dot(codes, second).mul_add(t(second, 0), dot(codes, x) * t(x, 0))
            }
            Group::Block => {
                let parts = codes.chunks(32).zip(x.chunks(32)).enumerate();
                parts.fold(0.0, |sum, (i, (w, a))| dot(w, a).mul_add(t(x, i), sum))
            }
        };
        return sum * f32::from_le_bytes(scale.try_into().expect("four bytes"));
    };
    let form = Blocks::of(format);
    let mut sum = 0f32;
    let part = form.part as usize;
    for first in (0..k).step_by(part) {
        let (codes, scale, min) = match source {
            Some(source) => reference_part(format, source, first),
            None => (vec![0; part], 0.0, 0.0),
        };
        let a: Vec<i32> = (first..first + part)
            .map(|i| i32::from(x[i] as i8))
            .collect();
        let acc: i32 = codes
            .iter()
            .zip(&a)
            .map(|(c, a)| (c - form.offset as i32) * a)
            .sum();
        let t = t(x, first / 32);
        sum = (acc as f32 * scale).mul_add(t, sum);
        if form.has_min() {
            let total: i32 = a.iter().sum();
            sum = (-min).mul_add(t * total as f32, sum);
        }
    }
    sum
}

/// Codes, scale and minimum of the part at element `first`, recovered from dequantised values:
/// the scale bytes are read as the formats' definitions say.
fn reference_part(format: Format, row: &[u8], first: usize) -> (Vec<i32>, f32, f32) {
    let form = Blocks::of(format);
    let (len, bytes) = (format.block_len(), format.block_bytes());
    let block = &row[first / len * bytes..][..bytes];
    let h = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
    let s = first % len / form.part as usize;
    let six = |scales: &[u8]| {
        if s < 4 {
            (scales[s] & 63, scales[s + 4] & 63)
        } else {
            (
                scales[s + 4] & 15 | scales[s - 4] >> 6 << 4,
                scales[s + 4] >> 4 | scales[s] >> 6 << 4,
            )
        }
    };
    let (scale, min) = match format {
        Format::MXFP4 => ((f32::from(block[0]) - 128.0).exp2(), 0.0),
        Format::Q4_0 | Format::Q5_0 | Format::Q8_0 => (h(0), 0.0),
        Format::Q4_1 | Format::Q5_1 => (h(0), -h(2)),
        Format::Q4_K | Format::Q5_K => {
            let (sc, mn) = six(&block[4..16]);
            (h(0) * f32::from(sc), h(2) * f32::from(mn))
        }
        Format::Q2_K => (
            h(80) * f32::from(block[s] & 15),
            h(82) * f32::from(block[s] >> 4),
        ),
        Format::Q3_K => {
            let low = block[96 + s % 8] >> (4 * (s / 8)) & 15;
            let high = block[104 + s % 4] >> (2 * (s / 4)) & 3;
            (h(108) * (f32::from(low | high << 4) - 32.0), 0.0)
        }
        Format::Q6_K => (h(208) * f32::from(block[192 + s] as i8), 0.0),
    };
    let values = format.dequantize(block);
    let codes = (0..form.part as usize)
        .map(|i| {
            let v = values[first % len + i];
            let code = (f64::from(v) + f64::from(min)) / f64::from(scale);
            code.round() as i32 + form.offset as i32
        })
        .collect();
    (codes, scale, min)
}

/// A layer over logical sizes.
struct Case {
    dtype: DType,
    k: usize,
    width: usize,
    linear: BlockLinear,
    most: usize,
}

fn case(dtype: DType, k: usize, width: usize, input: Input, f: Activation, glu: bool) -> Case {
    let rows = if glu { 2 * pad(width, 16) } else { width };
    Case {
        dtype,
        k,
        width,
        most: 75,
        linear: BlockLinear {
            k: k as i64,
            m: pad(rows, 64) as i64,
            x_stride: match input {
                Input::F32 => pad(k, 16) as i64 + 16,
                Input::Q8(group) => i64::from(RowForm::new(k as u32, group).bytes) / 4,
            },
            form: Blocks::of_dtype(dtype).expect("a type of blocks"),
            input,
            out: Epilogue {
                width: width as i64,
                y_stride: pad(width, 16) as i64 + 16,
                bias: false,
                activation: f,
                glu,
                limit: None,
                shift: 0.0,
                scale: None,
                softcap: None,
                residual: None,
            },
        },
    }
}

/// Row of W at which output `o` (gate or up) is.
fn packed_row(o: usize, glu: Option<usize>) -> usize {
    match glu {
        None => o,
        Some(part) => o / 16 * 32 + part * 16 + o % 16,
    }
}

fn check(c: &Case) {
    let (l, e) = (&c.linear, &c.linear.out);
    let loaded = load_all(|b| {
        l.emit(b);
    });
    let mut random = Random::new((c.k * 31 + c.width) as u64);
    let mut some = vec![false; l.m as usize];
    let parts: &[Option<usize>] = if e.glu { &[Some(0), Some(1)] } else { &[None] };
    for o in 0..c.width {
        for part in parts {
            some[packed_row(o, *part)] = true;
        }
    }
    let mut w = weight(c.dtype, &some, c.k, &mut random);
    let bias: Vec<f32> = some
        .iter()
        .map(|s| if *s { random.unit() } else { 0.0 })
        .collect();
    let mut bias_buffer = Buffer::from_f32(&bias);
    let rows: Vec<Vec<f32>> = (0..c.most).map(|_| random.rows(1, c.k, c.k)).collect();
    let stored = |row: &[f32]| match l.input {
        Input::F32 => {
            let mut row = row.to_vec();
            row.resize(pad(c.k, 16), 0.0);
            row.iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        Input::Q8(group) => quantised(row, group),
    };
    let stored: Vec<Vec<u8>> = rows.iter().map(|r| stored(r)).collect();
    let x_bytes = l.x_stride as usize * 4;
    let mut x = Vec::new();
    for row in &stored {
        let mut bytes = row.clone();
        // What is behind the lanes of x is no business of the kernel.
        bytes.resize(x_bytes, 0xff);
        x.extend(bytes);
    }
    let mut x = Buffer::from_bytes(&x);
    let (ys, lanes) = (e.y_stride as usize, pad(c.width, 16));
    let residual = random.rows(c.most, c.width, ys);

    let mut run = |lib: &Loaded, threads: u64, first: usize, n: usize| -> Vec<f32> {
        // SAFETY: the signature is the documented one.
        let f: LinearFn = unsafe { lib.get(&l.symbol()) };
        let mut y = Buffer::floats(n * ys);
        y.f32_mut().fill(SENTINEL);
        if e.residual.is_some() {
            for row in 0..n {
                y.f32_mut()[row * ys..][..lanes]
                    .copy_from_slice(&residual[(first + row) * ys..][..lanes]);
            }
        }
        for t in 0..threads {
            let mut scratch = Buffer::scratch(l.scratch_bytes());
            // SAFETY: the buffers have the documented sizes; what is not asked for is not read.
            unsafe {
                let bias = if e.bias {
                    bias_buffer.ptr()
                } else {
                    std::ptr::null_mut()
                };
                let x = x.ptr().add(first * x_bytes);
                let (w, y, scratch) = (w.packed.ptr(), y.ptr(), scratch.ptr());
                f(t, threads, n as u64, x, w, bias, y, y, scratch);
            }
            scratch.assert_within(l.scratch_bytes());
        }
        let (rows, behind) = y.f32().split_at(n * ys);
        assert!(behind.iter().all(|v| *v == SENTINEL), "behind y");
        rows.to_vec()
    };
    let all = same_bits(&loaded, |lib, threads| run(lib, threads, 0, c.most));
    for n in [1, 2, 3, 4, 5, 6, 7, 13, 48] {
        let part = same_bits(&loaded, |lib, threads| run(lib, threads, 0, n));
        assert_bits(&part, &all[..n * ys], &format!("the first {n} rows alone"));
    }
    for row in [c.most - 1, c.most / 2] {
        let alone = run(&loaded[0], 1, row, 1);
        assert_bits(&alone, &all[row * ys..][..ys], "a row alone");
    }

    let plain = e.activation == Activation::None && !e.glu && e.softcap.is_none();
    for i in 0..c.most {
        for o in 0..ys {
            let found = all[i * ys + o];
            if o >= lanes {
                assert_eq!(found, SENTINEL, "lanes behind the pads stay untouched");
                continue;
            }
            if o >= c.width {
                assert_eq!(found, 0.0, "pad lanes are zero");
                continue;
            }
            let what = format!("{} row {i} output {o}", l.symbol());
            let old = residual[i * ys + o];
            if plain {
                let mut v = match l.input {
                    Input::F32 => rows[i]
                        .iter()
                        .zip(&w.values[o])
                        .fold(0.0f32, |sum, (x, w)| x.mul_add(*w, sum)),
                    Input::Q8(group) => {
                        product(c.dtype, w.source[o].as_deref(), &stored[i], c.k, group)
                    }
                };
                v += if e.bias { bias[o] } else { 0.0 };
                v *= e.scale.unwrap_or(1.0);
                v += if e.residual.is_some() { old } else { 0.0 };
                assert_eq!(found, v, "{what}");
            }
            let x = match l.input {
                Input::F32 => rows[i].clone(),
                Input::Q8(group) => activation::round_trip(&rows[i], group),
            };
            let mut sizes = 0.0;
            let mut dot = |row: usize| -> f64 {
                let w = &w.values[row];
                let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                sizes += terms.clone().map(f64::abs).sum::<f64>();
                terms.sum::<f64>() + if e.bias { f64::from(bias[row]) } else { 0.0 }
            };
            let mut v = if e.glu {
                let gate = dot(packed_row(o, Some(0)));
                activation(e.activation, gate) * dot(packed_row(o, Some(1)))
            } else {
                activation(e.activation, dot(o))
            };
            if let Some(s) = e.scale {
                v *= f64::from(s);
            }
            if let Some(cap) = e.softcap {
                v = f64::from(cap) * (v / f64::from(cap)).tanh();
            }
            if e.residual.is_some() {
                v += f64::from(old);
            }
            // Minima cancel: the error goes by the size of the terms.
            assert_close(found, v, 3e-6 * (1.0 + 4.0 * sizes), &what);
        }
    }
}

#[test]
fn all_formats() {
    for dtype in dtypes() {
        for input in inputs(dtype) {
            let k = match input {
                Input::Q8(Group::Block) => 3 * block_len(dtype).next_multiple_of(32),
                _ => 3 * block_len(dtype),
            };
            check(&case(dtype, k, 70, input, Activation::None, false));
        }
    }
    for format in [Format::Q5_0, Format::Q2_K] {
        let len = format.block_len();
        for (blocks, width) in [(1, 6), (4, 33)] {
            check(&case(
                DType::Block(format),
                blocks * len,
                width,
                Input::Q8(Group::Block),
                Activation::None,
                false,
            ));
        }
    }
}

#[test]
fn pieces_of_k() {
    for (dtype, k) in [
        (DType::Block(Format::Q5_0), 1120),
        (DType::Block(Format::Q4_K), 1280),
        (DType::Block(Format::Q6_K), 768),
        (DType::Int8, 1184),
    ] {
        for input in inputs(dtype) {
            let mut c = case(dtype, k, 40, input, Activation::None, false);
            c.most = 200;
            check(&c);
        }
    }
}

#[test]
fn epilogues() {
    for input in inputs(DType::Block(Format::Q4_0)) {
        for f in [Activation::Gelu, Activation::Sigmoid] {
            check(&case(DType::Block(Format::Q4_0), 64, 40, input, f, false));
        }
        for width in [6, 17, 100] {
            let format = Format::Q5_0;
            check(&case(
                DType::Block(format),
                96,
                width,
                input,
                Activation::Silu,
                true,
            ));
        }
        let mut c = case(
            DType::Block(Format::Q6_K),
            256,
            70,
            input,
            Activation::None,
            false,
        );
        c.linear.out.bias = true;
        check(&c);
        c.linear.out.residual = Some(c.linear.out.y_stride);
        check(&c);
        c.linear.out.scale = Some(0.3);
        check(&c);
        c.linear.out.softcap = Some(3.0);
        check(&c);
        let mut c = case(
            DType::Block(Format::Q4_K),
            256,
            40,
            input,
            Activation::GeluTanh,
            true,
        );
        c.linear.out.bias = true;
        c.linear.out.residual = Some(c.linear.out.y_stride);
        check(&c);
    }
}

#[test]
fn extreme_codes() {
    // Largest codes against largest activations: nothing saturates.
    for format in [Format::Q8_0, Format::Q6_K, Format::Q5_1, Format::Q4_1] {
        let k = 2 * format.block_len();
        let mut blocks = random_blocks(format, 2, &mut Random::new(3));
        let form = Blocks::of(format);
        let c = case(
            DType::Block(format),
            k,
            64,
            Input::Q8(Group::Block),
            Activation::None,
            false,
        );
        let loaded = load_all(|b| {
            c.linear.emit(b);
        });
        for fill in [0x00, 0x7f, 0x80, 0xff] {
            for block in blocks.chunks_exact_mut(format.block_bytes()) {
                let (at, end) = match form.scales {
                    Scales::Bytes => (0, 192),
                    Scales::PlainMin => (4, block.len()),
                    _ => (2, block.len()),
                };
                block[at..end].fill(fill);
            }
            let rows: Vec<Option<&[u8]>> = vec![Some(&blocks); 64];
            let strip = form.strip_bytes(k as i64) as usize;
            let mut bytes = vec![0u8; 2 * strip];
            for (rows, out) in rows.chunks(32).zip(bytes.chunks_mut(strip)) {
                pack_strip(DType::Block(format), rows, k, out);
            }
            let mut w = Buffer::from_bytes(&bytes);
            for sign in [1.0, -1.0] {
                let x = quantised(&vec![sign; k], Group::Block);
                let expected = product(DType::Block(format), Some(&blocks), &x, k, Group::Block);
                for n in [1usize, 8] {
                    let mut x = Buffer::from_bytes(&x.repeat(n));
                    let found = same_bits(&loaded, |lib, threads| {
                        // SAFETY: the signature is the documented one.
                        let f: LinearFn = unsafe { lib.get(&c.linear.symbol()) };
                        let mut y = Buffer::floats(n * c.linear.out.y_stride as usize);
                        for t in 0..threads {
                            let mut scratch = Buffer::scratch(c.linear.scratch_bytes());
                            let none = std::ptr::null_mut();
                            let (x, w, y) = (x.ptr(), w.ptr(), y.ptr());
                            // SAFETY: the buffers have the documented sizes.
                            unsafe {
                                f(t, threads, n as u64, x, w, none, none, y, scratch.ptr());
                            }
                        }
                        y.f32()[..64].to_vec()
                    });
                    assert_bits(&found, &[expected; 64], format.name());
                }
            }
        }
    }
}
