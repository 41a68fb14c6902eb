//! The seam between the engine and a model.

use std::fmt;

use crate::limits::{IMAGE_BYTES_MAX, TEXT_BYTES_MAX};
use crate::{Digest, Embedding, Logits};

/// Positions of a ViT-B/32 on 224 x 224 pixels: 49 patches and the class token.
const IMAGE_POSITIONS: usize = 50;

/// The identity of a model: a digest over its weights, its preprocessing and its tokenizer.
/// Embeddings of different model ids are never compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelId(pub Digest);

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An image decoded, oriented, resized and normalised: the input of an image tower.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedImage {
    /// What the tower reads, in the encoder's own layout.
    pub values: Box<[f32]>,
    /// Width of the original in pixels, after EXIF orientation.
    pub width: u32,
    /// Height of the original in pixels, after EXIF orientation.
    pub height: u32,
}

/// A text as token ids within the model's context: the input of a text tower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedText {
    /// Token ids with the special tokens of the family, padded only where the tower attends to padding.
    pub ids: Vec<u32>,
    /// Tokens that did not fit the context and are not seen by the tower.
    pub truncated_tokens: u32,
}

/// Why something cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The bytes are no image that can be read.
    #[error("not a readable image: {reason}; send a whole JPEG, PNG, WebP, GIF, TIFF, BMP or PNM file")]
    Image {
        /// What the decoder found.
        reason: String,
    },
    /// The image is larger than the bounds, in pixels or bytes.
    #[error("the image is too large: {reason}; scale it down before sending")]
    ImageTooLarge {
        /// What was found and what is allowed.
        reason: String,
    },
    /// No words.
    #[error("the text is empty; send at least one visible character")]
    EmptyText,
    /// Over the byte bound.
    #[error("the text has {bytes} bytes, more than {TEXT_BYTES_MAX}; split it into several parts")]
    TextTooLong {
        /// Bytes found.
        bytes: usize,
    },
    /// The model itself failed.
    #[error("the model failed: {reason}; check the model directory and report this if it persists")]
    Model {
        /// What it said.
        reason: String,
    },
}

/// A dual encoder: both towers of one model, into one shared space.
///
/// Preparing is cheap to run on many threads at once; encoding uses all cores itself and is best
/// called with whole batches. What an input is batched with changes its embedding by rounding only.
pub trait Encode: Send + Sync {
    /// The identity of the model.
    fn model_id(&self) -> ModelId;

    /// Dimensions of the shared space.
    fn dim(&self) -> usize;

    /// Decodes and preprocesses one encoded image file.
    ///
    /// # Errors
    /// [`EncodeError::Image`] or [`EncodeError::ImageTooLarge`].
    fn prepare_image(&self, bytes: &[u8]) -> Result<PreparedImage, EncodeError>;

    /// As [`Self::prepare_image`], with a small picture of the image if the encoder makes one: a JPEG file
    /// whose longer side has at most `side` pixels.
    ///
    /// # Errors
    /// As [`Self::prepare_image`].
    fn prepare_with_thumbnail(
        &self,
        bytes: &[u8],
        _side: u32,
    ) -> Result<(PreparedImage, Option<Vec<u8>>), EncodeError> {
        Ok((self.prepare_image(bytes)?, None))
    }

    /// How cosines become probabilities. An encoder that was trained says what it learned; the default
    /// is where CLIP's scale ends.
    fn logits(&self) -> Logits {
        Logits { scale: 100.0, bias: None }
    }

    /// Tokenises one text.
    ///
    /// # Errors
    /// [`EncodeError::EmptyText`] or [`EncodeError::TextTooLong`].
    fn prepare_text(&self, text: &str) -> Result<PreparedText, EncodeError>;

