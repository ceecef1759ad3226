use crate::buffer::{Buffer, Random, assert_close, pad};
use crate::harness::{load_all, same_bits};
use llmc_codegen::kernels::{Rope, RopeAngles};

type AnglesFn = unsafe extern "C" fn(u64, u64, u64, *const u8, *const u8, *mut u8, *mut u8);
type RopeFn = unsafe extern "C" fn(u64, u64, u64, *const u8, *const u8, *const u8, *mut u8);

/// Angles, then rotation in place, for heads of `2·half + rest` logical lanes.
fn check(heads: usize, half: usize, rest: usize) {
    let (hp, rp) = (pad(half, 16), pad(rest, 16));
    let distance = 2 * hp + rp;
    let stride = heads * distance + 32;
    let angles = RopeAngles {
        half: hp as i64,
        scale: 1.25,
    };
    let rope = Rope {
        heads: heads as i64,
        half: hp as i64,
        rest: rp as i64,
        x_stride: stride as i64,
        y_stride: stride as i64,
    };
    let loaded = load_all(|b| {
        angles.emit(b);
        rope.emit(b);
    });
    let mut frequencies = vec![0.0f32; hp];
    for (i, f) in frequencies[..half].iter_mut().enumerate() {
        *f = 10_000f32.powf(-(i as f32) / half as f32);
    }
    let mut frequency_buffer = Buffer::from_f32(&frequencies);
    let mut random = Random::new(half as u64);
    for n in [1usize, 2, 7, 50] {
        let pos: Vec<i32> = (0..n).map(|_| (random.next() % 900_000) as i32).collect();
        let mut pos_buffer = Buffer::from_i32(&pos);
        let mut x = vec![0.0; n * stride];
        for row in x.chunks_mut(stride) {
            for head in row[..heads * distance].chunks_mut(distance) {
                for (start, count) in [(0, half), (hp, half), (2 * hp, rest)] {
                    head[start..start + count]
                        .iter_mut()
                        .for_each(|v| *v = random.unit());
                }
            }
        }
        let y = same_bits(&loaded, |lib, threads| {
            let mut cos = Buffer::floats(n * hp);
            let mut sin = Buffer::floats(n * hp);
            let mut y = Buffer::from_f32(&x);
            // SAFETY: the documented signatures and sizes.
            unsafe {
                let f: AnglesFn = lib.get(&angles.symbol());
                let g: RopeFn = lib.get(&rope.symbol());
                for t in 0..threads {
                    f(
                        t,
                        threads,
                        n as u64,
                        pos_buffer.ptr(),
                        frequency_buffer.ptr(),
                        cos.ptr(),
                        sin.ptr(),
                    );
                }
                for t in 0..threads {
                    g(t, threads, n as u64, y.ptr(), cos.ptr(), sin.ptr(), y.ptr());
                }
            }
            y.f32()[..n * stride].to_vec()
        });
        for (row, position) in pos.iter().enumerate() {
            for head in 0..heads {
                let at = row * stride + head * distance;
                for i in 0..hp {
                    let angle = f64::from(*position as f32 * frequencies[i]);
                    let (a, z) = (f64::from(x[at + i]), f64::from(x[at + hp + i]));
                    let (s, c) = (angle.sin() * 1.25, angle.cos() * 1.25);
                    assert_close(y[at + i], a * c - z * s, 1e-6, "first half");
                    assert_close(y[at + hp + i], z * c + a * s, 1e-6, "second half");
                }
                let rest = at + 2 * hp..at + distance;
                assert_eq!(y[rest.clone()], x[rest]);
            }
        }
    }
}

#[test]
fn halves() {
    check(3, 32, 0);
    check(2, 3, 0);
    check(2, 20, 24);
    check(1, 64, 10);
}
