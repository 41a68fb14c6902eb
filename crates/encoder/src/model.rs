//! A loaded dual encoder.
//!
//! Owns: putting the pieces of a model directory together, the model id, batching of both towers.
//! Does not own threads of its own or queues: callers bring whole batches.

use std::path::Path;

use candle_core::Tensor;
use diptych_core::{Digest, Embedding, Encode, EncodeError, ModelId, PreparedImage, PreparedText};

use crate::config::ClipConfig;
use crate::error::LoadError;
use crate::preprocess::Preprocessing;
use crate::tokenizer::{Cleaning, Kind, Padding, TOKENIZER_FILE, TextRules, TextTokenizer};
use crate::tower::{TextTower, VisionTower};
use crate::weights::{Weights, tensor_shapes};

/// Positions that go through a tower at once: enough to keep the matrix products busy, few enough
/// that activations stay near the cache and memory does not grow with the caller's batch.
const POSITIONS_PER_PASS: usize = 2048;

/// Both towers of one CLIP model, with its tokenizer and preprocessing.
///
/// Computes in `f32` on the CPU. What an input is batched with changes its embedding by rounding only.
pub struct DualEncoder {
    config: ClipConfig,
    preprocessing: Preprocessing,
    tokenizer: TextTokenizer,
    text: TextTower,
    vision: VisionTower,
    logit_scale: f32,
    parameters: u64,
    model_id: ModelId,
}

impl std::fmt::Debug for DualEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DualEncoder")
            .field("model_id", &self.model_id)
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}

impl DualEncoder {
    /// Loads a Hugging Face `CLIPModel` directory: `config.json`, `preprocessor_config.json`,
    /// `tokenizer.json` (or `vocab.json` and `merges.txt`) and `model.safetensors` (or shards with
    /// `model.safetensors.index.json`) in F32, F16 or BF16.
    ///
    /// # Errors
    /// See [`LoadError`]; nothing that is missing is ever made up.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        let config = ClipConfig::from_dir(dir)?;
        let preprocessing = Preprocessing::from_dir(dir, &config.vision)?;
        let tokenizer = clip_tokenizer(dir, &config)?;
        let shapes = tensor_shapes(&config);
        let weights = Weights::open(dir, &shapes)?;
        let parameters = shapes.values().map(|shape| shape.iter().product::<usize>() as u64).sum();
        let (model_id, towers) = rayon::join(
            || model_id(&weights, &config, &preprocessing, &tokenizer),
            || {
                Ok::<_, LoadError>((
                    TextTower::load(&weights, &config)?,
                    VisionTower::load(&weights, &config)?,
                ))
            },
        );
        let (text, vision) = towers?;
        let logit_scale = weights.values("logit_scale")?[0];
        let model_id = model_id?;
        Ok(Self { config, preprocessing, tokenizer, text, vision, logit_scale, parameters, model_id })
    }

    /// The shape of the model.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// How it wants its images.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// How it reads text.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// As stored: the natural logarithm of what cosines are multiplied by to give logits.
    pub fn logit_scale(&self) -> f32 {
        self.logit_scale
    }

    /// Number of weights in both towers.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Embeds token sequences, in order. Sequences carry their special tokens; what follows the
    /// pooled position, padding included, is not looked at.
    ///
    /// # Errors
    /// [`EncodeError::Model`] when a sequence is empty, longer than the context, or holds an id
    /// outside the vocabulary.
    pub fn encode_ids(&self, sequences: &[Vec<u32>]) -> Result<Vec<Embedding>, EncodeError> {
        let borrowed: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        self.embed_sequences(&borrowed)
    }

    fn embed_sequences(&self, sequences: &[&[u32]]) -> Result<Vec<Embedding>, EncodeError> {
        let cut = sequences.iter().map(|ids| self.cut(ids)).collect::<Result<Vec<_>, _>>()?;
        // Texts of like length share a pass, so that little of it is padding.
        let mut order: Vec<usize> = (0..cut.len()).collect();
        order.sort_by_key(|&i| cut[i].len());
        let mut embeddings: Vec<Option<Embedding>> = vec![None; cut.len()];
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            let (pass, later) = rest.split_at(texts_per_pass(rest, &cut));
            let batch: Vec<&[u32]> = pass.iter().map(|&i| cut[i]).collect();
            let rows = to_embeddings(self.text.forward(&batch))?;
            for (&i, embedding) in pass.iter().zip(rows) {
                embeddings[i] = Some(embedding);
            }
            rest = later;
        }
        Ok(embeddings.into_iter().flatten().collect())
    }

    /// The sequence up to its pooled position.
    fn cut<'a>(&self, ids: &'a [u32]) -> Result<&'a [u32], EncodeError> {
        let text = &self.config.text;
        let fail = |reason: String| Err(EncodeError::Model { reason });
        if ids.is_empty() || ids.len() > text.max_position_embeddings {
            let max = text.max_position_embeddings;
            return fail(format!("a sequence has {} tokens, but the text tower reads 1 to {max}", ids.len()));
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= text.vocab_size) {
            return fail(format!("token id {id} is outside the vocabulary of {}", text.vocab_size));
        }
        Ok(&ids[..=text.pooled_position(ids)])
    }
}

