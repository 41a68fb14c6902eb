//! One tower of a pre-trained model by itself, as a source of features that heads are trained on.
//!
//! Owns: [`ImageTrunk`] and [`TextTrunk`], the checks of what goes into a
//! tower, and the digest that decides whether cached features still count. Does not own training or the
//! cache; what a path holds is found out in `open`.
//!
//! A trunk is the image or text tower of any directory that [`DualEncoder`](crate::DualEncoder) loads,
//! with its projection; torchvision's MobileNetV2; or a sentence encoder of BERT's kind.

mod open;

use std::path::Path;

use diptych_core::{Digest, EncodeError, PreparedImage, PreparedText};
use image::RgbImage;

pub(crate) use self::open::{Content, Opened, TrunkFile, model_type, open, weights_file};
use self::open::{MOBILENET_TYPE, wrong_type};
use crate::error::LoadError;
use crate::family::sentence;
use crate::head::Head;
use crate::model::{describe_heads, describe_text_tower, describe_tokenizer, digest_of, grouped};
use crate::precision::Precision;
use crate::preprocess::Preprocessing;
use crate::tokenizer::TextTokenizer;
use crate::tower::{TextTower, VisionTower};

/// An image tower that gives features: rows that a head maps to a shared space.
pub struct ImageTrunk {
    pub(crate) tower: VisionTower,
    /// Of a composed model, first to last.
    pub(crate) heads: Vec<Head>,
    pub(crate) preprocessing: Preprocessing,
    pub(crate) info: Info,
}

/// A text tower that gives features.
pub struct TextTrunk {
    pub(crate) tower: TextTower,
    /// Of a composed model, first to last.
    pub(crate) heads: Vec<Head>,
    pub(crate) tokenizer: TextTokenizer,
    pub(crate) info: Info,
}

/// What is known about either.
pub(crate) struct Info {
    /// What kind of model it belongs to.
    pub(crate) family: String,
    /// A digest over everything that decides features.
    pub(crate) digest: Digest,
    /// Weights of the model it belongs to.
    pub(crate) parameters: u64,
}

impl ImageTrunk {
    /// Opens the image tower of a directory: of a dual encoder, or a MobileNetV2 with torchvision's tensor
    /// names, which is a folder with `mobilenet_v2*.safetensors`, or with `model.safetensors` beside a
    /// `config.json` of the `model_type` "mobilenet_v2", or the `.safetensors` file itself.
    ///
    /// # Errors
    /// See [`LoadError`]; also when there is no image tower.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        open(path, Precision::F32, 0)?.image.ok_or_else(|| {
            let reason = "is a text encoder without an image tower; give a dual encoder or a MobileNetV2";
            wrong_type(format!("'{}' {reason}", sentence::MODEL_TYPE))
        })
    }

    /// Values per row of features.
    pub fn width(&self) -> usize {
        width_after(&self.heads, self.tower.out())
    }

    /// A digest over everything that decides features: weights, sizes and options, preprocessing. How the
    /// files are named and split makes no difference.
    pub fn digest(&self) -> Digest {
        self.info.digest
    }

    /// Number of weights of the model that the tower belongs to.
    pub fn parameters(&self) -> u64 {
        self.info.parameters
    }

    /// How it wants its images.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// Decodes and preprocesses one image file.
    ///
    /// # Errors
    /// [`EncodeError::Image`] or [`EncodeError::ImageTooLarge`].
    pub fn prepare(&self, bytes: &[u8]) -> Result<PreparedImage, EncodeError> {
        self.preprocessing.prepare(bytes)
    }

    /// Preprocesses one decoded image.
    ///
    /// # Errors
    /// [`EncodeError::Image`] when its shape does not fit a model that does not crop.
    pub fn prepare_rgb(&self, image: &RgbImage) -> Result<PreparedImage, EncodeError> {
        self.preprocessing.prepare_rgb(image)
    }

    /// The tower's output rows, not normalised: `[images, width]`, row-major, in order. Best called with
    /// whole batches; uses all cores.
    ///
    /// # Errors
    /// [`EncodeError::Model`] when an image was prepared for another model.
    pub fn features(&self, images: &[PreparedImage]) -> Result<Vec<f32>, EncodeError> {
        image_rows(&self.tower, &self.heads, images)
    }

    /// What there is to know about it: labels with what belongs to them, in reading order.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let mut lines = self.info.describe(self.width());
        lines.extend(self.tower.describe());
        lines.extend(describe_heads(&self.heads));
        lines.extend(self.preprocessing.describe());
        lines
    }
}

