//! Text to token ids.
//!
//! Owns: both published spellings of CLIP's byte-level BPE (`tokenizer.json`, or `vocab.json` with
//! `merges.txt`), special tokens and truncation. Does not own padding, which the text tower does not
//! need, and does not clean text beyond what the tokenizer's own normaliser does.

use std::path::Path;

use diptych_core::{EncodeError, PreparedText};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::config::TextConfig;
use crate::error::{LoadError, read_file};

/// The tokenizer's file within a model directory.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
const VOCAB_FILE: &str = "vocab.json";
const MERGES_FILE: &str = "merges.txt";
const BOS: &str = "<|startoftext|>";
const EOS: &str = "<|endoftext|>";
/// CLIP's words: special tokens, English contractions, runs of letters, single digits, runs of
/// anything else that is no white space.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// A tokenizer that adds the special tokens and cuts to the model's context.
#[derive(Debug, Clone)]
pub struct ClipTokenizer {
    inner: Tokenizer,
    context_length: usize,
    /// The special tokens that surround every text.
    special_tokens: usize,
}

impl ClipTokenizer {
    /// Reads `tokenizer.json`, or else `vocab.json` and `merges.txt`, of a model directory and
    /// checks them against the text tower.
    ///
    /// # Errors
    /// [`LoadError::MissingFile`], [`LoadError::Io`] or [`LoadError::Tokenizer`].
    pub fn from_dir(dir: &Path, text: &TextConfig) -> Result<Self, LoadError> {
        let single = dir.join(TOKENIZER_FILE);
        let (file, definition) = if !single.exists() && dir.join(VOCAB_FILE).exists() {
            let vocab = read_file(&dir.join(VOCAB_FILE), "the tokenizer's vocab.json")?;
            let merges = read_file(&dir.join(MERGES_FILE), "the tokenizer's merges.txt")?;
            (VOCAB_FILE, clip_tokenizer_json(&vocab, &merges)?.into_bytes())
        } else {
            (
                TOKENIZER_FILE,
                read_file(&single, "the model's tokenizer.json (or vocab.json and merges.txt)")?.into_bytes(),
            )
        };
        let inner = Tokenizer::from_bytes(definition).map_err(|e| refused(file, e.to_string()))?;
        let tokenizer = Self::from_tokenizers(inner, text.max_position_embeddings)?;
        tokenizer.check_against_tower(file, text)?;
        Ok(tokenizer)
    }

    /// Wraps a tokenizer for a context of `context_length` tokens, special tokens included. Padding
    /// and truncation settings of its own are switched off.
    ///
    /// # Errors
    /// [`LoadError::Tokenizer`] when it cannot tokenise or when it leaves no room for a word.
    pub fn from_tokenizers(mut inner: Tokenizer, context_length: usize) -> Result<Self, LoadError> {
        let fail = |e: tokenizers::Error| refused(TOKENIZER_FILE, e.to_string());
        inner.with_truncation(None).map_err(fail)?;
        inner.with_padding(None);
        let special_tokens = inner.encode_fast("", true).map_err(fail)?.len();
        if special_tokens >= context_length {
            let reason = format!(
                "adds {special_tokens} special tokens, which leaves no room in {context_length} positions"
            );
            return Err(refused(TOKENIZER_FILE, reason));
        }
        Ok(Self { inner, context_length, special_tokens })
    }

    /// Tokenises one text. A text longer than the context keeps its beginning and its end token.
    ///
    /// # Errors
    /// [`EncodeError::EmptyText`], [`EncodeError::TextTooLong`], or [`EncodeError::Model`] when the
    /// tokenizer itself fails.
    pub fn prepare(&self, text: &str) -> Result<PreparedText, EncodeError> {
        let text = PreparedText::check(text)?;
        let encoding = self
            .inner
            .encode_fast(text, true)
            .map_err(|e| EncodeError::Model { reason: format!("the tokenizer failed: {e}") })?;
        let mut ids = encoding.get_ids().to_vec();
        if ids.len() <= self.special_tokens {
            return Err(EncodeError::EmptyText);
        }
        let truncated = ids.len().saturating_sub(self.context_length);
        if truncated > 0 {
            let end = ids[ids.len() - 1];
            ids.truncate(self.context_length);
            ids[self.context_length - 1] = end;
        }
        Ok(PreparedText { ids, truncated_tokens: u32::try_from(truncated).unwrap_or(u32::MAX) })
    }

    /// Longest sequence in tokens, special tokens included.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// The whole definition as canonical JSON: equal for equal tokenizers, however they were stored.
    pub(crate) fn definition(&self) -> Result<String, LoadError> {
        self.inner.to_string(false).map_err(|e| refused(TOKENIZER_FILE, e.to_string()))
    }

    fn check_against_tower(&self, file: &str, text: &TextConfig) -> Result<(), LoadError> {
        if let Some((token, id)) = self.inner.get_vocab(true).into_iter().max_by_key(|&(_, id)| id)
            && id as usize >= text.vocab_size
        {
            let size = text.vocab_size;
            let reason = format!("gives '{token}' the id {id}, but text_config.vocab_size is {size}");
            return Err(refused(file, reason));
        }
        let probe = self.inner.encode_fast("a", true).map_err(|e| refused(file, e.to_string()))?;
        let ids = probe.get_ids();
        if ids.is_empty() || text.pooled_position(ids) + 1 != ids.len() {
            let reason = format!(
                "turns 'a' into {ids:?}, which does not end in the token that text_config.eos_token_id {} pools at",
                text.eos_token_id
            );
            return Err(refused(file, reason));
        }
        Ok(())
    }
}

/// The definition that `tokenizer.json` of the family would hold, from the contents of the older pair of
/// files, `vocab.json` and `merges.txt`.
///
/// # Errors
/// [`LoadError::Tokenizer`] when the vocabulary is not a JSON object or lacks a special token.
pub fn clip_tokenizer_json(vocab: &str, merges: &str) -> Result<String, LoadError> {
    let vocab: Value = serde_json::from_str(vocab).map_err(|e| refused(VOCAB_FILE, e.to_string()))?;
    let id = |token: &str| {
        vocab
            .get(token)
            .and_then(Value::as_u64)
            .ok_or_else(|| refused(VOCAB_FILE, format!("lacks the token '{token}'")))
    };
    let (bos, eos) = (id(BOS)?, id(EOS)?);
    let merges: Vec<&str> =
        merges.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty()).collect();
    let special = |token: &str, id: u64| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let definition = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(BOS, bos), special(EOS, eos)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {"type": "RobertaProcessing", "sep": [EOS, eos], "cls": [BOS, bos],
                           "trim_offsets": false, "add_prefix_space": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": EOS, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false,
                  "ignore_merges": false, "vocab": vocab, "merges": merges},
    });
    Ok(definition.to_string())
}

fn refused(file: &str, reason: impl Into<String>) -> LoadError {
    LoadError::Tokenizer { file: file.to_owned(), reason: reason.into() }
}
