//! The loop that turns a recipe into a model directory.
//!
//! Owns: the order of things, from reading pairs to the last file, checkpoints in between, and which
//! weights are kept. Deliberately absent: a single step (see `step`) and the numbers within it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::align::Aligner;
use crate::checkpoint::{self, Origin, State};
use crate::data::{self, Collection, fingerprint};
use crate::error::TrainError;
use crate::exam::{Exam, Validation};
use crate::features::Desk;
use crate::log::{Line, Log, StepLine, ValidationLine};
use crate::objective::Mixture;
use crate::product::Product;
use crate::ready;
use crate::recipe::{Keep, Recipe};
use crate::sampler::{Sampler, Wants};
use crate::setup::{Setup, setup};
use crate::step::{Step, Trainer, temperature};

/// Folder of cached features within the output directory, unless another is named.
pub const FEATURES_FOLDER: &str = "features";

/// What a closed form states for the temperature that it does not learn: CLIP's start, `ln(1 / 0.07)`.
const LOGIT_SCALE: f32 = 2.6592;

/// What to do with a run that the output directory holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resume {
    /// Refuse to touch it.
    #[default]
    Refuse,
    /// Continue it. The result is the same, bit for bit, as without the interruption.
    Continue,
    /// Discard it and start from the first step.
    Restart,
}

/// How a recipe is carried out, as far as it does not decide the result.
#[derive(Debug, Clone, Default)]
pub struct TrainOptions {
    /// What to do with a run that is there already.
    pub resume: Resume,
    /// Where features of frozen towers are kept; [`FEATURES_FOLDER`] in the output directory when `None`.
    /// Runs over the same data may share one.
    pub features: Option<PathBuf>,
    /// Whether to refuse to write a model that finds the held-out pairs no better than before the first
    /// step. Only with [`Keep::Best`].
    pub refuse_worse: bool,
}

/// A sign of life, at least once per step.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Steps, or items in other phases, done.
    pub step: u64,
    /// In all.
    pub steps: u64,
    /// Loss of the last step.
    pub loss: f32,
    /// Temperature after the last step, where one is learned.
    pub temperature: Option<f32>,
    /// Images per second of this process so far.
    pub images_per_second: f64,
    /// Seconds until the last step at that rate; 0 while unknown.
    pub eta_seconds: f64,
    /// The validation that was just made, if one was.
    pub validation: Option<Validation>,
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading pairs, rendering, learning the tokenizer.
    Data,
    /// Running frozen towers over the data, or reading what they gave last time.
    Features,
    /// Optimiser steps.
    Steps,
}

impl Progress {
    fn of(phase: Phase, step: u64, steps: u64) -> Self {
        Self {
            phase,
            step,
            steps,
            loss: f32::NAN,
            temperature: None,
            images_per_second: 0.0,
            eta_seconds: 0.0,
            validation: None,
        }
    }
}

/// What a finished run has to say.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// Steps of the whole run, over all its processes; fewer than planned when it stopped early.
    pub steps: u64,
    /// Steps that were found done in a checkpoint.
    pub resumed_at: u64,
    /// Loss of the last step; not a number where there was none.
    pub loss: f32,
    /// Learned temperature, where one is.
    pub temperature: Option<f32>,
    /// Images per second of this process; 0 when nothing was left to do.
    pub images_per_second: f64,
    /// Seconds of this process in steps.
    pub seconds: f64,
    /// Parameters that were trained.
    pub parameters: usize,
    /// Bytes of all files of the model directory.
    pub bytes: u64,
    /// Scores on held-out records before the first step, when the best weights are kept.
    pub first: Option<Validation>,
    /// Scores on held-out records, when there are any.
    pub validation: Option<Validation>,
}

