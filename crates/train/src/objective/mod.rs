//! Training objectives: pure functions from rows of embeddings to a loss and its gradients.
//!
//! Owns: [`Objective`], one contrastive or shared-space loss with its options; [`Mixture`], their
//! weighted sum; the momentum queue; and canonical correlation in closed form. Every gradient is written
//! by hand and held against finite differences of a scalar implementation in double precision.
//! Deliberately absent: towers, optimisers, files.

mod cca;
mod dcca;
mod distance;
mod info_nce;
mod mixture;
mod moco;
mod queue;
#[cfg(test)]
mod reference;
mod rows;
mod siglip;
mod simclr;
mod soft_targets;
mod softmax;
#[cfg(test)]
mod tests;
mod triplet;
mod views;

use serde::{Deserialize, Serialize};

pub use cca::{Affine, Cca, CcaOptions};
pub use dcca::Dcca;
pub use distance::Distance;
pub use info_nce::{Convirt, InfoNce};
pub(crate) use mixture::Mixed;
pub use mixture::{Mixture, MixtureState, Term, Weighting};
pub use moco::{Moco, MocoCross};
pub(crate) use queue::{Queue, momentum_step};
#[cfg(test)]
pub(crate) use rows::unit_rows;
pub use siglip::Siglip;
pub use simclr::SimClr;
pub use soft_targets::SoftTargets;
pub use triplet::Triplet;
use views::Gradients;
#[cfg(test)]
use views::Queued;
pub use views::Relation;
pub(crate) use views::Views;

/// `ln 100`: a learned temperature never falls below 1/100, as in the CLIP reference implementation.
pub(crate) const LOGIT_SCALE_MAX: f32 = 4.605_170_2;

/// One training objective with its options; `kind` selects it in a recipe.
///
/// `s_ij` is the cosine of image i and text j throughout. An image may have several positive texts and
/// a text several images; neutral pairs are left out of every sum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Objective {
    /// `info-nce`.
    InfoNce(InfoNce),
    /// `siglip`.
    Siglip(Siglip),
    /// `convirt`.
    Convirt(Convirt),
    /// `soft-targets`.
    SoftTargets(SoftTargets),
    /// `vse0`: the sum over all negatives of the triplet loss.
    Vse0(Triplet),
    /// `vse++`: the hardest negative alone.
    #[serde(rename = "vse++")]
    VsePlusPlus(Triplet),
    /// `simclr`.
    #[serde(rename = "simclr")]
    SimClr(SimClr),
    /// `moco`: within one modality.
    Moco(Moco),
    /// `moco-cross`: images against a queue of texts and the other way round.
    MocoCross(MocoCross),
    /// `cca`: solved by [`Cca::fit`], not descended.
    Cca(CcaOptions),
    /// `dcca`.
    Dcca(Dcca),
    /// `distance`.
    Distance(Distance),
}

/// A number that is learned beside the towers.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    /// `logit_scale`, `logit_bias`, ..; a [`Mixture`] puts the objective's kind and a dot before it.
    pub name: String,
    /// Where learning starts.
    pub start: f32,
    /// Smallest allowed value; the caller clamps after every step.
    pub low: f32,
    /// Largest allowed value.
    pub high: f32,
}

/// What is kept from step to step for an objective with keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory {
    /// Rows of a queue.
    pub queue: usize,
    /// m: the key encoder moves by 1 - m towards the other at every step.
    pub momentum: f32,
}

/// Which optional parts of a batch an objective looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// A second augmented view of every image.
    pub second_images: bool,
    /// A second view of every text.
    pub second_texts: bool,
    /// The images in the eyes of the momentum encoder.
    pub key_images: bool,
    /// The texts in the eyes of the momentum encoder.
    pub key_texts: bool,
    /// Earlier key images, and the ids of images and texts.
    pub image_queue: bool,
    /// Earlier key texts, and the ids of images and texts.
    pub text_queue: bool,
    /// What the labels of every image and every text have in common.
    pub label_similarity: bool,
}

