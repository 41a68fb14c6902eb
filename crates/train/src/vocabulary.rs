//! The tokenizer of a new model: byte-level BPE in the exact form of CLIP's.
//!
//! Owns: learning merges from texts and the files that describe the result. The vocabulary has CLIP's
//! order: 256 bytes, 256 bytes that end a word, merges, `<|startoftext|>`, `<|endoftext|>`. Every byte
//! is in it, so no text maps to the unknown token, which in this family is the end token.
//! Deliberately absent: tokenising and truncating, which is the encoder's own code, so that training
//! and inference cannot differ.

use std::collections::{BTreeMap, HashSet};

use diptych_encoder::clip_tokenizer_json;
use serde_json::{Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use crate::error::TrainError;

/// Opens every text.
pub(crate) const START: &str = "<|startoftext|>";
/// Ends every text; its position is pooled.
pub(crate) const END: &str = "<|endoftext|>";
/// Marks the last token of a word.
const WORD_END: &str = "</w>";
/// A learned vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vocabulary {
    /// Tokens in the order of their ids.
    tokens: Vec<String>,
    merges: Vec<(String, String)>,
}

impl Vocabulary {
    /// Learns at most `size` tokens from texts. Equal texts give equal vocabularies.
    pub fn learn(texts: &[String], size: usize) -> Result<Self, TrainError> {
        let bytes = byte_tokens();
        let whole = |word: &String| format!("{word}{WORD_END}");
        // The trainer numbers word-final bytes in the random order of a hash map and breaks ties by
        // number. Declared as special tokens they have a number before it starts.
        let finals = bytes.iter().map(|b| AddedToken::from(whole(b), false)).collect();
        let trainer = BpeTrainer::builder()
            .show_progress(false)
            .min_frequency(2)
            .vocab_size(size - 2)
            .special_tokens(finals)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect::<HashSet<char>>())
            .end_of_word_suffix(WORD_END.to_owned())
            .build();
        let tokens: Vec<String> = bytes.iter().cloned().chain(bytes.iter().map(whole)).collect();
        let empty = Self { tokens: with_specials(tokens.clone()), merges: Vec::new() };
        let mut tokenizer = empty.tokenizer()?;
        tokenizer
            .train(&mut TrainerWrapper::BpeTrainer(trainer), texts.iter())
            .map_err(|e| TrainError::Tokenizer { reason: e.to_string() })?;
        let merges = merges_of(&tokenizer)?;
        // Two merges may spell the same token; it has one id.
        let mut seen: HashSet<String> = tokens.iter().cloned().collect();
        let mut tokens = tokens;
        for (left, right) in &merges {
            let merged = format!("{left}{right}");
            if seen.insert(merged.clone()) {
                tokens.push(merged);
            }
        }
        Ok(Self { tokens: with_specials(tokens), merges })
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Id of [`START`]; [`END`] is the next and last one.
    pub fn start_id(&self) -> u32 {
        self.tokens.len() as u32 - 2
    }

    /// The tokenizer as the `tokenizers` library runs it.
    pub fn tokenizer(&self) -> Result<Tokenizer, TrainError> {
        Tokenizer::from_bytes(self.tokenizer_json())
            .map_err(|e| TrainError::Tokenizer { reason: e.to_string() })
    }

    /// `tokenizer.json`.
    pub fn tokenizer_json(&self) -> String {
        clip_tokenizer_json(&self.vocab_json(), &self.merges_txt())
            .expect("the vocabulary is an object with both special tokens")
    }

    /// `vocab.json`.
    pub fn vocab_json(&self) -> String {
        json!(self.ids()).to_string()
    }

    /// `merges.txt`.
    pub fn merges_txt(&self) -> String {
        let lines = self.merges.iter().map(|(left, right)| format!("{left} {right}\n"));
        std::iter::once("#version: 0.2\n".to_owned()).chain(lines).collect()
    }

    /// `special_tokens_map.json`.
    pub fn special_tokens_json(&self) -> String {
        pretty(
            &json!({"bos_token": described(START), "eos_token": described(END), "unk_token": described(END),
                       "pad_token": END}),
        )
    }

    /// `tokenizer_config.json` for a context of `context_length` tokens.
    pub fn config_json(&self, context_length: usize) -> String {
        pretty(&json!({
            "tokenizer_class": "CLIPTokenizer", "model_max_length": context_length, "do_lower_case": true,
            "add_prefix_space": false, "errors": "replace", "bos_token": START, "eos_token": END,
            "unk_token": END, "pad_token": END,
        }))
    }

    fn ids(&self) -> BTreeMap<&str, usize> {
        self.tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect()
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("plain strings and numbers always serialise")
}

fn described(content: &str) -> Value {
    json!({"content": content, "lstrip": false, "normalized": true, "rstrip": false, "single_word": false})
}

/// The printable stand-ins of all bytes, in CLIP's order, which is that of their code points.
fn byte_tokens() -> Vec<String> {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    alphabet.into_iter().map(String::from).collect()
}

fn with_specials(mut tokens: Vec<String>) -> Vec<String> {
    tokens.extend([START.to_owned(), END.to_owned()]);
    tokens
}

/// The merges a trained tokenizer holds, most frequent first.
fn merges_of(tokenizer: &Tokenizer) -> Result<Vec<(String, String)>, TrainError> {
    let fail = |e: serde_json::Error| TrainError::Tokenizer { reason: e.to_string() };
    let model = serde_json::to_value(tokenizer.get_model()).map_err(fail)?;
    serde_json::from_value(model["merges"].clone()).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Vec<String> {
        ["Large left pleural effusion.", "No pleural effusion.", "Small right pneumothorax, no effusion"]
            .iter()
            .cycle()
            .take(12)
            .map(|s| (*s).to_owned())
            .collect()
    }

    #[test]
    fn equal_texts_give_equal_vocabularies_with_the_special_tokens_last() {
        let first = Vocabulary::learn(&texts(), 600).expect("learns");
        for _ in 0..5 {
            assert_eq!(Vocabulary::learn(&texts(), 600).expect("learns"), first);
        }
        assert!(first.len() > 520 && first.len() <= 600, "{} tokens", first.len());
        let tokenizer = first.tokenizer().expect("loads");
        let ids = tokenizer.encode_fast("EFFUSION", true).expect("encodes").get_ids().to_vec();
        let effusion = tokenizer.token_to_id("effusion</w>").expect("a frequent word is one token");
        assert_eq!(ids, [first.start_id(), effusion, first.start_id() + 1]);
    }

    #[test]
    fn no_text_maps_to_the_end_token() {
        let vocabulary = Vocabulary::learn(&texts(), 600).expect("learns");
        let tokenizer = vocabulary.tokenizer().expect("loads");
        for text in ["œdème à gauche", "右肺", "x~y 7 %", "\u{1f600}"] {
            let ids = tokenizer.encode_fast(text, false).expect("encodes").get_ids().to_vec();
            assert!(!ids.is_empty() && ids.iter().all(|&id| id < vocabulary.start_id()), "{text}: {ids:?}");
        }
    }
}
