//! Routing, sorting by expert, the experts' products and their sum, each against its definition.

use crate::buffer::{Buffer, Random, assert_bits, assert_close, pad};
use crate::harness::{Loaded, load_all, same_bits};
use crate::linear::pack;
use llmc_codegen::kernel::Elem;
use llmc_codegen::kernels::{
    Activation, Combine, Dispatch, Epilogue, Experts, Linear, Product, Route,
};

type RouteFn = unsafe extern "C" fn(u64, u64, u64, *const u8, *mut u8, *mut u8);
type DispatchFn =
    unsafe extern "C" fn(u64, u64, u64, *const u8, *mut u8, *mut u8, *mut u8, *mut u8, *mut u8);
type ExpertsFn =
    unsafe extern "C" fn(u64, u64, *const u8, *const u8, *const u8, *const u8, *mut u8, *mut u8);
type CombineFn = unsafe extern "C" fn(u64, u64, u64, *const u8, *const u8, *const u8, *mut u8);

const SENTINEL: f32 = 12345.5;

/// What `route` means, in f64.
fn routed(logits: &[f32], top_k: usize, renormalize: bool) -> Vec<f64> {
    let mut order: Vec<usize> = (0..logits.len())
        .filter(|i| logits[*i] > f32::NEG_INFINITY)
        .collect();
    order.sort_by(|a, b| logits[*b].partial_cmp(&logits[*a]).expect("no NaN"));
    let exp = |i: usize| (f64::from(logits[i]) - f64::from(logits[order[0]])).exp();
    let chosen = &order[..top_k.min(order.len())];
    let over = if renormalize { chosen } else { &order };
    let sum: f64 = over.iter().map(|i| exp(*i)).sum();
    let mut weights = vec![0.0; logits.len()];
    chosen.iter().for_each(|i| weights[*i] = exp(*i) / sum);
    weights
}

#[test]
fn rows_choose_their_greatest_logits() {
    for (experts, top_k) in [(4, 2), (8, 8), (32, 4), (40, 5), (128, 8), (3, 1)] {
        for renormalize in [false, true] {
            let stride = pad(experts, 16) + 16;
            let kernel = Route {
                experts: experts as i64,
                top_k: top_k as i64,
                renormalize,
                x_stride: stride as i64,
                y_stride: stride as i64,
            };
            let loaded = load_all(|b| {
                kernel.emit(b);
            });
            let mut random = Random::new((experts * 7 + top_k) as u64);
            let n = 9;
            let mut x = random.rows(n, experts, stride);
            x.iter_mut().for_each(|v| *v *= 4.0);
            // Equals, nothing to choose, and numbers that are none.
            x[stride..][..experts].fill(1.5);
            x[2 * stride..][..experts].fill(f32::NEG_INFINITY);
            x[3 * stride] = f32::NAN;
            x[4 * stride..][1..experts].fill(f32::NAN);
            let mut x_buffer = Buffer::from_f32(&x);
            let all = same_bits(&loaded, |lib, threads| {
                let mut y = Buffer::floats(n * stride);
                y.f32_mut().fill(SENTINEL);
                // SAFETY: the signature is the documented one.
                let f: RouteFn = unsafe { lib.get(&kernel.symbol()) };
                for t in 0..threads {
                    let mut scratch = Buffer::scratch(kernel.scratch_bytes());
                    // SAFETY: the buffers have the documented sizes.
                    unsafe {
                        f(t, threads, n as u64, x_buffer.ptr(), y.ptr(), scratch.ptr());
                    }
                    scratch.assert_within(kernel.scratch_bytes());
                }
                y.f32()[..n * stride].to_vec()
            });
            for (i, (x, y)) in x.chunks(stride).zip(all.chunks(stride)).enumerate() {
                let (y, pads) = y.split_at(experts);
                assert!(pads[..pad(experts, 16) - experts].iter().all(|v| *v == 0.0));
                let chosen = y.iter().filter(|w| **w != 0.0).count();
                assert!(chosen <= top_k, "row {i}: {chosen} of {top_k}");
                let logits = &x[..experts];
                if i == 2 {
                    assert_eq!(chosen, 0);
                    continue;
                }
                let numbers: Vec<f32> = logits
                    .iter()
                    .map(|v| if v.is_nan() { f32::NEG_INFINITY } else { *v })
                    .collect();
                for (e, want) in routed(&numbers, top_k, renormalize).iter().enumerate() {
                    let what = format!("{} row {i} expert {e}", kernel.symbol());
                    assert_close(y[e], *want, 2e-6, &what);
                }
            }
        }
    }
}

