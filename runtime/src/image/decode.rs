//! PNG, JPEG and WebP files → RGB bytes, as transformers' `convert_to_rgb` gives them.
//!
//! Input: a file's bytes. Output: [`Picture`]. Grey becomes three equal channels, palettes are looked
//! up, what is transparent lies over white, 16-bit colour keeps its high byte. The orientation that
//! a camera has noted (EXIF) is applied, as transformers' `load_image` does. Of an animated PNG the
//! still picture is taken.
//!
//! Refused by name: other formats, animated WebP, CMYK JPEG, 16-bit grey PNG (which PIL does not
//! turn into RGB faithfully), and what is larger than the bounds below.

use crate::{Error, Result};
use image::codecs::{jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{ColorType, ExtendedColorType, ImageDecoder, ImageResult, Limits};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

/// Bytes of a file.
const FILE: u64 = 256 << 20;
/// Pixels along an edge, and in all.
const EDGE: u32 = 1 << 16;
const PIXELS: u64 = 1 << 26;
/// Bytes that a decoder may allocate.
const MEMORY: u64 = 1 << 30;

/// A picture in RGB, row by row from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub height: u32,
    pub width: u32,
    /// `[height, width, 3]`.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// The bytes of a row.
    pub fn row(&self, y: usize) -> &[u8] {
        let bytes = self.width as usize * 3;
        &self.pixels[y * bytes..(y + 1) * bytes]
    }
}

/// Reads a picture's file.
pub fn read(path: &Path) -> Result<Picture> {
    let failed = |what: String| Error::Input(format!("{}: {what}", path.display()));
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE + 1).read_to_end(&mut bytes))
        .map_err(|e| failed(format!("cannot be read: {e}")))?;
    if bytes.len() as u64 > FILE {
        return Err(failed(format!("the file has more than {FILE} bytes")));
    }
    decode(&bytes).map_err(failed)
}

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
const JPEG: &[u8] = b"\xff\xd8\xff";

fn is_webp(bytes: &[u8]) -> bool {
    bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP")
}

/// Whether a file begins as a picture does that [`decode`] knows.
pub fn is_picture(bytes: &[u8]) -> bool {
    bytes.starts_with(PNG) || bytes.starts_with(JPEG) || is_webp(bytes)
}

/// Decodes a picture; the error says what is wrong with it.
pub fn decode(bytes: &[u8]) -> std::result::Result<Picture, String> {
    let cursor = Cursor::new(bytes);
    let broken = |e: image::ImageError| format!("the picture cannot be decoded: {e}");
    if bytes.starts_with(PNG) {
        let decoder = PngDecoder::with_limits(cursor, limits()).map_err(broken)?;
        if matches!(decoder.original_color_type(), ExtendedColorType::L16) {
            return Err("found 16-bit grey, expected 8 bits a channel, or colour".into());
        }
        to_rgb(decoder)
    } else if bytes.starts_with(JPEG) {
        if jpeg_channels(bytes) == Some(4) {
            return Err("found a JPEG of four channels (CMYK), expected colour or grey".into());
        }
        to_rgb(JpegDecoder::new(cursor).map_err(broken)?)
    } else if is_webp(bytes) {
        let decoder = WebPDecoder::new(cursor).map_err(broken)?;
        if decoder.has_animation() {
            return Err("found an animated WebP, expected a still picture".into());
        }
        to_rgb(decoder)
    } else {
        Err("found no picture, expected PNG, JPEG or WebP".into())
    }
}

