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
use serde_json::Value;

use crate::config::CONFIG_FILE;
use crate::error::LoadError;
use crate::family::{Directory, Family, Model, OPEN_CLIP_CONFIG_FILE, Parts, read_json, sentence};
use crate::head::Head;
use crate::json::Section;
use crate::model::{describe_heads, describe_text_tower, describe_tokenizer, digest_of, grouped};
use crate::precision::Precision;
use crate::preprocess::{PREPROCESSOR_FILE, PROCESSOR_FILE, Preprocessing};
use crate::tokenizer::{TOKENIZER_FILES, TextTokenizer};
use crate::tower::{MobileNet, TextTower, VisionTower, mobilenet};
use crate::weights::{HUGGING_FACE_FILES, Inventory, WEIGHTS_FILE, Weights};

/// The `model_type` of a MobileNetV2's `config.json`.
pub(crate) const MOBILENET_TYPE: &str = "mobilenet_v2";
/// What torchvision's preset for these weights makes of an image: the shorter side, and the crop.
const MOBILENET_SIZES: (usize, usize) = (256, 224);
/// What may stand beside weights and tokenizer in a model's directory.
const SETTINGS_FILES: [&str; 6] = [
    CONFIG_FILE,
    OPEN_CLIP_CONFIG_FILE,
    PREPROCESSOR_FILE,
    PROCESSOR_FILE,
    sentence::POOLING_FILE,
    sentence::SENTENCE_FILE,
];

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

/// What a path holds: one tower or both.
pub(crate) struct Opened {
    pub(crate) image: Option<ImageTrunk>,
    pub(crate) text: Option<TextTrunk>,
    /// Number of weights in all.
    pub(crate) parameters: u64,
    /// What makes the same model in another directory.
    pub(crate) files: Vec<TrunkFile>,
}

/// A file of a model.
#[derive(Debug)]
pub(crate) struct TrunkFile {
    /// Its place within the model's directory.
    pub(crate) to: PathBuf,
    pub(crate) content: Content,
}

/// Where the bytes of a file come from.
#[derive(Debug)]
pub(crate) enum Content {
    File(PathBuf),
    Text(String),
}

/// Opens whatever a path holds; it lies within `depth` composed models.
pub(crate) fn open(path: &Path, precision: Precision, depth: usize) -> Result<Opened, LoadError> {
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
            Some(sentence::MODEL_TYPE) => return open_sentence(path, &config, precision),
            _ => {}
        }
    }
    open_dual(path, precision, depth)
}

/// The towers of a dual encoder.
fn open_dual(path: &Path, precision: Precision, depth: usize) -> Result<Opened, LoadError> {
    let directory = Directory::open_within(path, depth)?;
    let Model { parts, composition, inventory } = directory.read(precision)?;
    let Parts { text, vision, preprocessing, tokenizer, .. } = parts;
    let mut identity =
        vec![("family", directory.family.to_string()), ("weights", inventory.digest.to_string())];
    if directory.family == Family::Composed {
        identity.push(("composition", composition.identity));
    }
    let mut files = copies(path, &inventory, false);
    files.extend(composition.files);
    let parameters = inventory.parameters + composition.parameters;
    Ok(Opened {
        image: Some(ImageTrunk::new(identity.clone(), vision, composition.image, preprocessing, parameters)),
        text: Some(TextTrunk::new(identity, text, composition.text, tokenizer, parameters)?),
        parameters,
        files,
    })
}

fn open_sentence(path: &Path, config: &Value, precision: Precision) -> Result<Opened, LoadError> {
    let mut weights = Weights::open_file(weights_file(path)?, precision)?;
    let (tower, tokenizer) = sentence::load(path, config, &mut weights)?;
    let inventory = weights.finish()?;
    let identity =
        vec![("family", "sentence encoder (BERT)".to_owned()), ("weights", inventory.digest.to_string())];
    let parameters = inventory.parameters;
    Ok(Opened {
        image: None,
        text: Some(TextTrunk::new(identity, tower, Vec::new(), tokenizer, parameters)?),
        parameters,
        files: copies(path, &inventory, true),
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
    let inventory = weights.finish()?;
    let identity =
        vec![("family", "torchvision MobileNetV2".to_owned()), ("weights", inventory.digest.to_string())];
    let config = format!("{{\n  \"model_type\": \"{MOBILENET_TYPE}\"\n}}\n");
    let mut files = copies(Path::new(""), &inventory, true);
    files.push(TrunkFile { to: PathBuf::from(CONFIG_FILE), content: Content::Text(config) });
    let parameters = inventory.parameters;
    Ok(Opened {
        image: Some(ImageTrunk::new(identity, tower, Vec::new(), preprocessing, parameters)),
        text: None,
        parameters,
        files,
    })
}

/// The files of a model, of all that its directory may hold. With `rename`, a single file of weights gets
/// the usual name.
fn copies(dir: &Path, inventory: &Inventory, rename: bool) -> Vec<TrunkFile> {
    let file = |to: PathBuf, from: PathBuf| TrunkFile { to, content: Content::File(from) };
    let mut files = Vec::new();
    if !dir.as_os_str().is_empty() {
        let present =
            SETTINGS_FILES.iter().copied().chain(TOKENIZER_FILES).filter(|name| dir.join(name).exists());
        files.extend(present.map(|name| file(PathBuf::from(name), dir.join(name))));
    }
    for from in &inventory.files {
        let safetensors = from.extension().is_some_and(|extension| extension == "safetensors");
        let to = match from.file_name() {
            _ if rename && safetensors && inventory.files.len() == 1 => PathBuf::from(WEIGHTS_FILE),
            Some(name) => PathBuf::from(name),
            None => continue,
        };
        files.push(file(to, from.clone()));
    }
    files
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
            let name = if begins.is_empty() { WEIGHTS_FILE } else { CONFIG_FILE };
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
