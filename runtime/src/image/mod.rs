//! Pictures: files in, the numbers that a vision model reads out.
//!
//! Input: a PNG, JPEG or WebP file and the model's [`ImageSteps`]. Output: f32 `[3, height, width]`,
//! channel by channel. The steps are those of Hugging Face's image processors on PIL pictures:
//! [`decode`] gives RGB bytes, [`resize`] resamples them, [`steps`] crops, rescales and normalises; [`patches`]
//! cuts the result up as a model's entry takes it.
//!
//! Invariants: a file is hostile until proven otherwise: its size, the picture's size and the
//! decoder's memory are bounded before anything is allocated for them; every refusal names the file.
//!
//! Deliberately not here: colour management, animation, running the model.

mod decode;
mod patches;
mod resize;
mod steps;

pub use decode::{Picture, decode, is_picture, read};
pub use patches::patches;
pub use resize::resize;
pub use steps::prepare;

use crate::Result;
use llmc_abi::ImageSteps;
use std::path::Path;

/// The pixel values of a file, `[3, height, width]`.
pub fn pixel_values(path: &Path, steps: &ImageSteps) -> Result<Vec<f32>> {
    prepare(read(path)?, steps)
}
