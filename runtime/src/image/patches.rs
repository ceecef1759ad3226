//! Pixel values to the rows that a model's entry `vision` takes.

use llmc_abi::Pictures;

/// `[3, edge, edge]` → `[1 + patches, 3 · patch²]`: zeros for the class token, then the patches row by row, each
/// channel by channel, row by row.
pub fn patches(pixels: &[f32], pictures: &Pictures) -> Vec<f32> {
    let (edge, patch) = (pictures.image_size as usize, pictures.patch_size as usize);
    let grid = edge / patch.max(1);
    let mut out = Vec::with_capacity(pictures.tokens() * pictures.patch_width());
    out.resize(pictures.patch_width(), 0.0);
    for (row, column) in (0..grid).flat_map(|r| (0..grid).map(move |c| (r, c))) {
        for channel in pixels.chunks_exact(edge * edge) {
            for line in channel.chunks_exact(edge).skip(row * patch).take(patch) {
                out.extend_from_slice(&line[column * patch..][..patch]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_go_row_by_row() {
        let pictures = Pictures {
            image_size: 4,
            patch_size: 2,
            steps: None,
            similarity: None,
            told: None,
        };
        let pixels: Vec<f32> = (0..48).map(|x| x as f32).collect();
        let patches = patches(&pixels, &pictures);
        assert_eq!(patches.len(), pictures.tokens() * pictures.patch_width());
        assert_eq!(patches[..12], [0.0; 12]);
        let first = [0, 1, 4, 5, 16, 17, 20, 21, 32, 33, 36, 37].map(|x| x as f32);
        assert_eq!(patches[12..24], first);
        assert_eq!(patches[24..36], first.map(|x| x + 2.0));
        assert_eq!(patches[48..60], first.map(|x| x + 10.0));
    }
}
