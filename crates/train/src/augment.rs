//! Random changes to a picture.
//!
//! Owns: where every sample of a changed picture comes from and what is done to its value, and the
//! normalisation that the model expects. Works on pixels at the model's size, in one pass per plane.
//! Deliberately absent: which picture a step takes, and the generator (see `sampler`).

use diptych_encoder::{Preprocessing, RgbImage};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::recipe::AugmentRecipe;

/// How much longer one side of a crop may be than the other: the usual 4 to 3.
const SHAPE_MAX: f32 = 4.0 / 3.0;

/// The changes of a recipe, ready for pictures of one size.
#[derive(Debug, Clone)]
pub(crate) struct Augment {
    recipe: AugmentRecipe,
    /// What the model reads for black and for white, per channel.
    levels: [(f32, f32); 3],
    side: usize,
}

/// Where a sample comes from: `source = turn * (target - middle) + middle + shift`, in fractions of the
/// side.
struct Frame {
    turn: [[f32; 2]; 2],
    shift: [f32; 2],
}

impl Augment {
    /// For pictures as a model's preprocessing leaves them.
    pub fn new(recipe: AugmentRecipe, preprocessing: &Preprocessing) -> Self {
        Self { recipe, levels: preprocessing.levels(), side: preprocessing.side() }
    }

    /// Values of one normalised picture, `3 * side * side`.
    pub fn values(&self) -> usize {
        3 * self.side * self.side
    }

    /// Writes the picture as it is, normalised, `[3, side, side]`. `samples` is `[1 or 3, side, side]`.
    pub fn plain(&self, samples: &[u8], out: &mut [f32]) {
        let area = self.side * self.side;
        let grey = samples.len() == area;
        for (c, plane) in out.chunks_exact_mut(area).enumerate() {
            let source = &samples[if grey { 0 } else { c } * area..][..area];
            let (black, white) = self.levels[c];
            for (v, &sample) in plane.iter_mut().zip(source) {
                *v = black + f32::from(sample) / 255.0 * (white - black);
            }
        }
    }

    /// Writes one changed and normalised picture, `[3, side, side]`.
    pub fn changed(&self, samples: &[u8], out: &mut [f32], rng: &mut ChaCha8Rng) {
        let r = &self.recipe;
        let area = self.side * self.side;
        let frame = self.frame(rng);
        let mut within = |limit: f32| limit * (2.0 * rng.random::<f32>() - 1.0);
        let (gain, offset) = (1.0 + within(r.contrast), within(r.brightness));
        let saturation = 1.0 + within(r.saturation);
        let channels = samples.len() / area;
        for (plane, source) in out.chunks_exact_mut(area).zip(samples.chunks_exact(area)) {
            self.resample(plane, source, &frame);
            for v in plane {
                let noise = if r.noise > 0.0 { r.noise * noise(rng) } else { 0.0 };
                *v = ((*v - 0.5) * gain + 0.5 + offset + noise).clamp(0.0, 1.0);
            }
        }
        if channels == 1 {
            let (first, rest) = out.split_at_mut(area);
            rest[..area].copy_from_slice(first);
            rest[area..].copy_from_slice(first);
        } else if saturation != 1.0 {
            saturate(out, area, saturation);
        }
        for (c, plane) in out.chunks_exact_mut(area).enumerate() {
            let (black, white) = self.levels[c];
            plane.iter_mut().for_each(|v| *v = black + *v * (white - black));
        }
    }

    /// Draws crop, zoom, rotation, mirror image and shift, as one affine map.
    fn frame(&self, rng: &mut ChaCha8Rng) -> Frame {
        let r = &self.recipe;
        let mut within = |limit: f32| limit * (2.0 * rng.random::<f32>() - 1.0);
        let zoom = 1.0 + within(r.scale);
        let mut shift = [within(r.shift), within(r.shift)];
        let angle = within(r.rotate).to_radians();
        let stretch = within(SHAPE_MAX.ln()).exp().sqrt();
        let mut size = [1.0 / zoom; 2];
        if r.crop < 1.0 {
            let side = (r.crop + (1.0 - r.crop) * rng.random::<f32>()).sqrt();
            for (axis, side) in [side * stretch, side / stretch].into_iter().enumerate() {
                let side = side.min(1.0);
                size[axis] *= side;
                shift[axis] += (1.0 - side) * (rng.random::<f32>() - 0.5);
            }
        }
        let flip = if r.mirror > 0.0 && rng.random::<f32>() < r.mirror { -1.0 } else { 1.0 };
        let (sin, cos) = angle.sin_cos();
        let turn = [[flip * size[0] * cos, -size[1] * sin], [flip * size[0] * sin, size[1] * cos]];
        Frame { turn, shift }
    }

