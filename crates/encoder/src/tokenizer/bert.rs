//! BERT's WordPiece.
//!
//! Owns: the definition that `vocab.txt` and `tokenizer_config.json` stand for, and the corrections
//! that the latter makes to a `tokenizer.json`. Special tokens go by name, never by a fixed id.

use serde_json::{Map, Value, json};

use super::settings::Settings;
use super::{Kind, TOKENIZER_FILE, refused};
use crate::error::LoadError;

const FILE: &str = "vocab.txt";

/// The definition that `vocab.txt` stands for: one token a line, its id is the line's number from 0.
pub(super) fn tokenizer_json(vocab: &str, settings: &Settings) -> Result<Value, LoadError> {
    let lines = vocab.strip_suffix('\n').unwrap_or(vocab);
    let vocab: Map<String, Value> = (0u32..)
        .zip(lines.split('\n'))
        .map(|(id, line)| (line.trim_end_matches('\r').to_owned(), json!(id)))
        .collect();
    let added: Vec<Value> = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"]
        .into_iter()
        .filter_map(|role| {
            let token = settings.token_or_default(role, Some(Kind::Bert))?;
            let id = vocab.get(&token)?;
            Some(json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                        "rstrip": false, "normalized": false, "special": true}))
        })
        .collect();
    let mut definition = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": settings.token_or_default("unk_token", Some(Kind::Bert)),
                  "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab},
    });
    apply(FILE, &mut definition, settings)?;
    Ok(definition)
}

/// Gives a `tokenizer.json` the normaliser and special tokens of the settings: the reference's class
/// builds both from them, whatever the file says.
pub(super) fn apply_settings(definition: &mut Value, settings: &Settings) -> Result<(), LoadError> {
    apply(TOKENIZER_FILE, definition, settings)
}

fn apply(file: &str, definition: &mut Value, settings: &Settings) -> Result<(), LoadError> {
    let id = |role: &str| {
        let token = settings.token_or_default(role, Some(Kind::Bert)).unwrap_or_default();
        let added = definition["added_tokens"].as_array().into_iter().flatten();
        let added = added.filter(|entry| entry["content"] == *token).find_map(|entry| entry["id"].as_u64());
        match added.or_else(|| definition["model"]["vocab"].get(&token)?.as_u64()) {
            Some(id) => Ok((token, id)),
            None => Err(refused(file, format!("lacks the {role} '{token}'"))),
        }
    };
    let ((cls, cls_id), (sep, sep_id)) = (id("cls_token")?, id("sep_token")?);
    definition["normalizer"] = json!({
        "type": "BertNormalizer",
        "clean_text": true,
        "handle_chinese_chars": settings.bool("tokenize_chinese_chars")?.unwrap_or(true),
        "strip_accents": settings.bool("strip_accents")?,
        "lowercase": settings.do_lower_case()?,
    });
    definition["pre_tokenizer"] = json!({"type": "BertPreTokenizer"});
    let special = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = |id: &str, segment: u32| json!({"Sequence": {"id": id, "type_id": segment}});
    definition["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [special(&cls), text("A", 0), special(&sep)],
        "pair": [special(&cls), text("A", 0), special(&sep), text("B", 1),
                 {"SpecialToken": {"id": sep, "type_id": 1}}],
        "special_tokens": {
            cls.clone(): {"id": cls, "ids": [cls_id], "tokens": [cls]},
            sep.clone(): {"id": sep, "ids": [sep_id], "tokens": [sep]},
        },
    });
    Ok(())
}
