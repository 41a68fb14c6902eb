//! Text to token ids.
//!
//! Owns: [`TextTokenizer`], which cleans, tokenises, truncates and pads a text by the rule of its
//! family, and cuts long texts into chunks that fit. The submodules read the published files
//! (`clip`, `bert`, `sentencepiece`, `settings`) and hold the cleaning (`clean`, `ftfy`) and the
//! cutting (`split`). Does not own which rule a family follows: its loader brings [`TextRules`].

mod bert;
mod canonical;
mod clean;
mod clip;
mod ftfy;
mod sentencepiece;
mod settings;
mod source;
mod split;
#[cfg(test)]
mod tests;

use std::path::Path;

use diptych_core::{EncodeError, PreparedText};
use serde_json::{Value, json};
use tokenizers::{Encoding, PostProcessor, Tokenizer, TruncationDirection};

pub use clip::clip_tokenizer_json;
pub(crate) use source::TOKENIZER_FILES;

use crate::error::LoadError;
use clean::Clean;
use settings::Settings;

/// The tokenizer's file within a model directory.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// The tokenizer's settings within a model directory.
const SETTINGS_FILE: &str = "tokenizer_config.json";

/// How a family reads text; what the files of a directory leave open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TextRules<'a> {
    /// Positions of the text tower, or `context_length` of an open_clip configuration. A sane
    /// `model_max_length` of `tokenizer_config.json` can lower it, except under open_clip, which
    /// does not read it.
    pub(crate) context_length: Option<usize>,
    /// Rows of the tower's token embedding.
    pub(crate) vocab_size: usize,
    /// What follows the last token.
    pub(crate) padding: Padding,
    /// What happens to the text before the tokenizer's own normaliser.
    pub(crate) cleaning: Cleaning,
    /// What files without `tokenizer.json` and without a `tokenizer_class` mean.
    pub(crate) default_kind: Kind,
    /// `text_cfg.tokenizer_kwargs` of an open_clip configuration.
    pub(crate) tokenizer_kwargs: Option<&'a Value>,
}

/// What follows the last token of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Nothing: the tower is causal or masked and never sees padding.
    None,
    /// Up to the context with the pad token that the files name, because the tower attends to it.
    ToContext,
    /// Up to the context with this id whatever the files name: open_clip's own tokenizer pads with 0.
    ToContextWith(u32),
}

/// The cleaning a family does before its tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleaning {
    /// None beyond the tokenizer's own normaliser.
    None,
    /// open_clip without `hf_tokenizer_name`: its own byte-level BPE after the cleaning `lower`,
    /// unless `tokenizer_kwargs.clean` names another.
    OpenClipSimple,
    /// open_clip with `hf_tokenizer_name`: the published tokenizer after the cleaning `whitespace`,
    /// unless `tokenizer_kwargs.clean` names another.
    OpenClipHf,
}

/// What vocabulary files mean that say nothing about themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// CLIP's byte-level BPE: `vocab.json` and `merges.txt`.
    ClipBpe,
    /// WordPiece: `vocab.txt`.
    Bert,
    /// SentencePiece after SigLIP's canonicalisation: `spiece.model`.
    Siglip,
    /// Gemma's SentencePiece BPE with bytes for unknown characters: `tokenizer.model`.
    Gemma,
}

/// What `inspect` prints about a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerSummary {
    /// `BPE`, `WordPiece`, `Unigram` or `WordLevel`.
    pub algorithm: &'static str,
    /// Tokens of the vocabulary, added ones included.
    pub vocab_size: usize,
    /// Longest sequence in tokens, special tokens included.
    pub context_length: usize,
    /// What follows the last token.
    pub padding: String,
    /// What happens to a text that is too long.
    pub truncation: String,
    /// What happens to the text before the tokenizer's own normaliser.
    pub cleaning: String,
}

/// A tokenizer with the policy of its family.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
    context_length: usize,
    /// Rows of the tower's token embedding: no id reaches it.
    vocab_size: usize,
    /// Special tokens that surround every text.
    special_tokens: usize,
    clean: Clean,
    pad: Option<Pad>,
    /// open_clip's `strip_sep_token`: this id becomes 0.
    stripped: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pad {
    id: u32,
    left: bool,
}