    /// Writes one plane, in 0 to 1, before changes of value.
    fn resample(&self, out: &mut [f32], source: &[u8], frame: &Frame) {
        let n = self.side as f32;
        let Frame { turn, shift } = frame;
        for (y, row) in out.chunks_exact_mut(self.side).enumerate() {
            // Pixel centres, about the middle of the image.
            let v = (y as f32 + 0.5) / n - 0.5;
            for (x, out) in row.iter_mut().enumerate() {
                let u = (x as f32 + 0.5) / n - 0.5;
                let sx = turn[0][0] * u + turn[0][1] * v + 0.5 + shift[0];
                let sy = turn[1][0] * u + turn[1][1] * v + 0.5 + shift[1];
                *out = bilinear(source, self.side, sx * n - 0.5, sy * n - 0.5) / 255.0;
            }
        }
    }
}

/// A part of a picture that covers at least `smallest` of its area, with a shape from 3 to 4 up to 4 to 3
/// times the picture's; `None` where nothing is to be cropped.
pub(crate) fn random_crop(image: &RgbImage, smallest: f32, rng: &mut ChaCha8Rng) -> Option<RgbImage> {
    if smallest >= 1.0 {
        return None;
    }
    let side = (smallest + (1.0 - smallest) * rng.random::<f32>()).sqrt();
    let stretch = (SHAPE_MAX.ln() * (2.0 * rng.random::<f32>() - 1.0)).exp().sqrt();
    let mut span = |whole: u32, share: f32| {
        let size = ((whole as f32 * share.min(1.0)).round() as u32).clamp(1, whole);
        (rng.random_range(0..=whole - size), size)
    };
    let (left, width) = span(image.width(), side * stretch);
    let (top, height) = span(image.height(), side / stretch);
    Some(RgbImage::from_fn(width, height, |x, y| *image.get_pixel(left + x, top + y)))
}

/// Moves colours away from grey, or towards it.
fn saturate(image: &mut [f32], area: usize, factor: f32) {
    for i in 0..area {
        let [r, g, b] = [0, 1, 2].map(|c| image[c * area + i]);
        // Luma of ITU-R BT.601, as image libraries use it.
        let grey = 0.299 * r + 0.587 * g + 0.114 * b;
        for (c, v) in [r, g, b].into_iter().enumerate() {
            image[c * area + i] = (grey + factor * (v - grey)).clamp(0.0, 1.0);
        }
    }
}

/// The value between four samples; the border repeats outwards.
fn bilinear(plane: &[u8], side: usize, x: f32, y: f32) -> f32 {
    let last = (side - 1) as f32;
    let (x, y) = (x.clamp(0.0, last), y.clamp(0.0, last));
    let (x0, y0) = (x as usize, y as usize);
    let (x1, y1) = ((x0 + 1).min(side - 1), (y0 + 1).min(side - 1));
    let (fx, fy) = (x - x0 as f32, y - y0 as f32);
    let at = |x: usize, y: usize| f32::from(plane[y * side + x]);
    let top = at(x0, y0) + fx * (at(x1, y0) - at(x0, y0));
    let bottom = at(x0, y1) + fx * (at(x1, y1) - at(x0, y1));
    top + fy * (bottom - top)
}

