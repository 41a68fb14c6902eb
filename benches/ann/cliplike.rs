//! A model of what CLIP makes of photographs and of the captions that people search them with.
//!
//! Owns: [`Model`], which draws unit vectors of both modalities. Images are a three-level mixture of
//! Gaussians whose coordinates lose variance by a power law: coarse, middle and fine centres of very
//! uneven sizes, a part of low rank around each fine centre whose scale differs from point to point,
//! a little noise in all directions, a mean with a few large coordinates, and some near duplicates.
//! Texts have another mean, see only part of an image's latent directions, and carry much noise of
//! their own. That is the modality gap: a text is far from all images, its nearest images are hardly
//! nearer than others and far from each other, so that it is out of distribution for their graph.
//! The parameters reproduce what is published of a million LAION images: relative contrast at 10 and
//! local intrinsic dimension of 1.27 and 66 for texts, 2.97 and 12 for images.
//! Deliberately absent: files (see `dataset`) and exact neighbours (see `exact`).
//!
//! A seed gives the same vectors on any number of threads; another instruction set or mathematics
//! library may round them differently.

use diptych_kernels::{Epilogue, Mat, MatMut, PackedMatrix, Threads, linear, matmul};
use rayon::prelude::*;
use serde::Serialize;

use crate::draw::{Draw, Purpose};

/// Vectors drawn from one stream.
const CHUNK: usize = 4096;

/// The model's parameters. Energies are shares of a vector's squared norm.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Params {
    /// Variance of latent coordinate `i`, from 1, is `i^-spectrum`.
    pub spectrum: f64,
    pub mean_energy: f64,
    pub coarse_energy: f64,
    pub middle_energy: f64,
    pub fine_energy: f64,
    /// Of the part of low rank.
    pub local_energy: f64,
    /// Of the noise in all directions.
    pub noise_energy: f64,
    pub coarse_centres: usize,
    /// Base vectors per middle and per fine centre, on average.
    pub per_middle: usize,
    pub per_fine: usize,
    pub local_rank: usize,
    pub local_spectrum: f64,
    /// Standard deviation of the logarithm of a fine centre's scale, and of a point's within it.
    pub spread: f64,
    /// Share of near duplicates, and the largest norm of what sets them apart.
    pub duplicates: f64,
    pub duplicate_distance: f64,
    /// Coordinates that dominate a mean, and how many times larger they are.
    pub mean_peaks: usize,
    pub mean_peak: f64,
    pub text_mean_energy: f64,
    /// Cosine of the two modalities' means.
    pub means_cosine: f64,
    /// Of the image's latent that a text describes.
    pub text_signal_energy: f64,
    /// Share of the latent directions that a text can see.
    pub text_sees: f64,
}

pub const PARAMS: Params = Params {
    spectrum: 0.9,
    mean_energy: 0.48,
    coarse_energy: 0.14,
    middle_energy: 0.08,
    fine_energy: 0.06,
    local_energy: 0.16,
    noise_energy: 0.08,
    coarse_centres: 200,
    per_middle: 1500,
    per_fine: 100,
    local_rank: 64,
    local_spectrum: 0.7,
    spread: 0.38,
    duplicates: 0.02,
    duplicate_distance: 0.12,
    mean_peaks: 4,
    mean_peak: 8.0,
    text_mean_energy: 0.45,
    means_cosine: 0.28,
    text_signal_energy: 0.14,
    text_sees: 0.7,
};

/// What all vectors of a data set share. Centres and local directions are in spectral coordinates,
/// where variance falls from the first to the last; a rotation leads to those of the embedding.
pub struct Model {
    dim: usize,
    seed: u64,
    rotation: PackedMatrix,
    fine: Vec<Fine>,
    fine_shares: Vec<f64>,
    fine_centres: Vec<f32>,
    coarse_count: usize,
    rank: usize,
    /// `[coarse centre, rank, dim]`: points of one coarse centre vary in the same directions.
    directions: Vec<f32>,
    image_mean: Vec<f32>,
    text_mean: Vec<f32>,
    /// What a text sees of every spectral coordinate.
    text_gain: Vec<f32>,
    text_noise_rotation: PackedMatrix,
    /// Standard deviations of a text's own noise, in coordinates rotated otherwise.
    text_deviations: Vec<f32>,
}

/// A fine centre without its place.
#[derive(Clone, Copy)]
struct Fine {
    coarse: usize,
    scale: f32,
}

