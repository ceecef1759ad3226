use crate::buffer::{Buffer, Random, assert_bits, assert_close, pad};
use crate::harness::{load_all, same_bits};
use llmc_codegen::kernels::{Lengths, Rope, RopeAngles};
use llmc_ir::rope::{RopeScaling, inv_freq_at};

type AnglesFn = unsafe extern "C" fn(
    u64,
    u64,
    u64,
    *const u8,
    *const u8,
    *const u8,
    *const u8,
    *const u8,
    *mut u8,
    *mut u8,
);
type RopeFn = unsafe extern "C" fn(u64, u64, u64, *const u8, *const u8, *const u8, *mut u8);

/// Angles, then rotation in place, for heads of `2·half + rest` logical lanes.
fn check(heads: usize, half: usize, rest: usize) {
    let (hp, rp) = (pad(half, 16), pad(rest, 16));
    let distance = 2 * hp + rp;
    let stride = heads * distance + 32;
    let angles = RopeAngles {
        half: hp as i64,
        scale: 1.25,
        lengths: Lengths::Any,
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
                        pos_buffer.ptr(),
                        pos_buffer.ptr(),
                        frequency_buffer.ptr(),
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
                for lane in (half..hp).chain(hp + half..2 * hp) {
                    assert_eq!(y[at + lane], 0.0, "pad lanes are zero");
                }
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

/// Positions up to 100 000 and all frequencies of a head, against f64 of the same f32 angle.
#[test]
fn angles() {
    let (half, physical) = (24, 32);
    for scale in [1.0f32, 1.414] {
        let kernel = RopeAngles {
            half: physical as i64,
            scale,
            lengths: Lengths::Any,
        };
        let loaded = load_all(|b| {
            kernel.emit(b);
        });
        let mut frequencies = vec![0.0f32; physical];
        for (i, f) in frequencies[..half].iter_mut().enumerate() {
            *f = 10_000f32.powf(-(i as f32) / half as f32);
        }
        let mut frequency_buffer = Buffer::from_f32(&frequencies);
        let pos: Vec<i32> = (0..300)
            .chain((300..100_000).step_by(331))
            .chain([32_767, 65_535, 65_536, 99_999, 100_000])
            .collect();
        let n = pos.len();
        let mut pos_buffer = Buffer::from_i32(&pos);
        let all = same_bits(&loaded, |lib, threads| {
            let (mut cos, mut sin) = (Buffer::floats(n * physical), Buffer::floats(n * physical));
            let (p, f) = (pos_buffer.ptr(), frequency_buffer.ptr());
            // SAFETY: the documented signature and sizes.
            unsafe {
                let g: AnglesFn = lib.get(&kernel.symbol());
                for t in 0..threads {
                    g(t, threads, n as u64, p, p, p, f, f, cos.ptr(), sin.ptr());
                }
            }
            [&cos.f32()[..n * physical], &sin.f32()[..n * physical]].concat()
        });
        let (cos, sin) = all.split_at(n * physical);
        let scale = f64::from(scale);
        for (row, position) in pos.iter().enumerate() {
            for (i, frequency) in frequencies.iter().enumerate() {
                let angle = f64::from(*position as f32 * frequency);
                let at = row * physical + i;
                let what = format!("position {position}, frequency {i}");
                assert_close(cos[at], scale * angle.cos(), 1e-7, &what);
                assert_close(sin[at], scale * angle.sin(), 1e-7, &what);
                if i >= half {
                    assert_eq!((f64::from(cos[at]), sin[at]), (scale, 0.0), "pad lanes");
                }
            }
        }
    }
}

/// Frequencies by the lengths of sequences, against those of the IR: longrope's two sets, and dynamic
/// NTK's base, which a token's own position raises too.
#[test]
fn lengths() {
    let (theta, dim) = (10_000.0, 24);
    let factors = |by: f32| {
        (0..dim / 2)
            .map(|i| 1.0 + by * i as f32)
            .collect::<Vec<_>>()
    };
    let longrope = RopeScaling::LongRope {
        short: factors(0.01),
        long: factors(1.3),
        original_context: 100,
        attention_factor: 1.0,
    };
    let dynamic = RopeScaling::Dynamic {
        factor: 2.5,
        original_context: 100,
    };
    let lanes = |mut v: Vec<f32>| {
        v.resize(16, 0.0);
        Buffer::from_f32(&v)
    };
    let powers = (0..dim / 2).map(|i| -2.0 * i as f32 / (dim as f32 - 2.0));
    let cases = [
        (
            &longrope,
            Lengths::Switch { at: 100 },
            inv_freq_at(theta, dim, &longrope, 101),
        ),
        (
            &dynamic,
            Lengths::Growing {
                factor: 2.5,
                context: 100,
            },
            powers.collect(),
        ),
    ];
    // Positions and sequences of the tokens, and lengths of the sequences.
    let tokens = [
        (0, 0),
        (99, 0),
        (5, 1),
        (100, 1),
        (3, 2),
        (900, 2),
        (100, 3),
        (70_000, 3),
    ];
    let of_sequence = [100u32, 101, 40_000, 50];
    for (scaling, lengths, second) in cases {
        let kernel = RopeAngles {
            half: 16,
            scale: 1.0,
            lengths,
        };
        let loaded = load_all(|b| {
            kernel.emit(b);
        });
        let mut first = lanes(inv_freq_at(theta, dim, scaling, 0));
        let mut second = lanes(second);
        let mut pos = Buffer::from_i32(&tokens.map(|t| t.0));
        let mut seq = Buffer::from_i32(&tokens.map(|t| t.1));
        let mut lens = Buffer::from_i32(&of_sequence.map(|l| l as i32));
        let n = tokens.len();
        let sines = same_bits(&loaded, |lib, threads| {
            let (mut cos, mut sin) = (Buffer::floats(n * 16), Buffer::floats(n * 16));
            let [p, s, l] = [&mut pos, &mut seq, &mut lens].map(|b| b.ptr());
            let (f, g) = (first.ptr(), second.ptr());
            // SAFETY: the documented signature and sizes.
            unsafe {
                let angles: AnglesFn = lib.get(&kernel.symbol());
                for t in 0..threads {
                    angles(t, threads, n as u64, p, s, l, f, g, cos.ptr(), sin.ptr());
                }
            }
            sin.f32()[..n * 16].to_vec()
        });
        for (row, (position, sequence)) in tokens.into_iter().enumerate() {
            let length = match lengths {
                Lengths::Growing { .. } => of_sequence[sequence as usize].max(position as u32 + 1),
                _ => of_sequence[sequence as usize],
            };
            let frequencies = inv_freq_at(theta, dim, scaling, length);
            for (i, frequency) in frequencies.iter().enumerate() {
                let angle = f64::from(position as f32 * frequency);
                // A few units in the last place of the frequency.
                let tolerance = 1e-6 + angle * 5e-7;
                let found = f64::from(sines[row * 16 + i]);
                let what = format!("position {position} of {length}, frequency {i}");
                assert!((found - angle.sin()).abs() < tolerance, "{what}: {found}");
            }
            assert_eq!(sines[row * 16 + 12..row * 16 + 16], [0.0; 4], "pad lanes");
        }
    }
}

/// Out of place, between rows of different strides, alone and in company: the same bits.
#[test]
fn places() {
    let (n, half) = (7, 32);
    let [near, far] = [(192, 160), (192, 192)].map(|(x_stride, y_stride)| Rope {
        heads: 2,
        half: half as i64,
        rest: 16,
        x_stride,
        y_stride,
    });
    let loaded = load_all(|b| {
        near.emit(b);
        far.emit(b);
    });
    let mut random = Random::new(9);
    let x = random.rows(n, 160, 192);
    let mut cos = Buffer::from_f32(&random.rows(n, half, half));
    let mut sin = Buffer::from_f32(&random.rows(n, half, half));
    let in_place = same_bits(&loaded, |lib, threads| {
        let mut y = Buffer::from_f32(&x);
        // SAFETY: the documented signature and sizes.
        unsafe {
            let f: RopeFn = lib.get(&far.symbol());
            for t in 0..threads {
                f(t, threads, n as u64, y.ptr(), cos.ptr(), sin.ptr(), y.ptr());
            }
        }
        y.f32()[..n * 192].to_vec()
    });
    let mut x = Buffer::from_f32(&x);
    for lib in &loaded {
        for row in 0..n {
            let mut y = Buffer::floats(160);
            // SAFETY: as above; one row.
            unsafe {
                let f: RopeFn = lib.get(&near.symbol());
                let x = x.ptr().add(row * 192 * 4);
                let [c, s] = [&mut cos, &mut sin].map(|b| b.ptr().add(row * half * 4));
                f(0, 1, 1, x, c, s, y.ptr());
            }
            assert_bits(
                &y.f32()[..160],
                &in_place[row * 192..][..160],
                "a row elsewhere",
            );
        }
    }
}
