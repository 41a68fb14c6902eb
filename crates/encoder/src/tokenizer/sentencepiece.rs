//! SentencePiece models.
//!
//! Owns: reading the fields of a `ModelProto` that decide the ids, and the definition that a Unigram
//! or BPE model stands for under SigLIP's and Gemma's tokenizer classes. Does not own training-time
//! settings, which are skipped, nor other model types, which are refused by name.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokenizers::{AddedToken, PostProcessorWrapper, Tokenizer};

use super::canonical::{Canonical, CharsMap, SPACE};
use super::clean::Clean;
use super::settings::Settings;
use super::{Kind, refused};
use crate::error::LoadError;

const UNIGRAM: u64 = 1;
const BPE: u64 = 2;
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const UNUSED: u64 = 5;

/// The fields of a SentencePiece `ModelProto` that decide the ids.
#[derive(Debug)]
pub(super) struct Model {
    pieces: Vec<Piece>,
    model_type: u64,
    byte_fallback: bool,
    unk_id: usize,
    charsmap: Option<CharsMap>,
    remove_extra_whitespaces: bool,
}

#[derive(Debug)]
struct Piece {
    text: String,
    score: f32,
    kind: u64,
}

impl Model {
    /// Reads a whole model file.
    ///
    /// # Errors
    /// [`LoadError::Tokenizer`] when the file is cut short, or is of a type that is not supported.
    pub(super) fn parse(file: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        let fail = |reason: &str| refused(file, format!("is no whole SentencePiece model: {reason}"));
        let mut model = Self {
            pieces: Vec::new(),
            model_type: UNIGRAM,
            byte_fallback: false,
            unk_id: 0,
            charsmap: None,
            remove_extra_whitespaces: true,
        };
        let mut suffix = false;
        let mut escaped = true;
        for field in Fields(bytes) {
            match field.map_err(fail)? {
                (1, Field::Bytes(piece)) => model.pieces.push(Piece::parse(piece).map_err(fail)?),
                (2, Field::Bytes(trainer)) => {
                    for field in Fields(trainer) {
                        match field.map_err(fail)? {
                            (3, Field::Number(value)) => model.model_type = value,
                            (24, Field::Number(value)) => suffix = value != 0,
                            (35, Field::Number(value)) => model.byte_fallback = value != 0,
                            (40, Field::Number(value)) => model.unk_id = value as usize,
                            _ => {}
                        }
                    }
                }
                (3, Field::Bytes(normalizer)) => {
                    for field in Fields(normalizer) {
                        match field.map_err(fail)? {
                            (2, Field::Bytes(map)) if !map.is_empty() => {
                                model.charsmap = Some(CharsMap::parse(map).map_err(fail)?);
                            }
                            (4, Field::Number(value)) => model.remove_extra_whitespaces = value != 0,
                            (5, Field::Number(value)) => escaped = value != 0,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        model.check(file, suffix, escaped)?;
        Ok(model)
    }

    fn check(&self, file: &str, suffix: bool, escaped: bool) -> Result<(), LoadError> {
        let reason = match self.model_type {
            _ if self.pieces.is_empty() => "holds no pieces".to_owned(),
            3 => "is a SentencePiece WORD model; only UNIGRAM and BPE are supported".to_owned(),
            4 => "is a SentencePiece CHAR model; only UNIGRAM and BPE are supported".to_owned(),
            UNIGRAM | BPE if suffix => "sets treat_whitespace_as_suffix, which is not supported".to_owned(),
            UNIGRAM | BPE if !escaped => "unsets escape_whitespaces, which is not supported".to_owned(),
            UNIGRAM | BPE if self.pieces.get(self.unk_id).is_none_or(|p| p.kind != UNKNOWN) => {
                format!("says that piece {} is the unknown one, but it is not", self.unk_id)
            }
            UNIGRAM | BPE => return Ok(()),
            other => format!("has the unknown SentencePiece model type {other}"),
        };
        Err(refused(file, reason))
    }

    fn model_json(&self) -> Value {
        let unk = &self.pieces[self.unk_id].text;
        if self.model_type == UNIGRAM {
            let vocab: Vec<Value> = self.pieces.iter().map(|p| json!([p.text, f64::from(p.score)])).collect();
            return json!({"type": "Unigram", "unk_id": self.unk_id, "vocab": vocab,
                          "byte_fallback": self.byte_fallback});
        }
        let ids = self.ids();
        let vocab: serde_json::Map<String, Value> =
            ids.iter().map(|(&text, &id)| (text.to_owned(), json!(id))).collect();
        let merges: Vec<Value> = self.merges(&ids).into_iter().map(|(l, r)| json!([l, r])).collect();
        json!({"type": "BPE", "dropout": null, "unk_token": unk, "continuing_subword_prefix": null,
               "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": self.byte_fallback,
               "ignore_merges": false, "vocab": vocab, "merges": merges})
    }

    fn ids(&self) -> HashMap<&str, usize> {
        self.pieces.iter().enumerate().map(|(id, piece)| (piece.text.as_str(), id)).collect()
    }

    /// Every way to join two pieces into a third, the best score first: SentencePiece stores scores,
    /// the tokenizers library wants an order. Ties go as in the reference's conversion.
    fn merges<'m>(&'m self, ids: &HashMap<&str, usize>) -> Vec<(&'m str, &'m str)> {
        let mut merges = Vec::new();
        for piece in self.pieces.iter().filter(|p| p.kind == 1 || p.kind == USER_DEFINED) {
            let first = merges.len();
            for (cut, _) in piece.text.char_indices().skip(1) {
                let (left, right) = piece.text.split_at(cut);
                if ids.contains_key(left) && ids.contains_key(right) {
                    merges.push((piece.score, left, right));
                }
            }
            merges[first..].sort_by_key(|&(_, left, right)| (ids[left], ids[right]));
        }
        let lengths = |left: &str, right: &str| (left.chars().count(), right.chars().count());
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| lengths(b.1, b.2).cmp(&lengths(a.1, a.2))));
        merges.into_iter().map(|(_, left, right)| (left, right)).collect()
    }
}

impl Piece {
    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut piece = Self { text: String::new(), score: 0.0, kind: 1 };
        for field in Fields(bytes) {
            match field? {
                (1, Field::Bytes(text)) => {
                    piece.text = str::from_utf8(text).map_err(|_| "a piece is not UTF-8")?.to_owned();
                }
                (2, Field::Fixed32(bits)) => piece.score = f32::from_bits(bits),
                (3, Field::Number(kind)) => piece.kind = kind,
                _ => {}
            }
        }
        if piece.kind == UNUSED {
            // Keeps its id, but no text may match it; texts never hold a NUL after normalisation.
            piece.text.insert(0, '\0');
        }
        Ok(piece)
    }
}

/// The tokenizer that a model stands for under the class `kind`, with the cleaning in front of it.
pub(super) fn tokenizer(
    file: &str,
    model: &Model,
    settings: &Settings,
    kind: Kind,
) -> Result<(Tokenizer, Option<Clean>), LoadError> {
    let siglip = kind == Kind::Siglip;
    let gemma_normalizer = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let definition = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": if siglip { Value::Null } else { gemma_normalizer },
        "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": model.model_json(),
    });
    let fail = |e: tokenizers::Error| refused(file, e.to_string());
    let mut inner = Tokenizer::from_bytes(definition.to_string()).map_err(fail)?;
    let listed = settings.added_tokens()?;
    let mut add = |text: &str, strip: bool, special: bool| {
        if listed.iter().any(|(_, token)| token.content == text) {
            return Ok(0);
        }
        inner.add_tokens([AddedToken::from(text, special).lstrip(strip).rstrip(strip).normalized(false)])
    };
    if !siglip {
        for piece in model.pieces.iter().filter(|p| matches!(p.kind, UNKNOWN | CONTROL | USER_DEFINED)) {
            add(&piece.text, false, piece.kind != USER_DEFINED).map_err(fail)?;
        }
        apply_ends(&mut inner, settings)?;
        return Ok((inner, None));
    }
    let mut special: Vec<String> = listed.iter().map(|(_, token)| token.content.clone()).collect();
    for role in ["eos_token", "unk_token", "pad_token"] {
        let token = settings.token_or_default(role, Some(kind)).unwrap_or_default();
        if !model.pieces.iter().any(|piece| piece.text == token) {
            return Err(settings.error(role, format!("names '{token}', which {file} lacks")));
        }
        add(&token, true, true).map_err(fail)?;
        special.push(token);
    }
    let eos = settings.token_or_default("eos_token", Some(kind)).unwrap_or_default();
    with_ends(&mut inner, None, Some(&eos)).map_err(fail)?;
    let canonical = Canonical {
        lower: settings.do_lower_case()?,
        special,
        charsmap: model.charsmap.clone(),
        remove_extra_whitespaces: model.remove_extra_whitespaces,
    };
    Ok((inner, Some(Clean::Siglip(Arc::new(canonical)))))
}

