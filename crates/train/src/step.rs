//! One optimiser step.
//!
//! Owns: embedding a batch, its loss over all of it, the way back through both sides, and the update of
//! parameters, average, momentum encoder and queues. Deliberately absent: files, and what batches are
//! made of.

use std::ops::Range;
use std::path::Path;

use diptych_core::Modality;

use crate::checkpoint::State;
use crate::data::{Collection, Picture};
use crate::error::TrainError;
use crate::export::OBJECTIVE;
use crate::files;
use crate::model::Model;
use crate::objective::{
    LOGIT_SCALE_MAX, Mixed, Mixture, ObjectiveError, Queue, Scalar, Views, momentum_step,
};
use crate::optimizer::{Update, clip_factor, learning_rate};
use crate::recipe::{Recipe, TrainSettings};
use crate::sampler::{Batch, Inputs, Sampler};
use crate::setup::{IMAGE_HEAD, TEXT_HEAD};

/// The file in the output directory that lists a batch whose numbers were not finite.
const FAILED_BATCH_FILE: &str = "failed-batch.txt";

/// The model being trained and everything that an optimiser step changes.
pub(crate) struct Trainer {
    pub model: Model,
    pub state: State,
    mixture: Mixture,
    /// Where the objectives' scalars lie among the parameters, and their bounds.
    scalars: Range<usize>,
    bounds: Vec<Scalar>,
    queues: [Option<Queue>; 2],
    /// How the momentum encoder follows; none without one.
    momentum: Option<f32>,
    settings: TrainSettings,
    steps: u64,
    grads: Vec<f32>,
    decays: Vec<f32>,
    rates: Vec<f32>,
}

/// What one step measured.
pub(crate) struct Step {
    pub loss: f32,
    pub terms: Vec<(String, f32)>,
    pub learning_rate: f32,
    pub gradient_norm: f32,
}

/// Why a step was not made.
pub(crate) enum Failed {
    /// Something is not finite, on this batch.
    NotFinite { what: &'static str, step: u64, batch: Box<Batch> },
    /// An objective refused the batch.
    Objective(ObjectiveError),
}

impl From<ObjectiveError> for Failed {
    fn from(error: ObjectiveError) -> Self {
        Self::Objective(error)
    }
}

impl Failed {
    /// Lists the batch in the output directory, where it is at fault.
    pub fn into_error(self, out: &Path, collection: &Collection) -> TrainError {
        let (what, step, batch) = match self {
            Self::Objective(error) => return TrainError::Objective(error),
            Self::NotFinite { what, step, batch } => (what, step, batch),
        };
        let mut lines = String::new();
        for &picture in &batch.pictures {
            let record = &collection.records[collection.record_of[picture] as usize];
            let name = match &collection.pictures[picture] {
                Picture::File(path, origin) => format!("{} ({origin})", path.display()),
                Picture::Phantom(seed, index) => format!("phantom {index} of seed {seed}"),
            };
            lines.push_str(&format!("{name}\t{}\n", record.texts.whole.join("\t")));
        }
        let path = out.join(FAILED_BATCH_FILE);
        match files::replace(&path, lines.as_bytes()) {
            Ok(()) => TrainError::NotFinite { what, step, batch: path },
            Err(error) => error,
        }
    }
}

/// Learned temperature of the first objective that learns one.
pub(crate) fn temperature(trainer: &Trainer) -> Option<f32> {
    trainer.scalar("logit_scale", &trainer.state.params).map(|scale| (-scale).exp())
}

impl Trainer {
    /// Goes on from a state, with the momentum encoder and queues that the objectives want.
    pub fn new(
        model: Model,
        mut mixture: Mixture,
        scalars: Range<usize>,
        bounds: Vec<Scalar>,
        mut state: State,
        recipe: &Recipe,
        steps: u64,
    ) -> Result<Self, TrainError> {
        let memory = mixture.terms().iter().filter_map(|term| term.objective.memory());
        let (capacity, momentum) = memory
            .fold((0, None), |(k, m), memory| (k.max(memory.queue), Some(m.unwrap_or(memory.momentum))));
        let needs = mixture.needs();
        let dim = model.dim();
        let queue = |wanted: bool, (rows, ids): (Vec<f32>, Vec<u64>)| {
            wanted.then(|| {
                Queue::restore(capacity, dim, rows, ids).unwrap_or_else(|| Queue::new(capacity, dim))
            })
        };
        let [images, texts] = std::mem::take(&mut state.queues);
        let queues = [queue(needs.image_queue, images), queue(needs.text_queue, texts)];
        if let Some(saved) = state.mixture.take() {
            mixture.restore(saved)?;
        }
        let len = state.params.len();
        if momentum.is_some() && state.keys.is_empty() {
            state.keys = state.params.clone();
        }
        if recipe.train.average > 0.0 && state.average.is_empty() {
            state.average = state.params.clone();
        }
        let decays = model.layout().decay_mask();
        let rates =
            rates(&model, recipe.train.tower_rate, !recipe.towers.paths().iter().all(Option::is_none));
        Ok(Self {
            model,
            state,
            mixture,
            scalars,
            bounds,
            queues,
            momentum,
            settings: recipe.train.clone(),
            steps,
            grads: vec![0f32; len],
            decays,
            rates,
        })
    }