/// The channels that a JPEG's frame header tells; None where there is no such header.
fn jpeg_channels(bytes: &[u8]) -> Option<u8> {
    // Behind the start-of-image marker: segments of a marker and a length, which counts itself.
    let mut at = 2;
    loop {
        let &[mark, kind, high, low] = bytes.get(at..)?.first_chunk::<4>()?;
        match kind {
            _ if mark != 0xff => return None,
            // A marker may be padded with any number of 0xff.
            0xff => at += 1,
            // Frame headers; the other three of this range are tables.
            0xc0..=0xcf if !matches!(kind, 0xc4 | 0xc8 | 0xcc) => {
                return bytes.get(at + 9).copied();
            }
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(EDGE);
    limits.max_image_height = Some(EDGE);
    limits.max_alloc = Some(MEMORY);
    limits
}

fn to_rgb(mut decoder: impl ImageDecoder) -> std::result::Result<Picture, String> {
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || width.max(height) > EDGE || pixels > PIXELS {
        return Err(format!(
            "found {width} × {height} pixels, expected at most {PIXELS} of them and {EDGE} along an edge"
        ));
    }
    let color = decoder.color_type();
    let mut bytes = vec![0; pixels as usize * usize::from(color.bytes_per_pixel())];
    let read = || -> ImageResult<Orientation> {
        decoder.set_limits(limits())?;
        let orientation = decoder.orientation()?;
        decoder.read_image(&mut bytes)?;
        Ok(orientation)
    };
    let orientation = read().map_err(|e| format!("the picture cannot be decoded: {e}"))?;
    // Channels of a pixel, and bytes of a channel; 16-bit samples are in the machine's order.
    let (channels, wide) = match color {
        ColorType::L8 => (1, false),
        ColorType::La8 => (2, false),
        ColorType::Rgb8 => (3, false),
        ColorType::Rgba8 => (4, false),
        ColorType::La16 => (2, true),
        ColorType::Rgb16 => (3, true),
        ColorType::Rgba16 => (4, true),
        other => {
            return Err(format!(
                "found pixels of type {other:?}, expected 8 bits a channel"
            ));
        }
    };
    if wide {
        let high = |pair: &[u8]| (u16::from_ne_bytes([pair[0], pair[1]]) >> 8) as u8;
        bytes = bytes.chunks_exact(2).map(high).collect();
    }
    let rgb = |p: &[u8]| match *p {
        [l] => [l; 3],
        [l, a] => [over_white(l, a); 3],
        [r, g, b] => [r, g, b],
        [r, g, b, a, ..] => [r, g, b].map(|c| over_white(c, a)),
        [] => [0; 3],
    };
    let pixels = match channels {
        3 => bytes,
        _ => bytes.chunks_exact(channels).flat_map(rgb).collect(),
    };
    Ok(turn(
        Picture {
            height,
            width,
            pixels,
        },
        orientation,
    ))
}

/// A channel's value over a white ground, in the fixed point of PIL's `alpha_composite`.
fn over_white(value: u8, alpha: u8) -> u8 {
    let [value, alpha] = [value, alpha].map(u32::from);
    let sum = ((value * alpha + 255 * (255 - alpha)) << 7) + (0x80 << 7);
    ((((sum >> 8) + sum) >> 8) >> 7) as u8
}

/// The picture as the camera was held.
fn turn(picture: Picture, orientation: Orientation) -> Picture {
    // Whether rows become columns, and whether x and y then run backwards.
    let (swap, flip_x, flip_y) = match orientation {
        Orientation::NoTransforms => return picture,
        Orientation::FlipHorizontal => (false, true, false),
        Orientation::Rotate180 => (false, true, true),
        Orientation::FlipVertical => (false, false, true),
        Orientation::Rotate90FlipH => (true, false, false),
        Orientation::Rotate90 => (true, true, false),
        Orientation::Rotate270FlipH => (true, true, true),
        Orientation::Rotate270 => (true, false, true),
    };
    let (height, width) = match swap {
        true => (picture.width, picture.height),
        false => (picture.height, picture.width),
    };
    let mut pixels = Vec::with_capacity(picture.pixels.len());
    for y in 0..height {
        let y = if flip_y { height - 1 - y } else { y };
        for x in 0..width {
            let x = if flip_x { width - 1 - x } else { x };
            let (from_y, from_x) = if swap { (x, y) } else { (y, x) };
            let at = from_x as usize * 3;
            pixels.extend_from_slice(&picture.row(from_y as usize)[at..at + 3]);
        }
    }
    Picture {
        height,
        width,
        pixels,
    }
}