impl TextTrunk {
    /// Opens the text tower of a directory: of a dual encoder, or a sentence encoder, which is a
    /// `BertModel` with a `config.json` of the `model_type` "bert", a tokenizer, and its weights, as
    /// `model.safetensors` or the only `.safetensors` file. Its features are the mean over the tokens, of
    /// at most 256 where `sentence_bert_config.json` does not say otherwise.
    ///
    /// # Errors
    /// See [`LoadError`]; also when there is no text tower.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        open(path, Precision::F32, 0)?.text.ok_or_else(|| {
            let reason = "is an image network without a text tower; give a dual encoder or a BERT";
            wrong_type(format!("'{MOBILENET_TYPE}' {reason}"))
        })
    }

    /// Values per row of features.
    pub fn width(&self) -> usize {
        width_after(&self.heads, self.tower.out())
    }

    /// A digest over everything that decides features: weights, sizes and options, the tokenizer. How the
    /// files are named and split makes no difference.
    pub fn digest(&self) -> Digest {
        self.info.digest
    }

    /// Number of weights of the model that the tower belongs to.
    pub fn parameters(&self) -> u64 {
        self.info.parameters
    }

    /// How it reads text.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// Tokenises one text.
    ///
    /// # Errors
    /// [`EncodeError::EmptyText`] or [`EncodeError::TextTooLong`].
    pub fn prepare(&self, text: &str) -> Result<PreparedText, EncodeError> {
        self.tokenizer.prepare(text)
    }

    /// The tower's output rows, not normalised: `[texts, width]`, row-major, in order. Best called with
    /// whole batches; uses all cores.
    ///
    /// # Errors
    /// [`EncodeError::Model`] when a text was prepared for another model.
    pub fn features(&self, texts: &[PreparedText]) -> Result<Vec<f32>, EncodeError> {
        let sequences: Vec<&[u32]> = texts.iter().map(|text| text.ids.as_slice()).collect();
        text_rows(&self.tower, &self.heads, &sequences)
    }

    /// What there is to know about it: labels with what belongs to them, in reading order.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let mut lines = self.info.describe(self.width());
        lines.extend(describe_text_tower(&self.tower, &self.tokenizer));
        lines.extend(describe_heads(&self.heads));
        lines.extend(describe_tokenizer(&self.tokenizer));
        lines
    }
}

impl Info {
    fn describe(&self, width: usize) -> Vec<(&'static str, String)> {
        vec![
            ("family", self.family.clone()),
            ("digest", self.digest.to_string()),
            ("parameters", grouped(self.parameters)),
            ("features", width.to_string()),
        ]
    }
}

impl ImageTrunk {
    fn new(
        mut identity: Vec<(&'static str, String)>,
        tower: VisionTower,
        heads: Vec<Head>,
        preprocessing: Preprocessing,
        parameters: u64,
    ) -> Self {
        let family = identity[0].1.clone();
        identity.extend([("vision", tower.spec_json()), ("preprocessing", preprocessing.to_json())]);
        let digest = digest_of("diptych image trunk 1\n", &identity);
        Self { tower, heads, preprocessing, info: Info { family, digest, parameters } }
    }
}

impl TextTrunk {
    fn new(
        mut identity: Vec<(&'static str, String)>,
        tower: TextTower,
        heads: Vec<Head>,
        tokenizer: TextTokenizer,
        parameters: u64,
    ) -> Result<Self, LoadError> {
        let family = identity[0].1.clone();
        let spec = serde_json::to_string(&tower.spec).expect("plain numbers and strings serialise");
        identity.extend([("text", spec), ("tokenizer", tokenizer.definition()?)]);
        let digest = digest_of("diptych text trunk 1\n", &identity);
        Ok(Self { tower, heads, tokenizer, info: Info { family, digest, parameters } })
    }
}

/// Rows of an image tower, after a look at what goes in.
pub(crate) fn image_rows(
    tower: &VisionTower,
    heads: &[Head],
    images: &[PreparedImage],
) -> Result<Vec<f32>, EncodeError> {
    let (height, width) = tower.image();
    if let Some(image) = images.iter().find(|image| image.values.len() != 3 * height * width) {
        let reason = format!(
            "a prepared image has {} values, but the image tower reads 3 x {height} x {width}; prepare it with this model",
            image.values.len()
        );
        return Err(EncodeError::Model { reason });
    }
    let images: Vec<&[f32]> = images.iter().map(|image| &*image.values).collect();
    Ok(through(heads, tower.forward(&images)))
}

/// Rows of a text tower, after a look at what goes in.
pub(crate) fn text_rows(
    tower: &TextTower,
    heads: &[Head],
    sequences: &[&[u32]],
) -> Result<Vec<f32>, EncodeError> {
    let relevant = sequences.iter().map(|ids| relevant(tower, ids)).collect::<Result<Vec<_>, _>>()?;
    Ok(through(heads, tower.forward(&relevant)))
}

/// Width of a tower's rows after its heads.
pub(crate) fn width_after(heads: &[Head], tower: usize) -> usize {
    heads.last().map_or(tower, Head::out)
}

fn through(heads: &[Head], rows: Vec<f32>) -> Vec<f32> {
    heads.iter().fold(rows, |rows, head| head.forward(&rows))
}

/// The checked sequence, without what cannot matter.
fn relevant<'a>(tower: &TextTower, ids: &'a [u32]) -> Result<&'a [u32], EncodeError> {
    let spec = &tower.spec;
    let fail = |reason: String| Err(EncodeError::Model { reason });
    if ids.is_empty() || ids.len() > spec.context {
        let max = spec.context;
        return fail(format!("a sequence has {} tokens, but the text tower reads 1 to {max}", ids.len()));
    }
    if let Some(id) = ids.iter().find(|&&id| id as usize >= spec.vocab_size) {
        return fail(format!("token id {id} is outside the vocabulary of {}", spec.vocab_size));
    }
    Ok(tower.spec.relevant(ids))
}
