use crate::buffer::{Buffer, Random, assert_bits, assert_close, pad};
use crate::harness::{Loaded, load_all, same_bits};
use crate::linear::activation;
use llmc_codegen::kernels::{Activation, Elementwise, RowOp};

type RowFn = unsafe extern "C" fn(u64, u64, u64, *const u8, *const u8, *mut u8);

/// Where the result goes.
#[derive(Clone, Copy)]
enum Place {
    OverA,
    OverB,
    Apart,
}

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
        let run = |lib: &Loaded, threads: u64, first: usize, n: usize, place: Place| {
            let rows = first * stride..(first + n) * stride;
            let mut x = Buffer::from_f32(&a[rows.clone()]);
            let mut z = match op {
                RowOp::AddVector => Buffer::from_f32(&other[..stride]),
                _ => Buffer::from_f32(&other[rows]),
            };
            let mut y = Buffer::floats(n * stride);
            let to = match place {
                Place::OverA => &mut x,
                Place::OverB => &mut z,
                Place::Apart => &mut y,
            }
            .ptr();
            // One operand: the other is not read.
            let z_ptr = match op {
                RowOp::Scale(_) | RowOp::Activate(_) | RowOp::Softcap(_) => std::ptr::null_mut(),
                _ => z.ptr(),
            };
            // SAFETY: the documented signature and sizes.
            unsafe {
                let f: RowFn = lib.get(&kernel.symbol());
                for t in 0..threads {
                    f(t, threads, n as u64, x.ptr(), z_ptr, to);
                }
            }
            let result = match place {
                Place::OverA => x,
                Place::OverB => z,
                Place::Apart => y,
            };
            result.f32()[..n * stride].to_vec()
        };
        let y = same_bits(&loaded, |lib, threads| {
            run(lib, threads, 0, n, Place::OverA)
        });
        let mut places = vec![Place::Apart];
        if matches!(op, RowOp::Add | RowOp::Mul | RowOp::Gate(_)) {
            places.push(Place::OverB);
        }
        for place in places {
            let last = run(&loaded[0], 1, n - 1, 1, place);
            assert_bits(&last, &y[(n - 1) * stride..], "a row alone, elsewhere");
        }
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
