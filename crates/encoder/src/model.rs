//! A loaded dual encoder.
//!
//! Owns: putting the pieces of a model directory together, the model id, what there is to say about a
//! model, and checks of what goes into the towers. Does not own threads of its own or queues: callers
//! bring whole batches.

use std::path::Path;

use diptych_core::{Digest, Embedding, Encode, EncodeError, ModelId, PreparedImage, PreparedText};

use crate::error::LoadError;
use crate::family::{Directory, Family, Parts};
use crate::precision::Precision;
use crate::preprocess::Preprocessing;
use crate::tokenizer::{TOKENIZER_FILE, TextTokenizer};
use crate::tower::text::{Attention, Pooling};
use crate::weights::Inventory;

/// Both towers of one model, with its tokenizer and preprocessing.
///
/// Computes in `f32` on the CPU. The same call gives the same bits, run after run; what an input is
/// batched with changes its embedding by rounding at most.
pub struct DualEncoder {
    family: Family,
    parts: Parts,
    parameters: u64,
    model_id: ModelId,
}

impl std::fmt::Debug for DualEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DualEncoder")
            .field("family", &self.family)
            .field("model_id", &self.model_id)
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}

impl DualEncoder {
    /// Loads a model directory of any known [`Family`], recognised by its files alone: the
    /// configuration, `preprocessor_config.json` (Hugging Face), the tokenizer's files, and the weights
    /// in F32, F16 or BF16 as safetensors (one file or shards with an index) or PyTorch's `.bin`.
    ///
    /// Weights are read through a memory mapping into the layout of the matrix product, once; the
    /// mapping of what was copied is given back while loading, so that no weight is in memory twice.
    ///
    /// # Errors
    /// See [`LoadError`]; nothing that is missing is ever made up, and nothing that is there is ignored.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        Self::load_with(dir, Precision::F32)
    }

    /// [`DualEncoder::load`] with the linear layers of transformer blocks in another precision.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load_with(dir: &Path, precision: Precision) -> Result<Self, LoadError> {
        let directory = Directory::open(dir)?;
        let weights = directory.weights(precision)?;
        let parts = directory.load(&weights)?;
        check_pooling(&parts)?;
        let inventory = weights.finish()?;
        let model_id = model_id(directory.family, &inventory, &parts)?;
        Ok(Self { family: directory.family, parts, parameters: inventory.parameters, model_id })
    }

    /// The family it belongs to.
    pub fn family(&self) -> Family {
        self.family
    }

    /// How it wants its images.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.parts.preprocessing
    }

    /// How it reads text.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.parts.tokenizer
    }

    /// Height and width of the image tower's input, in pixels.
    pub fn image_size(&self) -> (usize, usize) {
        self.parts.vision.image()
    }

    /// As stored: the natural logarithm of what cosines are multiplied by to give logits.
    pub fn logit_scale(&self) -> f32 {
        self.parts.logit_scale
    }

    /// What is added to the scaled cosines, in the families that have it.
    pub fn logit_bias(&self) -> Option<f32> {
        self.parts.logit_bias
    }

    /// Number of weights in both towers.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// What there is to know about the model: labels with what belongs to them, in reading order.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let Parts { text, vision, preprocessing, tokenizer, logit_scale, logit_bias } = &self.parts;
        let bias = logit_bias.map_or(String::new(), |bias| format!(", bias {bias:.4}"));
        let mut lines = vec![
            ("family", self.family.to_string()),
            ("model id", self.model_id.to_string()),
            ("parameters", grouped(self.parameters)),
            ("dimensions", self.dim().to_string()),
            ("logit scale", format!("exp({logit_scale:.4}) = {:.2}{bias}", logit_scale.exp())),
        ];
        lines.extend(vision.describe());
        lines.extend([
            ("text tower", text.spec.transformer.to_string()),
            (
                "  input",
                format!(
                    "{} tokens of {} known, {}",
                    tokenizer.context_length(),
                    grouped(text.spec.vocab_size as u64),
                    text.spec.attention
                ),
            ),
            ("  pooling", text.spec.pooling.to_string()),
        ]);
        lines.extend(preprocessing.describe());
        let text = tokenizer.describe();
        lines.extend([
            ("tokenizer", format!("{} of {} tokens", text.algorithm, grouped(text.vocab_size as u64))),
            ("  cleaning", text.cleaning),
            ("  truncation", text.truncation),
            ("  padding", text.padding),
        ]);
        lines
    }

    /// Embeds token sequences, in order. Sequences carry their special tokens; padding behind them is
    /// treated as the family treats it.
    ///
    /// # Errors
    /// [`EncodeError::Model`] when a sequence is empty, longer than the context, or holds an id
    /// outside the vocabulary.
    pub fn encode_ids(&self, sequences: &[Vec<u32>]) -> Result<Vec<Embedding>, EncodeError> {
        let borrowed: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        self.embed_sequences(&borrowed)
    }

    fn embed_sequences(&self, sequences: &[&[u32]]) -> Result<Vec<Embedding>, EncodeError> {
        let relevant = sequences.iter().map(|ids| self.relevant(ids)).collect::<Result<Vec<_>, _>>()?;
        to_embeddings(self.parts.text.forward(&relevant), self.dim())
    }

    /// The checked sequence, without what cannot matter.
    fn relevant<'a>(&self, ids: &'a [u32]) -> Result<&'a [u32], EncodeError> {
        let spec = &self.parts.text.spec;
        let fail = |reason: String| Err(EncodeError::Model { reason });
        if ids.is_empty() || ids.len() > spec.context {
            let max = spec.context;
            return fail(format!("a sequence has {} tokens, but the text tower reads 1 to {max}", ids.len()));
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= spec.vocab_size) {
            return fail(format!("token id {id} is outside the vocabulary of {}", spec.vocab_size));
        }
        Ok(self.parts.text.relevant(ids))
    }
}

