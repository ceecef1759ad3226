use crate::buffer::{Buffer, Random, assert_close, pad};
use crate::harness::{load_all, same_bits};
use crate::linear::activation;
use llmc_codegen::kernels::{Activation, Elementwise, RowOp};

type RowFn = unsafe extern "C" fn(u64, u64, u64, *const u8, *const u8, *mut u8);

fn check(op: RowOp, width: usize) {
    let stride = pad(width, 16);
    let kernel = Elementwise {
        op,
        width: width as i64,
        a_stride: stride as i64,
        b_stride: stride as i64,
        y_stride: stride as i64,
    };
    let loaded = load_all(|b| {
        kernel.emit(b);
    });
    let mut random = Random::new(width as u64);
    for n in [1usize, 2, 7] {
        let a = random.rows(n, width, stride);
        let other = random.rows(n, width, stride);
        let mut other_buffer = Buffer::from_f32(&other);
        let y = same_bits(&loaded, |lib, threads| {
            // SAFETY: the documented signature and sizes; in place.
            unsafe {
                let f: RowFn = lib.get(&kernel.symbol());
                let mut y = Buffer::from_f32(&a);
                for t in 0..threads {
                    f(t, threads, n as u64, y.ptr(), other_buffer.ptr(), y.ptr());
                }
                y.f32()[..n * stride].to_vec()
            }
        });
        for i in 0..n * stride {
            let (x, z) = (f64::from(a[i]), f64::from(other[i]));
            let expected = match op {
                _ if i % stride >= width => 0.0,
                RowOp::Add => x + z,
                RowOp::Mul => x * z,
                RowOp::AddVector => x + f64::from(other[i % stride]),
                RowOp::Scale(v) => x * f64::from(v),
                RowOp::Activate(f) => activation(f, x),
                RowOp::Softcap(c) => f64::from(c) * (x / f64::from(c)).tanh(),
                RowOp::Gate(f) => activation(f, x) * z,
            };
            assert_close(y[i], expected, 1e-6, &kernel.symbol());
        }
    }
}

#[test]
fn operations() {
    for op in [
        RowOp::Add,
        RowOp::Mul,
        RowOp::AddVector,
        RowOp::Scale(0.3),
        RowOp::Softcap(2.5),
        RowOp::Gate(Activation::Silu),
    ] {
        for width in [6, 64, 100] {
            check(op, width);
        }
    }
    for f in Activation::ALL {
        check(RowOp::Activate(f), 88);
    }
}