    /// The weights that are validated and written: the average, where there is one.
    pub fn weights(&self) -> &[f32] {
        if self.state.average.is_empty() { &self.state.params } else { &self.state.average }
    }

    /// The state with what else a checkpoint keeps.
    pub fn keep(&self) -> State {
        let mut state = self.state.clone();
        state.mixture = Some(self.mixture.state().clone());
        for (kept, queue) in state.queues.iter_mut().zip(&self.queues) {
            if let Some(queue) = queue {
                let view = queue.view();
                *kept = (view.rows.to_vec(), view.ids.to_vec());
            }
        }
        state
    }

    /// `logit_scale` and `logit_bias` as a model directory states them. Where no objective learns a
    /// temperature, the first one's fixed one stands, or else CLIP's start.
    pub fn logits(&self, weights: &[f32]) -> (f32, Option<f32>) {
        let fixed = self.mixture.terms().iter().find_map(|term| term.objective.temperature());
        let start = -fixed.unwrap_or(0.07).ln();
        let scale = self.scalar("logit_scale", weights).unwrap_or(start);
        (scale.min(LOGIT_SCALE_MAX), self.scalar("logit_bias", weights))
    }

    fn scalar(&self, name: &str, weights: &[f32]) -> Option<f32> {
        let at = self.bounds.iter().position(|scalar| scalar.name.ends_with(name))?;
        Some(weights[self.scalars.start + at])
    }

    /// One optimiser step, over as many batches as the recipe accumulates.
    pub fn step(&mut self, sampler: &mut Sampler<'_>) -> Result<Step, Failed> {
        let accumulate = self.settings.accumulate as u64;
        self.grads.fill(0.0);
        let (mut loss, mut terms) = (0.0, Vec::new());
        let mut last = None;
        for part in 0..accumulate {
            let batch = sampler.batch(self.state.step * accumulate + part);
            let mixed = self.learn(&batch)?;
            let part_loss = mixed.gradients.loss;
            if !part_loss.is_finite() {
                let step = self.state.step + 1;
                return Err(Failed::NotFinite { what: "loss", step, batch: Box::new(batch) });
            }
            loss += part_loss / accumulate as f32;
            terms = mixed.terms.iter().map(|term| (term.kind.to_owned(), term.loss)).collect();
            last = Some(batch);
        }
        let settings = &self.settings;
        let share = 1.0 / accumulate as f32;
        let (norm, clip) = clip_factor(&self.grads, settings.gradient_clip / share);
        let gradient_norm = norm * share;
        if let (false, Some(batch)) = (gradient_norm.is_finite(), last) {
            let step = self.state.step + 1;
            return Err(Failed::NotFinite { what: "gradient", step, batch: Box::new(batch) });
        }
        let rate = learning_rate(self.state.step, settings.warmup_steps, self.steps, settings.learning_rate);
        self.update(rate, clip * share);
        Ok(Step { loss, terms, learning_rate: rate, gradient_norm })
    }

