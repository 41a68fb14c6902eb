//! Both towers, one flat parameter vector, and the gradient of one batch.
//!
//! Owns: splitting a batch into chunks that run in parallel and adding their gradients up in a fixed
//! order, so that a run gives the same bits on any number of threads. Deliberately absent: where
//! batches come from and what the optimiser does.

use rayon::prelude::*;

use crate::loss::{Contrast, info_nce};
use crate::ops::add_assign;
use crate::params::{Init, Layout};
use crate::tower::{Input, Pass, Tower, TowerShape};

/// Chunks per tower. Fixed, see above; more than cores, so that unequal chunks even out.
const CHUNKS: usize = 8;

/// The architecture of a dual encoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ModelShape {
    /// Side of the square input images in pixels; a multiple of `patch_size`.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Image transformer.
    pub vision: TowerShape,
    /// Text transformer.
    pub text: TowerShape,
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Longest text in tokens.
    pub context_length: usize,
    /// Initial natural logarithm of the inverse temperature.
    pub logit_scale: f32,
}

/// A batch: image `i` and text `i` belong together.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Batch {
    /// Normalised images, `[n, 3, size, size]`.
    pub images: Vec<f32>,
    /// Token ids with start and end token.
    pub texts: Vec<Vec<u32>>,
}

/// The towers and the buffers of one batch in flight.
#[derive(Debug)]
pub(crate) struct Model {
    shape: ModelShape,
    vision: Tower,
    text: Tower,
    layout: Layout,
    vision_work: Vec<Work>,
    text_work: Vec<Work>,
}

/// The buffers of one chunk of one tower.
#[derive(Debug, Default)]
struct Work {
    pass: Pass,
    /// Gradients of the tower's parameters from this chunk.
    grads: Vec<f32>,
    /// Embeddings of the chunk, then their gradients.
    rows: Vec<f32>,
}

impl Model {
    /// A model of this shape. It holds no parameters: those are passed to every call.
    pub fn new(shape: ModelShape) -> Self {
        let vision = Tower::vision(shape.image_size, shape.patch_size, shape.vision);
        let end = shape.vocab_size as u32 - 1;
        let text = Tower::text(shape.vocab_size, shape.context_length, end, shape.text);
        let mut layout = vision.layout().clone();
        layout.append(text.layout());
        layout.push("logit_scale".to_owned(), &[], Init::Constant(shape.logit_scale), false);
        let work = || (0..CHUNKS).map(|_| Work::default()).collect();
        Self { shape, vision, text, layout, vision_work: work(), text_work: work() }
    }

    /// All tensors: image tower, text tower, `logit_scale` last.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The architecture.
    pub fn shape(&self) -> &ModelShape {
        &self.shape
    }

    /// Embeds images, `[n, 3, size, size]`, into rows of the shared space, not yet of unit length.
    pub fn embed_images(&mut self, params: &[f32], images: &[f32]) -> Vec<f32> {
        let (params, _) = self.split(params);
        let pixels = 3 * self.shape.image_size.pow(2);
        let dim = self.vision.projection_dim();
        let per_chunk = (images.len() / pixels).div_ceil(CHUNKS).max(1);
        self.vision_work.par_iter_mut().zip(images.par_chunks(per_chunk * pixels)).for_each(
            |(work, images)| {
                work.rows.resize(images.len() / pixels * dim, 0.0);
                self.vision.forward(params, Input::Images(images), &mut work.pass, &mut work.rows);
            },
        );
        let used = images.len().div_ceil(per_chunk * pixels);
        self.vision_work[..used].iter().flat_map(|work| work.rows.iter().copied()).collect()
    }

    /// Embeds texts likewise, in the order given.
    pub fn embed_texts(&mut self, params: &[f32], texts: &[Vec<u32>]) -> Vec<f32> {
        let (_, params) = self.split(params);
        let dim = self.text.projection_dim();
        let order = by_length(texts);
        let per_chunk = texts.len().div_ceil(CHUNKS).max(1);
        self.text_work.par_iter_mut().zip(order.par_chunks(per_chunk)).for_each(|(work, chosen)| {
            let texts: Vec<&[u32]> = chosen.iter().map(|&i| texts[i].as_slice()).collect();
            work.rows.resize(texts.len() * dim, 0.0);
            self.text.forward(params, Input::Texts(&texts), &mut work.pass, &mut work.rows);
        });
        let mut out = vec![0f32; texts.len() * dim];
        for (work, chosen) in self.text_work.iter().zip(order.chunks(per_chunk)) {
            for (row, &i) in work.rows.chunks_exact(dim).zip(chosen) {
                out[i * dim..][..dim].copy_from_slice(row);
            }
        }
        out
    }

