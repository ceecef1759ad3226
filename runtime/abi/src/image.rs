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

/// How a model reads pictures, by its entry `vision`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pictures {
    /// Pixels along an edge of a picture, and of a patch. A picture is a sequence: a class token, whose row of
    /// the input `patches` is zero, then its patches row by row; a patch is channel by channel, row by row.
    pub image_size: u32,
    pub patch_size: u32,
    /// How files become pixel values; none where nothing says it.
    pub steps: Option<ImageSteps>,
    /// Where pictures are compared with texts.
    pub similarity: Option<Similarity>,
    /// Where texts are told pictures.
    #[serde(default)]
    pub told: Option<PictureTokens>,
}

/// A picture in a prompt: tokens in whose place stand the rows that the entry `qformer` gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureTokens {
    /// The token's id.
    pub id: u32,
    /// How many of them a picture is.
    pub count: u32,
}

/// Products of the embeddings of texts and pictures, both of length 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Similarity {
    /// What they are multiplied with.
    pub scale: f32,
    /// Where a text is cut: it is pooled at its last token.
    pub end: TextEnd,
}

/// The last token of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextEnd {
    /// The first of this id, or the first of all where there is none.
    First(u32),
    /// The first of the greatest id.
    Greatest,
}

impl Pictures {
    /// The class token and the patches of a picture.
    pub fn tokens(&self) -> usize {
        let edge = (self.image_size / self.patch_size.max(1)) as usize;
        edge * edge + 1
    }

    /// Numbers of a patch.
    pub fn patch_width(&self) -> usize {
        3 * (self.patch_size as usize).pow(2)
    }
}

impl TextEnd {
    /// How many of a text's tokens count.
    pub fn len(self, ids: &[i32]) -> usize {
        let at = match self {
            TextEnd::First(id) => ids.iter().position(|&i| i64::from(i) == i64::from(id)),
            TextEnd::Greatest => {
                let most = ids.iter().max();
                ids.iter().position(|i| Some(i) == most)
            }
        };
        (at.unwrap_or(0) + 1).min(ids.len())
    }
}
