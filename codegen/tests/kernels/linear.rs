//! Every sum is one chain of f32 multiply-adds over k: with plain epilogues the bits are known.

use crate::buffer::{Buffer, Random, assert_bits, assert_close, pad, rounded};
use crate::harness::{Loaded, load_all, same_bits};
use llmc_codegen::kernel::Elem;
use llmc_codegen::kernels::{Activation, Epilogue, Linear};

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

/// Stands where nothing may be written.
const SENTINEL: f32 = 12345.5;

const ROWS: [usize; 11] = [1, 2, 5, 6, 7, 12, 13, 16, 48, 50, 130];

pub fn activation(f: Activation, x: f64) -> f64 {
    match f {
        Activation::None => x,
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044715 * x * x * x)).tanh())
        }
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Activation::Relu => x.max(0.0),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
    }
}

/// The series of the error function, and 1 far out.
pub fn erf(x: f64) -> f64 {
    if x.abs() > 5.5 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

/// A layer over logical sizes; the physical ones follow.
struct Case {
    k: usize,
    width: usize,
    linear: Linear,
    /// The most rows of a call.
    most: usize,
}

fn case(k: usize, width: usize, elem: Elem, f: Activation, glu: bool) -> Case {
    let rows = if glu { 2 * pad(width, 16) } else { width };
    Case {
        k,
        width,
        most: ROWS[ROWS.len() - 1],
        linear: Linear {
            k: pad(k, 16) as i64,
            m: pad(rows, 64) as i64,
            x: Elem::F32,
            x_stride: pad(k, 16) as i64 + 16,
            elem,
            out: Epilogue {
                width: width as i64,
                y_stride: pad(width, 16) as i64 + 16,
                bias: true,
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

/// `[m / 64][k][64]` of a matrix of whole panels.
pub fn pack(w: &[f32], m: usize, k: usize) -> Vec<f32> {
    let mut packed = vec![0.0; m * k];
    for row in 0..m {
        for i in 0..k {
            packed[(row / 64 * k + i) * 64 + row % 64] = w[row * k + i];
        }
    }
    packed
}

fn check(c: &Case) {
    let l = &c.linear;
    let loaded = load_all(|b| {
        l.emit(b);
    });
    let (k, m) = (l.k as usize, l.m as usize);
    let (xs, ys) = (l.x_stride as usize, l.out.y_stride as usize);
    let mut random = Random::new((c.k * 31 + c.width) as u64);
    let mut w = vec![0.0; m * k];
    let mut bias = vec![0.0; m];
    let parts: &[Option<usize>] = if l.out.glu {
        &[Some(0), Some(1)]
    } else {
        &[None]
    };
    let spread = 2.0 / (c.k as f32).sqrt();
    for o in 0..c.width {
        for part in parts {
            let row = packed_row(o, *part);
            for i in 0..c.k {
                w[row * k + i] = rounded(random.unit() * spread, l.elem);
            }
            bias[row] = random.unit();
        }
    }
    let mut packed = Buffer::from_elems(&pack(&w, m, k), l.elem);
    let mut bias_buffer = Buffer::from_f32(&bias);
    let most = c.most;
    // What is behind the lanes of x and y is no business of the kernel.
    let mut x = random.rows(most, c.k, xs);
    x.chunks_mut(xs).for_each(|row| row[k..].fill(f32::NAN));
    let lanes = pad(c.width, 16);
    let rs = l.out.residual.map_or(ys, |s| s as usize);
    let residual = random.rows(most, c.width, rs);
    let in_place = rs == ys;
    x.iter_mut().for_each(|v| *v = rounded(*v, l.x));
    let mut x_buffer = match l.x {
        Elem::F32 => Buffer::from_f32(&x),
        _ => {
            // Narrow rows at the same distance.
            let mut narrow = Buffer::floats(x.len());
            for (to, row) in narrow.u16_mut().chunks_mut(2 * xs).zip(x.chunks(xs)) {
                to[..xs].copy_from_slice(&Buffer::from_elems(row, l.x).u16()[..xs]);
            }
            narrow
        }
    };
    let mut residual_buffer = Buffer::from_f32(&residual);

    let mut run = |lib: &Loaded, threads: u64, first: usize, n: usize| -> Vec<f32> {
        // SAFETY: the signature is the documented one.
        let f: LinearFn = unsafe { lib.get(&l.symbol()) };
        let mut y = Buffer::floats(n * ys);
        y.f32_mut().fill(SENTINEL);
        if in_place {
            for row in 0..n {
                y.f32_mut()[row * ys..][..lanes]
                    .copy_from_slice(&residual[(first + row) * rs..][..lanes]);
            }
        }
        for t in 0..threads {
            let mut scratch = Buffer::scratch(l.scratch_bytes());
            // SAFETY: the buffers have the documented sizes; what is not asked for is not read.
            unsafe {
                let from = match l.out.residual {
                    Some(_) if in_place => y.ptr(),
                    Some(_) => residual_buffer.ptr().add(first * rs * 4),
                    None => std::ptr::null_mut(),
                };
                let bias = if l.out.bias {
                    bias_buffer.ptr()
                } else {
                    std::ptr::null_mut()
                };
                let x = x_buffer.ptr().add(first * xs * 4);
                let (w, y, scratch) = (packed.ptr(), y.ptr(), scratch.ptr());
                f(t, threads, n as u64, x, w, bias, from, y, scratch);
            }
            scratch.assert_within(l.scratch_bytes());
        }
        let (rows, behind) = y.f32().split_at(n * ys);
        assert!(
            behind.iter().all(|v| *v == SENTINEL),
            "nothing is written behind y"
        );
        rows.to_vec()
    };

    let all = same_bits(&loaded, |lib, threads| run(lib, threads, 0, most));
    for n in ROWS {
        let part = same_bits(&loaded, |lib, threads| run(lib, threads, 0, n));
        assert_bits(&part, &all[..n * ys], &format!("the first {n} rows alone"));
    }
    for row in [most - 1, most / 2] {
        let alone = run(&loaded[0], 1, row, 1);
        assert_bits(&alone, &all[row * ys..][..ys], "a row alone");
    }

    let plain = l.out.activation == Activation::None && !l.out.glu && l.out.softcap.is_none();
    for i in 0..most {
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
            let old = residual[i * rs + o];
            if plain {
                let mut v = (0..k).fold(0.0f32, |sum, j| x[i * xs + j].mul_add(w[o * k + j], sum));
                v += if l.out.bias { bias[o] } else { 0.0 };
                v *= l.out.scale.unwrap_or(1.0);
                v += if l.out.residual.is_some() { old } else { 0.0 };
                assert_eq!(found, v, "{} row {i} output {o}", l.symbol());
                continue;
            }
            let dot = |row: usize| -> f64 {
                (0..c.k)
                    .map(|j| f64::from(x[i * xs + j]) * f64::from(w[row * k + j]))
                    .sum::<f64>()
                    + if l.out.bias {
                        f64::from(bias[row])
                    } else {
                        0.0
                    }
            };
            let mut v = if l.out.glu {
                let limit = l.out.limit.map_or(f64::INFINITY, f64::from);
                let gate = dot(packed_row(o, Some(0))).min(limit);
                let up = dot(packed_row(o, Some(1))).clamp(-limit, limit);
                activation(l.out.activation, gate) * (up + f64::from(l.out.shift))
            } else {
                activation(l.out.activation, dot(o))
            };
            if let Some(s) = l.out.scale {
                v *= f64::from(s);
            }
            if let Some(cap) = l.out.softcap {
                v = f64::from(cap) * (v / f64::from(cap)).tanh();
            }
            if l.out.residual.is_some() {
                v += f64::from(old);
            }
            let what = format!("{} row {i} output {o}", l.symbol());
            assert_close(found, v, 1e-5, &what);
        }
    }
}

#[test]
fn widths() {
    for width in [6, 17, 32, 63, 64, 65, 128, 177, 200] {
        check(&case(48, width, Elem::F32, Activation::None, false));
    }
    for elem in [Elem::F16, Elem::BF16] {
        for width in [6, 65, 200] {
            check(&case(16, width, elem, Activation::None, false));
        }
    }
}

#[test]
fn depths() {
    for elem in [Elem::F32, Elem::F16, Elem::BF16] {
        for k in [1, 16, 384] {
            check(&case(k, 70, elem, Activation::None, false));
        }
    }
}

#[test]
fn element_types() {
    for elem in [Elem::F32, Elem::F16, Elem::BF16] {
        check(&case(80, 96, elem, Activation::None, false));
        check(&case(33, 130, elem, Activation::None, false));
    }
}

#[test]
fn activations() {
    for f in Activation::ALL {
        check(&case(48, 72, Elem::F32, f, false));
    }
}

#[test]
fn gated() {
    for width in [6, 64, 40, 100, 200] {
        check(&case(48, width, Elem::F32, Activation::Silu, true));
    }
    for f in Activation::ALL {
        check(&case(16, 24, Elem::F32, f, true));
        let mut bounded = case(16, 24, Elem::F32, f, true);
        (bounded.linear.out.limit, bounded.linear.out.shift) = (Some(0.25), 1.0);
        check(&bounded);
    }
    let mut c = case(48, 96, Elem::F16, Activation::GeluTanh, true);
    check(&c);
    c.linear.out.residual = Some(c.linear.out.y_stride);
    c.linear.out.bias = false;
    check(&c);
}

#[test]
fn residual_scale_and_softcap() {
    let mut c = case(64, 70, Elem::F32, Activation::None, false);
    c.linear.out.residual = Some(c.linear.out.y_stride);
    c.linear.out.bias = false;
    check(&c);
    // Elsewhere, at another stride.
    c.linear.out.residual = Some(c.linear.out.y_stride + 32);
    check(&c);
    c.linear.out.scale = Some(0.3);
    check(&c);
    c.linear.out.softcap = Some(3.0);
    check(&c);
    let mut c = case(48, 90, Elem::BF16, Activation::Sigmoid, false);
    c.linear.out.residual = Some(c.linear.out.y_stride);
    check(&c);
}

/// Products of bf16 are exact in f32.
#[test]
fn narrow_x() {
    for elem in [Elem::F32, Elem::BF16] {
        let mut c = case(80, 70, elem, Activation::None, false);
        c.linear.x = Elem::BF16;
        check(&c);
    }
    let mut c = case(1600, 40, Elem::BF16, Activation::Silu, true);
    c.linear.x = Elem::BF16;
    check(&c);
}

/// K in chunks, and more rows than have their sums in scratch at a time.
#[test]
fn long_k() {
    for elem in [Elem::F32, Elem::F16, Elem::BF16] {
        let mut c = case(1600, 70, elem, Activation::None, false);
        c.most = 230;
        check(&c);
    }
    let mut c = case(2085, 30, Elem::F16, Activation::None, false);
    c.linear.out.residual = Some(c.linear.out.y_stride);
    check(&c);
}
