//! One tower of a pre-trained model by itself, as a source of features that heads are trained on.
//!
//! Owns: [`ImageTrunk`] and [`TextTrunk`], finding what a path holds, the checks of what goes into a
//! tower, and the digest that decides whether cached features still count. Does not own training or the
//! cache.
//!
//! A trunk is the image or text tower of any directory that [`DualEncoder`](crate::DualEncoder) loads,
//! with its projection; torchvision's MobileNetV2; or a sentence encoder of BERT's kind.

use std::path::{Path, PathBuf};

use diptych_core::{Digest, EncodeError, PreparedImage, PreparedText};
use image::RgbImage;

use crate::config::CONFIG_FILE;
use crate::error::LoadError;
use crate::family::{Directory, OPEN_CLIP_CONFIG_FILE, Parts, read_json, sentence};
use crate::json::Section;
use crate::model::{describe_text_tower, describe_tokenizer, digest_of, grouped};
use crate::precision::Precision;
use crate::preprocess::Preprocessing;
use crate::tokenizer::TextTokenizer;
use crate::tower::{MobileNet, TextTower, VisionTower, mobilenet};
use crate::weights::{HUGGING_FACE_FILES, Inventory, Weights};

/// The `model_type` of a MobileNetV2's `config.json`.
pub(crate) const MOBILENET_TYPE: &str = "mobilenet_v2";
/// What torchvision's preset for these weights makes of an image: the shorter side, and the crop.
const MOBILENET_SIZES: (usize, usize) = (256, 224);

/// An image tower that gives features: rows that a head maps to a shared space.
pub struct ImageTrunk {
    pub(crate) tower: VisionTower,
    pub(crate) preprocessing: Preprocessing,
    pub(crate) info: Info,
}

/// A text tower that gives features.
pub struct TextTrunk {
    pub(crate) tower: TextTower,
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
        open(path, Precision::F32)?.image.ok_or_else(|| {
            let reason = "is a text encoder without an image tower; give a dual encoder or a MobileNetV2";
            wrong_type(format!("'{}' {reason}", sentence::MODEL_TYPE))
        })
    }

    /// Values per row of features.
    pub fn width(&self) -> usize {
        self.tower.out()
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
        image_rows(&self.tower, images)
    }

    /// What there is to know about it: labels with what belongs to them, in reading order.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let mut lines = self.info.describe(self.width());
        lines.extend(self.tower.describe());
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
        open(path, Precision::F32)?.text.ok_or_else(|| {
            let reason = "is an image network without a text tower; give a dual encoder or a BERT";
            wrong_type(format!("'{MOBILENET_TYPE}' {reason}"))
        })
    }

    /// Values per row of features.
    pub fn width(&self) -> usize {
        self.tower.out()
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
        text_rows(&self.tower, &sequences)
    }

    /// What there is to know about it: labels with what belongs to them, in reading order.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let mut lines = self.info.describe(self.width());
        lines.extend(describe_text_tower(&self.tower, &self.tokenizer));
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

/// What a path holds: one tower or both.
pub(crate) struct Opened {
    pub(crate) image: Option<ImageTrunk>,
    pub(crate) text: Option<TextTrunk>,
}

/// Opens whatever a path holds.
pub(crate) fn open(path: &Path, precision: Precision) -> Result<Opened, LoadError> {
    if path.is_file() {
        return open_mobilenet(path.to_owned(), precision);
    }
    let has = |name: &str| path.join(name).exists();
    if !has(CONFIG_FILE) && !has(OPEN_CLIP_CONFIG_FILE) {
        return open_mobilenet(only_safetensors(path, MOBILENET_TYPE)?, precision);
    }
    if has(CONFIG_FILE) && !has(OPEN_CLIP_CONFIG_FILE) {
        let config = read_json(path, CONFIG_FILE, "the model's config.json")?;
        match Section::top(CONFIG_FILE, &config)?.get::<String>("model_type")?.as_deref() {
            Some(MOBILENET_TYPE) => return open_mobilenet(weights_file(path)?, precision),
            Some(sentence::MODEL_TYPE) => {
                let mut weights = Weights::open_file(weights_file(path)?, precision)?;
                let (tower, tokenizer) = sentence::load(path, &config, &mut weights)?;
                let text = TextTrunk::new("sentence encoder (BERT)", tower, tokenizer, &weights.finish()?)?;
                return Ok(Opened { image: None, text: Some(text) });
            }
            _ => {}
        }
    }
    let directory = Directory::open(path)?;
    let (parts, inventory) = directory.read(precision)?;
    let Parts { text, vision, preprocessing, tokenizer, .. } = parts;
    let family = directory.family.to_string();
    Ok(Opened {
        image: Some(ImageTrunk::new(&family, vision, preprocessing, &inventory)),
        text: Some(TextTrunk::new(&family, text, tokenizer, &inventory)?),
    })
}

