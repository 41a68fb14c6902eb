//! The patch embedding of MobileCLIP-B: three convolutions whose windows do not overlap.
//!
//! Owns: reading timm's `ConvStem` as `vit_base_mci_224` has it, with the batch norms folded into the
//! convolutions, and computing patch rows. Does not own positions, the class token or the blocks, which
//! are those of any vision transformer.

use diptych_kernels::{Activation, Threads};

use super::convolution::Kernel;
use super::layers::Linear;
use crate::error::LoadError;
use crate::weights::Weights;

/// Sides of the windows of the three convolutions; a patch is their product.
const SIDES: [usize; 3] = [4, 2, 2];

/// From pixels to one row per patch of 16 x 16 pixels.
pub(crate) struct ConvStem {
    /// Each from the windows of what comes before; GELU after the first two.
    layers: [Linear; 3],
}

impl ConvStem {
    /// Height and width of a patch in pixels.
    pub(crate) const PATCH: usize = SIDES[0] * SIDES[1] * SIDES[2];

    /// Takes the stem's tensors from below `prefix` (`visual.trunk.patch_embed.backbone.`), into rows of
    /// `hidden` values. The inner width is that of the tensors.
    ///
    /// # Errors
    /// [`LoadError`] naming the tensor.
    pub(crate) fn load(weights: &Weights, prefix: &str, hidden: usize) -> Result<Self, LoadError> {
        let first = format!("{prefix}0.conv");
        let inner = weights.shape(&format!("{first}.weight"))?.first().copied().unwrap_or(0).max(1);
        let normed = |i: usize, input: usize| -> Result<Linear, LoadError> {
            let shape = (inner, input, SIDES[i]);
            Ok(Kernel::load_normed(weights, &format!("{prefix}{i}"), shape)?.into_linear())
        };
        let last = Kernel::load(weights, &format!("{prefix}2.conv"), (hidden, inner, SIDES[2]))?;
        Ok(Self { layers: [normed(0, 3)?, normed(1, inner)?, last.into_linear()] })
    }

    /// `[images * patches, hidden]`, the patches of an image row by row. Each image is `[3, height,
    /// width]`; pixels beyond the last whole patch are not seen.
    pub(crate) fn forward(
        &self,
        images: &[&[f32]],
        (height, width): (usize, usize),
        threads: Threads,
    ) -> Vec<f32> {
        let (rows, columns) = (height / Self::PATCH * 4, width / Self::PATCH * 4);
        let mut pixels = Vec::with_capacity(images.len() * rows * columns * 48);
        for image in images {
            for (top, left) in (0..rows * columns).map(|i| (i / columns * 4, i % columns * 4)) {
                for (y, x) in (0..16).map(|i| (top + i / 4, left + i % 4)) {
                    pixels.extend((0..3).map(|c| image[(c * height + y) * width + x]));
                }
            }
        }
        let [first, second, last] = &self.layers;
        let run = |layer: &Linear, x: &[f32], windows: usize, activation| {
            let mut y = vec![0f32; windows * layer.out()];
            layer.run(&mut y, x, windows, activation, threads);
            y
        };
        let (gelu, count) = (Some(Activation::Gelu), images.len() * rows * columns);
        let x = run(first, &pixels, count, gelu);
        let x = run(second, &windows(&x, (images.len() * rows, columns), first.out()), count / 4, gelu);
        let x = windows(&x, (images.len() * rows / 2, columns / 2), second.out());
        run(last, &x, count / 16, None)
    }
}

/// The windows of 2 x 2 rows of `width` values on a grid: row, column, channel within each.
fn windows(x: &[f32], (rows, columns): (usize, usize), width: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    for (y, left) in (0..rows / 2 * (columns / 2)).map(|i| (i / (columns / 2) * 2, i % (columns / 2) * 2)) {
        for row in [y, y + 1] {
            out.extend_from_slice(&x[(row * columns + left) * width..][..2 * width]);
        }
    }
    out
}
