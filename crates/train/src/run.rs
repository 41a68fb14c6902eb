//! The loop that turns a recipe into a model directory.
//!
//! Owns: the order of things, from reading pairs to the last file, checkpoints in between, the log,
//! and stopping on numbers that are not finite. Deliberately absent: the numbers themselves.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use diptych_encoder::{CLIP_MEAN, CLIP_STD, Preprocessing, TextTokenizer};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, Origin, State};
use crate::data;
use crate::error::{TrainError, io};
use crate::exam::Exam;
use crate::export;
use crate::files;
use crate::loss::LOGIT_SCALE_MAX;
use crate::model::{Batch, Model, ModelShape};
use crate::optimizer::{AdamW, Update, clip_factor, learning_rate};
use crate::recipe::{Recipe, TrainSettings};
use crate::sampler::{Purpose, Sampler, generator};
use crate::tower::TowerShape;
use crate::validation::Validation;
use crate::vocabulary::Vocabulary;

/// Name of the log within the output directory: one JSON object per step.
pub const LOG_FILE: &str = "training.jsonl";

/// What to do with a checkpoint in the output directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resume {
    /// Continue from it. The result is the same, bit for bit, as without the interruption.
    #[default]
    Continue,
    /// Discard it and start from the first step.
    Restart,
}

/// A sign of life, at least once per step.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Loss of the last step in nats; `ln batch_size` is that of a model that knows nothing.
    pub loss: f32,
    /// Temperature after the last step.
    pub temperature: f32,
    /// Pairs per second of this process so far.
    pub pairs_per_second: f64,
    /// Seconds until the last step at that rate; 0 while unknown.
    pub eta_seconds: f64,
    /// The validation that was just made, if one was.
    pub validation: Option<Validation>,
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Rendering or reading pairs, and learning the tokenizer.
    Data,
    /// Optimiser steps.
    Steps,
}

/// What a finished run has to say.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// Steps of the whole run, over all its processes.
    pub steps: u64,
    /// Steps that were found done in a checkpoint.
    pub resumed_at: u64,
    /// Loss of the last step.
    pub loss: f32,
    /// Learned temperature.
    pub temperature: f32,
    /// Pairs per second of this process; 0 when nothing was left to do.
    pub pairs_per_second: f64,
    /// Parameters of the model.
    pub parameters: usize,
    /// Bytes of all files of the model directory.
    pub bytes: u64,
    /// Scores on held-out pairs, when the recipe holds some out.
    pub validation: Option<Validation>,
}

/// One line of the log.
#[derive(Debug, Serialize, Deserialize)]
struct LogLine {
    step: u64,
    loss: f32,
    temperature: f32,
    learning_rate: f32,
    gradient_norm: f32,
    pairs_per_second: f64,
}