impl Encode for DualEncoder {
    fn model_id(&self) -> ModelId {
        self.model_id
    }

    fn dim(&self) -> usize {
        self.parts.vision.out()
    }

    fn prepare_image(&self, bytes: &[u8]) -> Result<PreparedImage, EncodeError> {
        self.parts.preprocessing.prepare(bytes)
    }

    fn prepare_text(&self, text: &str) -> Result<PreparedText, EncodeError> {
        self.parts.tokenizer.prepare(text)
    }

    fn split_text<'t>(&self, text: &'t str) -> Vec<&'t str> {
        self.parts.tokenizer.split(text)
    }

    fn image_positions(&self) -> usize {
        self.parts.vision.positions()
    }

    fn encode_images(&self, images: &[PreparedImage]) -> Result<Vec<Embedding>, EncodeError> {
        let (height, width) = self.image_size();
        if let Some(image) = images.iter().find(|image| image.values.len() != 3 * height * width) {
            let reason = format!(
                "a prepared image has {} values, but the image tower reads 3 x {height} x {width}; prepare it with this model",
                image.values.len()
            );
            return Err(EncodeError::Model { reason });
        }
        let images: Vec<&[f32]> = images.iter().map(|image| &*image.values).collect();
        to_embeddings(self.parts.vision.forward(&images), self.dim())
    }

    fn encode_texts(&self, texts: &[PreparedText]) -> Result<Vec<Embedding>, EncodeError> {
        let sequences: Vec<&[u32]> = texts.iter().map(|text| text.ids.as_slice()).collect();
        self.embed_sequences(&sequences)
    }
}

fn to_embeddings(rows: Vec<f32>, dim: usize) -> Result<Vec<Embedding>, EncodeError> {
    rows.chunks_exact(dim)
        .map(|row| {
            Embedding::new(row.to_vec())
                .map_err(|e| EncodeError::Model { reason: format!("a tower's output is no direction: {e}") })
        })
        .collect()
}

/// A tower that pools at the end token needs a tokenizer that ends texts with it.
fn check_pooling(parts: &Parts) -> Result<(), LoadError> {
    let spec = &parts.text.spec;
    let by_token = matches!(spec.pooling, Pooling::FirstOf(_) | Pooling::Argmax);
    if spec.attention != Attention::Causal || !by_token {
        return Ok(());
    }
    let ids = parts.tokenizer.probe()?;
    if !ids.is_empty() && parts.text.pooled_position(&ids) + 1 == ids.len() {
        return Ok(());
    }
    let reason = format!("turns 'a' into {ids:?}, but the text tower pools {}", spec.pooling);
    Err(LoadError::Tokenizer { file: TOKENIZER_FILE.to_owned(), reason })
}

/// A digest over everything that decides an embedding: weights in name order, what the configuration
/// means for the towers, preprocessing and tokenizer, each in canonical form. How the weights are split
/// into files and how the settings are spelled makes no difference.
fn model_id(family: Family, inventory: &Inventory, parts: &Parts) -> Result<ModelId, LoadError> {
    let json = |spec: Result<String, serde_json::Error>| spec.expect("plain numbers and strings serialise");
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"diptych model 2\n");
    for (name, text) in [
        ("family", family.to_string()),
        ("weights", inventory.digest.to_string()),
        ("text", json(serde_json::to_string(&parts.text.spec))),
        ("vision", parts.vision.spec_json()),
        ("preprocessing", parts.preprocessing.to_json()),
        ("tokenizer", parts.tokenizer.definition()?),
    ] {
        hasher.update(format!("{name} {}\n", text.len()).as_bytes());
        hasher.update(text.as_bytes());
    }
    Ok(ModelId(Digest(*hasher.finalize().as_bytes())))
}

/// A number with its thousands apart.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