/// Nearly normal noise, unit variance: four random bytes added up. A true normal would cost more than
/// the rest of an image's preparation.
fn noise(rng: &mut ChaCha8Rng) -> f32 {
    let sum: u32 = rng.random::<u32>().to_le_bytes().iter().map(|&b| u32::from(b)).sum();
    // Mean 4 * 127.5, variance 4 * (256^2 - 1) / 12.
    (sum as f32 - 510.0) / 147.8
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use diptych_encoder::{CLIP_MEAN, CLIP_STD};
    use rand::SeedableRng;

    const SIDE: usize = 8;

    fn augment(recipe: AugmentRecipe) -> Augment {
        Augment::new(recipe, &Preprocessing::for_training(SIDE, CLIP_MEAN, CLIP_STD))
    }

    fn picture(channels: usize) -> Vec<u8> {
        (0..channels * SIDE * SIDE).map(|i| (i * i * 31 % 251) as u8).collect()
    }

    fn both(recipe: AugmentRecipe, samples: &[u8], seed: u64) -> (Vec<f32>, Vec<f32>) {
        let augment = augment(recipe);
        let (mut plain, mut changed) = (vec![0f32; augment.values()], vec![0f32; augment.values()]);
        augment.plain(samples, &mut plain);
        augment.changed(samples, &mut changed, &mut ChaCha8Rng::seed_from_u64(seed));
        (plain, changed)
    }

    fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn without_any_change_a_picture_stays_itself() {
        for channels in [1, 3] {
            let (plain, changed) = both(AugmentRecipe::none(), &picture(channels), 1);
            assert!(largest_difference(&plain, &changed) < 1e-4);
        }
    }

    #[test]
    fn a_sure_mirror_exchanges_left_and_right_and_nothing_else() {
        let samples = picture(3);
        let mirrored: Vec<u8> =
            samples.chunks_exact(SIDE).flat_map(|row| row.iter().rev()).copied().collect();
        let recipe = AugmentRecipe { mirror: 1.0, ..AugmentRecipe::none() };
        let (_, changed) = both(recipe, &samples, 3);
        let (expected, _) = both(AugmentRecipe::none(), &mirrored, 3);
        assert!(largest_difference(&expected, &changed) < 1e-4);
    }

    #[test]
    fn a_crop_shows_a_part_enlarged() {
        // A ramp from left to right: a crop of a quarter of the area spans about half the range.
        let ramp: Vec<u8> = (0..SIDE * SIDE).map(|i| (i % SIDE * 30) as u8).collect();
        for seed in 0..20 {
            let recipe = AugmentRecipe { crop: 0.25, ..AugmentRecipe::none() };
            let (plain, changed) = both(recipe, &ramp, seed);
            let range = |image: &[f32]| image[SIDE - 1] - image[0];
            let share = range(&changed) / range(&plain);
            assert!((0.3..=1.01).contains(&share), "seed {seed}: {share}");
        }
    }

    #[test]
    fn crops_of_a_picture_lie_within_it_and_keep_their_share() {
        let image = RgbImage::from_fn(40, 30, |x, y| [x as u8, y as u8, 0].into());
        let rng = &mut ChaCha8Rng::seed_from_u64(4);
        assert!(random_crop(&image, 1.0, rng).is_none());
        let shares: Vec<f32> = (0..200)
            .map(|_| {
                let part = random_crop(&image, 0.5, rng).unwrap();
                let [left, top, _] = part.get_pixel(0, 0).0.map(u32::from);
                assert!(left + part.width() <= 40 && top + part.height() <= 30);
                (part.width() * part.height()) as f32 / 1200.0
            })
            .collect();
        // A side that would be longer than the picture's is cut to it.
        assert!(shares.iter().all(|share| (0.42..=1.0).contains(share)), "{shares:?}");
        assert!(shares.iter().any(|share| *share < 0.6) && shares.iter().any(|share| *share > 0.9));
    }

    #[test]
    fn no_saturation_leaves_grey() {
        let mut image: Vec<f32> = vec![0.9, 0.1, 0.2, 0.3, 0.7, 0.5];
        saturate(&mut image, 2, 0.0);
        assert!((image[0] - image[2]).abs() < 1e-6 && (image[1] - image[5]).abs() < 1e-6);
    }

    #[test]
    fn every_kind_of_change_changes_something_and_stays_in_range() {
        let none = AugmentRecipe::none;
        let kinds = [
            AugmentRecipe { shift: 0.2, ..none() },
            AugmentRecipe { scale: 0.2, ..none() },
            AugmentRecipe { rotate: 20.0, ..none() },
            AugmentRecipe { crop: 0.5, ..none() },
            AugmentRecipe { mirror: 1.0, ..none() },
            AugmentRecipe { brightness: 0.3, ..none() },
            AugmentRecipe { contrast: 0.5, ..none() },
            AugmentRecipe { saturation: 0.9, ..none() },
            AugmentRecipe { noise: 0.2, ..none() },
        ];
        for recipe in kinds {
            let (plain, changed) = both(recipe.clone(), &picture(3), 2);
            assert!(largest_difference(&plain, &changed) > 1e-2, "{recipe:?}");
            let low = (0..3).map(|c| -CLIP_MEAN[c] / CLIP_STD[c]).fold(f64::INFINITY, f64::min) as f32;
            assert!(changed.iter().all(|v| v.is_finite() && *v >= low - 1e-3), "{recipe:?}");
        }
    }
}