    /// Adds the gradient of one batch.
    fn learn(&mut self, batch: &Batch) -> Result<Mixed, Failed> {
        let (n, m) = (batch.pictures.len(), batch.text_numbers.len());
        let images = batch.images.joined(batch.second_images.as_ref());
        let texts = batch.texts.joined(batch.second_texts.as_ref());
        let needs = self.mixture.needs();
        let mut key = |modality, wanted: bool, inputs: &Inputs| match wanted {
            true => self.model.embed(modality, &self.state.keys, inputs, None),
            false => Vec::new(),
        };
        let other_view = batch.second_images.as_ref().unwrap_or(&batch.images);
        let key_images = key(Modality::Image, needs.key_images, other_view);
        let key_texts = key(Modality::Text, needs.key_texts, &batch.texts);

        let texts_per_image = (m / n).max(1);
        let micro = if self.settings.micro_batch == 0 { usize::MAX } else { self.settings.micro_batch };
        let seeds = [batch.seed, !batch.seed];
        let image_pieces = pieces(n * (1 + usize::from(batch.second_images.is_some())), micro);
        let text_pieces = pieces(
            m * (1 + usize::from(batch.second_texts.is_some())),
            micro.saturating_mul(texts_per_image),
        );
        let image_rows = self.embed(Modality::Image, &images, &image_pieces, seeds[0]);
        let text_rows = self.embed(Modality::Text, &texts, &text_pieces, seeds[1]);

        let dim = self.model.dim();
        let (first_images, second_images) = image_rows.split_at(n * dim);
        let (first_texts, second_texts) = text_rows.split_at(m * dim);
        let views = Views {
            second_images,
            second_texts,
            key_images: &key_images,
            key_texts: &key_texts,
            image_ids: &batch.image_ids,
            text_ids: &batch.text_ids,
            image_queue: self.queues[0].as_ref().map(Queue::view).unwrap_or_default(),
            text_queue: self.queues[1].as_ref().map(Queue::view).unwrap_or_default(),
            label_similarity: &batch.label_similarity,
            ..Views::pairs(dim, first_images, first_texts, &batch.relation)
        };
        let mixed = self.mixture.evaluate(&views, &self.state.params[self.scalars.clone()])?;
        let g = &mixed.gradients;
        let d_images = [g.images.as_slice(), &g.second_images].concat();
        self.back(Modality::Image, &images, &image_pieces, &d_images, seeds[0]);
        let d_texts = [g.texts.as_slice(), &g.second_texts].concat();
        self.back(Modality::Text, &texts, &text_pieces, &d_texts, seeds[1]);
        for (grad, d) in self.grads[self.scalars.clone()].iter_mut().zip(&g.scalars) {
            *grad += d;
        }
        self.mixture.observe(&mixed);
        let keys = [(&key_images, &batch.image_ids), (&key_texts, &batch.text_ids)];
        for (queue, (rows, ids)) in self.queues.iter_mut().zip(keys) {
            if let Some(queue) = queue {
                queue.push(rows, ids);
            }
        }
        Ok(mixed)
    }

    /// Embeds inputs piece by piece. After a single piece the tapes are as the way back wants them.
    fn embed(&mut self, modality: Modality, inputs: &Inputs, pieces: &[Range<usize>], seed: u64) -> Vec<f32> {
        let params = &self.state.params;
        if pieces.len() == 1 {
            return self.model.embed(modality, params, inputs, Some((seed, 0)));
        }
        let piece = |piece: &Range<usize>| {
            let inputs = inputs.piece(piece, self.model.side(modality).values());
            self.model.embed(modality, params, &inputs, Some((seed, piece.start)))
        };
        pieces.iter().flat_map(piece).collect()
    }

    /// The way back through one side. Where there are several pieces, each is run again first: what was
    /// kept is the gradient of its rows, not its tapes.
    fn back(
        &mut self,
        modality: Modality,
        inputs: &Inputs,
        pieces: &[Range<usize>],
        d_rows: &[f32],
        seed: u64,
    ) {
        let (params, dim) = (&self.state.params, self.model.dim());
        if pieces.len() == 1 {
            return self.model.backward(modality, params, inputs, d_rows, &mut self.grads);
        }
        for piece in pieces {
            let inputs = inputs.piece(piece, self.model.side(modality).values());
            self.model.embed(modality, params, &inputs, Some((seed, piece.start)));
            let d_rows = &d_rows[piece.start * dim..piece.end * dim];
            self.model.backward(modality, params, &inputs, d_rows, &mut self.grads);
        }
    }