impl TextTokenizer {
    /// Reads the tokenizer of a model directory, with the settings beside it, under the rules of the
    /// family. `tokenizer.json` wins over the older vocabulary files.
    ///
    /// # Errors
    /// [`LoadError::MissingFile`], [`LoadError::Io`], [`LoadError::Config`] for a setting that is
    /// unknown or contradicts another, or [`LoadError::Tokenizer`] for files that cannot be used.
    pub(crate) fn from_dir(dir: &Path, rules: &TextRules<'_>) -> Result<Self, LoadError> {
        let settings = Settings::from_dir(dir)?;
        let open_clip = rules.cleaning != Cleaning::None;
        let kwargs = settings::Kwargs::from_value(rules.tokenizer_kwargs, rules.cleaning)?;
        let clean = match (kwargs.clean, rules.cleaning) {
            (Some(clean), _) => clean,
            (None, Cleaning::OpenClipSimple) => Clean::Lower,
            (None, Cleaning::OpenClipHf) => Clean::Whitespace,
            (None, Cleaning::None) => Clean::None,
        };
        let source = source::open(dir, &settings, rules)?;
        let declared = if open_clip { None } else { settings.model_max_length() };
        let context_length = match (rules.context_length, declared) {
            (Some(positions), Some(declared)) => positions.min(declared),
            (Some(length), None) | (None, Some(length)) => length,
            (None, None) => {
                let reason = "gives no length, and neither does the model's configuration; add \
                              the number of tokens the text tower was trained with";
                return Err(settings.error("model_max_length", reason));
            }
        };
        let mut tokenizer =
            Self::from_tokenizers(source.inner, context_length).map_err(|e| named(e, source.file))?;
        tokenizer.vocab_size = rules.vocab_size;
        if source.clean.is_some() && open_clip {
            let reason =
                "is read with SigLIP's own cleaning, but open_clip brings another; add tokenizer.json";
            return Err(refused(source.file, reason));
        }
        tokenizer.clean = source.clean.unwrap_or(clean);
        tokenizer.pad = match rules.padding {
            Padding::None => None,
            Padding::ToContextWith(id) => Some(Pad { id, left: false }),
            Padding::ToContext => {
                let left = settings.pads_left(source.kind)?;
                Some(Pad { id: tokenizer.named_id(&settings, "pad_token", source.kind)?, left })
            }
        };
        if kwargs.strip_sep_token {
            tokenizer.stripped = Some(tokenizer.named_id(&settings, "sep_token", source.kind)?);
        }
        tokenizer.check_vocabulary(source.file)?;
        Ok(tokenizer)
    }

    /// Wraps a tokenizer for a context of `context_length` tokens, special tokens included, without
    /// cleaning and padding. Padding and truncation settings of its own are switched off.
    ///
    /// # Errors
    /// [`LoadError::Tokenizer`] when it cannot tokenise or when it leaves no room for a word.
    pub fn from_tokenizers(mut inner: Tokenizer, context_length: usize) -> Result<Self, LoadError> {
        inner.with_truncation(None).map_err(|e| refused(TOKENIZER_FILE, e.to_string()))?;
        inner.with_padding(None);
        let special_tokens = inner.get_post_processor().map_or(0, |p| p.added_tokens(false));
        if special_tokens >= context_length {
            let reason = format!(
                "adds {special_tokens} special tokens, which leaves no room in {context_length} positions"
            );
            return Err(refused(TOKENIZER_FILE, reason));
        }
        let vocab_size = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        Ok(Self {
            inner,
            context_length,
            vocab_size,
            special_tokens,
            clean: Clean::None,
            pad: None,
            stripped: None,
        })
    }

