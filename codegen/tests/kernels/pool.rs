//! Whole rows and sequences: copies, pooling, substitution, unit length, positions.

use crate::buffer::{Buffer, Random, assert_bits, assert_close, pad};
use crate::harness::{Loaded, load_all, same_bits};
use llmc_codegen::kernels::{L2Normalize, Pool, PoolKind, PositionIds, SelectRows, Substitute};

type ThreeFn = unsafe extern "C" fn(u64, u64, u64, *const u8, *const u8, *mut u8);
type SubstituteFn = unsafe extern "C" fn(u64, u64, u64, *const u8, *const u8, *const u8, *mut u8);
type TwoFn = unsafe extern "C" fn(u64, u64, u64, *const u8, *mut u8);

const STARTS: [i32; 4] = [0, 1, 6, 50];

#[test]
fn pooling() {
    for kind in [PoolKind::Cls, PoolKind::Last, PoolKind::Max, PoolKind::Mean] {
        let width = 40;
        let physical = pad(width, 16);
        let pool = Pool {
            kind,
            width: width as i64,
            x_stride: physical as i64 + 16,
            y_stride: physical as i64,
        };
        let loaded = load_all(|b| {
            pool.emit(b);
        });
        let stride = physical + 16;
        let x = Random::new(3).rows(50, width, stride);
        let mut x_buffer = Buffer::from_f32(&x);
        let mut starts = Buffer::from_i32(&STARTS);
        let mut run = |lib: &Loaded, threads: u64, first: usize, count: usize| {
            let mut y = Buffer::floats(count * physical);
            // SAFETY: the documented signature and sizes.
            unsafe {
                let f: ThreeFn = lib.get(&pool.symbol());
                let starts = starts.ptr().add(first * 4);
                for t in 0..threads {
                    f(t, threads, count as u64, starts, x_buffer.ptr(), y.ptr());
                }
            }
            y.f32()[..count * physical].to_vec()
        };
        let y = same_bits(&loaded, |lib, threads| run(lib, threads, 0, 3));
        for s in 0..3 {
            let alone = same_bits(&loaded, |lib, threads| run(lib, threads, s, 1));
            assert_bits(&alone, &y[s * physical..][..physical], "a sequence alone");
        }
        for s in 0..3 {
            let tokens = STARTS[s] as usize..STARTS[s + 1] as usize;
            for lane in 0..physical {
                let column = tokens.clone().map(|t| f64::from(x[t * stride + lane]));
                let count = tokens.len() as f64;
                let expected = match kind {
                    PoolKind::Cls => column.clone().next(),
                    PoolKind::Last => column.clone().next_back(),
                    PoolKind::Max => column.clone().reduce(f64::max),
                    PoolKind::Mean => Some(column.clone().sum::<f64>() / count),
                };
                let expected = expected.expect("a sequence has tokens");
                let found = y[s * physical + lane];
                if kind == PoolKind::Mean {
                    assert_close(found, expected, 1e-6, &pool.symbol());
                } else {
                    assert_eq!(f64::from(found), expected, "{}", pool.symbol());
                }
            }
        }
    }
}

#[test]
fn copied_rows() {
    let copy = SelectRows {
        width: 44,
        x_stride: 64,
        y_stride: 48,
    };
    let loaded = load_all(|b| {
        copy.emit(b);
    });
    let x = Random::new(4).rows(20, 48, 64);
    let mut x_buffer = Buffer::from_f32(&x);
    let rows = [19, 0, 7, 7, 3];
    let mut rows_buffer = Buffer::from_i32(&rows);
    let y = same_bits(&loaded, |lib, threads| {
        let mut y = Buffer::floats(5 * 48);
        // SAFETY: the documented signature and sizes.
        unsafe {
            let f: ThreeFn = lib.get(&copy.symbol());
            for t in 0..threads {
                f(t, threads, 5, rows_buffer.ptr(), x_buffer.ptr(), y.ptr());
            }
        }
        y.f32()[..5 * 48].to_vec()
    });
    for (i, row) in rows.into_iter().enumerate() {
        assert_eq!(y[i * 48..(i + 1) * 48], x[row as usize * 64..][..48]);
    }
}