    /// The loss of a batch; writes its gradient with respect to all parameters to `grads`.
    pub fn loss_and_gradient(&mut self, params: &[f32], batch: &Batch, grads: &mut [f32]) -> f32 {
        let logit_scale = params[params.len() - 1];
        let images = self.embed_images(params, &batch.images);
        let texts = self.embed_texts(params, &batch.texts);
        let groups: Vec<u64> = batch.texts.iter().map(|ids| fingerprint(ids)).collect();
        let Contrast { loss, d_images, d_texts, d_logit_scale } =
            info_nce(&images, &texts, &groups, logit_scale);
        self.backward(params, &d_images, &d_texts, &by_length(&batch.texts), grads);
        grads[params.len() - 1] = d_logit_scale;
        loss
    }

    /// Runs both towers backward over the passes of the last two `embed_*` calls.
    fn backward(
        &mut self,
        params: &[f32],
        d_images: &[f32],
        d_texts: &[f32],
        order: &[usize],
        grads: &mut [f32],
    ) {
        let (vision_params, text_params) = self.split(params);
        let dim = self.vision.projection_dim();
        let per_chunk = order.len().div_ceil(CHUNKS).max(1);
        let (vision, text) = (&self.vision, &self.text);
        let images =
            self.vision_work.par_iter_mut().zip(d_images.par_chunks(per_chunk * dim)).map(|(work, d)| {
                work.grads.clear();
                work.grads.resize(vision.layout().len(), 0.0);
                vision.backward(vision_params, &mut work.pass, d, &mut work.grads);
            });
        let texts = self.text_work.par_iter_mut().zip(order.par_chunks(per_chunk)).map(|(work, chosen)| {
            work.grads.clear();
            work.grads.resize(text.layout().len(), 0.0);
            work.rows.clear();
            chosen.iter().for_each(|&i| work.rows.extend_from_slice(&d_texts[i * dim..][..dim]));
            text.backward(text_params, &mut work.pass, &work.rows, &mut work.grads);
        });
        images.chain(texts).for_each(|()| ());
        let used = order.len().div_ceil(per_chunk);
        let (vision_grads, rest) = grads.split_at_mut(vision_params.len());
        add_up(vision_grads, &self.vision_work[..used]);
        add_up(&mut rest[..text_params.len()], &self.text_work[..used]);
    }

    fn split<'a>(&self, params: &'a [f32]) -> (&'a [f32], &'a [f32]) {
        assert_eq!(params.len(), self.layout.len(), "parameters of another model");
        let (vision, rest) = params.split_at(self.vision.layout().len());
        (vision, &rest[..rest.len() - 1])
    }
}

/// Sums the chunks' gradients, first to last.
fn add_up(out: &mut [f32], work: &[Work]) {
    const PIECE: usize = 1 << 14;
    out.par_chunks_mut(PIECE).enumerate().for_each(|(i, out)| {
        out.fill(0.0);
        for work in work {
            add_assign(out, &work.grads[i * PIECE..][..out.len()]);
        }
    });
}

/// Positions from the shortest text to the longest, so that a chunk pads little.
fn by_length(texts: &[Vec<u32>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&i| (texts[i].len(), i));
    order
}

