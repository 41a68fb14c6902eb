//! `ChineseCLIPModel` of the transformers library: CLIP's image tower beside a BERT.
//!
//! Owns: what its configuration means for the towers.

use std::path::Path;

use serde_json::Value;

use super::bert::{self, Pooler, tower_section};
use super::{Description, Vision, hf_clip, scalar};
use crate::anatomy::LinearParts;
use crate::config::{CONFIG_FILE, VisionConfig};
use crate::error::LoadError;
use crate::json::Section;
use crate::preprocess::{Preprocessing, ProcessorFamily};
use crate::tokenizer::{Cleaning, Kind, Padding, TextRules, TextTokenizer};
use crate::tower::text::Pooling;
use crate::weights::Weights;

pub(super) fn describe(dir: &Path, config: &Value, weights: &Weights) -> Result<Description, LoadError> {
    let top = Section::top(CONFIG_FILE, config)?;
    let out = top.size("projection_dim", 512, (1, diptych_core::limits::DIM_MAX))?;
    let section = tower_section(&top, "text_config_dict", "text_config")?;
    let vision = VisionConfig::from_section(tower_section(&top, "vision_config_dict", "vision_config")?)?;
    vision.validate()?;
    let text = bert::projected(&section, Pooler::State(Pooling::First), out)?;
    let rules = TextRules {
        context_length: Some(text.spec.context),
        vocab_size: text.spec.vocab_size,
        padding: Padding::None,
        cleaning: Cleaning::None,
        default_kind: Kind::Bert,
        tokenizer_kwargs: None,
    };
    let head = vec![(LinearParts::unbiased("visual_projection", (out, vision.hidden_size)), None)];
    let side = vision.image_size;
    Ok(Description {
        vision: Vision::Vit(Box::new(hf_clip::vision_tower("vision_model.", &vision, head))),
        text,
        logit_scale: scalar(weights, "logit_scale"),
        logit_bias: None,
        preprocessing: Preprocessing::from_dir(dir, ProcessorFamily::ChineseClip, (side, side))?,
        tokenizer: TextTokenizer::from_dir(dir, &rules)?,
    })
}
