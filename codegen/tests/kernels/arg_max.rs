//! `arg_max`: the threads' parts joined are the first largest entry.

use crate::buffer::{Buffer, Random, pad};
use crate::harness::load_all;
use llmc_codegen::kernels::ArgMax;

type ArgMaxFn = unsafe extern "C" fn(u64, u64, u64, *const u8, *mut u8);

/// The first largest entry, NaN and negative infinity left out.
fn expected(row: &[f32]) -> i32 {
    let mut best = (f32::NEG_INFINITY, -1);
    for (i, &v) in row.iter().enumerate() {
        if v > best.0 {
            best = (v, i as i32);
        }
    }
    best.1
}

fn check(width: usize, rows: &[Vec<f32>]) {
    let stride = pad(width, 16);
    let kernel = ArgMax {
        width: width as i64,
        stride: stride as i64,
    };
    let loaded = load_all(|b| {
        kernel.emit(b);
    });
    // Lanes behind the row do not count.
    let mut x = vec![f32::MAX; rows.len() * stride];
    for (to, row) in x.chunks_mut(stride).zip(rows) {
        to[..width].copy_from_slice(row);
    }
    let mut x = Buffer::from_f32(&x);
    for lib in &loaded {
        for threads in [1, 2, 3, 7] {
            let mut joined = vec![(f32::NEG_INFINITY, -1); rows.len()];
            for t in 0..threads {
                let mut best = Buffer::floats(2 * rows.len());
                // SAFETY: the documented signature and sizes.
                unsafe {
                    let f: ArgMaxFn = lib.get(&kernel.symbol());
                    f(t, threads, rows.len() as u64, x.ptr(), best.ptr());
                }
                for (joined, part) in joined.iter_mut().zip(best.f32().chunks(2)) {
                    let token = part[1].to_bits() as i32;
                    if token >= 0 && part[0] > joined.0 {
                        *joined = (part[0], token);
                    }
                }
            }
            for (row, found) in rows.iter().zip(&joined) {
                assert_eq!(
                    found.1,
                    expected(row),
                    "{width} wide, {threads} threads, {}",
                    lib.level.name
                );
            }
        }
    }
}

#[test]
fn the_first_largest() {
    let mut random = Random::new(3);
    for width in [1, 5, 16, 17, 64, 131, 1000] {
        let mut rows: Vec<Vec<f32>> = (0..4).map(|_| random.rows(1, width, width)).collect();
        // Few values: many equals.
        rows.push((0..width).map(|_| (random.next() % 3) as f32).collect());
        rows.push(vec![-1.5; width]);
        rows.push(vec![f32::NAN; width]);
        rows.push(vec![f32::NEG_INFINITY; width]);
        let mut mixed = vec![f32::NAN; width];
        mixed[width / 2] = -3e38;
        rows.push(mixed);
        let mut infinite = random.rows(1, width, width);
        infinite[width - 1] = f32::INFINITY;
        rows.push(infinite);
        check(width, &rows);
    }
}
