//! From RGB bytes to pixel values: the steps of a model, in order.

use super::{Picture, resize};
use crate::{Error, Result};
use llmc_abi::{ImageSteps, Resize};

/// The longest edge that resizing may make: a picture of one row must not become a gigabyte.
const EDGE: u64 = 1 << 15;

/// `[3, height, width]` of `steps.size`.
pub fn prepare(picture: Picture, steps: &ImageSteps) -> Result<Vec<f32>> {
    let mut picture = picture;
    if let Some(size) = steps.resize {
        let size = match size {
            Resize::Exact { height, width } => [height, width],
            Resize::ShortestEdge(short) => keep_proportions(&picture, short)?,
        };
        picture = resize(&picture, size, steps.filter);
    }
    if let Some(size) = steps.crop {
        picture = crop_middle(&picture, size);
    }
    if [picture.height, picture.width] != steps.size {
        return Err(Error::Input(format!(
            "the picture has {} × {} pixels (height × width), the model takes {} × {} and its \
             preprocessing does not resize",
            picture.height, picture.width, steps.size[0], steps.size[1]
        )));
    }
    let tables: [Vec<f32>; 3] = std::array::from_fn(|channel| {
        (0..=255u8)
            .map(|byte| value(byte, channel, steps))
            .collect()
    });
    let mut out = Vec::with_capacity(picture.pixels.len());
    for (channel, table) in tables.iter().enumerate() {
        let bytes = picture.pixels.iter().skip(channel).step_by(3);
        out.extend(bytes.map(|&byte| table[usize::from(byte)]));
    }
    Ok(out)
}

/// One byte of a channel, rescaled in f64, normalised in f32.
fn value(byte: u8, channel: usize, steps: &ImageSteps) -> f32 {
    let scaled = steps
        .rescale
        .map_or(f64::from(byte), |factor| f64::from(byte) * factor) as f32;
    match steps.normalize {
        Some([mean, deviation]) => (scaled - mean[channel]) / deviation[channel],
        None => scaled,
    }
}

/// `[height, width]` with the shorter edge of `short` pixels; the longer one is rounded down.
fn keep_proportions(picture: &Picture, short: u32) -> Result<[u32; 2]> {
    let (h, w) = (u64::from(picture.height), u64::from(picture.width));
    let long = u64::from(short) * h.max(w) / h.min(w).max(1);
    if long > EDGE {
        return Err(Error::Input(format!(
            "a picture of {w} × {h} pixels would become {long} pixels long, at most {EDGE} are taken"
        )));
    }
    let long = long as u32;
    Ok(if w <= h { [long, short] } else { [short, long] })
}

/// The middle of a picture; zeros where it has no pixels.
fn crop_middle(picture: &Picture, [height, width]: [u32; 2]) -> Picture {
    let first = |have: u32, want: u32| (i64::from(have) - i64::from(want)).div_euclid(2);
    let (top, left) = (first(picture.height, height), first(picture.width, width));
    let mut pixels = vec![0; height as usize * width as usize * 3];
    for (y, row) in pixels.chunks_exact_mut(width as usize * 3).enumerate() {
        let from = top + y as i64;
        if !(0..i64::from(picture.height)).contains(&from) {
            continue;
        }
        let line = picture.row(from as usize);
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            let from = left + x as i64;
            if (0..i64::from(picture.width)).contains(&from) {
                let at = from as usize * 3;
                pixel.copy_from_slice(&line[at..at + 3]);
            }
        }
    }
    Picture {
        height,
        width,
        pixels,
    }
}
