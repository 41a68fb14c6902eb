//! Sentence encoders: a `BertModel` whose states are pooled to one vector, as the sentence-transformers
//! library saves it. A text tower alone.
//!
//! Owns: which of the files and tensors count, the pooling and the context. Does not own BERT itself.

use std::path::Path;

use serde_json::Value;

use super::bert::{self, BertConfig, Pooler};
use super::read_json;
use crate::anatomy::TextParts;
use crate::config::CONFIG_FILE;
use crate::error::LoadError;
use crate::json::Section;
use crate::tokenizer::{Cleaning, Kind, Padding, TextRules, TextTokenizer};
use crate::tower::text::Pooling;

/// The `model_type` of its `config.json`.
pub(crate) const MODEL_TYPE: &str = "bert";
/// How states are pooled, in the library's folder for that step.
pub(crate) const POOLING_FILE: &str = "1_Pooling/config.json";
/// The context.
pub(crate) const SENTENCE_FILE: &str = "sentence_bert_config.json";
/// Tokens of a text where no file says otherwise, special ones included.
const CONTEXT: usize = 256;

/// How the names of tensors begin that no embedding needs: BERT's own pooler, a layer that was trained for
/// another task.
pub(crate) const UNUSED: &str = "pooler.";

/// The tower, which gives the pooled state, and its tokenizer.
pub(crate) fn describe(dir: &Path, config: &Value) -> Result<(TextParts, TextTokenizer), LoadError> {
    let bert = BertConfig::from_section(&Section::top(CONFIG_FILE, config)?)?;
    let parts = bert::tower("", &bert, Pooler::State(pooling(dir)?), Vec::new());
    let rules = TextRules {
        context_length: Some(context(dir)?.min(parts.spec.context)),
        vocab_size: parts.spec.vocab_size,
        padding: Padding::None,
        cleaning: Cleaning::None,
        default_kind: Kind::Bert,
        tokenizer_kwargs: None,
    };
    let tokenizer = TextTokenizer::from_dir(dir, &rules)?;
    Ok((parts, tokenizer))
}

/// The mean over the tokens, unless the pooling step says that it is the first state.
fn pooling(dir: &Path) -> Result<Pooling, LoadError> {
    if !dir.join(POOLING_FILE).exists() {
        return Ok(Pooling::Mean);
    }
    let value = read_json(dir, POOLING_FILE, "how states are pooled")?;
    let section = Section::top(POOLING_FILE, &value)?;
    section.refuse(&[
        "pooling_mode_max_tokens",
        "pooling_mode_mean_sqrt_len_tokens",
        "pooling_mode_weightedmean_tokens",
        "pooling_mode_lasttoken",
    ])?;
    let mean = section.get_or("pooling_mode_mean_tokens", true)?;
    match (section.get_or("pooling_mode_cls_token", false)?, mean) {
        (false, true) => Ok(Pooling::Mean),
        (true, false) => Ok(Pooling::First),
        (cls, mean) => {
            let reason = format!(
                "is {cls} and pooling_mode_mean_tokens {mean}, but exactly one has to be true; use another checkpoint"
            );
            Err(section.error("pooling_mode_cls_token", reason))
        }
    }
}

fn context(dir: &Path) -> Result<usize, LoadError> {
    if !dir.join(SENTENCE_FILE).exists() {
        return Ok(CONTEXT);
    }
    let value = read_json(dir, SENTENCE_FILE, "the context")?;
    let section = Section::top(SENTENCE_FILE, &value)?;
    section.refuse(&["do_lower_case"])?;
    section.size("max_seq_length", CONTEXT, (3, 1 << 16))
}