fn open_mobilenet(file: PathBuf, precision: Precision) -> Result<Opened, LoadError> {
    let mut weights = Weights::open_file(file.clone(), precision)?;
    if !weights.has(mobilenet::FIRST_TENSOR) {
        let reason = format!(
            "{} lacks the tensor '{}'; give torchvision's mobilenet_v2 with its own tensor names, as safetensors",
            file.display(),
            mobilenet::FIRST_TENSOR
        );
        return Err(wrong_type(reason));
    }
    weights.leave_out("classifier.");
    let tower = VisionTower::MobileNet(Box::new(MobileNet::load(&weights)?));
    let (resize, crop) = MOBILENET_SIZES;
    let preprocessing = Preprocessing::torchvision(resize, crop);
    let image = ImageTrunk::new("torchvision MobileNetV2", tower, preprocessing, &weights.finish()?);
    Ok(Opened { image: Some(image), text: None })
}

impl ImageTrunk {
    fn new(family: &str, tower: VisionTower, preprocessing: Preprocessing, inventory: &Inventory) -> Self {
        let digest = digest_of(
            "diptych image trunk 1\n",
            &[
                ("family", family.to_owned()),
                ("weights", inventory.digest.to_string()),
                ("vision", tower.spec_json()),
                ("preprocessing", preprocessing.to_json()),
            ],
        );
        let info = Info { family: family.to_owned(), digest, parameters: inventory.parameters };
        Self { tower, preprocessing, info }
    }
}

impl TextTrunk {
    fn new(
        family: &str,
        tower: TextTower,
        tokenizer: TextTokenizer,
        inventory: &Inventory,
    ) -> Result<Self, LoadError> {
        let spec = serde_json::to_string(&tower.spec).expect("plain numbers and strings serialise");
        let digest = digest_of(
            "diptych text trunk 1\n",
            &[
                ("family", family.to_owned()),
                ("weights", inventory.digest.to_string()),
                ("text", spec),
                ("tokenizer", tokenizer.definition()?),
            ],
        );
        let info = Info { family: family.to_owned(), digest, parameters: inventory.parameters };
        Ok(Self { tower, tokenizer, info })
    }
}

/// The weights of a directory: a usual name, or else the only `.safetensors` file.
fn weights_file(dir: &Path) -> Result<PathBuf, LoadError> {
    match HUGGING_FACE_FILES.iter().map(|name| dir.join(name)).find(|path| path.exists()) {
        Some(path) => Ok(path),
        None => only_safetensors(dir, ""),
    }
}

/// The only file of a directory whose name begins so and ends in `.safetensors`.
fn only_safetensors(dir: &Path, begins: &str) -> Result<PathBuf, LoadError> {
    let io = |source| LoadError::Io { path: dir.to_owned(), source };
    let mut found = Vec::new();
    match std::fs::read_dir(dir) {
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(io)?.file_name();
                let name = name.to_string_lossy();
                if name.starts_with(begins) && name.ends_with(".safetensors") {
                    found.push(name.into_owned());
                }
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(io(e)),
    }
    found.sort();
    match found.as_slice() {
        [one] => Ok(dir.join(one)),
        [] => {
            let what = if begins.is_empty() {
                "the weights in safetensors format"
            } else {
                "a dual encoder's or BERT's configuration with its weights, or torchvision's mobilenet_v2*.safetensors,"
            };
            let name = if begins.is_empty() { crate::weights::WEIGHTS_FILE } else { CONFIG_FILE };
            Err(LoadError::MissingFile { path: dir.join(name), what })
        }
        several => Err(LoadError::Weights {
            path: dir.to_owned(),
            reason: format!("it is a folder with {}; keep one of them", several.join(" and ")),
        }),
    }
}

fn wrong_type(reason: String) -> LoadError {
    LoadError::Config { file: CONFIG_FILE.to_owned(), key: "model_type".to_owned(), reason }
}

/// Rows of an image tower, after a look at what goes in.
pub(crate) fn image_rows(tower: &VisionTower, images: &[PreparedImage]) -> Result<Vec<f32>, EncodeError> {
    let (height, width) = tower.image();
    if let Some(image) = images.iter().find(|image| image.values.len() != 3 * height * width) {
        let reason = format!(
            "a prepared image has {} values, but the image tower reads 3 x {height} x {width}; prepare it with this model",
            image.values.len()
        );
        return Err(EncodeError::Model { reason });
    }
    let images: Vec<&[f32]> = images.iter().map(|image| &*image.values).collect();
    Ok(tower.forward(&images))
}

/// Rows of a text tower, after a look at what goes in.
pub(crate) fn text_rows(tower: &TextTower, sequences: &[&[u32]]) -> Result<Vec<f32>, EncodeError> {
    let relevant = sequences.iter().map(|ids| relevant(tower, ids)).collect::<Result<Vec<_>, _>>()?;
    Ok(tower.forward(&relevant))
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
