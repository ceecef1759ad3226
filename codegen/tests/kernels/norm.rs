use crate::buffer::{Buffer, Random, assert_bits, assert_close, pad};
use crate::harness::{Loaded, load_all, same_bits};
use llmc_codegen::kernels::{Norm, NormKind};

type NormFn = unsafe extern "C" fn(u64, u64, u64, *const u8, *const u8, *const u8, *mut u8);

fn check(norm: &Norm) {
    let loaded = load_all(|b| {
        norm.emit(b);
    });
    let (d, xs, ys) = (
        norm.physical as usize,
        norm.x_stride as usize,
        norm.y_stride as usize,
    );
    let heads = norm.heads as usize;
    let lanes: Vec<usize> = norm
        .segments
        .iter()
        .flat_map(|(start, length)| (*start as usize)..(start + length) as usize)
        .collect();
    let mut random = Random::new(d as u64);
    let (mut w, mut c) = (vec![0.0; d], vec![0.0; d]);
    for lane in &lanes {
        w[*lane] = random.unit();
        c[*lane] = random.unit();
    }
    for n in [1usize, 2, 7] {
        let mut x = vec![0.0; n * xs];
        for row in 0..n {
            for head in 0..heads {
                for lane in &lanes {
                    x[row * xs + head * d + lane] = random.unit() + 0.3;
                }
            }
        }
        let (mut wb, mut cb) = (Buffer::from_f32(&w), Buffer::from_f32(&c));
        let mut x_buffer = Buffer::from_f32(&x);
        // RMS norms have no bias to read.
        let bias = match norm.kind {
            NormKind::Layer => cb.ptr(),
            NormKind::Rms { .. } => std::ptr::null_mut(),
        };
        let in_place = xs == ys;
        let mut run = |lib: &Loaded, threads: u64, first: usize, n: usize| {
            // SAFETY: the documented signature and sizes.
            unsafe {
                let f: NormFn = lib.get(&norm.symbol());
                let mut y = Buffer::floats(n * ys);
                let from = if in_place {
                    let rows = &x[first * xs..(first + n) * xs];
                    y.f32_mut()[..n * xs].copy_from_slice(rows);
                    y.ptr()
                } else {
                    x_buffer.ptr().add(first * xs * 4)
                };
                for t in 0..threads {
                    f(t, threads, n as u64, from, wb.ptr(), bias, y.ptr());
                }
                y.f32()[..n * ys].to_vec()
            }
        };
        let y = same_bits(&loaded, |lib, threads| run(lib, threads, 0, n));
        let alone = run(&loaded[0], 1, n - 1, 1);
        assert_bits(&alone, &y[(n - 1) * ys..], "a row alone");
        for row in 0..n {
            for head in 0..heads {
                let at = row * xs + head * d;
                let values: Vec<f64> = lanes.iter().map(|l| f64::from(x[at + l])).collect();
                let count = values.len() as f64;
                let (mean, offset) = match norm.kind {
                    NormKind::Layer => (values.iter().sum::<f64>() / count, 0.0),
                    NormKind::Rms { offset } => (0.0, f64::from(offset)),
                };
                let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
                let factor = 1.0 / (var + f64::from(norm.eps)).sqrt();
                for lane in 0..d {
                    let found = y[row * ys + head * d + lane];
                    if !lanes.contains(&lane) {
                        assert_eq!(found, 0.0, "pad lanes are zero");
                        continue;
                    }
                    let mut v =
                        (f64::from(x[at + lane]) - mean) * factor * (offset + f64::from(w[lane]));
                    if norm.kind == NormKind::Layer {
                        v += f64::from(c[lane]);
                    }
                    assert_close(found, v, 2e-6, &norm.symbol());
                }
            }
        }
    }
}

#[test]
fn rows() {
    for width in [6, 16, 40, 64, 100, 384, 1000] {
        let stride = pad(width as usize, 16) as i64 + 32;
        check(&Norm::rows(NormKind::Layer, 1e-5, width, stride, stride));
        check(&Norm::rows(
            NormKind::Layer,
            1e-5,
            width,
            stride,
            stride - 16,
        ));
        check(&Norm::rows(
            NormKind::Rms { offset: 0.0 },
            1e-6,
            width,
            stride,
            stride,
        ));
    }
    check(&Norm::rows(NormKind::Rms { offset: 1.0 }, 1e-6, 80, 80, 80));
}

#[test]
fn heads_in_segments() {
    for kind in [NormKind::Layer, NormKind::Rms { offset: 0.0 }] {
        check(&Norm {
            kind,
            eps: 1e-6,
            heads: 3,
            width: 22,
            physical: 48,
            segments: vec![(0, 8), (16, 8), (32, 6)],
            x_stride: 160,
            y_stride: 160,
        });
        check(&Norm {
            kind,
            eps: 1e-6,
            heads: 2,
            width: 40,
            physical: 64,
            segments: vec![(0, 20), (32, 20)],
            x_stride: 160,
            y_stride: 128,
        });
    }
}