impl Model {
    /// The model of a base of `n` vectors of `dim` components.
    pub fn new(n: usize, dim: usize, seed: u64) -> Self {
        let (p, draw) = (PARAMS, &mut Draw::new(seed, Purpose::Structure, 0));
        let deviations = power_law(dim, p.spectrum);
        let coarse_count = p.coarse_centres.min((n / 50).max(8));
        let middle_count = coarse_count.max(n / p.per_middle);
        let fine_count = middle_count.max(n / p.per_fine);
        let coarse_shares = draw.shares(coarse_count);
        let coarse_of: Vec<usize> = (0..middle_count).map(|_| draw.cluster(&coarse_shares)).collect();
        let middle_shares = draw.shares(middle_count);
        let middle_of: Vec<usize> = (0..fine_count).map(|_| draw.cluster(&middle_shares)).collect();
        let fine_shares = draw.shares(fine_count);
        let coarse = around(draw, &deviations, p.coarse_energy, coarse_count, |_| None);
        let middle = around(draw, &deviations, p.middle_energy, middle_count, |i| {
            Some(&coarse[coarse_of[i] * dim..][..dim])
        });
        let fine_centres = around(draw, &deviations, p.fine_energy, fine_count, |i| {
            Some(&middle[middle_of[i] * dim..][..dim])
        });
        let fine = middle_of
            .iter()
            .map(|&middle| Fine { coarse: coarse_of[middle], scale: log_normal(draw, p.spread) })
            .collect();
        let rank = p.local_rank.min(dim);
        let directions = directions(draw, &deviations, coarse_count, rank);
        let (image_mean, text_mean) = means(draw, dim);
        let text_gain = text_gain(draw, &deviations);
        let own = (1.0 - p.text_mean_energy - p.text_signal_energy).max(0.0).sqrt() as f32;
        let mut orthogonal = || PackedMatrix::pack(&orthogonal(draw, dim), dim, dim);
        Self {
            dim,
            seed,
            rotation: orthogonal(),
            text_noise_rotation: orthogonal(),
            fine,
            fine_shares,
            fine_centres,
            coarse_count,
            rank,
            directions,
            image_mean,
            text_mean,
            text_gain,
            text_deviations: deviations.iter().map(|d| d * own).collect(),
        }
    }

    /// `n` images. Near duplicates are of others among them.
    pub fn base(&self, n: usize) -> Vec<f32> {
        self.draw_chunks(Purpose::Base, n, |draw, out| self.images(draw, out, None))
    }

    /// `n` images that are not in the base, but for the near duplicates of some that are.
    pub fn image_queries(&self, n: usize, base: &[f32]) -> Vec<f32> {
        self.draw_chunks(Purpose::ImageQueries, n, |draw, out| self.images(draw, out, Some(base)))
    }

    /// `n` texts about images that are not in the base, for queries or for training.
    pub fn texts(&self, n: usize, purpose: Purpose) -> Vec<f32> {
        self.draw_chunks(purpose, n, |draw, out| self.describe(draw, out))
    }

    fn draw_chunks(&self, purpose: Purpose, n: usize, f: impl Fn(&mut Draw, &mut [f32]) + Sync) -> Vec<f32> {
        let mut all = vec![0f32; n * self.dim];
        all.par_chunks_mut(CHUNK * self.dim)
            .enumerate()
            .for_each(|(chunk, out)| f(&mut Draw::new(self.seed, purpose, chunk), out));
        all
    }

    fn images(&self, draw: &mut Draw, out: &mut [f32], pool: Option<&[f32]>) {
        let (mut latents, places) = self.latents(draw, out.len() / self.dim);
        let deviation = (PARAMS.noise_energy / self.dim as f64).sqrt() as f32;
        let mut noise = vec![0f32; self.dim];
        for latent in latents.chunks_exact_mut(self.dim) {
            draw.normals(&mut noise);
            latent.iter_mut().zip(&noise).for_each(|(l, n)| *l += n * deviation);
        }
        let mut rotated = vec![0f32; out.len()];
        let mean = Epilogue::Bias(&self.image_mean);
        linear(&mut rotated, &latents, places.len(), &self.rotation, mean, Threads::One);
        put_units(&rotated, &places, self.dim, out);
        self.plant_duplicates(draw, out, pool);
    }