/// Carries out a recipe and writes a model directory to `out`: config.json, model.safetensors,
/// preprocessor_config.json, the tokenizer's files, and [`LOG_FILE`]. While it runs, and after, `out`
/// also holds a folder `checkpoint`; a run that is stopped at any moment continues from there.
///
/// # Errors
/// [`TrainError`]; what was checkpointed before stays intact.
pub fn train(
    recipe: &Recipe,
    out: &Path,
    resume: Resume,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Summary, TrainError> {
    recipe.validate()?;
    files::create_folder(out)?;
    report(progress, Phase::Data, recipe.train.steps);
    let preprocessing = Preprocessing::for_training(recipe.model.image_size, CLIP_MEAN, CLIP_STD);
    let (pairs, held_out) = data::load(&recipe.data, &preprocessing)?;
    if pairs.len() < recipe.train.batch_size {
        let (size, found) = (recipe.train.batch_size, pairs.len());
        let reason = format!("is {size}, more than the {found} training pairs; lower it or add pairs");
        return Err(TrainError::RecipeValue { key: "train.batch_size", reason });
    }
    let texts: Vec<String> = pairs.texts.iter().flat_map(|views| views.whole.iter().cloned()).collect();
    let vocabulary = Vocabulary::learn(&texts, recipe.tokenizer.vocab_size)?;
    let tokenizer = TextTokenizer::from_tokenizers(vocabulary.tokenizer()?, recipe.model.context_length)
        .map_err(|e| TrainError::Tokenizer { reason: e.to_string() })?;
    let exam = Exam::new(held_out, &tokenizer, &preprocessing)?;

    let mut model = Model::new(shape(recipe, vocabulary.len()));
    let origin = Origin {
        recipe: serde_json::to_string(recipe).expect("a recipe is plain numbers and strings"),
        data: format!("{:016x}", pairs.fingerprint()),
    };
    if resume == Resume::Restart {
        discard(out)?;
    }
    let state = checkpoint::load(out, &origin, model.layout().len())?;
    let state = state.unwrap_or_else(|| fresh(&model, recipe.train.seed));
    let resumed_at = state.step;
    let settings = (recipe.train.batch_size, recipe.train.seed);
    let changes = (recipe.augment.clone(), recipe.text.clone());
    let sampler =
        Sampler::new(&pairs, &tokenizer, (CLIP_MEAN, CLIP_STD), preprocessing.side(), changes, settings)?;
    let mut run =
        Run { recipe, out, origin, sampler, trainer: Trainer::new(&mut model, state), exam, log: Vec::new() };
    run.log = read_log(out, resumed_at)?;
    let pairs_per_second = run.steps(progress)?;
    let Run { trainer, exam, log, .. } = run;
    let params = trainer.state.params;

    let validation = exam.sit(&mut model, &params);
    let bytes = export::write(out, &model, &params, &vocabulary, &preprocessing, recipe.output.dtype)?;
    Ok(Summary {
        steps: recipe.train.steps,
        resumed_at,
        loss: log.last().map_or(f32::NAN, |line| line.loss),
        temperature: temperature(&params),
        pairs_per_second,
        parameters: params.len(),
        bytes,
        validation,
    })
}

/// The architecture a recipe asks for.
fn shape(recipe: &Recipe, vocab_size: usize) -> ModelShape {
    let m = &recipe.model;
    let tower = |width, layers, heads| TowerShape { width, layers, heads, projection_dim: m.projection_dim };
    ModelShape {
        image_size: m.image_size,
        patch_size: m.patch_size,
        vision: tower(m.vision_width, m.vision_layers, m.vision_heads),
        text: tower(m.text_width, m.text_layers, m.text_heads),
        vocab_size,
        context_length: m.context_length,
        logit_scale: -recipe.train.temperature.ln(),
    }
}

fn fresh(model: &Model, seed: u64) -> State {
    let params = model.layout().init(&mut generator(seed, Purpose::Weights, 0));
    State { step: 0, adam: AdamW::new(params.len()), params }
}

fn discard(out: &Path) -> Result<(), TrainError> {
    let folder = out.join(checkpoint::FOLDER);
    match fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("remove", &folder)(e)),
        _ => Ok(()),
    }
}

fn temperature(params: &[f32]) -> f32 {
    (-params[params.len() - 1]).exp()
}

fn report(progress: &mut dyn FnMut(&Progress), phase: Phase, steps: u64) {
    let nothing = f32::NAN;
    progress(&Progress {
        phase,
        step: 0,
        steps,
        loss: nothing,
        temperature: nothing,
        pairs_per_second: 0.0,
        eta_seconds: 0.0,
        validation: None,
    });
}

/// The model being trained and what an optimiser step changes.
struct Trainer<'a> {
    model: &'a mut Model,
    state: State,
    grads: Vec<f32>,
    decays: Vec<f32>,
}

/// What one step measured.
struct Step {
    loss: f32,
    learning_rate: f32,
    gradient_norm: f32,
}

impl<'a> Trainer<'a> {
    fn new(model: &'a mut Model, state: State) -> Self {
        let (grads, decays) = (vec![0f32; state.params.len()], model.layout().decay_mask());
        Self { model, state, grads, decays }
    }

    /// One optimiser step. On an error the state is what it was before.
    fn step(&mut self, batch: &Batch, settings: &TrainSettings) -> Result<Step, TrainError> {
        let state = &mut self.state;
        let logit_scale = state.params[state.params.len() - 1];
        let check = |value: f32, what: &'static str| {
            let error = TrainError::NotFinite { what, step: state.step + 1, logit_scale };
            if value.is_finite() { Ok(()) } else { Err(error) }
        };
        let loss = self.model.loss_and_gradient(&state.params, batch, &mut self.grads);
        check(loss, "loss")?;
        let (gradient_norm, gradient_scale) = clip_factor(&self.grads, settings.gradient_clip);
        check(gradient_norm, "gradient")?;
        let learning_rate =
            learning_rate(state.step, settings.warmup_steps, settings.steps, settings.learning_rate);
        state.step += 1;
        let weight_decay = settings.weight_decay;
        let update = Update { step: state.step, learning_rate, weight_decay, gradient_scale };
        state.adam.update(&mut state.params, &self.grads, &self.decays, update);
        let last = state.params.len() - 1;
        state.params[last] = state.params[last].clamp(0.0, LOGIT_SCALE_MAX);
        Ok(Step { loss, learning_rate, gradient_norm })
    }
}

/// Everything the loop needs.
struct Run<'a> {
    recipe: &'a Recipe,
    out: &'a Path,
    origin: Origin,
    sampler: Sampler<'a>,
    trainer: Trainer<'a>,
    exam: Exam,
    log: Vec<LogLine>,
}