    /// Tokenises one text. A text longer than the context keeps its beginning and its special
    /// tokens; how many tokens were cut is in `truncated_tokens`. The ids are padded to the context
    /// only where the tower attends to padding.
    ///
    /// # Errors
    /// [`EncodeError::EmptyText`] also when cleaning leaves nothing, [`EncodeError::TextTooLong`], or
    /// [`EncodeError::Model`] when the tokenizer itself fails or gives an id that the tower lacks.
    pub fn prepare(&self, text: &str) -> Result<PreparedText, EncodeError> {
        PreparedText::check(text)?;
        let mut encoding = self.encode(text)?;
        if encoding.is_empty() {
            return Err(EncodeError::EmptyText);
        }
        let room = self.room();
        let truncated = encoding.len().saturating_sub(room);
        if truncated > 0 {
            encoding.truncate(room, 0, TruncationDirection::Right);
        }
        let encoding = self.inner.post_process(encoding, None, true).map_err(failed)?;
        let mut ids = encoding.get_ids().to_vec();
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            let reason = format!(
                "the tokenizer gives the id {id}, but the text tower has {} rows; use the tokenizer files \
                 that were published with these weights",
                self.vocab_size
            );
            return Err(EncodeError::Model { reason });
        }
        if let Some(pad) = self.pad {
            let missing = self.context_length.saturating_sub(ids.len());
            let at = if pad.left { 0 } else { ids.len() };
            ids.splice(at..at, std::iter::repeat_n(pad.id, missing));
        }
        if let Some(stripped) = self.stripped {
            ids.iter_mut().filter(|id| **id == stripped).for_each(|id| *id = 0);
        }
        Ok(PreparedText { ids, truncated_tokens: u32::try_from(truncated).unwrap_or(u32::MAX) })
    }

    /// Cuts a text into chunks that [`Self::prepare`] takes whole: at the ends of sentences, packed
    /// greedily; inside a sentence that is too long by itself between words; inside a word that is
    /// too long by itself between characters. Nothing but white space between chunks is lost. A text
    /// that fits comes back as it is.
    pub fn split<'t>(&self, text: &'t str) -> Vec<&'t str> {
        split::split(text, self.room(), &|piece| self.encode(piece).map_or(usize::MAX, |e| e.len()))
    }

    /// Longest sequence in tokens, special tokens included.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// What `inspect` prints.
    pub fn describe(&self) -> TokenizerSummary {
        use tokenizers::ModelWrapper;
        let algorithm = match self.inner.get_model() {
            ModelWrapper::BPE(_) => "BPE",
            ModelWrapper::WordPiece(_) => "WordPiece",
            ModelWrapper::WordLevel(_) => "WordLevel",
            ModelWrapper::Unigram(_) => "Unigram",
        };
        let length = self.context_length;
        TokenizerSummary {
            algorithm,
            vocab_size: self.inner.get_vocab_size(true),
            context_length: length,
            padding: match self.pad {
                None => "none".to_owned(),
                Some(pad) => {
                    let side = if pad.left { "on the left " } else { "" };
                    format!("{side}to {length} with id {}", pad.id)
                }
            },
            truncation: format!(
                "to {length}, keeping the beginning and {} special token{}",
                self.special_tokens,
                if self.special_tokens == 1 { "" } else { "s" }
            ),
            cleaning: self.clean.name().to_owned(),
        }
    }

    /// The ids of `a` as the tower gets them: what a family checks its pooled position and its end
    /// token against.
    pub(crate) fn probe(&self) -> Result<Vec<u32>, LoadError> {
        self.prepare("a").map(|p| p.ids).map_err(|e| refused(TOKENIZER_FILE, e.to_string()))
    }

    /// The whole definition with its policy as canonical JSON: equal for equal tokenizers, however
    /// they were stored.
    pub(crate) fn definition(&self) -> Result<String, LoadError> {
        let inner = self.inner.to_string(false).map_err(|e| refused(TOKENIZER_FILE, e.to_string()))?;
        let pad = self.pad.map(|pad| json!({"id": pad.id, "left": pad.left}));
        Ok(json!({
            "tokenizer": inner,
            "context_length": self.context_length,
            "cleaning": self.clean.definition(),
            "pad": pad,
            "stripped": self.stripped,
        })
        .to_string())
    }

    /// Tokens that fit beside the special ones.
    fn room(&self) -> usize {
        self.context_length - self.special_tokens
    }

    fn encode(&self, text: &str) -> Result<Encoding, EncodeError> {
        self.inner.encode_fast(self.clean.apply(text).as_ref(), false).map_err(failed)
    }

    /// The id of a special token that the settings, or else the kind's defaults, give a name.
    fn named_id(&self, settings: &Settings, key: &str, kind: Option<Kind>) -> Result<u32, LoadError> {
        let token = settings.token_or_default(key, kind).ok_or_else(|| {
            settings.error(key, "is absent, but the text tower needs it; add the token's text")
        })?;
        self.inner.token_to_id(&token).ok_or_else(|| {
            settings.error(key, format!("names '{token}', which the vocabulary lacks; use matching files"))
        })
    }

    /// Refuses a vocabulary with ids that the tower lacks. Placeholders that no text produces, such
    /// as the 100 extra ids after mT5's vocabulary, may lie outside.
    fn check_vocabulary(&self, file: &str) -> Result<(), LoadError> {
        let placeholder = |token: &str| token.contains("extra_id_") || token.contains("unused");
        let vocabulary = self.inner.get_vocab(true);
        let outside = vocabulary
            .iter()
            .filter(|&(token, &id)| id as usize >= self.vocab_size && !placeholder(token))
            .max_by_key(|&(_, &id)| id);
        let size = self.vocab_size;
        if let Some((token, id)) = outside {
            let reason = format!("gives '{token}' the id {id}, but the configuration's vocab_size is {size}");
            return Err(refused(file, reason));
        }
        if let Some(pad) = self.pad
            && pad.id as usize >= size
        {
            return Err(refused(file, format!("pads with id {}, but vocab_size is {size}", pad.id)));
        }
        Ok(())
    }
}

/// The error of a failed tokenizer.
fn failed(e: tokenizers::Error) -> EncodeError {
    EncodeError::Model { reason: format!("the tokenizer failed: {e}") }
}

/// The error of a file that cannot be used.
fn refused(file: &str, reason: impl Into<String>) -> LoadError {
    LoadError::Tokenizer { file: file.to_owned(), reason: reason.into() }
}

/// The same error under the name of the file it came from.
fn named(error: LoadError, file: &str) -> LoadError {
    match error {
        LoadError::Tokenizer { reason, .. } => refused(file, reason),
        other => other,
    }
}