/// Equal for equal texts (FNV-1a over the ids).
fn fingerprint(ids: &[u32]) -> u64 {
    ids.iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &id| (hash ^ u64::from(id)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::normal;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn shape(width: usize) -> ModelShape {
        let tower = |layers| TowerShape { width, layers, heads: 2, projection_dim: 6 };
        ModelShape {
            image_size: 8,
            patch_size: 4,
            vision: tower(2),
            text: tower(2),
            vocab_size: 11,
            context_length: 7,
            logit_scale: 1.5,
        }
    }

    fn batch(n: usize, rng: &mut ChaCha8Rng) -> Batch {
        let images = (0..n * 3 * 64).map(|_| normal(rng)).collect();
        let texts = (0..n)
            .map(|i| {
                let words = (0..2 + i % 4).map(|_| rng.random_range(0..9)).collect::<Vec<u32>>();
                [vec![9], words, vec![10]].concat()
            })
            .collect();
        Batch { images, texts }
    }

    /// Larger than a real start, so that every gradient stands clear of rounding.
    fn params(model: &Model, rng: &mut ChaCha8Rng) -> Vec<f32> {
        let mut all = model.layout().init(rng);
        for slot in model.layout().slots().iter().filter(|slot| slot.name != "logit_scale") {
            for v in slot.span.of_mut(&mut all) {
                *v = if *v == 1.0 { 1.0 } else { 0.0 } + 0.3 * normal(rng);
            }
        }
        all
    }

    #[test]
    fn every_gradient_is_alive_and_matches_finite_differences() {
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        let mut model = Model::new(shape(8));
        let (params, batch) = (params(&model, rng), batch(9, rng));
        let mut grads = vec![0f32; params.len()];
        model.loss_and_gradient(&params, &batch, &mut grads);
        let mut unused = vec![0f32; params.len()];
        for slot in model.layout().slots().to_vec() {
            let g = slot.span.of(&grads);
            let norm = g.iter().map(|g| g * g).sum::<f32>().sqrt();
            // A bias on all keys shifts a whole softmax row, so its true gradient is zero.
            if slot.name.ends_with("k_proj.bias") {
                assert!(norm < 1e-5, "{}: {norm}", slot.name);
                continue;
            }
            assert!(norm > 1e-4, "{} receives no gradient ({norm})", slot.name);
            let random: Vec<f32> = g.iter().map(|_| normal(rng)).collect();
            let along_gradient: Vec<f32> = g.iter().map(|g| g / norm).collect();
            let length = random.iter().map(|r| r * r).sum::<f32>().sqrt();
            let random: Vec<f32> = random.iter().map(|r| r / length).collect();
            for direction in [along_gradient, random] {
                let step = 4e-3;
                let mut at = |sign: f32| {
                    let mut moved = params.clone();
                    let values = slot.span.of_mut(&mut moved).iter_mut();
                    values.zip(&direction).for_each(|(v, d)| *v += sign * step * d);
                    f64::from(model.loss_and_gradient(&moved, &batch, &mut unused))
                };
                let measured = (at(1.0) - at(-1.0)) / f64::from(2.0 * step);
                let expected: f64 = g.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
                let tolerance = 0.01 * f64::from(norm) + 2e-4;
                assert!(
                    (measured - expected).abs() < tolerance,
                    "{}: measured {measured}, computed {expected}",
                    slot.name
                );
            }
        }
    }

    #[test]
    fn a_batch_has_the_same_embeddings_in_any_company() {
        let rng = &mut ChaCha8Rng::seed_from_u64(2);
        let mut model = Model::new(shape(8));
        let (params, batch) = (params(&model, rng), batch(20, rng));
        let (images, texts) =
            (model.embed_images(&params, &batch.images), model.embed_texts(&params, &batch.texts));
        for i in [0, 7, 19] {
            let image = model.embed_images(&params, &batch.images[i * 192..][..192]);
            let text = model.embed_texts(&params, &batch.texts[i..=i]);
            for (alone, together) in [(image, &images), (text, &texts)] {
                for (a, b) in alone.iter().zip(&together[i * 6..]) {
                    assert!((a - b).abs() < 1e-5, "sample {i}: {a} alone, {b} in the batch");
                }
            }
        }
    }

    #[test]
    fn the_gradient_has_the_same_bits_on_one_thread_and_on_several() {
        let rng = &mut ChaCha8Rng::seed_from_u64(3);
        let mut model = Model::new(shape(8));
        let (params, batch) = (params(&model, rng), batch(17, rng));
        let mut run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            let mut grads = vec![0f32; params.len()];
            pool.install(|| model.loss_and_gradient(&params, &batch, &mut grads));
            grads
        };
        assert_eq!(run(1), run(3));
    }

    /// Prints pairs per second at the size of the bundled model; run it with `--ignored`.
    #[test]
    #[ignore = "a measurement, not a check"]
    fn speed() {
        let rng = &mut ChaCha8Rng::seed_from_u64(4);
        let tower = |layers| TowerShape { width: 128, layers, heads: 4, projection_dim: 128 };
        let shape = ModelShape {
            image_size: 64,
            patch_size: 8,
            vision: tower(4),
            text: tower(3),
            vocab_size: 1500,
            context_length: 77,
            logit_scale: 2.66,
        };
        let mut model = Model::new(shape);
        let params = model.layout().init(rng);
        let images = (0..128 * 3 * 64 * 64).map(|i| (i % 255) as f32 / 128.0 - 1.0).collect();
        let texts = (0..128).map(|i| (0..50).map(|j| (i * 31 + j * 7) % 1499).collect()).collect();
        let batch = Batch { images, texts };
        let mut grads = vec![0f32; params.len()];
        for _ in 0..4 {
            let start = std::time::Instant::now();
            model.embed_images(&params, &batch.images);
            let vision = start.elapsed();
            model.embed_texts(&params, &batch.texts);
            let text = start.elapsed() - vision;
            model.loss_and_gradient(&params, &batch, &mut grads);
            let all = start.elapsed() - vision - text;
            eprintln!(
                "vision forward {vision:?}, text forward {text:?}, step {all:?}: {:.0} pairs/s",
                128.0 / all.as_secs_f64()
            );
        }
    }
}
