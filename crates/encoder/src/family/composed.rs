//! Diptych's own composed models: trunks of other families with trained heads on top.
//!
//! Owns: the `config.json` of such a directory, and putting trunks and heads together. Each trunk is a
//! whole model directory of its own within it; the weights beside the configuration are the heads' and the
//! logit scale. Does not own the heads' arithmetic, opening trunks, or writing directories.

use std::path::Path;

use diptych_core::Modality;
use diptych_core::limits::DIM_MAX;
use serde::Serialize;
use serde_json::{Value, json};

use super::Parts;
use crate::config::CONFIG_FILE;
use crate::error::LoadError;
use crate::head::{Head, HeadSpec};
use crate::json::Section;
use crate::trunk::{self, ImageTrunk, Opened, TextTrunk, TrunkFile};
use crate::weights::{WEIGHTS_FILE, Weights};

/// The `model_type` of the configuration.
pub(crate) const MODEL_TYPE: &str = "diptych";
/// The version of the configuration.
pub(crate) const FORMAT: u32 = 1;
/// How deep composed models may lie within each other: each tuning of a tuned model adds one.
const DEPTH_MAX: usize = 8;

/// What the configuration says about a side.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Side {
    /// A folder within the directory.
    pub(crate) trunk: String,
    pub(crate) head: HeadSpec,
}

/// What a composed model has besides its towers; nothing in other families.
#[derive(Default)]
pub(crate) struct Composition {
    /// After the image tower, first to last.
    pub(crate) image: Vec<Head>,
    /// After the text tower, first to last.
    pub(crate) text: Vec<Head>,
    /// What trunks and heads decide, as canonical JSON; empty in other families.
    pub(crate) identity: String,
    /// Weights of the trunks.
    pub(crate) parameters: u64,
    /// The files of the trunks.
    pub(crate) files: Vec<TrunkFile>,
}

impl Side {
    pub(crate) fn from_config(top: &Section<'_>, side: Modality) -> Result<Self, LoadError> {
        let section = top.section(side.as_str())?;
        let missing = |key: &str, what: &str| section.error(key, format!("is missing; {what}"));
        let trunk: String = section
            .get("trunk")?
            .ok_or_else(|| missing("trunk", "name the folder of the pre-trained model"))?;
        if !is_plain(&trunk) {
            let reason =
                format!("is '{trunk}', but must be the plain name of a folder in this directory; rename it");
            return Err(section.error("trunk", reason));
        }
        let head = section.get("head")?.ok_or_else(|| missing("head", "list its layers"))?;
        Ok(Self { trunk, head })
    }
}

/// Whether a name stays within its directory and off its own files.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && !name.contains(['/', '\\', ':', '\0'])
        && ![CONFIG_FILE, WEIGHTS_FILE].contains(&name)
}

/// The text of a `config.json`.
pub(crate) fn config_json(image: &Side, text: &Side) -> String {
    let value = json!({"model_type": MODEL_TYPE, "format": FORMAT, "image": image, "text": text});
    serde_json::to_string_pretty(&value).expect("plain numbers and strings always serialise")
}

pub(super) fn load(
    dir: &Path,
    config: &Value,
    weights: &Weights,
    depth: usize,
) -> Result<(Parts, Composition), LoadError> {
    let top = Section::top(CONFIG_FILE, config)?;
    match top.get::<u32>("format")? {
        Some(FORMAT) => {}
        found => {
            let found = found.map_or("missing".to_owned(), |format| format.to_string());
            let reason = format!("is {found}, but this version reads {FORMAT}; update diptych");
            return Err(top.error("format", reason));
        }
    }
    let image_side = Side::from_config(&top, Modality::Image)?;
    let text_side = Side::from_config(&top, Modality::Text)?;
    if depth >= DEPTH_MAX {
        let reason = format!(
            "names a composed model within {DEPTH_MAX} others; merge them, or correct a folder that links to itself"
        );
        return Err(top.error("image.trunk", reason));
    }
    let open = |folder: &str| {
        trunk::open(&dir.join(folder), weights.precision(), depth + 1).map_err(|e| within(folder, e))
    };
    let mut first = open(&image_side.trunk)?;
    let shared = image_side.trunk == text_side.trunk;
    let mut second = if shared { None } else { Some(open(&text_side.trunk)?) };
    let mut composition =
        Composition { files: files_within(&image_side.trunk, &mut first), ..Default::default() };
    composition.parameters = first.parameters;
    if let Some(second) = &mut second {
        composition.files.extend(files_within(&text_side.trunk, second));
        composition.parameters += second.parameters;
    }
    let wrong = |side: &str, folder: &str| {
        let reason = format!("names '{folder}', which has no {side} tower; name a trunk that has one");
        top.error(&format!("{side}.trunk"), reason)
    };
    let image = first.image.take().ok_or_else(|| wrong("image", &image_side.trunk))?;
    let text = second.as_mut().unwrap_or(&mut first).text.take();
    let text = text.ok_or_else(|| wrong("text", &text_side.trunk))?;
    let (image_width, text_width) = (image.width(), text.width());
    composition.identity = json!([
        {"trunk": image.digest().to_string(), "head": image_side.head},
        {"trunk": text.digest().to_string(), "head": text_side.head},
    ])
    .to_string();
    let ImageTrunk { tower: vision, preprocessing, heads: image_heads, .. } = image;
    let TextTrunk { tower: text, tokenizer, heads: text_heads, .. } = text;
    composition.image = image_heads;
    composition.image.push(Head::load(&image_side.head, image_width, Modality::Image, weights)?);
    composition.text = text_heads;
    composition.text.push(Head::load(&text_side.head, text_width, Modality::Text, weights)?);
    check_widths(&composition)?;
    let logit_scale = weights.take("logit_scale", &[])?[0];
    let logit_bias = if weights.has("logit_bias") { Some(weights.take("logit_bias", &[])?[0]) } else { None };
    let parts = Parts { text, vision, preprocessing, tokenizer, logit_scale, logit_bias };
    Ok((parts, composition))
}

/// Both sides have to end in one space.
fn check_widths(composition: &Composition) -> Result<(), LoadError> {
    let width = |heads: &[Head]| heads.last().map_or(0, Head::out);
    same_width(width(&composition.image), width(&composition.text))
}

/// Refuses heads that end in different widths, or in too wide a space.
pub(crate) fn same_width(image: usize, text: usize) -> Result<(), LoadError> {
    let reason = if image != text {
        format!("ends in rows of {text}, but image.head in rows of {image}; both must end in one width")
    } else if image > DIM_MAX {
        format!("ends in rows of {text}, but at most {DIM_MAX} are possible")
    } else {
        return Ok(());
    };
    Err(LoadError::Config { file: CONFIG_FILE.to_owned(), key: "text.head".to_owned(), reason })
}

fn files_within(folder: &str, opened: &mut Opened) -> Vec<TrunkFile> {
    let files = std::mem::take(&mut opened.files);
    files.into_iter().map(|file| TrunkFile { to: Path::new(folder).join(file.to), ..file }).collect()
}

/// An error about a file of a trunk, under the trunk's name.
fn within(folder: &str, error: LoadError) -> LoadError {
    match error {
        LoadError::Config { file, key, reason } => {
            LoadError::Config { file: format!("{folder}/{file}"), key, reason }
        }
        LoadError::Tokenizer { file, reason } => {
            LoadError::Tokenizer { file: format!("{folder}/{file}"), reason }
        }
        other => other,
    }
}