/// Pairs of rows and experts, as `dispatch` lists them.
struct Lists {
    starts: Vec<i32>,
    rows: Vec<i32>,
    places: Vec<i32>,
    shares: Vec<f32>,
}

fn dispatch(kernel: &Dispatch, lib: &Loaded, threads: u64, weights: &[f32], n: usize) -> Lists {
    let (experts, pairs) = (kernel.experts as usize, n * kernel.top_k as usize);
    let mut from = Buffer::from_f32(weights);
    let mut lists = [experts + 1, experts, pairs, pairs, pairs].map(Buffer::floats);
    // SAFETY: the signature is the documented one.
    let f: DispatchFn = unsafe { lib.get(&kernel.symbol()) };
    let [starts, cursors, rows, places, shares] = &mut lists;
    for t in (0..threads).rev() {
        // SAFETY: the buffers have the documented sizes.
        unsafe {
            f(
                t,
                threads,
                n as u64,
                from.ptr(),
                starts.ptr(),
                cursors.ptr(),
                rows.ptr(),
                places.ptr(),
                shares.ptr(),
            );
        }
    }
    let ints = |b: &Buffer, n: usize| b.f32()[..n].iter().map(|v| v.to_bits() as i32).collect();
    Lists {
        starts: ints(starts, experts + 1),
        rows: ints(rows, pairs),
        places: ints(places, pairs),
        shares: shares.f32()[..pairs].to_vec(),
    }
}

/// Weights of which each row has up to `top_k` that are not zero.
fn weights(random: &mut Random, n: usize, experts: usize, top_k: usize, stride: usize) -> Vec<f32> {
    let mut all = vec![0.0; n * stride];
    for (i, row) in all.chunks_mut(stride).enumerate() {
        row[experts..].fill(f32::NAN);
        for _ in 0..(if i == 1 { 0 } else { top_k }) {
            row[random.next() as usize % experts] = 0.25 + random.unit().abs();
        }
    }
    all
}

#[test]
fn pairs_are_sorted_by_expert() {
    let (experts, top_k, n, stride) = (20, 3, 17, 48);
    let kernel = Dispatch {
        experts: experts as i64,
        top_k: top_k as i64,
        w_stride: stride as i64,
    };
    let loaded = load_all(|b| {
        kernel.emit(b);
    });
    let weights = weights(&mut Random::new(5), n, experts, top_k, stride);
    for lib in &loaded {
        for threads in [1, 3] {
            let lists = dispatch(&kernel, lib, threads, &weights, n);
            let mut next = 0;
            for e in 0..experts {
                assert_eq!(lists.starts[e], next, "expert {e}");
                for row in (0..n).filter(|i| weights[i * stride + e] != 0.0) {
                    let pair = next as usize;
                    assert_eq!(lists.rows[pair], row as i32, "pair {pair}");
                    let of_row = &lists.places[row * top_k..][..top_k];
                    let at = of_row
                        .iter()
                        .position(|p| *p == next)
                        .expect("the pair of its row");
                    assert_eq!(lists.shares[row * top_k + at], weights[row * stride + e]);
                    next += 1;
                }
            }
            assert_eq!(lists.starts[experts], next);
            let some = lists.shares.iter().filter(|s| **s != 0.0).count();
            assert_eq!(some as i32, next, "every other share is zero");
        }
    }
}