impl Needs {
    /// What either needs.
    pub fn or(self, other: Self) -> Self {
        Self {
            second_images: self.second_images || other.second_images,
            second_texts: self.second_texts || other.second_texts,
            key_images: self.key_images || other.key_images,
            key_texts: self.key_texts || other.key_texts,
            image_queue: self.image_queue || other.image_queue,
            text_queue: self.text_queue || other.text_queue,
            label_similarity: self.label_similarity || other.label_similarity,
        }
    }
}

/// Why an objective cannot be used as asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ObjectiveError {
    /// An option is out of its bounds.
    #[error("objective `{kind}`: `{option}` is {found}; allowed is {allowed}")]
    Option {
        /// The objective.
        kind: &'static str,
        /// The key in the recipe.
        option: &'static str,
        /// Its value.
        found: f32,
        /// The bounds, in words.
        allowed: &'static str,
    },
    /// The batch holds no image or no text.
    #[error("a batch needs at least one image and one text of at least one dimension; check the sampler")]
    Empty,
    /// A part of the batch is missing or has the wrong length.
    #[error(
        "the batch has {found} elements of `{what}` where the objective needs {expected}; fill it as `needs` says"
    )]
    Shape {
        /// The field of the batch.
        what: &'static str,
        /// The length that the other fields imply.
        expected: usize,
        /// The length found.
        found: usize,
    },
    /// The number of learned scalars does not fit.
    #[error("{found} learned scalars were given to an objective with {expected}; start from `scalars`")]
    Scalars {
        /// As many as the objective has.
        expected: usize,
        /// As many as were given.
        found: usize,
    },
    /// The objective has no gradient to follow.
    #[error("objective `cca` is solved in closed form and has no gradient; use `dcca` to train towers")]
    ClosedForm,
    /// A mixture cannot be made of these terms.
    #[error("these objectives cannot be mixed: {reason}")]
    Mixture {
        /// What is wrong and what to change.
        reason: String,
    },
    /// Canonical correlation cannot be computed of this data.
    #[error("canonical correlation analysis failed: {reason}")]
    Correlation {
        /// What is wrong and what to change.
        reason: String,
    },
}

/// Hands a method to the options of whichever objective it is.
macro_rules! each {
    ($objective:expr, $options:ident => $body:expr, closed: $closed:expr) => {
        match $objective {
            Self::InfoNce($options) => $body,
            Self::Siglip($options) => $body,
            Self::Convirt($options) => $body,
            Self::SoftTargets($options) => $body,
            Self::Vse0($options) | Self::VsePlusPlus($options) => $body,
            Self::SimClr($options) => $body,
            Self::Moco($options) => $body,
            Self::MocoCross($options) => $body,
            Self::Dcca($options) => $body,
            Self::Distance($options) => $body,
            Self::Cca(_) => $closed,
        }
    };
}