    /// Changes the parameters by the gradients, and everything that follows them.
    fn update(&mut self, learning_rate: f32, gradient_scale: f32) {
        let (state, settings) = (&mut self.state, &self.settings);
        state.step += 1;
        let update = Update {
            step: state.step,
            learning_rate,
            beta2: settings.beta2,
            weight_decay: settings.weight_decay,
            gradient_scale,
        };
        state.adam.update(&mut state.params, &self.grads, &self.decays, &self.rates, update);
        for (value, bound) in state.params[self.scalars.clone()].iter_mut().zip(&self.bounds) {
            *value = value.clamp(bound.low, bound.high);
        }
        if !state.average.is_empty() {
            // Young averages follow faster, or they would remember the start for long.
            let young = (1.0 + state.step as f32) / (10.0 + state.step as f32);
            momentum_step(&mut state.average, &state.params, settings.average.min(young));
        }
        if let Some(momentum) = self.momentum {
            momentum_step(&mut state.keys, &state.params, momentum);
        }
    }
}

/// Runs of `size` samples.
fn pieces(samples: usize, size: usize) -> Vec<Range<usize>> {
    (0..samples)
        .step_by(size.min(samples.max(1)))
        .map(|at| at..samples.min(at.saturating_add(size)))
        .collect()
}

/// The factor on the learning rate of every parameter: one, but for open towers that were trained before.
fn rates(model: &Model, tower_rate: f32, pretrained: bool) -> Vec<f32> {
    let mut rates = vec![1f32; model.layout().len()];
    if pretrained {
        let slots = model.layout().slots().iter().filter(|slot| slot.span.trained());
        let towers =
            slots.filter(|slot| ![IMAGE_HEAD, TEXT_HEAD, OBJECTIVE].iter().any(|p| slot.name.starts_with(p)));
        towers.for_each(|slot| slot.span.of_mut(&mut rates).fill(tower_rate));
    }
    rates
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::Ordering;
    use std::time::Instant;

    use super::*;
    use crate::data;
    use crate::features::Desk;
    use crate::objective::Mixture;
    use crate::ops::PRODUCT_NANOS;
    use crate::params::Init;
    use crate::sampler::Wants;
    use crate::setup::{Setup, setup};

    /// A few phantoms and a very small model.
    fn small() -> Recipe {
        Recipe::from_toml(
            "data = { phantom = { cases = 8, seed = 1 } }
            model = { image_size = 16, vision_width = 8, vision_layers = 1, vision_heads = 2, text_width = 8,
                      text_layers = 1, text_heads = 2, context_length = 16, projection_dim = 4 }
            train = { steps = 150, batch_size = 4, warmup_steps = 1, learning_rate = 0.02 }
            augment = { shift = 0.0, scale = 0.0, brightness = 0.0, contrast = 0.0, noise = 0.0 }",
        )
        .unwrap()
    }

    /// Calls `run` with the trainer of a recipe.
    fn with_trainer(recipe: &Recipe, run: impl FnOnce(&mut Trainer, &mut Sampler<'_>, &Collection)) {
        let train = data::load(&recipe.data).unwrap().train;
        let mixture = Mixture::new(recipe.objective.clone(), recipe.train.weighting).unwrap();
        let mut desk = Desk { folder: Path::new(""), progress: &mut |_, _| {} };
        let bounds = mixture.scalars();
        let Setup { model, start, scalars, train: (images, texts), .. } =
            setup(recipe, bounds.clone(), &train, &Collection::default(), &mut desk).unwrap();
        let mut sampler =
            Sampler::new(&train, &images, &texts, recipe.text.clone(), &recipe.train, Wants::default());
        let state = State::new(start);
        let mut trainer = Trainer::new(model, mixture, scalars, bounds, state, recipe, 150).unwrap();
        run(&mut trainer, &mut sampler, &train);
    }

    #[test]
    fn numbers_that_are_not_finite_change_nothing_and_name_their_batch() {
        with_trainer(&small(), |trainer, sampler, collection| {
            assert!(trainer.step(sampler).is_ok());
            trainer.state.params[5] = f32::NAN;
            let before = trainer.state.clone();
            let failed = trainer.step(sampler).err().unwrap();
            assert_eq!((trainer.state.step, &trainer.state.adam), (before.step, &before.adam));
            let out = tempfile::tempdir().unwrap();
            let error = failed.into_error(out.path(), collection);
            assert!(matches!(error, TrainError::NotFinite { what: "loss", step: 2, .. }), "{error}");
            assert!(error.to_string().contains(FAILED_BATCH_FILE), "{error}");
            let listed = std::fs::read_to_string(out.path().join(FAILED_BATCH_FILE)).unwrap();
            assert_eq!(listed.lines().count(), 4);
            assert!(listed.lines().all(|line| line.starts_with("phantom ")), "{listed}");
        });
    }

    #[test]
    fn steps_lower_the_loss_and_the_temperature_keeps_its_bound() {
        with_trainer(&small(), |trainer, sampler, _| {
            let losses: Vec<f32> = (0..150).map(|_| trainer.step(sampler).ok().unwrap().loss).collect();
            let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
            assert!(mean(&losses[130..]) < 0.7 * mean(&losses[..20]), "{losses:?}");
            trainer.state.params.last_mut().into_iter().for_each(|scale| *scale = 9.0);
            assert!(trainer.step(sampler).is_ok());
            assert!(temperature(trainer).unwrap() >= 0.0099);
        });
    }

    /// Prints how long ten passes of heads over 100,000 pairs of features take, and how much of a step is
    /// matrix products; run it with `--ignored` on a quiet machine.
    #[test]
    #[ignore = "a measurement, not a check"]
    fn speed_of_heads_on_cached_features() {
        use crate::data::{Picture, Record};
        use crate::features::Features;
        use crate::head::Head;
        use crate::model::{Side, Trunk};
        use crate::params::Layout;
        use crate::recipe::HeadRecipe;
        use crate::report_views::Views as TextViews;
        use crate::sampler::{Images, Purpose, TextInputs, Texts, generator};

        const PAIRS: usize = 100_000;
        const WIDTH: usize = 512;
        const BATCH: usize = 512;
        let rows = |seed: usize| -> Vec<f32> {
            (0..PAIRS * WIDTH).map(|i| ((i * 7919 + seed) % 1009) as f32 / 504.5 - 1.0).collect()
        };
        let record = |i: usize| Record { texts: TextViews::of(&[format!("text {i}")]), labels: Vec::new() };
        let collection = Collection {
            pictures: (0..PAIRS).map(|i| Picture::Phantom(0, i as u64)).collect(),
            record_of: (0..PAIRS as u32).collect(),
            records: (0..PAIRS).map(record).collect(),
        };
        let (_, of_record) = Texts::distinct(&collection);
        let images = Images::Features(Features { width: WIDTH, rows: rows(1) }, 0);
        let texts =
            Texts { inputs: TextInputs::Features(Features { width: WIDTH, rows: rows(2) }), of_record };
        let mut recipe = Recipe::from_toml("[data.phantom]\ncases = 100000\nseed = 1\n").unwrap();
        recipe.train.batch_size = BATCH;
        let (mut layout, head) = (Layout::default(), HeadRecipe::default());
        let image = Head::new(&head, "image_head", WIDTH, None, &mut layout);
        let image = Side::new(Trunk::Rows(WIDTH), Some(image), 0..layout.len());
        let before = layout.len();
        let text = Head::new(&head, "text_head", WIDTH, None, &mut layout);
        let text = Side::new(Trunk::Rows(WIDTH), Some(text), before..layout.len());
        let mixture = Mixture::new(recipe.objective.clone(), recipe.train.weighting).unwrap();
        let bounds = mixture.scalars();
        let scalars = layout.push("objective.scale".to_owned(), &[], Init::Constant(2.6), false).range();
        let state = State::new(layout.init(&mut generator(1, Purpose::Weights, 0)));
        let model = Model::new(image, text, layout, Vec::new());
        let mut trainer = Trainer::new(model, mixture, scalars, bounds, state, &recipe, 10_000).unwrap();
        let mut sampler =
            Sampler::new(&collection, &images, &texts, recipe.text.clone(), &recipe.train, Wants::default());

        let (seconds, share) = measured(&mut trainer, &mut sampler);
        eprintln!(
            "a step of {BATCH} takes {:.1} ms, {:.0} % in products; 100,000 pairs, 10 times: {:.0} s",
            1e3 * seconds,
            100.0 * share,
            seconds * 10.0 * PAIRS as f64 / BATCH as f64
        );
    }

    /// Median seconds of a step, and the share of products in the time of all threads.
    fn measured(trainer: &mut Trainer, sampler: &mut Sampler<'_>) -> (f64, f64) {
        let threads = rayon::current_num_threads() as f64;
        let mut rounds: Vec<(f64, f64)> = (0..60)
            .map(|_| {
                let (start, before) = (Instant::now(), PRODUCT_NANOS.load(Ordering::Relaxed));
                assert!(trainer.step(sampler).is_ok());
                let seconds = start.elapsed().as_secs_f64();
                let products = 1e-9 * (PRODUCT_NANOS.load(Ordering::Relaxed) - before) as f64;
                (seconds, products / (seconds * threads))
            })
            .skip(10)
            .collect();
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        rounds[rounds.len() / 2]
    }

    /// Prints how much of a step of towers from scratch is matrix products.
    #[test]
    #[ignore = "a measurement, not a check"]
    fn speed_of_towers_from_scratch() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/recipes/objectives/info-nce.toml");
        let mut recipe = Recipe::from_file(&path).unwrap();
        recipe.data.phantom.as_mut().unwrap().cases = 512;
        with_trainer(&recipe, |trainer, sampler, _| {
            let (seconds, share) = measured(trainer, sampler);
            eprintln!(
                "a step of {} takes {:.1} ms, {:.0} % in products",
                recipe.train.batch_size,
                1e3 * seconds,
                1e2 * share
            );
        });
    }

    #[test]
    fn pieces_cover_a_batch_in_order() {
        assert_eq!(pieces(7, 3), [0..3, 3..6, 6..7]);
        assert_eq!(pieces(4, usize::MAX), std::iter::once(0..4).collect::<Vec<_>>());
    }
}
