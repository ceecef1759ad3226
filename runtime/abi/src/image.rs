//! How a picture becomes what a vision model reads.

use serde::{Deserialize, Serialize};

/// The steps from RGB bytes to numbers, in their order: resize, crop, rescale, normalise. What comes
/// out is `[3, height, width]`, the same size for every picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageSteps {
    pub resize: Option<Resize>,
    pub filter: Filter,
    /// Height and width of the middle that is kept; where the picture is smaller, zeros surround it.
    pub crop: Option<[u32; 2]>,
    /// What bytes are multiplied with.
    pub rescale: Option<f64>,
    /// Mean and standard deviation of each channel.
    pub normalize: Option<[[f32; 3]; 2]>,
    /// Height and width of the result.
    pub size: [u32; 2],
}

/// The size to which a picture is resized, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// Height and width.
    Exact { height: u32, width: u32 },
    /// The shorter edge; the longer one keeps the proportions.
    ShortestEdge(u32),
}

/// What weighs the pixels around a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    Nearest,
    Lanczos,
    Bilinear,
    Bicubic,
    Box,
    Hamming,
}