#[test]
fn substituted_rows() {
    for (width, z_stride, id) in [(44, 48, 3), (16, 0, 0), (100, 128, 7)] {
        let stride = pad(width, 16);
        let kernel = Substitute {
            id,
            width: width as i64,
            x_stride: stride as i64 + 16,
            z_stride,
            y_stride: stride as i64 + 16,
        };
        let loaded = load_all(|b| {
            kernel.emit(b);
        });
        let ids = [3, 0, 7, 7, 3, 1, 0];
        let (n, stride) = (ids.len(), stride + 16);
        let x = Random::new(4).rows(n, width, stride);
        let rows = if z_stride == 0 { 1 } else { n };
        let z_width = if z_stride == 0 {
            stride
        } else {
            z_stride as usize
        };
        let z = Random::new(5).rows(rows, width, z_width);
        let (mut ids_buffer, mut z_buffer) = (Buffer::from_i32(&ids), Buffer::from_f32(&z));
        for in_place in [false, true] {
            let y = same_bits(&loaded, |lib, threads| {
                let mut x_buffer = Buffer::from_f32(&x);
                let mut y = Buffer::floats(n * stride);
                let to = if in_place { x_buffer.ptr() } else { y.ptr() };
                // SAFETY: the documented signature and sizes.
                unsafe {
                    let f: SubstituteFn = lib.get(&kernel.symbol());
                    for t in 0..threads {
                        let (ids, z) = (ids_buffer.ptr(), z_buffer.ptr());
                        f(t, threads, n as u64, ids, x_buffer.ptr(), z, to);
                    }
                }
                let y = if in_place { x_buffer } else { y };
                y.f32()[..n * stride].to_vec()
            });
            for (i, &row) in ids.iter().enumerate() {
                let from = match i64::from(row) == id {
                    true if z_stride == 0 => &z[..width],
                    true => &z[i * z_width..][..width],
                    false => &x[i * stride..][..width],
                };
                assert_eq!(
                    y[i * stride..][..width],
                    *from,
                    "{} row {i}",
                    kernel.symbol()
                );
            }
        }
    }
}

#[test]
fn unit_length() {
    let kernel = L2Normalize {
        eps: 1e-12,
        width: 90,
        x_stride: 96,
        y_stride: 96,
    };
    let loaded = load_all(|b| {
        kernel.emit(b);
    });
    let mut x = Random::new(6).rows(7, 90, 96);
    x[..96].fill(0.0);
    let y = same_bits(&loaded, |lib, threads| {
        let mut y = Buffer::from_f32(&x);
        // SAFETY: the documented signature and sizes; in place.
        unsafe {
            let f: TwoFn = lib.get(&kernel.symbol());
            for t in 0..threads {
                f(t, threads, 7, y.ptr(), y.ptr());
            }
        }
        y.f32()[..7 * 96].to_vec()
    });
    for (from, to) in x.chunks(96).zip(y.chunks(96)) {
        let mut alone = Buffer::from_f32(from);
        let mut place = Buffer::floats(96);
        // SAFETY: as above; one row, out of place.
        unsafe {
            let f: TwoFn = loaded[0].get(&kernel.symbol());
            f(0, 1, 1, alone.ptr(), place.ptr());
        }
        assert_bits(&place.f32()[..96], to, "a row alone");
        let length = from
            .iter()
            .map(|v| f64::from(*v).powi(2))
            .sum::<f64>()
            .sqrt();
        for (a, b) in from.iter().zip(to) {
            assert_close(*b, f64::from(*a) / length.max(1e-12), 1e-6, "unit length");
        }
    }
}

#[test]
fn positions_from_the_pad_id() {
    let kernel = PositionIds { pad: 1 };
    let loaded = load_all(|b| {
        kernel.emit(b);
    });
    let mut starts = Buffer::from_i32(&[0, 3, 8]);
    let mut ids = Buffer::from_i32(&[5, 6, 7, 1, 9, 1, 4, 4]);
    let out = same_bits(&loaded, |lib, threads| {
        let mut out = Buffer::bytes(8 * 4);
        // SAFETY: the documented signature and sizes.
        unsafe {
            let f: ThreeFn = lib.get(&kernel.symbol());
            for t in 0..threads {
                f(t, threads, 2, starts.ptr(), ids.ptr(), out.ptr());
            }
        }
        out.f32()[..8].to_vec()
    });
    let found: Vec<u32> = out.iter().map(|v| v.to_bits()).collect();
    assert_eq!(found, [2, 3, 4, 1, 2, 1, 3, 4]);
}
