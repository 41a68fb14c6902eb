//! Generated vectors: uniform, duplicated, and shaped like CLIP embeddings of images and texts.

use diptych_core::{Embedding, PointId};
use diptych_index::{Index, IndexOptions};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Options that walk the graph however few vectors there are.
pub fn always_walk() -> IndexOptions {
    IndexOptions { scan_ratio: 0, ..IndexOptions::default() }
}

/// Options under which a few hundred points are sealed, and merged, and always walked.
pub fn sealing(seal_at: usize) -> IndexOptions {
    IndexOptions { seal_at, ef_construction: 100, ..always_walk() }
}

pub fn numbered(vectors: &[Embedding]) -> Vec<(PointId, Embedding)> {
    vectors.iter().enumerate().map(|(i, e)| (PointId(i as u64), e.clone())).collect()
}

pub fn index_of(vectors: &[Embedding], options: IndexOptions) -> Index {
    let index = Index::new(vectors[0].dim(), options).unwrap();
    index.insert_many(&numbered(vectors)).unwrap();
    index
}

/// Standard normal variates (Box and Muller).
pub fn gauss(rng: &mut ChaCha8Rng, n: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(n + 1);
    while out.len() < n {
        let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
        let angle = std::f32::consts::TAU * rng.random::<f32>();
        out.extend([radius * angle.cos(), radius * angle.sin()]);
    }
    out.truncate(n);
    out
}

/// Directions uniform on the sphere.
pub fn uniform(n: usize, dim: usize, seed: u64) -> Vec<Embedding> {
    let mut rng = rng(seed);
    (0..n).map(|_| Embedding::new(gauss(&mut rng, dim)).unwrap()).collect()
}

/// Replaces a share of the vectors by exact copies of others.
pub fn with_duplicates(mut vectors: Vec<Embedding>, share: f64, seed: u64) -> Vec<Embedding> {
    let mut rng = rng(seed);
    let n = vectors.len();
    for _ in 0..(n as f64 * share) as usize {
        let (from, to) = (rng.random_range(0..n), rng.random_range(0..n));
        vectors[to] = vectors[from].clone();
    }
    vectors
}

/// Images, and queries of both kinds for them.
pub struct ClipLike {
    pub images: Vec<Embedding>,
    pub image_queries: Vec<Embedding>,
    pub text_queries: Vec<Embedding>,
}

/// A small model of CLIP's shared space: images near one another (mean cosine about .46) around a
/// mean with four large coordinates, in clusters of three levels with a power-law spectrum and
/// low-rank local structure; texts around another mean, far from all images (about .13), as a lossy
/// view of an image's content under large noise of their own. Text queries are therefore out of
/// distribution for a graph of images.
pub fn clip_like(n: usize, dim: usize, queries: usize, seed: u64) -> ClipLike {
    let space = Space::new(n, dim, seed);
    let mut rng = rng(seed ^ 0x5eed);
    ClipLike {
        images: (0..n).map(|_| space.image(&mut rng)).collect(),
        image_queries: (0..queries).map(|_| space.image(&mut rng)).collect(),
        text_queries: (0..queries).map(|_| space.text(&mut rng)).collect(),
    }
}

struct Space {
    dim: usize,
    deviations: Vec<f32>,
    fine: Vec<Vec<f32>>,
    fine_coarse: Vec<usize>,
    // Per coarse cluster, the rows of its local basis.
    local: Vec<Vec<Vec<f32>>>,
    image_mean: Vec<f32>,
    text_mean: Vec<f32>,
    text_gain: Vec<f32>,
    text_order: Vec<usize>,
}