impl Run<'_> {
    /// All remaining steps; returns pairs per second.
    fn steps(&mut self, progress: &mut dyn FnMut(&Progress)) -> Result<f64, TrainError> {
        let settings = &self.recipe.train;
        let first = self.trainer.state.step;
        let mut spent = Duration::ZERO;
        let mut rate = 0.0;
        while self.trainer.state.step < settings.steps {
            let start = Instant::now();
            let batch = self.sampler.batch(self.trainer.state.step);
            let Step { loss, learning_rate, gradient_norm } = self.trainer.step(&batch, settings)?;
            spent += start.elapsed();
            let step = self.trainer.state.step;
            let temperature = temperature(&self.trainer.state.params);
            rate = (step - first) as f64 * settings.batch_size as f64 / spent.as_secs_f64().max(1e-9);
            self.log.push(LogLine {
                step,
                loss,
                temperature,
                learning_rate,
                gradient_norm,
                pairs_per_second: rate,
            });
            let due = |every: u64| every > 0 && step.is_multiple_of(every) && step < settings.steps;
            if due(settings.checkpoint_every) || step == settings.steps {
                self.save()?;
            }
            let validation = if due(settings.validate_every) {
                self.exam.sit(self.trainer.model, &self.trainer.state.params)
            } else {
                None
            };
            let left = (settings.steps - step) as f64 * settings.batch_size as f64;
            progress(&Progress {
                phase: Phase::Steps,
                step,
                steps: settings.steps,
                loss,
                temperature,
                pairs_per_second: rate,
                eta_seconds: left / rate,
                validation,
            });
        }
        Ok(rate)
    }

    /// Writes log and checkpoint. The log goes first: lines past the checkpoint are dropped when the
    /// run is continued.
    fn save(&self) -> Result<(), TrainError> {
        let mut lines = String::new();
        for line in &self.log {
            lines.push_str(&serde_json::to_string(line).expect("plain numbers always serialise"));
            lines.push('\n');
        }
        files::replace(&self.out.join(LOG_FILE), lines.as_bytes())?;
        checkpoint::save(self.out, &self.trainer.state, &self.origin)
    }
}

/// The log's lines up to a step.
fn read_log(out: &Path, step: u64) -> Result<Vec<LogLine>, TrainError> {
    let path = out.join(LOG_FILE);
    if step == 0 || !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&path).map_err(io("read", &path))?;
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|l: &LogLine| l.step <= step)
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn recipe() -> Recipe {
        Recipe::from_toml(
            "data = { phantom = { cases = 8, seed = 1 } }
            model = { image_size = 16, vision_width = 8, vision_layers = 1, vision_heads = 2, text_width = 8,
                      text_layers = 1, text_heads = 2, context_length = 8, projection_dim = 4 }
            train = { steps = 4, batch_size = 4, warmup_steps = 1 }",
        )
        .unwrap()
    }

    fn batch() -> Batch {
        let images = (0..4 * 3 * 16 * 16).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let texts = (0..4u32).map(|i| vec![20, i, 2 * i + 1, 21]).collect();
        Batch { images, texts }
    }

    #[test]
    fn a_step_on_numbers_that_are_not_finite_changes_nothing() {
        let recipe = recipe();
        let mut model = Model::new(shape(&recipe, 22));
        let state = fresh(&model, 1);
        let mut trainer = Trainer::new(&mut model, state);
        trainer.step(&batch(), &recipe.train).unwrap();
        let before = trainer.state.clone();
        let mut poisoned = batch();
        poisoned.images[5] = f32::NAN;
        let error = trainer.step(&poisoned, &recipe.train).map(|s| s.loss).unwrap_err();
        assert!(matches!(error, TrainError::NotFinite { what: "loss", step: 2, .. }), "{error}");
        assert!(error.to_string().contains("train.learning_rate"), "{error}");
        assert_eq!(trainer.state, before);
        assert_eq!(trainer.step(&batch(), &recipe.train).map(|s| s.loss.is_finite()).ok(), Some(true));
    }

    #[test]
    fn steps_lower_the_loss_and_the_temperature_keeps_its_bound() {
        let recipe = recipe();
        let mut model = Model::new(shape(&recipe, 22));
        let state = fresh(&model, 1);
        let mut trainer = Trainer::new(&mut model, state);
        let settings = TrainSettings { steps: 150, learning_rate: 0.02, ..recipe.train };
        let losses: Vec<f32> = (0..150).map(|_| trainer.step(&batch(), &settings).unwrap().loss).collect();
        assert!(losses[0] > 1.0 && losses[149] < 0.1, "{} to {}", losses[0], losses[149]);
        trainer.state.params.last_mut().into_iter().for_each(|scale| *scale = 9.0);
        trainer.step(&batch(), &settings).unwrap();
        assert!(temperature(&trainer.state.params) >= 0.0099);
    }
}
