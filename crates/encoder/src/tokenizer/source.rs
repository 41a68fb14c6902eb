//! Which files of a model directory make its tokenizer.
//!
//! Owns: the order in which published files are looked for and the corrections that
//! `tokenizer_config.json` makes to `tokenizer.json`. Does not own the formats themselves.

use std::path::Path;

use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::clean::Clean;
use super::settings::{Class, SPECIAL_TOKENS_FILE, Settings};
use super::{Cleaning, Kind, SETTINGS_FILE, TOKENIZER_FILE, TextRules, bert, clip, refused, sentencepiece};
use crate::error::{LoadError, read_file};

const VOCAB_JSON: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const VOCAB_TXT: &str = "vocab.txt";
const PIECES: [&str; 2] = ["spiece.model", "tokenizer.model"];
/// Every file that may decide how a directory's model reads text.
pub(crate) const TOKENIZER_FILES: [&str; 8] =
    [TOKENIZER_FILE, SETTINGS_FILE, SPECIAL_TOKENS_FILE, VOCAB_JSON, MERGES, VOCAB_TXT, PIECES[0], PIECES[1]];

/// A tokenizer as read, and where from.
pub(super) struct Source {
    pub(super) inner: Tokenizer,
    /// The file to name in errors.
    pub(super) file: &'static str,
    /// What the files are, when known: it decides the default names of special tokens.
    pub(super) kind: Option<Kind>,
    /// The cleaning that belongs to these files, when one does.
    pub(super) clean: Option<Clean>,
}

/// Reads the tokenizer of `dir`.
pub(super) fn open(dir: &Path, settings: &Settings, rules: &TextRules<'_>) -> Result<Source, LoadError> {
    let class = settings.class();
    let kind = match &class {
        Class::Known(kind) => Some(*kind),
        Class::Absent => Some(rules.default_kind),
        Class::Other(_) => None,
    };
    let single = dir.join(TOKENIZER_FILE);
    if single.exists() {
        let text = read_file(&single, "the model's tokenizer.json")?;
        let inner = from_single(&text, settings, rules, &class)?;
        return Ok(Source { inner, file: TOKENIZER_FILE, kind, clean: None });
    }
    if rules.cleaning == Cleaning::OpenClipSimple {
        return from_clip_pair(dir, settings, rules);
    }
    match (kind, class) {
        (Some(Kind::ClipBpe), _) => from_clip_pair(dir, settings, rules),
        (Some(Kind::Bert), _) => from_vocab_txt(dir, settings),
        (Some(kind @ (Kind::Siglip | Kind::Gemma)), _) => from_pieces(dir, settings, kind),
        (None, class) => {
            let reason = format!(
                "is '{}', whose own vocabulary files are not supported; add the {TOKENIZER_FILE} that the \
                 tokenizers library saves for it",
                class.name()
            );
            Err(settings.error("tokenizer_class", reason))
        }
    }
}

/// `tokenizer.json`, as the class named in the settings would use it: the reference rebuilds BERT's
/// normaliser from the settings, and SigLIP 2's class lower-cases. What surrounds a text stays as the
/// file has it, whatever `add_bos_token` and `add_eos_token` say.
fn from_single(
    text: &str,
    settings: &Settings,
    rules: &TextRules<'_>,
    class: &Class,
) -> Result<Tokenizer, LoadError> {
    let fail = |e: &dyn std::fmt::Display| refused(TOKENIZER_FILE, e.to_string());
    let simple = rules.cleaning == Cleaning::OpenClipSimple;
    let bert = *class == Class::Known(Kind::Bert)
        || *class == Class::Absent && settings.is_present() && rules.default_kind == Kind::Bert;
    let lowercase = class.is_siglip2();
    if !simple && !bert && !lowercase {
        return Tokenizer::from_bytes(text).map_err(|e| fail(&e));
    }
    let mut definition: Value = serde_json::from_str(text).map_err(|e| fail(&e))?;
    if simple {
        clip::open_clip_from_json(&mut definition)?;
    } else if bert && definition["model"]["type"] == "WordPiece" {
        bert::apply_settings(&mut definition, settings)?;
    } else if lowercase {
        let normalizer = definition["normalizer"].take();
        let mut steps = vec![json!({"type": "Lowercase"})];
        steps.extend((!normalizer.is_null()).then_some(normalizer));
        definition["normalizer"] = json!({"type": "Sequence", "normalizers": steps});
    }
    Tokenizer::from_bytes(definition.to_string()).map_err(|e| fail(&e))
}