impl Space {
    fn new(n: usize, dim: usize, seed: u64) -> Self {
        let mut rng = rng(seed);
        let deviations = power_law(dim, 0.9);
        let scaled = |rng: &mut ChaCha8Rng, energy: f32| -> Vec<f32> {
            gauss(rng, dim).iter().zip(&deviations).map(|(g, d)| g * d * energy.sqrt()).collect()
        };
        let n_coarse = (n / 50).clamp(8, 200);
        let n_mid = n_coarse.max(n / 1500);
        let n_fine = n_mid.max(n / 100);
        let coarse: Vec<_> = (0..n_coarse).map(|_| scaled(&mut rng, 0.14)).collect();
        let mid_coarse: Vec<usize> = (0..n_mid).map(|_| rng.random_range(0..n_coarse)).collect();
        let mid: Vec<_> = mid_coarse.iter().map(|&c| add(&coarse[c], &scaled(&mut rng, 0.08))).collect();
        let fine_mid: Vec<usize> = (0..n_fine).map(|_| rng.random_range(0..n_mid)).collect();
        let fine = fine_mid.iter().map(|&m| add(&mid[m], &scaled(&mut rng, 0.06))).collect();
        let rank = dim.min(64);
        let local_deviations = power_law(rank, 0.7);
        let mut basis = |d: &f32| -> Vec<f32> {
            let row = scaled(&mut rng, 1.0);
            let norm = dot(&row, &row).sqrt();
            row.iter().map(|x| x / norm * d * 0.16f32.sqrt()).collect()
        };
        let local = (0..n_coarse).map(|_| local_deviations.iter().map(&mut basis).collect()).collect();
        let image_mean = spiky(&mut rng, dim);
        let other = spiky(&mut rng, dim);
        let along = dot(&image_mean, &other);
        let across: Vec<f32> = other.iter().zip(&image_mean).map(|(o, i)| o - along * i).collect();
        let norm = dot(&across, &across).sqrt();
        let cos = 0.28f32;
        let text_mean = image_mean
            .iter()
            .zip(&across)
            .map(|(i, a)| 0.45f32.sqrt() * (cos * i + (1.0 - cos * cos).sqrt() * a / norm));
        let text_mean = text_mean.collect();
        let seen: Vec<f32> = (0..dim)
            .map(|_| if rng.random::<f32>() < 0.7 { rng.random_range(0.6f32..1.4) } else { 0.0 })
            .collect();
        let energy: f32 = seen.iter().zip(&deviations).map(|(s, d)| (s * d).powi(2)).sum();
        let text_gain = seen.iter().map(|s| s * (0.14 / (0.44 * energy)).sqrt()).collect();
        let mut text_order: Vec<usize> = (0..dim).collect();
        text_order.shuffle(&mut rng);
        Self {
            dim,
            fine,
            fine_coarse: fine_mid.iter().map(|&m| mid_coarse[m]).collect(),
            local,
            image_mean: image_mean.iter().map(|v| v * 0.48f32.sqrt()).collect(),
            text_mean,
            text_gain,
            text_order,
            deviations,
        }
    }

    fn latent(&self, rng: &mut ChaCha8Rng) -> Vec<f32> {
        // The square makes clusters uneven in size.
        let f = ((rng.random::<f32>().powi(2)) * self.fine.len() as f32) as usize;
        let basis = &self.local[self.fine_coarse[f]];
        let scale = (0.54 * gauss(rng, 1)[0]).exp();
        let mut latent = self.fine[f].clone();
        for (row, weight) in basis.iter().zip(gauss(rng, basis.len())) {
            latent.iter_mut().zip(row).for_each(|(l, r)| *l += scale * weight * r);
        }
        latent
    }

    fn image(&self, rng: &mut ChaCha8Rng) -> Embedding {
        let latent = add(&self.latent(rng), &self.image_mean);
        let noise = gauss(rng, self.dim);
        let level = (0.08 / self.dim as f32).sqrt();
        Embedding::new(latent.iter().zip(noise).map(|(l, g)| l + level * g).collect::<Vec<_>>()).unwrap()
    }

    fn text(&self, rng: &mut ChaCha8Rng) -> Embedding {
        let latent = self.latent(rng);
        let noise = gauss(rng, self.dim);
        let values = (0..self.dim).map(|i| {
            let own = noise[i] * self.deviations[self.text_order[i]] * 0.41f32.sqrt();
            self.text_mean[i] + self.text_gain[i] * latent[i] + own
        });
        Embedding::new(values.collect::<Vec<_>>()).unwrap()
    }
}

/// Standard deviations whose squares fall as `i^-exponent` and sum to 1.
fn power_law(n: usize, exponent: f32) -> Vec<f32> {
    let squares: Vec<f32> = (1..=n).map(|i| (i as f32).powf(-exponent)).collect();
    let sum: f32 = squares.iter().sum();
    squares.iter().map(|s| (s / sum).sqrt()).collect()
}

/// A unit vector with four coordinates much larger than the others.
fn spiky(rng: &mut ChaCha8Rng, dim: usize) -> Vec<f32> {
    let mut v = gauss(rng, dim);
    for _ in 0..4 {
        v[rng.random_range(0..dim)] *= 8.0;
    }
    let norm = dot(&v, &v).sqrt();
    v.iter().map(|x| x / norm).collect()
}

fn add(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(x, y)| x + y).collect()
}

pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[test]
fn the_generated_set_has_a_modality_gap() {
    let set = clip_like(2_000, 64, 200, 7);
    let mean_cosine = |queries: &[Embedding]| {
        let pairs = queries.iter().flat_map(|q| set.images.iter().map(move |i| q.cosine(i)));
        pairs.sum::<f32>() / (queries.len() * set.images.len()) as f32
    };
    let (image, text) = (mean_cosine(&set.image_queries), mean_cosine(&set.text_queries));
    assert!((0.35..0.6).contains(&image), "images among each other: {image}");
    assert!((0.0..0.25).contains(&text), "texts to images: {text}");
}