    fn describe(&self, draw: &mut Draw, out: &mut [f32]) {
        let (mut latents, places) = self.latents(draw, out.len() / self.dim);
        for latent in latents.chunks_exact_mut(self.dim) {
            latent.iter_mut().zip(&self.text_gain).for_each(|(l, g)| *l *= g);
        }
        let (m, mut rotated) = (places.len(), vec![0f32; out.len()]);
        linear(&mut rotated, &latents, m, &self.rotation, Epilogue::Bias(&self.text_mean), Threads::One);
        let noise = &mut latents;
        for row in noise.chunks_exact_mut(self.dim) {
            draw.normals(row);
            row.iter_mut().zip(&self.text_deviations).for_each(|(r, d)| *r *= d);
        }
        let add = Epilogue::AddBias(None);
        linear(&mut rotated, noise, m, &self.text_noise_rotation, add, Threads::One);
        put_units(&rotated, &places, self.dim, out);
    }

    /// `m` images without mean and noise in spectral coordinates, in the order of their coarse centres
    /// so that those of one centre share a product, and the place each belongs to.
    fn latents(&self, draw: &mut Draw, m: usize) -> (Vec<f32>, Vec<usize>) {
        let fine: Vec<usize> = (0..m).map(|_| draw.cluster(&self.fine_shares)).collect();
        let mut places: Vec<usize> = (0..m).collect();
        places.sort_by_key(|&i| self.fine[fine[i]].coarse);
        let mut latents = Vec::with_capacity(m * self.dim);
        let mut weights = vec![0f32; m * self.rank];
        for (&place, weights) in places.iter().zip(weights.chunks_exact_mut(self.rank)) {
            latents.extend_from_slice(&self.fine_centres[fine[place] * self.dim..][..self.dim]);
            draw.normals(weights);
            let scale = self.fine[fine[place]].scale * log_normal(draw, PARAMS.spread);
            weights.iter_mut().for_each(|w| *w *= scale);
        }
        let mut start = 0;
        for coarse in 0..self.coarse_count {
            let count = places[start..].iter().take_while(|&&i| self.fine[fine[i]].coarse == coarse).count();
            matmul(
                MatMut::new(&mut latents[start * self.dim..], self.dim),
                (count, self.dim, self.rank),
                Mat::new(&weights[start * self.rank..], self.rank),
                Mat::new(&self.directions[coarse * self.rank * self.dim..], self.dim),
                true,
            );
            start += count;
        }
        (latents, places)
    }

    fn plant_duplicates(&self, draw: &mut Draw, images: &mut [f32], pool: Option<&[f32]>) {
        let m = images.len() / self.dim;
        let places = draw.choose(m, (PARAMS.duplicates * m as f64).round() as usize);
        let sources = pool.unwrap_or(images);
        let mut copies: Vec<f32> = Vec::with_capacity(places.len() * self.dim);
        for _ in &places {
            copies.extend_from_slice(&sources[draw.below(sources.len() / self.dim) * self.dim..][..self.dim]);
        }
        let mut change = vec![0f32; self.dim];
        for copy in copies.chunks_exact_mut(self.dim) {
            draw.normals(&mut change);
            scale_to_unit(&mut change);
            let distance = (draw.unit() * PARAMS.duplicate_distance) as f32;
            copy.iter_mut().zip(&change).for_each(|(c, d)| *c += d * distance);
        }
        put_units(&copies, &places, self.dim, images);
    }
}

/// Standard deviations whose squares fall as `i^-exponent` and sum to 1.
fn power_law(dim: usize, exponent: f64) -> Vec<f32> {
    let variances: Vec<f64> = (1..=dim).map(|i| (i as f64).powf(-exponent)).collect();
    let sum: f64 = variances.iter().sum();
    variances.iter().map(|v| (v / sum).sqrt() as f32).collect()
}

fn log_normal(draw: &mut Draw, spread: f64) -> f32 {
    (spread as f32 * draw.normal()).exp()
}

/// `count` centres, each drawn with the given energy around its parent, or around zero.
fn around<'a>(
    draw: &mut Draw,
    deviations: &[f32],
    energy: f64,
    count: usize,
    parent: impl Fn(usize) -> Option<&'a [f32]>,
) -> Vec<f32> {
    let (dim, scale) = (deviations.len(), energy.sqrt() as f32);
    let mut centres = vec![0f32; count * dim];
    for (i, centre) in centres.chunks_exact_mut(dim).enumerate() {
        draw.normals(centre);
        centre.iter_mut().zip(deviations).for_each(|(c, d)| *c *= d * scale);
        if let Some(parent) = parent(i) {
            centre.iter_mut().zip(parent).for_each(|(c, p)| *c += p);
        }
    }
    centres
}