/// The experts that have rows are computed, and no others: their matrices hold NaN and their part of the
/// work is nothing. Rows get the bits of the product alone, whatever the company.
#[test]
fn only_chosen_experts_are_visited() {
    let (experts, top_k, n, stride, k, m) = (12usize, 2usize, 9usize, 16usize, 32usize, 70usize);
    let dispatch_kernel = Dispatch {
        experts: experts as i64,
        top_k: top_k as i64,
        w_stride: stride as i64,
    };
    let y_stride = pad(m, 16);
    let linear = Linear {
        k: k as i64,
        m: pad(m, 64) as i64,
        x: Elem::F32,
        x_stride: k as i64,
        elem: Elem::F32,
        out: Epilogue {
            width: m as i64,
            y_stride: y_stride as i64,
            bias: true,
            activation: Activation::None,
            glu: false,
            limit: None,
            shift: 0.0,
            scale: None,
            softcap: None,
            residual: None,
        },
    };
    let kernel = Experts {
        experts: experts as i64,
        w_bytes: (pad(m, 64) * k * 4) as i64,
        product: Product::Plain(linear.clone()),
    };
    let combine = Combine {
        top_k: top_k as i64,
        width: m as i64,
        pair_stride: y_stride as i64,
        y_stride: y_stride as i64,
    };
    let loaded = load_all(|b| {
        dispatch_kernel.emit(b);
        kernel.emit(b);
        combine.emit(b);
    });
    let mut random = Random::new(11);
    let mut weights = weights(&mut random, n, experts, top_k, stride);
    // Nobody goes to the odd experts.
    for row in weights.chunks_mut(stride) {
        (0..experts)
            .filter(|e| e % 2 == 1)
            .for_each(|e| row[e] = 0.0);
    }
    let chosen: Vec<bool> = (0..experts)
        .map(|e| (0..n).any(|i| weights[i * stride + e] != 0.0))
        .collect();
    let x = random.rows(n, k, k);
    let (mut matrices, mut biases) = (Vec::new(), Vec::new());
    for chosen in &chosen {
        let mut w = random.rows(m, k, k);
        let mut bias = random.rows(1, m, pad(m, 64));
        if !chosen {
            w.fill(f32::NAN);
            bias.fill(f32::NAN);
        }
        matrices.push(w);
        biases.push(bias);
    }
    let padded = |w: &[f32]| {
        let mut rows = w.to_vec();
        rows.resize(pad(m, 64) * k, 0.0);
        rows
    };
    let packed: Vec<f32> = matrices
        .iter()
        .flat_map(|w| pack(&padded(w), pad(m, 64), k))
        .collect();
    let (mut packed, mut bias) = (
        Buffer::from_f32(&packed),
        Buffer::from_f32(&biases.concat()),
    );
    let (packed, bias): (*const u8, *const u8) = (packed.ptr(), bias.ptr());
    let run = |lib: &Loaded, threads: u64, rows: std::ops::Range<usize>| -> (Vec<f32>, usize) {
        let count = rows.len();
        let own = &weights[rows.start * stride..rows.end * stride];
        let lists = dispatch(&dispatch_kernel, lib, threads, own, count);
        let visited = lists.starts.windows(2).filter(|w| w[1] > w[0]).count();
        let pairs = lists.starts[experts] as usize;
        let gathered: Vec<f32> = lists.rows[..pairs]
            .iter()
            .flat_map(|r| &x[(rows.start + *r as usize) * k..][..k])
            .copied()
            .collect();
        let mut gathered = Buffer::from_f32(&gathered);
        let mut starts = Buffer::from_i32(&lists.starts);
        let mut places = Buffer::from_i32(&lists.places);
        let mut shares = Buffer::from_f32(&lists.shares);
        let mut pairs = Buffer::floats((pairs * y_stride).max(1));
        let mut y = Buffer::floats(count * y_stride);
        y.f32_mut().fill(SENTINEL);
        // SAFETY: the signatures are the documented ones.
        let (f, g): (ExpertsFn, CombineFn) =
            unsafe { (lib.get(&kernel.symbol()), lib.get(&combine.symbol())) };
        for t in 0..threads {
            let mut scratch = Buffer::scratch(kernel.product.scratch_bytes());
            // SAFETY: the buffers have the documented sizes.
            unsafe {
                f(
                    t,
                    threads,
                    starts.ptr(),
                    gathered.ptr(),
                    packed,
                    bias,
                    pairs.ptr(),
                    scratch.ptr(),
                );
            }
        }
        for t in 0..threads {
            // SAFETY: as above.
            unsafe {
                g(
                    t,
                    threads,
                    count as u64,
                    pairs.ptr(),
                    places.ptr(),
                    shares.ptr(),
                    y.ptr(),
                );
            }
        }
        (y.f32()[..count * y_stride].to_vec(), visited)
    };
    let (_, visited) = run(&loaded[0], 1, 0..n);
    assert_eq!(visited, chosen.iter().filter(|c| **c).count());
    let all = same_bits(&loaded, |lib, threads| run(lib, threads, 0..n).0);
    for i in 0..n {
        let (alone, visited) = run(&loaded[0], 1, i..i + 1);
        let row = &all[i * y_stride..][..y_stride];
        assert_bits(&alone, row, "a row alone");
        let own = (0..experts).filter(|e| weights[i * stride + e] != 0.0);
        assert_eq!(visited, own.clone().count(), "a row visits its own experts");
        for o in 0..m {
            let mut sum = 0.0f32;
            for e in own.clone() {
                let w = &matrices[e][o * k..][..k];
                let dot = (0..k).fold(0.0f32, |s, j| x[i * k + j].mul_add(w[j], s));
                sum = weights[i * stride + e].mul_add(dot + biases[e][o], sum);
            }
            assert_eq!(row[o], sum, "row {i} output {o}");
        }
        assert!(row[m..].iter().all(|v| *v == 0.0), "pad lanes are zero");
    }
}