/// Puts the beginning and end tokens around a text as `add_bos_token` and `add_eos_token` say. One of
/// them must be set: libraries disagree on their defaults.
fn apply_ends(inner: &mut Tokenizer, settings: &Settings) -> Result<(), LoadError> {
    let (bos, eos) = (settings.bool("add_bos_token")?, settings.bool("add_eos_token")?);
    if bos.is_none() && eos.is_none() {
        let reason = "and add_bos_token are absent, and without tokenizer.json nothing says which tokens \
                      surround a text; add them as the model was trained";
        return Err(settings.error("add_eos_token", reason));
    }
    let token = |role: &str, wanted: Option<bool>| match wanted {
        Some(true) => settings.token_or_default(role, Some(Kind::Gemma)),
        _ => None,
    };
    let (bos, eos) = (token("bos_token", bos), token("eos_token", eos));
    with_ends(inner, bos.as_deref(), eos.as_deref())
        .map_err(|e| settings.error("add_eos_token", format!("cannot be followed: {e}")))
}

fn with_ends(inner: &mut Tokenizer, bos: Option<&str>, eos: Option<&str>) -> Result<(), tokenizers::Error> {
    let special = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let mut tokens = serde_json::Map::new();
    for token in bos.into_iter().chain(eos) {
        let id = inner.token_to_id(token).ok_or_else(|| format!("the vocabulary lacks '{token}'"))?;
        tokens.insert(token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}));
    }
    let text = |id: &str| {
        let text = json!({"Sequence": {"id": id, "type_id": 0}});
        bos.map(special).into_iter().chain([text]).chain(eos.map(special)).collect::<Vec<_>>()
    };
    let pair = [text("A"), text("B")].concat();
    let template = json!({"type": "TemplateProcessing", "single": text("A"),
                          "pair": pair, "special_tokens": tokens});
    let template: PostProcessorWrapper = serde_json::from_value(template)?;
    inner.with_post_processor(Some(template));
    Ok(())
}

/// The fields of one protobuf message, in the order of the file.
struct Fields<'a>(&'a [u8]);

/// The value of one protobuf field.
enum Field<'a> {
    Number(u64),
    Fixed32(u32),
    Fixed64,
    Bytes(&'a [u8]),
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u64, Field<'a>), &'static str> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => self.take(8).map(|_| Field::Fixed64)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| "a length is too large")?;
                Field::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Field::Fixed32(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            _ => return Err("a field has an unknown wire type"),
        };
        Ok((key >> 3, value))
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number has too many bytes")
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let (head, rest) = self.0.split_at_checked(length).ok_or("the file is cut short")?;
        self.0 = rest;
        Ok(head)
    }
}