impl Objective {
    /// The name in recipes and tables.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::InfoNce(_) => "info-nce",
            Self::Siglip(_) => "siglip",
            Self::Convirt(_) => "convirt",
            Self::SoftTargets(_) => "soft-targets",
            Self::Vse0(_) => "vse0",
            Self::VsePlusPlus(_) => "vse++",
            Self::SimClr(_) => "simclr",
            Self::Moco(_) => "moco",
            Self::MocoCross(_) => "moco-cross",
            Self::Cca(_) => "cca",
            Self::Dcca(_) => "dcca",
            Self::Distance(_) => "distance",
        }
    }

    /// Whether every option lies in its bounds.
    ///
    /// # Errors
    /// [`ObjectiveError::Option`] with the first that does not.
    pub fn validate(&self) -> Result<(), ObjectiveError> {
        let bounds = match self {
            Self::Cca(options) => options.bounds(),
            _ => each!(self, o => o.bounds(), closed: Vec::new()),
        };
        match bounds.into_iter().find(|bound| !bound.holds) {
            None => Ok(()),
            Some(Bound { option, found, allowed, .. }) => {
                Err(ObjectiveError::Option { kind: self.kind(), option, found, allowed })
            }
        }
    }

    /// The scalars that are learned beside the towers, in the order in which they are taken.
    pub fn scalars(&self) -> Vec<Scalar> {
        each!(self, o => o.scalars(), closed: Vec::new())
    }

    /// A temperature that it is given, learned or not.
    pub fn temperature(&self) -> Option<f32> {
        match self {
            Self::InfoNce(o) => Some(o.temperature),
            Self::Siglip(o) => Some(o.temperature),
            Self::Convirt(o) => Some(o.temperature),
            Self::SoftTargets(o) => Some(o.temperature),
            Self::MocoCross(o) => Some(o.temperature),
            _ => None,
        }
    }

    /// The queue and the momentum encoder that it wants to be kept.
    pub fn memory(&self) -> Option<Memory> {
        match self {
            Self::Moco(o) => Some(Memory { queue: o.queue, momentum: o.momentum }),
            Self::MocoCross(o) => Some(Memory { queue: o.queue, momentum: o.momentum }),
            _ => None,
        }
    }

    /// The optional parts of a batch that it looks at.
    pub fn needs(&self) -> Needs {
        each!(self, o => o.needs(), closed: Needs::default())
    }

    /// Whether it compares the coordinates of images with those of texts.
    pub fn compares_sides(&self) -> bool {
        !matches!(self, Self::SimClr(_) | Self::Moco(_) | Self::Dcca(_))
    }

    /// Whether the loss cannot fall below zero.
    pub fn is_nonnegative(&self) -> bool {
        match self {
            Self::Dcca(_) | Self::Cca(_) => false,
            // The logarithm of a mean of numbers below one.
            Self::Distance(distance) => distance.uniformity == 0.0,
            _ => true,
        }
    }

    /// The loss of a batch with the gradient of every row and scalar.
    ///
    /// A row of zeros has no direction: the loss or a gradient is NaN then, which the caller reports. A
    /// batch without a single positive pair, or an anchor without negatives, adds nothing.
    pub(crate) fn evaluate(&self, views: &Views<'_>, scalars: &[f32]) -> Result<Gradients, ObjectiveError> {
        views.check(self.needs())?;
        let expected = self.scalars().len();
        if scalars.len() != expected {
            return Err(ObjectiveError::Scalars { expected, found: scalars.len() });
        }
        Ok(match self {
            Self::InfoNce(options) => options.evaluate(views, scalars),
            Self::Siglip(options) => options.evaluate(views, scalars),
            Self::Convirt(options) => options.evaluate(views, scalars),
            Self::SoftTargets(options) => options.evaluate(views, scalars),
            Self::Vse0(options) => options.sum_over_negatives(views),
            Self::VsePlusPlus(options) => options.hardest_negative(views),
            Self::SimClr(options) => options.evaluate(views, scalars),
            Self::Moco(options) => options.evaluate(views, scalars),
            Self::MocoCross(options) => options.evaluate(views, scalars),
            Self::Dcca(options) => options.evaluate(views)?,
            Self::Distance(options) => options.evaluate(views),
            Self::Cca(_) => return Err(ObjectiveError::ClosedForm),
        })
    }
}

/// An option with the check of its value.
struct Bound {
    option: &'static str,
    found: f32,
    allowed: &'static str,
    holds: bool,
}

impl Bound {
    fn new(option: &'static str, found: f32, allowed: &'static str, holds: bool) -> Self {
        Self { option, found, allowed, holds }
    }

    /// What every temperature obeys.
    fn temperature(option: &'static str, found: f32) -> Self {
        Self::new(option, found, "0.01 to 1", (0.01..=1.0).contains(&found))
    }
}

/// The learned temperature of a softmax: `logit_scale = ln(1 / temperature)`, in 0..=ln 100.
fn logit_scale(temperature: f32) -> Scalar {
    Scalar { name: "logit_scale".into(), start: -temperature.ln(), low: 0.0, high: LOGIT_SCALE_MAX }
}

/// [`logit_scale`] if it is learned.
fn learned_scale(temperature: f32, learned: bool) -> Vec<Scalar> {
    if learned { vec![logit_scale(temperature)] } else { Vec::new() }
}

/// `1 / temperature`, learned if there is a scalar.
fn inverse_temperature(temperature: f32, scalars: &[f32]) -> f32 {
    scalars.first().map_or(1.0 / temperature, |logit_scale| logit_scale.exp())
}
