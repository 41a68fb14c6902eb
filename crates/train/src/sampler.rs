//! Which pairs a step takes, which of their texts, and how their images are changed.
//!
//! Owns: every random choice of a run. Each depends on the seed and the step alone, so a run that is
//! continued from a checkpoint takes the same steps as one that was never interrupted, and there is
//! no generator state to save. Deliberately absent: reading pairs (see `data`).

use diptych_encoder::TextTokenizer;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::data::Pairs;
use crate::error::TrainError;
use crate::model::Batch;
use crate::recipe::{AugmentRecipe, TextRecipe};
use crate::report_views::Views;

/// Mean and standard deviation per channel, in 0 to 1.
pub(crate) type Normalisation = ([f64; 3], [f64; 3]);

/// Draws batches from pairs.
#[derive(Debug)]
pub(crate) struct Sampler<'a> {
    pairs: &'a Pairs,
    texts: Vec<Views<Vec<u32>>>,
    augment: AugmentRecipe,
    weights: TextRecipe,
    normalisation: Normalisation,
    side: usize,
    batch_size: usize,
    seed: u64,
    /// The order of the epoch in progress.
    order: (u64, Vec<usize>),
}

/// What is random here, so that no two purposes share a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// Initial weights.
    Weights,
    /// Order of the pairs in an epoch.
    Order,
    /// Changes to one sample.
    Sample,
}

/// The generator for one purpose and one number, an epoch or a sample.
pub(crate) fn generator(seed: u64, purpose: Purpose, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(4).wrapping_add(purpose as u64));
    rng.set_stream(number);
    rng
}

impl<'a> Sampler<'a> {
    /// Tokenises all texts once.
    pub fn new(
        pairs: &'a Pairs,
        tokenizer: &TextTokenizer,
        normalisation: Normalisation,
        side: usize,
        (augment, weights): (AugmentRecipe, TextRecipe),
        (batch_size, seed): (usize, u64),
    ) -> Result<Self, TrainError> {
        let texts = pairs
            .texts
            .par_iter()
            .map(|views| views.clone().try_map(|text| tokenise(tokenizer, &text)))
            .collect::<Result<_, _>>()?;
        let order = (u64::MAX, Vec::new());
        Ok(Self { pairs, texts, augment, weights, normalisation, side, batch_size, seed, order })
    }

    /// The batch of a step, counted from 0. Every epoch visits the pairs in another order; the few
    /// that do not fill a batch wait for another epoch.
    pub fn batch(&mut self, step: u64) -> Batch {
        let per_epoch = (self.pairs.len() / self.batch_size).max(1) as u64;
        let epoch = step / per_epoch;
        if self.order.0 != epoch {
            let mut order: Vec<usize> = (0..self.pairs.len()).collect();
            order.shuffle(&mut generator(self.seed, Purpose::Order, epoch));
            self.order = (epoch, order);
        }
        let start = (step % per_epoch) as usize * self.batch_size;
        let chosen = &self.order.1[start..][..self.batch_size];
        let mut images = vec![0f32; self.batch_size * 3 * self.side * self.side];
        let texts = images
            .par_chunks_exact_mut(3 * self.side * self.side)
            .zip(chosen)
            .enumerate()
            .map(|(i, (out, &pair))| {
                let sample = step * self.batch_size as u64 + i as u64;
                let mut rng = generator(self.seed, Purpose::Sample, sample);
                self.image(pair, out, &mut rng);
                self.text(pair, &mut rng)
            })
            .collect();
        Batch { images, texts }
    }

    fn text(&self, pair: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
        let views = &self.texts[pair];
        let weight = |w: f32, texts: &[Vec<u32>]| if texts.is_empty() { 0.0 } else { w };
        let whole = weight(self.weights.whole, &views.whole);
        let impression = weight(self.weights.impression, &views.impressions);
        let sentence = weight(self.weights.sentence, &views.sentences);
        let at = rng.random::<f32>() * (whole + impression + sentence);
        let from = if at < whole || (impression == 0.0 && sentence == 0.0) {
            &views.whole
        } else if at < whole + impression || sentence == 0.0 {
            &views.impressions
        } else {
            &views.sentences
        };
        from[rng.random_range(0..from.len())].clone()
    }

    /// Writes one changed and normalised image, `[3, side, side]`.
    fn image(&self, pair: usize, out: &mut [f32], rng: &mut ChaCha8Rng) {
        let a = &self.augment;
        let mut within = |limit: f32| limit * (2.0 * rng.random::<f32>() - 1.0);
        let (zoom, dx, dy) = (1.0 + within(a.scale), within(a.shift), within(a.shift));
        let (gain, offset) = (1.0 + within(a.contrast), within(a.brightness));
        let (area, n) = (self.side * self.side, self.side as f32);
        let source = self.pairs.image(pair);
        let channels = source.len() / area;
        let (mean, std) = &self.normalisation;
        for channel in 0..channels {
            let plane = &source[channel * area..][..area];
            for y in 0..self.side {
                // Pixel centres, zoomed about the middle of the image.
                let sy = ((y as f32 + 0.5) / n - 0.5) / zoom + 0.5 + dy;
                for x in 0..self.side {
                    let sx = ((x as f32 + 0.5) / n - 0.5) / zoom + 0.5 + dx;
                    let v = bilinear(plane, self.side, sx * n - 0.5, sy * n - 0.5) / 255.0;
                    let v = (v - 0.5) * gain + 0.5 + offset;
                    let v = if a.noise > 0.0 { v + a.noise * noise(rng) } else { v };
                    out[channel * area + y * self.side + x] = v.clamp(0.0, 1.0);
                }
            }
        }
        if channels == 1 {
            let (first, rest) = out.split_at_mut(area);
            rest[..area].copy_from_slice(first);
            rest[area..].copy_from_slice(first);
        }
        for (c, plane) in out.chunks_exact_mut(area).enumerate() {
            let (shift, scale) = (mean[c] as f32, 1.0 / std[c] as f32);
            plane.iter_mut().for_each(|v| *v = (*v - shift) * scale);
        }
    }
}

/// Token ids as the model will see them at inference, special tokens included.
pub(crate) fn tokenise(tokenizer: &TextTokenizer, text: &str) -> Result<Vec<u32>, TrainError> {
    let prepared = tokenizer
        .prepare(text)
        .map_err(|e| TrainError::Tokenizer { reason: format!("{e} (in {text:?})") })?;
    Ok(prepared.ids)
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
