//! `attend` with position terms, and `unfold`.

use crate::attend::check;
use crate::attend_world::disentangled;
use crate::buffer::{Buffer, Random};
use crate::harness::{load_all, same_bits};
use llmc_codegen::kernels::{KvElem, Mask, Unfold};
use llmc_ir::ops::Disentangled;

/// Terms, by name.
fn terms(which: &str, span: u32, max_distance: Option<u32>) -> Disentangled {
    Disentangled {
        c2p: which.contains("c2p"),
        p2c: which.contains("p2c"),
        span,
        max_distance,
    }
}

#[test]
fn terms_over_head_widths() {
    for (dim, heads) in [(6, 4), (24, 2), (40, 1), (64, 3), (72, 2), (128, 1)] {
        let both = terms("c2p p2c", 8, Some(64));
        check(&disentangled(dim, heads, both, 70), 70);
    }
}

#[test]
fn terms_over_lengths() {
    for length in [1, 6, 25, 64, 65, 200] {
        for which in ["c2p", "p2c", "c2p p2c"] {
            check(
                &disentangled(16, 2, terms(which, 12, Some(64)), length),
                length,
            );
        }
        // Every distance has a row; then most are beyond the table.
        check(
            &disentangled(16, 2, terms("c2p p2c", 256, None), length),
            length,
        );
        check(
            &disentangled(16, 2, terms("c2p p2c", 5, None), length),
            length,
        );
        // More buckets than distances.
        check(
            &disentangled(16, 2, terms("c2p p2c", 100, Some(60)), length),
            length,
        );
    }
}

#[test]
fn terms_of_one_and_of_many_rows() {
    check(&disentangled(20, 2, terms("c2p p2c", 1, None), 90), 90);
    check(&disentangled(20, 2, terms("c2p p2c", 2, Some(3)), 90), 90);
    check(&disentangled(64, 1, terms("c2p p2c", 512, None), 300), 300);
    check(
        &disentangled(64, 1, terms("c2p p2c", 256, Some(512)), 513),
        513,
    );
}

#[test]
fn terms_under_causal_masks_and_caps() {
    for window in [None, Some(70)] {
        let mut c = disentangled(32, 2, terms("c2p p2c", 16, Some(99)), 200);
        c.attend.mask = Mask::Causal { window };
        check(&c, 200);
    }
    for elem in [KvElem::F16, KvElem::BF16] {
        let mut c = disentangled(32, 2, terms("p2c", 16, Some(99)), 70);
        c.attend.kv.elem = elem;
        c.append.kv.elem = elem;
        check(&c, 70);
    }
}

type UnfoldFn = unsafe extern "C" fn(u64, u64, u64, *const u8, *const u8, *const u8, *mut u8);

#[test]
fn neighbours_stay_within_their_sequence() {
    for (width, columns) in [(1, 16), (3, 24), (5, 7), (9, 40)] {
        let kernel = Unfold {
            width,
            columns,
            x_stride: 64,
            y_stride: 384,
        };
        let loaded = load_all(|b| {
            kernel.emit(b);
        });
        let starts = [0usize, 1, 6, 13];
        let n = starts[3];
        let of = |token: usize| starts.iter().rposition(|s| *s <= token).unwrap();
        let seq: Vec<i32> = (0..n).map(|t| of(t) as i32).collect();
        let mut random = Random::new(7);
        let x: Vec<f32> = (0..n * 64).map(|_| random.unit()).collect();
        let out = same_bits(&loaded, |lib, threads| {
            let [mut seq, mut starts] =
                [seq.clone(), starts.map(|s| s as i32).to_vec()].map(|v| Buffer::from_i32(&v));
            let (mut x, mut y) = (Buffer::from_f32(&x), Buffer::floats(n * 384));
            y.f32_mut().fill(f32::NAN);
            // SAFETY: the documented signature and sizes.
            unsafe {
                let f: UnfoldFn = lib.get(&kernel.symbol());
                for t in 0..threads {
                    f(
                        t,
                        threads,
                        n as u64,
                        seq.ptr(),
                        starts.ptr(),
                        x.ptr(),
                        y.ptr(),
                    );
                }
            }
            y.f32()[..n * 384].to_vec()
        });
        let (width, columns) = (width as usize, columns as usize);
        for token in 0..n {
            for i in 0..(width * columns).next_multiple_of(16) {
                let (c, t) = (i / width, i % width);
                let at = (token + t).checked_sub((width - 1) / 2);
                let inside = at.filter(|at| *at < n && seq[*at] == seq[token] && c < columns);
                let expected = inside.map_or(0.0, |at| x[at * 64 + c]);
                assert_eq!(out[token * 384 + i], expected, "token {token}, element {i}");
            }
        }
    }
}
