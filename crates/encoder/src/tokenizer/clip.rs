//! CLIP's byte-level BPE.
//!
//! Owns: the definition that `vocab.json` with `merges.txt` stands for, and open_clip's variant of
//! it, which leaves normalising to the cleaning in front.

use serde_json::{Value, json};

use super::{TOKENIZER_FILE, refused};
use crate::error::LoadError;

pub(super) const BOS: &str = "<|startoftext|>";
pub(super) const EOS: &str = "<|endoftext|>";
const FILE: &str = "vocab.json";
/// CLIP's words: special tokens, English contractions, runs of letters, single digits, runs of
/// anything else that is no white space.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// The same as open_clip cuts them: contractions and its own special tokens in any case. Its pattern
/// ignores case everywhere, so that U+0345, a mark whose capital is a letter, belongs to no word.
const OPEN_CLIP_WORDS: &str = concat!(
    r"(?i:<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d)",
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{345}]+",
);
const OPEN_CLIP_BOS: &str = "<start_of_text>";
const OPEN_CLIP_EOS: &str = "<end_of_text>";

/// The definition that `tokenizer.json` of the family would hold, from the contents of the older pair of
/// files, `vocab.json` and `merges.txt`.
///
/// # Errors
/// [`LoadError::Tokenizer`] when the vocabulary is not a JSON object or lacks a special token.
pub fn clip_tokenizer_json(vocab: &str, merges: &str) -> Result<String, LoadError> {
    tokenizer_json(vocab, merges, BOS, EOS).map(|definition| definition.to_string())
}

/// The same with other names for the two special tokens.
pub(super) fn tokenizer_json(vocab: &str, merges: &str, bos: &str, eos: &str) -> Result<Value, LoadError> {
    let vocab: Value = serde_json::from_str(vocab).map_err(|e| refused(FILE, e.to_string()))?;
    let id = |token: &str| {
        vocab
            .get(token)
            .and_then(Value::as_u64)
            .ok_or_else(|| refused(FILE, format!("lacks the token '{token}'")))
    };
    let (bos_id, eos_id) = (id(bos)?, id(eos)?);
    let merges: Vec<&str> =
        merges.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty()).collect();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(bos, bos_id), special(eos, eos_id)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": pre_tokenizer(WORDS, true),
        "post_processor": post_processor((bos, bos_id), (eos, eos_id)),
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": eos, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false,
                  "ignore_merges": false, "vocab": vocab, "merges": merges},
    }))
}

/// Turns a definition of the Hugging Face kind into open_clip's own tokenizer over the same
/// vocabulary: no normaliser, and special tokens that are spelled otherwise within a text.
pub(super) fn open_clip_from_json(definition: &mut Value) -> Result<(), LoadError> {
    if definition["model"]["type"] != "BPE" {
        let reason = format!(
            "holds a {} model, but open_clip_config.json names no hf_tokenizer_name, which means CLIP's BPE",
            definition["model"]["type"]
        );
        return Err(refused(TOKENIZER_FILE, reason));
    }
    let added: Vec<(String, u64)> = definition["added_tokens"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| Some((entry["content"].as_str()?.to_owned(), entry["id"].as_u64()?)))
        .collect();
    let Some(vocab) = definition["model"]["vocab"].as_object_mut() else {
        return Err(refused(TOKENIZER_FILE, "has no model.vocab"));
    };
    let mut renamed = |names: [&str; 2]| {
        let in_vocab = names.into_iter().find_map(|name| vocab.remove(name)?.as_u64());
        let in_added = added.iter().find(|(token, _)| names.contains(&token.as_str())).map(|&(_, id)| id);
        let id = in_vocab.or(in_added);
        let id = id.ok_or_else(|| refused(TOKENIZER_FILE, format!("lacks the token '{}'", names[0])))?;
        vocab.insert(names[1].to_owned(), json!(id));
        Ok::<_, LoadError>(id)
    };
    let (bos, eos) = (renamed([BOS, OPEN_CLIP_BOS])?, renamed([EOS, OPEN_CLIP_EOS])?);
    definition["added_tokens"] = json!([special(OPEN_CLIP_BOS, bos), special(OPEN_CLIP_EOS, eos)]);
    definition["normalizer"] = Value::Null;
    definition["pre_tokenizer"] = pre_tokenizer(OPEN_CLIP_WORDS, false);
    definition["post_processor"] = post_processor((OPEN_CLIP_BOS, bos), (OPEN_CLIP_EOS, eos));
    definition["model"]["unk_token"] = json!(OPEN_CLIP_EOS);
    Ok(())
}

fn special(token: &str, id: u64) -> Value {
    json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
           "normalized": false, "special": true})
}

/// Words by their pattern, then bytes; the published definition cuts each word once more by the
/// pattern of GPT-2 (`twice`).
fn pre_tokenizer(words: &str, twice: bool) -> Value {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": words}, "behavior": "Removed", "invert": true},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": twice},
    ]})
}

fn post_processor(bos: (&str, u64), eos: (&str, u64)) -> Value {
    json!({"type": "RobertaProcessing", "sep": [eos.0, eos.1], "cls": [bos.0, bos.1],
           "trim_offsets": false, "add_prefix_space": false})
}
