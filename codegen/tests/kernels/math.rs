//! The polynomials against the standard library, over their whole ranges.

use crate::buffer::Buffer;
use crate::harness::load_all;
use crate::linear::{activation, erf};
use llmc_codegen::kernel::{KernelBuilder, Param, Value};
use llmc_codegen::kernels::Activation;

type MathFn = unsafe extern "C" fn(u64, *const u8, *mut u8);

fn check(
    emit: impl Fn(&mut KernelBuilder<'_>, Value) -> Value,
    xs: &[f32],
    expected: impl Fn(f64) -> f64,
    relative: f64,
    absolute: f64,
) {
    let loaded = load_all(|b| {
        b.kernel(
            "f",
            &[Param::i64(), Param::input(), Param::output()],
            |b, args| {
                let zero = b.i64(0);
                b.for_each(zero, args[0], 1, |b, i| {
                    let p = b.at(args[1], i, 64);
                    let x = b.load_group(p);
                    let y = emit(b, x);
                    let p = b.at(args[2], i, 64);
                    b.store(y, p);
                });
            },
        );
    });
    let mut x = Buffer::from_f32(xs);
    let mut previous: Option<Vec<u32>> = None;
    for lib in &loaded {
        let mut y = Buffer::floats(xs.len());
        // SAFETY: the signature above; whole groups fit into the buffers.
        unsafe {
            let f: MathFn = lib.get("f");
            f(xs.len().div_ceil(16) as u64, x.ptr(), y.ptr());
        }
        for (x, y) in xs.iter().zip(y.f32()) {
            let e = expected(f64::from(*x));
            let error = (f64::from(*y) - e).abs();
            assert!(
                error <= relative * e.abs() + absolute,
                "at {x}: found {y}, expected {e}"
            );
        }
        let bits = y.bits();
        if let Some(previous) = &previous {
            assert!(*previous == bits, "levels differ in bits");
        }
        previous = Some(bits);
    }
}

fn grid(lo: f32, hi: f32) -> Vec<f32> {
    (0..=20_000)
        .map(|i| lo + (hi - lo) * i as f32 / 20_000.0)
        .collect()
}

#[test]
fn exponential() {
    check(|b, x| b.exp(x), &grid(-87.0, 87.0), f64::exp, 2.5e-7, 0.0);
    check(|b, x| b.exp(x), &[0.0; 16], |_| 1.0, 0.0, 0.0);
    check(|b, x| b.exp(x), &[-1e30; 16], |_| 0.0, 0.0, 1e-37);
}

#[test]
fn logarithm() {
    check(|b, x| b.ln(x), &grid(0.01, 3.0), f64::ln, 2e-7, 1e-9);
    check(|b, x| b.ln(x), &grid(3.0, 1e6), f64::ln, 2e-7, 0.0);
    check(|b, x| b.ln(x), &[1.0; 16], |_| 0.0, 0.0, 0.0);
    check(|b, x| b.ln(x), &[f32::MAX; 16], f64::ln, 2e-7, 0.0);
}

#[test]
fn tangent_and_gates() {
    check(|b, x| b.tanh(x), &grid(-1.0, 1.0), f64::tanh, 3e-7, 0.0);
    check(|b, x| b.tanh(x), &grid(-60.0, 60.0), f64::tanh, 3e-7, 0.0);
    let gelu = |x: f64| 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2));
    for end in [0.01, 6.0] {
        check(|b, x| b.gelu(x), &grid(-end, end), gelu, 3e-7, 3e-7);
    }
    // Nothing is left of the tail.
    let ramp = |x: f64| x.max(0.0);
    for (lo, hi) in [(6.0, 1000.0), (-1000.0, -6.0)] {
        check(|b, x| b.gelu(x), &grid(lo, hi), ramp, 1e-9, 1e-8);
    }
    for x in [f32::MAX, f32::MIN] {
        check(|b, x| b.gelu(x), &[x; 16], ramp, 0.0, 0.0);
    }
    check(
        |b, x| b.silu(x),
        &grid(-90.0, 90.0),
        |x| x / (1.0 + (-x).exp()),
        4e-7,
        2e-36,
    );
}

#[test]
fn sine_and_cosine() {
    for end in [1.0, 100.0, 1e4, 1e6] {
        check(
            |b, x| b.sin_cos(x).0,
            &grid(-end, end),
            f64::sin,
            2e-7,
            1e-7,
        );
        check(
            |b, x| b.sin_cos(x).1,
            &grid(-end, end),
            f64::cos,
            2e-7,
            1e-7,
        );
    }
}

/// Far out, where exponentials overflow, activations are what they tend to.
#[test]
fn far_out() {
    let sizes = [0.0, 5.0, 10.0, 30.0, 88.0, 104.0, 1e3, 1e5, 1e10];
    let xs: Vec<f32> = sizes.iter().flat_map(|x| [*x, -x]).collect();
    for f in Activation::ALL {
        check(|b, x| f.apply(b, x), &xs, |x| activation(f, x), 5e-7, 1e-6);
    }
    check(
        |b, x| b.softcap(x, 30.0),
        &xs,
        |x| 30.0 * (x / 30.0).tanh(),
        5e-7,
        0.0,
    );
}