    /// Cuts a text into chunks, in order, that [`Self::prepare_text`] takes without truncation.
    /// Nothing but white space between chunks is lost; a text that fits comes back whole.
    fn split_text<'t>(&self, text: &'t str) -> Vec<&'t str> {
        vec![text]
    }

    /// Embeds a batch of prepared images, in order.
    ///
    /// # Errors
    /// [`EncodeError::Model`] when the forward pass fails.
    fn encode_images(&self, images: &[PreparedImage]) -> Result<Vec<Embedding>, EncodeError>;

    /// Embeds a batch of prepared texts, in order.
    ///
    /// # Errors
    /// [`EncodeError::Model`] when the forward pass fails.
    fn encode_texts(&self, texts: &[PreparedText]) -> Result<Vec<Embedding>, EncodeError>;

    /// Positions that a text takes in the text tower: what its share of a batch costs.
    fn text_positions(&self, text: &PreparedText) -> usize {
        text.ids.len()
    }

    /// Positions that one image takes in the image tower. An encoder that knows its tower says so.
    fn image_positions(&self) -> usize {
        IMAGE_POSITIONS
    }
}

impl PreparedText {
    /// Checks the bounds every encoder shares; returns the text without surrounding white space.
    ///
    /// # Errors
    /// [`EncodeError::EmptyText`] or [`EncodeError::TextTooLong`].
    pub fn check(text: &str) -> Result<&str, EncodeError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(EncodeError::TextTooLong { bytes: text.len() });
        }
        let trimmed = text.trim();
        if trimmed.is_empty() { Err(EncodeError::EmptyText) } else { Ok(trimmed) }
    }
}

impl PreparedImage {
    /// Checks the byte bounds every encoder shares.
    ///
    /// # Errors
    /// [`EncodeError::Image`] when there are no bytes, [`EncodeError::ImageTooLarge`] when there
    /// are too many.
    pub fn check(bytes: &[u8]) -> Result<(), EncodeError> {
        if bytes.is_empty() {
            return Err(EncodeError::Image { reason: "there are no bytes".to_owned() });
        }
        if bytes.len() > IMAGE_BYTES_MAX {
            return Err(EncodeError::ImageTooLarge {
                reason: format!("{} bytes, at most {IMAGE_BYTES_MAX}", bytes.len()),
            });
        }
        Ok(())
    }
}

/// An encoder without weights: a signed feature hash of the words of a text. "Images" are files
/// that contain words, so that both modalities meet in one space. For tests and load runs, where a
/// model would only cost time; its vectors mean nothing beyond shared words.
#[derive(Debug, Clone)]
pub struct HashEncoder {
    dim: usize,
    /// Words that a text may have; `None` for as many as there are.
    context: Option<usize>,
}

impl HashEncoder {
    /// An encoder of `dim` dimensions (at least 1) that reads texts of any length.
    pub fn new(dim: usize) -> Self {
        Self { dim: dim.max(1), context: None }
    }

    /// An encoder of `dim` dimensions that reads the first `context` words (at least 1) of a text.
    pub fn with_context(dim: usize, context: usize) -> Self {
        Self { context: Some(context.max(1)), ..Self::new(dim) }
    }