fn from_clip_pair(dir: &Path, settings: &Settings, rules: &TextRules<'_>) -> Result<Source, LoadError> {
    let what = "the model's tokenizer.json, or the pair vocab.json and merges.txt (a CLIP model whose \
                authors ship neither takes the tokenizer.json of openai/clip-vit-base-patch32)";
    if !dir.join(VOCAB_JSON).exists() {
        return Err(LoadError::MissingFile { path: dir.join(TOKENIZER_FILE), what });
    }
    let vocab = read_file(&dir.join(VOCAB_JSON), "the tokenizer's vocab.json")?;
    let merges = read_file(&dir.join(MERGES), "the tokenizer's merges.txt")?;
    let open_clip = rules.cleaning == Cleaning::OpenClipSimple;
    let mut text = clip::tokenizer_json(&vocab, &merges, &settings.bos(), &settings.eos())?;
    if open_clip {
        clip::open_clip_from_json(&mut text)?;
    }
    let inner = Tokenizer::from_bytes(text.to_string()).map_err(|e| refused(VOCAB_JSON, e.to_string()))?;
    let inner = with_added_tokens(inner, settings, VOCAB_JSON, !open_clip)?;
    Ok(Source { inner, file: VOCAB_JSON, kind: Some(Kind::ClipBpe), clean: None })
}

fn from_vocab_txt(dir: &Path, settings: &Settings) -> Result<Source, LoadError> {
    let vocab = read_file(&dir.join(VOCAB_TXT), "the model's tokenizer.json, or its vocab.txt")?;
    let definition = bert::tokenizer_json(&vocab, settings)?;
    let inner =
        Tokenizer::from_bytes(definition.to_string()).map_err(|e| refused(VOCAB_TXT, e.to_string()))?;
    let inner = with_added_tokens(inner, settings, VOCAB_TXT, true)?;
    Ok(Source { inner, file: VOCAB_TXT, kind: Some(Kind::Bert), clean: None })
}

fn from_pieces(dir: &Path, settings: &Settings, kind: Kind) -> Result<Source, LoadError> {
    let Some(file) = PIECES.into_iter().find(|file| dir.join(file).exists()) else {
        let what = "the model's tokenizer.json, or its spiece.model or tokenizer.model";
        return Err(LoadError::MissingFile { path: dir.join(TOKENIZER_FILE), what });
    };
    let path = dir.join(file);
    let bytes = std::fs::read(&path).map_err(|source| LoadError::Io { path, source })?;
    let model = sentencepiece::Model::parse(file, &bytes)?;
    let (inner, clean) = sentencepiece::tokenizer(file, &model, settings, kind)?;
    let inner = with_added_tokens(inner, settings, file, true)?;
    Ok(Source { inner, file, kind: Some(kind), clean })
}

/// Adds the tokens that `added_tokens_decoder` lists, each under the id it lists.
fn with_added_tokens(
    mut inner: Tokenizer,
    settings: &Settings,
    file: &str,
    wanted: bool,
) -> Result<Tokenizer, LoadError> {
    for (id, token) in if wanted { settings.added_tokens()? } else { Vec::new() } {
        let text = token.content.clone();
        inner.add_tokens([token]).map_err(|e| refused(file, e.to_string()))?;
        let found = inner.token_to_id(&text);
        if found != Some(id) {
            let found = found.map_or("none".to_owned(), |id| id.to_string());
            let reason = format!("gives '{text}' the id {id}, but with {file} its id is {found}");
            return Err(settings.error("added_tokens_decoder", reason));
        }
    }
    Ok(inner)
}