/// For every coarse centre, `rank` directions whose lengths fall by a power law.
fn directions(draw: &mut Draw, deviations: &[f32], centres: usize, rank: usize) -> Vec<f32> {
    let lengths = power_law(rank, PARAMS.local_spectrum);
    let energy = PARAMS.local_energy.sqrt() as f32;
    let mut all = around(draw, deviations, 1.0, centres * rank, |_| None);
    for (i, direction) in all.chunks_exact_mut(deviations.len()).enumerate() {
        scale_to_unit(direction);
        direction.iter_mut().for_each(|d| *d *= lengths[i % rank] * energy);
    }
    all
}

/// The means of images and of texts, at the given cosine and energies.
fn means(draw: &mut Draw, dim: usize) -> (Vec<f32>, Vec<f32>) {
    let mut peaked = || {
        let mut mean = vec![0f32; dim];
        draw.normals(&mut mean);
        draw.choose(dim, PARAMS.mean_peaks.min(dim))
            .into_iter()
            .for_each(|i| mean[i] *= PARAMS.mean_peak as f32);
        scale_to_unit(&mut mean);
        mean
    };
    let (mut image, mut other) = (peaked(), peaked());
    let along: f32 = image.iter().zip(&other).map(|(a, b)| a * b).sum();
    other.iter_mut().zip(&image).for_each(|(o, i)| *o -= along * i);
    scale_to_unit(&mut other);
    let (cos, energy) = (PARAMS.means_cosine, PARAMS.text_mean_energy.sqrt());
    let (shared, apart) = ((cos * energy) as f32, ((1.0 - cos * cos).sqrt() * energy) as f32);
    let text = image.iter().zip(&other).map(|(i, o)| i * shared + o * apart).collect();
    image.iter_mut().for_each(|i| *i *= PARAMS.mean_energy.sqrt() as f32);
    (image, text)
}

/// The gain of every spectral coordinate in a text: none for those it cannot see, uneven for the
/// others, and of the energy a text has of its image in all.
fn text_gain(draw: &mut Draw, deviations: &[f32]) -> Vec<f32> {
    let p = PARAMS;
    let mut gain: Vec<f64> = deviations
        .iter()
        .map(|_| if draw.unit() < p.text_sees { 0.6 + 0.8 * draw.unit() } else { 0.0 })
        .collect();
    let latent = p.coarse_energy + p.middle_energy + p.fine_energy + p.local_energy;
    let seen: f64 = gain.iter().zip(deviations).map(|(g, &d)| (g * f64::from(d)).powi(2)).sum();
    let scale = (p.text_signal_energy / (latent * seen.max(f64::MIN_POSITIVE))).sqrt();
    gain.iter_mut().for_each(|g| *g *= scale);
    gain.into_iter().map(|g| g as f32).collect()
}

/// A random orthogonal matrix: normal rows, each freed of those before it, twice because once leaves
/// rounding errors.
fn orthogonal(draw: &mut Draw, dim: usize) -> Vec<f32> {
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(dim);
    let mut normal = vec![0f32; dim];
    for _ in 0..dim {
        draw.normals(&mut normal);
        let mut row: Vec<f64> = normal.iter().map(|&v| f64::from(v)).collect();
        for before in rows.iter().chain(&rows) {
            let along: f64 = row.iter().zip(before).map(|(a, b)| a * b).sum();
            row.iter_mut().zip(before).for_each(|(r, b)| *r -= along * b);
        }
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        row.iter_mut().for_each(|v| *v /= norm);
        rows.push(row);
    }
    rows.iter().flatten().map(|&v| v as f32).collect()
}

/// Puts row `i`, scaled to unit norm, to place `places[i]`.
fn put_units(rows: &[f32], places: &[usize], dim: usize, out: &mut [f32]) {
    for (row, place) in rows.chunks_exact(dim).zip(places) {
        let unit = &mut out[place * dim..][..dim];
        unit.copy_from_slice(row);
        scale_to_unit(unit);
    }
}

fn scale_to_unit(v: &mut [f32]) {
    let norm = v.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    v.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
}