    fn embed(&self, words: impl Iterator<Item = u64>) -> Result<Embedding, EncodeError> {
        let mut sum = vec![0f32; self.dim];
        for word in words {
            let mut state = word;
            for v in &mut sum {
                state = splitmix64(state);
                *v += (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            }
        }
        Embedding::new(sum).map_err(|e| EncodeError::Model { reason: e.to_string() })
    }
}

impl Encode for HashEncoder {
    fn model_id(&self) -> ModelId {
        let mut id = [0u8; 32];
        id[..4].copy_from_slice(b"hash");
        id[16..24].copy_from_slice(&(self.context.unwrap_or(0) as u64).to_be_bytes());
        id[24..].copy_from_slice(&(self.dim as u64).to_be_bytes());
        ModelId(Digest(id))
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn prepare_image(&self, bytes: &[u8]) -> Result<PreparedImage, EncodeError> {
        PreparedImage::check(bytes)?;
        let text = std::str::from_utf8(bytes)
            .map_err(|e| EncodeError::Image { reason: format!("no words: {e}") })?;
        let values = word_hashes(PreparedText::check(text)?).map(f32::from_bits).collect();
        Ok(PreparedImage { values, width: 1, height: 1 })
    }

    fn prepare_text(&self, text: &str) -> Result<PreparedText, EncodeError> {
        let mut ids: Vec<u32> = word_hashes(PreparedText::check(text)?).collect();
        let truncated = ids.len().saturating_sub(self.context.unwrap_or(usize::MAX));
        ids.truncate(ids.len() - truncated);
        Ok(PreparedText { ids, truncated_tokens: u32::try_from(truncated).unwrap_or(u32::MAX) })
    }

    fn split_text<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let Some(context) = self.context else { return vec![text] };
        let words = |piece: &str| piece.split_whitespace().count();
        let mut pieces = Vec::new();
        let (mut start, mut end) = (0, 0);
        // A sentence that is too long by itself is divided between words.
        for sentence in text.split_inclusive(['.', '!', '?', '\n']) {
            for word in if words(sentence) > context {
                sentence.split_inclusive(char::is_whitespace).collect()
            } else {
                vec![sentence]
            } {
                if words(&text[start..end]) + words(word) > context {
                    pieces.push(&text[start..end]);
                    start = end;
                }
                end += word.len();
            }
        }
        pieces.push(&text[start..end]);
        pieces
    }

    fn encode_images(&self, images: &[PreparedImage]) -> Result<Vec<Embedding>, EncodeError> {
        images.iter().map(|i| self.embed(i.values.iter().map(|v| u64::from(v.to_bits())))).collect()
    }

    fn encode_texts(&self, texts: &[PreparedText]) -> Result<Vec<Embedding>, EncodeError> {
        texts.iter().map(|t| self.embed(t.ids.iter().map(|&id| u64::from(id)))).collect()
    }
}

/// One hash per word, whatever its case.
fn word_hashes(text: &str) -> impl Iterator<Item = u32> {
    // The exponent's top bit is cleared, so that the bits survive a trip through an f32.
    text.split_whitespace().map(|word| fnv1a(word.to_lowercase().as_bytes()) & 0x3fff_ffff)
}

fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

fn splitmix64(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_encoder_brings_equal_words_together_across_modalities() {
        let encoder = HashEncoder::new(64);
        let text = |s: &str| {
            let prepared = encoder.prepare_text(s).expect("text");
            encoder.encode_texts(&[prepared]).expect("encodes").remove(0)
        };
        let image = encoder.prepare_image(b"a red bird").expect("image");
        let image = encoder.encode_images(&[image]).expect("encodes").remove(0);
        assert!(text("A red BIRD").cosine(&image) > 0.999);
        assert!(text("a red bird").cosine(&image) > text("a green car").cosine(&image));
    }

    #[test]
    fn the_hash_encoder_cuts_at_its_context_and_splits_at_sentences() {
        let encoder = HashEncoder::with_context(8, 4);
        let text = "One two. Three four! Five six seven eight nine ten?\nEnd";
        let prepared = encoder.prepare_text(text).expect("text");
        assert_eq!((prepared.ids.len(), prepared.truncated_tokens), (4, 7));
        let pieces = encoder.split_text(text);
        assert_eq!(pieces, ["One two. Three four! ", "Five six seven eight ", "nine ten?\nEnd"]);
        assert!(pieces.iter().all(|p| encoder.prepare_text(p).expect("text").truncated_tokens == 0));
        assert_eq!(encoder.split_text("One two."), ["One two."]);
        assert_eq!(HashEncoder::new(8).split_text(text), [text]);
        assert_ne!(HashEncoder::new(8).model_id(), encoder.model_id());
    }

    #[test]
    fn empty_and_oversized_text_is_refused() {
        let encoder = HashEncoder::new(8);
        assert_eq!(encoder.prepare_text(" \n"), Err(EncodeError::EmptyText));
        let long = "a ".repeat(TEXT_BYTES_MAX);
        assert!(matches!(encoder.prepare_text(&long), Err(EncodeError::TextTooLong { .. })));
        assert!(matches!(encoder.prepare_image(b""), Err(EncodeError::Image { .. })));
    }
}