/// Carries out a recipe and writes a model directory to `out`, with the log [`LOG_FILE`](crate::LOG_FILE)
/// and its curves [`CURVES_FILE`](crate::CURVES_FILE). While it runs, and after, `out` also holds a folder
/// `checkpoint`; a run that is stopped at any moment continues from there.
///
/// # Errors
/// [`TrainError`]; what was checkpointed before stays intact.
pub fn train(
    recipe: &Recipe,
    out: &Path,
    options: &TrainOptions,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Summary, TrainError> {
    recipe.validate()?;
    let recipe = &recipe.resolved();
    progress(&Progress::of(Phase::Data, 0, recipe.train.steps));
    let data = data::load(&recipe.data)?;
    let (train, held_out) = (&data.train, &data.held_out);
    ready::check(recipe, train, out)?;
    let steps = recipe.train.steps_over(train.pictures.len());
    let _lock = ready::prepare(out, options.resume, steps)?;
    data.list_held_out(out)?;
    let folder = options.features.clone().unwrap_or_else(|| out.join(FEATURES_FOLDER));
    let mut told = |done, all| progress(&Progress::of(Phase::Features, done, all));
    let mut desk = Desk { folder: &folder, progress: &mut told };
    if recipe.closed_form().is_some() {
        return solve(recipe, out, (train, held_out), &mut desk);
    }
    let mixture = Mixture::new(recipe.objective.clone(), recipe.train.weighting)?;
    let bounds = mixture.scalars();
    let Setup { model, start, scalars, train: (images, texts), held_out: held, product } =
        setup(recipe, bounds.clone(), train, held_out, &mut desk)?;
    let exam = Exam::new(held_out, held.0, held.1);
    let origin = Origin {
        recipe: serde_json::to_string(recipe).expect("a recipe is plain numbers and strings"),
        data: format!("{:016x}", fingerprint(&images.fingerprint().to_le_bytes(), train.fingerprint())),
    };
    let needs = mixture.needs();
    let wants = Wants {
        second_images: needs.second_images,
        second_texts: needs.second_texts,
        labels: needs.label_similarity,
    };
    let state = checkpoint::load(out, &origin, model.layout().len())?.unwrap_or_else(|| State::new(start));
    let resumed_at = state.step;
    let sampler = Sampler::new(train, &images, &texts, recipe.text.clone(), &recipe.train, wants);
    let aligner = match mixture.leaves_sides_apart() {
        true => Some(Aligner::new(&model, train, &images, &texts)?),
        false => None,
    };
    let trainer = Trainer::new(model, mixture, scalars, bounds, state, recipe, steps)?;
    let mut run = Run {
        recipe,
        out,
        train,
        steps,
        origin,
        sampler,
        trainer,
        aligner,
        exam,
        log: Log::open(out, resumed_at)?,
        spent: Duration::ZERO,
    };
    if resumed_at == 0 && recipe.train.keep == Keep::Best {
        run.look()?;
    }
    run.go(progress)?;
    run.finish(&product, resumed_at, options.refuse_worse)
}

/// A run without steps: what is solved for while the model is set up is all there is to learn.
fn solve(
    recipe: &Recipe,
    out: &Path,
    (train, held_out): (&Collection, &Collection),
    desk: &mut Desk<'_>,
) -> Result<Summary, TrainError> {
    let started = Instant::now();
    let Setup { mut model, start, held_out: held, product, .. } =
        setup(recipe, Vec::new(), train, held_out, desk)?;
    let seconds = started.elapsed().as_secs_f64();
    let validation = match Exam::new(held_out, held.0, held.1) {
        Some(exam) => exam.sit(&mut model, &start)?,
        None => None,
    };
    let bytes = product.write(out, &model, &start, LOGIT_SCALE, None)?;
    Ok(Summary {
        steps: 0,
        resumed_at: 0,
        loss: f32::NAN,
        temperature: None,
        images_per_second: 0.0,
        seconds,
        parameters: model.layout().frozen_len(),
        bytes,
        first: None,
        validation,
    })
}

/// Everything the loop needs.
struct Run<'a> {
    recipe: &'a Recipe,
    out: &'a Path,
    train: &'a Collection,
    steps: u64,
    origin: Origin,
    sampler: Sampler<'a>,
    trainer: Trainer,
    aligner: Option<Aligner<'a>>,
    exam: Option<Exam>,
    log: Log,
    spent: Duration,
}

