use crate::buffer::{Buffer, Random, assert_close, pad, rounded};
use crate::harness::{Loaded, load_all, same_bits};
use llmc_codegen::kernel::Elem;
use llmc_codegen::kernels::{Activation, Linear};

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

const ROWS: [usize; 9] = [1, 2, 5, 6, 7, 16, 48, 50, 130];

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
}

fn case(k: usize, width: usize, elem: Elem, f: Activation, glu: bool) -> Case {
    let rows = if glu { 2 * pad(width, 16) } else { width };
    Case {
        k,
        width,
        linear: Linear {
            k: pad(k, 16) as i64,
            m: pad(rows, 64) as i64,
            width: width as i64,
            x_stride: pad(k, 16) as i64 + 16,
            y_stride: pad(width, 16) as i64,
            elem,
            bias: true,
            activation: f,
            glu,
            scale: None,
            softcap: None,
            residual: None,
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

fn pack(w: &[f32], m: usize, k: usize) -> Vec<f32> {
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
    let (xs, ys) = (l.x_stride as usize, l.y_stride as usize);
    let mut random = Random::new((c.k * 31 + c.width) as u64);
    let mut w = vec![0.0; m * k];
    let mut bias = vec![0.0; m];
    let parts: &[Option<usize>] = if l.glu { &[Some(0), Some(1)] } else { &[None] };
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
    let most = ROWS[ROWS.len() - 1];
    let x = random.rows(most, c.k, xs);
    let residual = random.rows(most, c.width, ys);
    let mut x_buffer = Buffer::from_f32(&x);

    let mut run = |lib: &Loaded, threads: u64, first: usize, n: usize| -> Vec<f32> {
        // SAFETY: the signature is the documented one.
        let f: LinearFn = unsafe { lib.get(&l.symbol()) };
        let mut y = Buffer::from_f32(&residual[first * ys..(first + n) * ys]);
        let mut scratch = Buffer::bytes(l.scratch_bytes() as usize);
        let mut guard = vec![f32::NAN; 16];
        y.f32_mut()[n * ys..n * ys + 16].swap_with_slice(&mut guard);
        for t in 0..threads {
            // SAFETY: the buffers have the documented sizes.
            unsafe {
                f(
                    t,
                    threads,
                    n as u64,
                    x_buffer.ptr().add(first * xs * 4),
                    packed.ptr(),
                    bias_buffer.ptr(),
                    y.ptr(),
                    y.ptr(),
                    scratch.ptr(),
                );
            }
        }
        assert!(y.f32()[n * ys].is_nan(), "nothing is written behind y");
        y.f32()[..n * ys].to_vec()
    };

    let all = same_bits(&loaded, |lib, threads| run(lib, threads, 0, most));
    for n in ROWS {
        let part = same_bits(&loaded, |lib, threads| run(lib, threads, 0, n));
        assert_eq!(
            part[..],
            all[..n * ys],
            "the first {n} rows are the same alone"
        );
    }
    let last = run(&loaded[0], 1, most - 1, 1);
    assert_eq!(
        last[..],
        all[(most - 1) * ys..],
        "the last row is the same alone"
    );

    for i in 0..most {
        for o in 0..ys {
            let found = all[i * ys + o];
            if o >= c.width {
                assert_eq!(found, 0.0, "pad lanes are zero");
                continue;
            }
            let dot = |row: usize| -> f64 {
                (0..c.k)
                    .map(|j| f64::from(x[i * xs + j]) * f64::from(w[row * k + j]))
                    .sum::<f64>()
                    + if l.bias { f64::from(bias[row]) } else { 0.0 }
            };
            let mut v = if l.glu {
                activation(l.activation, dot(packed_row(o, Some(0)))) * dot(packed_row(o, Some(1)))
            } else {
                activation(l.activation, dot(o))
            };
            if let Some(s) = l.scale {
                v *= f64::from(s);
            }
            if let Some(cap) = l.softcap {
                v = f64::from(cap) * (v / f64::from(cap)).tanh();
            }
            if l.residual.is_some() {
                v += f64::from(residual[i * ys + o]);
            }
            assert_close(
                found,
                v,
                1e-5,
                &format!("{} row {i} output {o}", l.symbol()),
            );
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
    for width in [64, 40, 100] {
        check(&case(48, width, Elem::F32, Activation::Silu, true));
    }
    check(&case(48, 96, Elem::F16, Activation::GeluTanh, true));
}

#[test]
fn residual_scale_and_softcap() {
    let mut c = case(64, 70, Elem::F32, Activation::None, false);
    c.linear.residual = Some(c.linear.y_stride);
    c.linear.bias = false;
    check(&c);
    c.linear.scale = Some(0.5);
    check(&c);
    c.linear.softcap = Some(3.0);
    check(&c);
}

#[test]
fn long_k() {
    for elem in [Elem::F32, Elem::F16] {
        let mut c = case(2085, 100, elem, Activation::None, false);
        c.linear.residual = Some(c.linear.y_stride);
        check(&c);
    }
}
