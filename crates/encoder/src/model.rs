//! A loaded dual encoder.
//!
//! Owns: putting the pieces of a model directory together, the model id, what there is to say about a
//! model. Does not own threads of its own or queues: callers
//! bring whole batches.

use std::path::Path;

use diptych_core::{Digest, Embedding, Encode, EncodeError, Logits, ModelId, PreparedImage, PreparedText};

use crate::error::LoadError;
use crate::family::composed::Composition;
use crate::family::{Directory, Family, Model, Parts};
use crate::head::Head;
use crate::precision::Precision;
use crate::preprocess::Preprocessing;
use crate::tokenizer::TextTokenizer;
use crate::tower::TextTower;
use crate::trunk::{image_rows, text_rows, width_after};
use crate::weights::Inventory;

/// Both towers of one model, with its tokenizer and preprocessing.
///
/// Computes in `f32` on the CPU. The same call gives the same bits, run after run; what an input is
/// batched with changes its embedding by rounding at most.
pub struct DualEncoder {
    family: Family,
    parts: Parts,
    composition: Composition,
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
        let Model { parts, composition, inventory } = directory.read(precision)?;
        let model_id = model_id(directory.family, &inventory, &parts, &composition)?;
        let parameters = inventory.parameters + composition.parameters;
        Ok(Self { family: directory.family, parts, composition, parameters, model_id })
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
        lines.extend(describe_heads(&self.composition.image));
        lines.extend(describe_text_tower(text, tokenizer));
        lines.extend(describe_heads(&self.composition.text));
        lines.extend(preprocessing.describe());
        lines.extend(describe_tokenizer(tokenizer));
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
        to_embeddings(text_rows(&self.parts.text, &self.composition.text, sequences)?, self.dim())
    }
}

impl Encode for DualEncoder {
    fn model_id(&self) -> ModelId {
        self.model_id
    }

    fn dim(&self) -> usize {
        width_after(&self.composition.image, self.parts.vision.out())
    }

    fn prepare_image(&self, bytes: &[u8]) -> Result<PreparedImage, EncodeError> {
        self.parts.preprocessing.prepare(bytes)
    }

    fn prepare_with_thumbnail(
        &self,
        bytes: &[u8],
        side: u32,
    ) -> Result<(PreparedImage, Option<Vec<u8>>), EncodeError> {
        self.parts.preprocessing.prepare_with_thumbnail(bytes, side)
    }

    fn logits(&self) -> Logits {
        Logits { scale: self.parts.logit_scale.exp(), bias: self.parts.logit_bias }
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
        to_embeddings(image_rows(&self.parts.vision, &self.composition.image, images)?, self.dim())
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

/// A digest over everything that decides an embedding: weights in name order, what the configuration
/// means for the towers, preprocessing and tokenizer, each in canonical form. How the weights are split
/// into files and how the settings are spelled makes no difference.
fn model_id(
    family: Family,
    inventory: &Inventory,
    parts: &Parts,
    composition: &Composition,
) -> Result<ModelId, LoadError> {
    let json = |spec: Result<String, serde_json::Error>| spec.expect("plain numbers and strings serialise");
    let mut fields = vec![
        ("family", family.to_string()),
        ("weights", inventory.digest.to_string()),
        ("text", json(serde_json::to_string(&parts.text.spec))),
        ("vision", parts.vision.spec_json()),
        ("preprocessing", parts.preprocessing.to_json()),
        ("tokenizer", parts.tokenizer.definition()?),
    ];
    if family == Family::Composed {
        fields.push(("composition", composition.identity.clone()));
    }
    Ok(ModelId(digest_of("diptych model 2\n", &fields)))
}

/// A digest over named texts.
pub(crate) fn digest_of(domain: &str, fields: &[(&str, String)]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(domain.as_bytes());
    for (name, text) in fields {
        hasher.update(format!("{name} {}\n", text.len()).as_bytes());
        hasher.update(text.as_bytes());
    }
    Digest(*hasher.finalize().as_bytes())
}

/// What there is to know about a text tower.
pub(crate) fn describe_text_tower(
    tower: &TextTower,
    tokenizer: &TextTokenizer,
) -> Vec<(&'static str, String)> {
    let spec = &tower.spec;
    let (context, known) = (tokenizer.context_length(), grouped(spec.vocab_size as u64));
    vec![
        ("text tower", spec.transformer.to_string()),
        ("  input", format!("{context} tokens of {known} known, {}", spec.attention)),
        ("  pooling", spec.pooling.to_string()),
    ]
}

/// What there is to know about the heads on a tower.
pub(crate) fn describe_heads(heads: &[Head]) -> impl Iterator<Item = (&'static str, String)> {
    heads.iter().map(|head| ("  head", head.spec().to_string()))
}

/// What there is to know about a tokenizer.
pub(crate) fn describe_tokenizer(tokenizer: &TextTokenizer) -> Vec<(&'static str, String)> {
    let text = tokenizer.describe();
    vec![
        ("tokenizer", format!("{} of {} tokens", text.algorithm, grouped(text.vocab_size as u64))),
        ("  cleaning", text.cleaning),
        ("  truncation", text.truncation),
        ("  padding", text.padding),
    ]
}

/// A number with its thousands apart.
pub(crate) fn grouped(n: u64) -> String {
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
