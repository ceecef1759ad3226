//! Resampling of RGB bytes, bit for bit as the `Image.resize` of PIL up to version 12.
//!
//! Input: `[height, width, 3]` bytes. Output: the same of another size. PIL resamples columns, then
//! rows (very high pictures the other way round), with 8-bit pixels between the passes. Each output
//! pixel is a weighted sum of the pixels within the filter's support, which grows with the factor of
//! reduction (antialiasing); weights are normalised in f64 and rounded to 22 fractional bits, sums are
//! integers.
//!
//! Source: Pillow's documentation of filters, and the fixed-point scheme of its `Resample.c`.

use super::Picture;
use llmc_abi::Filter;
use std::borrow::Cow;
use std::f64::consts::PI;

/// Fractional bits of a weight: 32, less 8 of a pixel and 2 for overshoot.
const BITS: u32 = 22;

/// How far the filter reaches, in output pixels, and its weight at a distance.
fn kernel(filter: Filter) -> (f64, fn(f64) -> f64) {
    fn sinc(x: f64) -> f64 {
        if x == 0.0 {
            1.0
        } else {
            (x * PI).sin() / (x * PI)
        }
    }
    fn lanczos(x: f64) -> f64 {
        if (-3.0..3.0).contains(&x) {
            sinc(x) * sinc(x / 3.0)
        } else {
            0.0
        }
    }
    fn bilinear(x: f64) -> f64 {
        (1.0 - x.abs()).max(0.0)
    }
    fn bicubic(x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        if x < 1.0 {
            ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
        } else if x < 2.0 {
            (((x - 5.0) * x + 8.0) * x - 4.0) * A
        } else {
            0.0
        }
    }
    fn boxed(x: f64) -> f64 {
        if x > -0.5 && x <= 0.5 { 1.0 } else { 0.0 }
    }
    fn hamming(x: f64) -> f64 {
        let x = x.abs();
        if x >= 1.0 {
            0.0
        } else {
            sinc(x) * (0.54 + 0.46 * (x * PI).cos())
        }
    }
    match filter {
        Filter::Lanczos => (3.0, lanczos),
        Filter::Bilinear => (1.0, bilinear),
        Filter::Bicubic => (2.0, bicubic),
        // A copy of the nearest pixel needs no weights; see `nearest`.
        Filter::Box | Filter::Nearest => (0.5, boxed),
        Filter::Hamming => (1.0, hamming),
    }
}

/// For each output pixel of an axis: the first input pixel, and the weights from there on.
struct Weights {
    first: Vec<usize>,
    /// Where the weights of each output pixel start in `all`, and the end.
    start: Vec<usize>,
    all: Vec<i32>,
}

impl Weights {
    fn new(from: usize, to: usize, filter: Filter) -> Self {
        let (support, weight) = kernel(filter);
        let scale = from as f64 / to as f64;
        let filter_scale = scale.max(1.0);
        let support = support * filter_scale;
        let inverse = 1.0 / filter_scale;
        let mut weights = Self {
            first: Vec::with_capacity(to),
            start: vec![0],
            all: Vec::new(),
        };
        let mut row: Vec<f64> = Vec::new();
        for i in 0..to {
            let centre = (i as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            row.clear();
            row.extend((first..end).map(|j| weight((j as f64 - centre + 0.5) * inverse)));
            let sum: f64 = row.iter().sum();
            for w in &row {
                let w = if sum == 0.0 { *w } else { w / sum };
                let w = w * f64::from(1u32 << BITS);
                weights
                    .all
                    .push((w + if w < 0.0 { -0.5 } else { 0.5 }) as i32);
            }
            weights.first.push(first);
            weights.start.push(weights.all.len());
        }
        weights
    }

    /// `(first input pixel, weights)` of an output pixel.
    fn of(&self, i: usize) -> (usize, &[i32]) {
        (self.first[i], &self.all[self.start[i]..self.start[i + 1]])
    }
}

fn clip(sum: i64) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

const HALF: i64 = 1 << (BITS - 1);

/// Pictures more than so many times as high as wide lose their rows before columns are resampled.
const HIGH: usize = 100;

/// Resizes to `[height, width]`; the size is at least one pixel each way.
pub fn resize(picture: &Picture, [height, width]: [u32; 2], filter: Filter) -> Picture {
    let (from_h, from_w) = (picture.height as usize, picture.width as usize);
    let (h, w) = (height as usize, width as usize);
    if (from_h, from_w) == (h, w) {
        return picture.clone();
    }
    let done = |pixels| Picture {
        height,
        width,
        pixels,
    };
    if filter == Filter::Nearest {
        return done(nearest(&picture.pixels, (from_h, from_w), (h, w)));
    }
    let columns = |from: Cow<'_, [u8]>| match from_w == w {
        true => from.into_owned(),
        false => columns(&from, from_w, &Weights::new(from_w, w, filter), w),
    };
    let rows = |from: Cow<'_, [u8]>, width: usize| match from_h == h {
        true => from.into_owned(),
        false => rows(&from, width * 3, &Weights::new(from_h, h, filter), h),
    };
    let pixels = Cow::Borrowed(picture.pixels.as_slice());
    done(match from_h > from_w.saturating_mul(HIGH) && h < from_h {
        true => columns(rows(pixels, from_w).into()),
        false => rows(columns(pixels).into(), w),
    })
}

/// `[h, from_w, 3] → [h, w, 3]`.
fn columns(from: &[u8], from_w: usize, weights: &Weights, w: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(from.len() / from_w * w);
    for row in from.chunks_exact(from_w * 3) {
        for x in 0..w {
            let (first, weights) = weights.of(x);
            let mut sums = [HALF; 3];
            for (pixel, &k) in row[first * 3..].chunks_exact(3).zip(weights) {
                for (sum, &c) in sums.iter_mut().zip(pixel) {
                    *sum += i64::from(c) * i64::from(k);
                }
            }
            out.extend(sums.map(clip));
        }
    }
    out
}

/// `[from_h, bytes] → [h, bytes]`.
fn rows(from: &[u8], bytes: usize, weights: &Weights, h: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(h * bytes);
    let mut sums = vec![0i64; bytes];
    for y in 0..h {
        let (first, weights) = weights.of(y);
        sums.fill(HALF);
        for (row, &k) in from[first * bytes..].chunks_exact(bytes).zip(weights) {
            for (sum, &c) in sums.iter_mut().zip(row) {
                *sum += i64::from(c) * i64::from(k);
            }
        }
        out.extend(sums.iter().map(|&sum| clip(sum)));
    }
    out
}

/// Copies the pixel under each centre; centres are summed up, as PIL does.
fn nearest(from: &[u8], (from_h, from_w): (usize, usize), (h, w): (usize, usize)) -> Vec<u8> {
    let places = |from: usize, to: usize| -> Vec<usize> {
        let step = from as f64 / to as f64;
        let mut at = step * 0.5;
        let mut places = Vec::with_capacity(to);
        for _ in 0..to {
            places.push((at as usize).min(from - 1));
            at += step;
        }
        places
    };
    let (ys, xs) = (places(from_h, h), places(from_w, w));
    let mut out = Vec::with_capacity(h * w * 3);
    for &y in &ys {
        for &x in &xs {
            let at = (y * from_w + x) * 3;
            out.extend_from_slice(&from[at..at + 3]);
        }
    }
    out
}