impl Run<'_> {
    /// All remaining steps.
    fn go(&mut self, progress: &mut dyn FnMut(&Progress)) -> Result<(), TrainError> {
        let settings = &self.recipe.train;
        let first = self.trainer.state.step;
        let images = (settings.batch_size * settings.accumulate) as f64;
        while self.trainer.state.step < self.steps && !self.stale() {
            let start = Instant::now();
            let step = self.trainer.step(&mut self.sampler);
            let step = step.map_err(|failed| failed.into_error(self.out, self.train))?;
            self.spent += start.elapsed();
            let done = self.trainer.state.step;
            let rate = (done - first) as f64 * images / self.spent.as_secs_f64().max(1e-9);
            let temperature = temperature(&self.trainer);
            let Step { loss, terms, learning_rate, gradient_norm } = step;
            self.log.push(Line::Step(StepLine {
                step: done,
                loss,
                terms,
                temperature,
                learning_rate,
                gradient_norm,
                images_per_second: rate,
            }));
            let last = self.steps;
            let due = |every: u64| every > 0 && done.is_multiple_of(every) && done < last;
            let validation = if due(settings.validate_every) { self.look()? } else { None };
            if due(settings.checkpoint_every) || done == self.steps || self.stale() {
                self.save()?;
            }
            progress(&Progress {
                loss,
                temperature,
                images_per_second: rate,
                eta_seconds: (self.steps - done) as f64 * images / rate,
                validation,
                ..Progress::of(Phase::Steps, done, self.steps)
            });
        }
        Ok(())
    }

    /// Whether the last validations brought no new best.
    fn stale(&self) -> bool {
        let patience = self.recipe.train.patience;
        patience > 0 && self.trainer.state.stale >= patience
    }

    /// The weights as they are validated and written.
    fn aligned(&mut self, weights: &[f32]) -> Result<Vec<f32>, TrainError> {
        match &self.aligner {
            Some(aligner) => aligner.aligned(&mut self.trainer.model, weights),
            None => Ok(weights.to_vec()),
        }
    }

    fn validation(&mut self, weights: &[f32]) -> Result<Option<Validation>, TrainError> {
        match &self.exam {
            Some(exam) => exam.sit(&mut self.trainer.model, weights),
            None => Ok(None),
        }
    }

    /// Validates the weights as they are and remembers them if they are the best so far.
    fn look(&mut self) -> Result<Option<Validation>, TrainError> {
        if self.exam.is_none() {
            return Ok(None);
        }
        let weights = self.trainer.weights().to_vec();
        let aligned = self.aligned(&weights)?;
        let validation = self.validation(&aligned)?;
        if let Some(validation) = validation {
            let state = &mut self.trainer.state;
            self.log.push(Line::Validation(ValidationLine { step: state.step, validation }));
            let score = validation.score() as f32;
            if score > state.best.1 {
                let kept = if self.recipe.train.keep == Keep::Best { weights } else { Vec::new() };
                state.best = (kept, score);
                state.stale = 0;
            } else {
                state.stale += 1;
            }
        }
        Ok(validation)
    }

    /// Writes log and checkpoint. The log goes first: lines past the checkpoint are dropped when the
    /// run is continued.
    fn save(&mut self) -> Result<(), TrainError> {
        self.log.flush()?;
        checkpoint::save(self.out, &self.trainer.keep(), &self.origin)
    }

    /// Looks at the last weights, chooses those to write, and writes them.
    fn finish(
        mut self,
        product: &Product,
        resumed_at: u64,
        refuse_worse: bool,
    ) -> Result<Summary, TrainError> {
        let mut validation = self.look()?;
        self.log.flush()?;
        let best = self.recipe.train.keep == Keep::Best && !self.trainer.state.best.0.is_empty();
        let weights = match best {
            true => self.trainer.state.best.0.clone(),
            false => self.trainer.weights().to_vec(),
        };
        let weights = self.aligned(&weights)?;
        if best {
            validation = self.validation(&weights)?;
        }
        let first = self.log.first_look().filter(|_| self.recipe.train.keep == Keep::Best);
        if refuse_worse
            && let (Some(before), Some(after)) = (first, validation)
            && after.score() <= before.score()
        {
            return Err(TrainError::NotBetter { before: Box::new(before), after: Box::new(after) });
        }
        let (scale, bias) = self.trainer.logits(&weights);
        let bytes = product.write(self.out, &self.trainer.model, &weights, scale, bias)?;
        let name = self.out.file_name().map(|name| name.to_string_lossy().into_owned());
        self.log.draw(&format!("training of {}, step by step", name.unwrap_or_default()))?;
        let steps = self.trainer.state.step;
        let seconds = self.spent.as_secs_f64();
        let settings = &self.recipe.train;
        let images = (steps - resumed_at) as f64 * (settings.batch_size * settings.accumulate) as f64;
        Ok(Summary {
            steps,
            resumed_at,
            loss: self.log.last_step().map_or(f32::NAN, |line| line.loss),
            temperature: temperature(&self.trainer),
            images_per_second: if seconds > 0.0 { images / seconds } else { 0.0 },
            seconds,
            parameters: self.trainer.model.layout().len(),
            bytes,
            first,
            validation,
        })
    }
}