impl Encode for DualEncoder {
    fn model_id(&self) -> ModelId {
        self.model_id
    }

    fn dim(&self) -> usize {
        self.config.projection_dim
    }

    fn prepare_image(&self, bytes: &[u8]) -> Result<PreparedImage, EncodeError> {
        self.preprocessing.prepare(bytes)
    }

    fn prepare_text(&self, text: &str) -> Result<PreparedText, EncodeError> {
        self.tokenizer.prepare(text)
    }

    fn split_text<'t>(&self, text: &'t str) -> Vec<&'t str> {
        self.tokenizer.split(text)
    }

    fn encode_images(&self, images: &[PreparedImage]) -> Result<Vec<Embedding>, EncodeError> {
        let side = self.config.vision.image_size;
        if let Some(image) = images.iter().find(|image| image.values.len() != 3 * side * side) {
            let reason = format!(
                "a prepared image has {} values, but the image tower reads 3 x {side} x {side}; prepare it with this model",
                image.values.len()
            );
            return Err(EncodeError::Model { reason });
        }
        let per_pass = (POSITIONS_PER_PASS / self.config.vision.num_positions()).max(1);
        let mut embeddings = Vec::with_capacity(images.len());
        for pass in images.chunks(per_pass) {
            let batch: Vec<&[f32]> = pass.iter().map(|image| &*image.values).collect();
            embeddings.extend(to_embeddings(self.vision.forward(&batch))?);
        }
        Ok(embeddings)
    }

    fn encode_texts(&self, texts: &[PreparedText]) -> Result<Vec<Embedding>, EncodeError> {
        let sequences: Vec<&[u32]> = texts.iter().map(|text| text.ids.as_slice()).collect();
        self.embed_sequences(&sequences)
    }
}

/// How many of the texts, sorted by length, fit one pass when padded to the longest of them.
fn texts_per_pass(order: &[usize], cut: &[&[u32]]) -> usize {
    let fits = |n: usize| n * cut[order[n - 1]].len() <= POSITIONS_PER_PASS;
    (1..=order.len()).take_while(|&n| fits(n)).last().unwrap_or(1)
}

fn to_embeddings(features: candle_core::Result<Tensor>) -> Result<Vec<Embedding>, EncodeError> {
    let rows = features
        .and_then(|features| features.to_vec2::<f32>())
        .map_err(|e| EncodeError::Model { reason: e.to_string() })?;
    rows.into_iter()
        .map(|row| {
            Embedding::new(row)
                .map_err(|e| EncodeError::Model { reason: format!("a tower's output is no direction: {e}") })
        })
        .collect()
}

/// The tokenizer of a `CLIPModel`: causal, so without padding, and pooled at its end token.
fn clip_tokenizer(dir: &Path, config: &ClipConfig) -> Result<TextTokenizer, LoadError> {
    let text = &config.text;
    let tokenizer = TextTokenizer::from_dir(
        dir,
        &TextRules {
            context_length: Some(text.max_position_embeddings),
            vocab_size: text.vocab_size,
            padding: Padding::None,
            cleaning: Cleaning::None,
            default_kind: Kind::ClipBpe,
            tokenizer_kwargs: None,
        },
    )?;
    let ids = tokenizer.probe()?;
    if text.pooled_position(&ids) + 1 != ids.len() {
        let reason = format!(
            "turns 'a' into {ids:?}, which does not end in the token that text_config.eos_token_id {} pools at",
            text.eos_token_id
        );
        return Err(LoadError::Tokenizer { file: TOKENIZER_FILE.to_owned(), reason });
    }
    Ok(tokenizer)
}

/// A digest over everything that decides an embedding: weights in name order, configuration,
/// preprocessing and tokenizer, each in canonical form. How the weights are split into files and how
/// the settings are spelled makes no difference.
fn model_id(
    weights: &Weights,
    config: &ClipConfig,
    preprocessing: &Preprocessing,
    tokenizer: &TextTokenizer,
) -> Result<ModelId, LoadError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"diptych model 1\n");
    weights.hash_into(&mut hasher);
    for (name, text) in [
        ("config", config.to_json()),
        ("preprocessing", preprocessing.to_json()),
        ("tokenizer", tokenizer.definition()?),
    ] {
        hasher.update(format!("{name} {}\n", text.len()).as_bytes());
        hasher.update(text.as_bytes());
    }
    Ok(ModelId(Digest(*hasher.finalize().as_bytes())))
}
