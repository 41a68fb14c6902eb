//! `preprocess_cfg` of an `open_clip_config.json`.
//!
//! Owns: its keys and OpenCLIP's defaults. Does not own what the settings do to pixels.
//!
//! The `size` in the file is not looked at: OpenCLIP overwrites it with the image tower's own.

use serde_json::{Value, json};

use super::geometry::Resize;
use super::{CLIP_MEAN, CLIP_STD, Library, Preprocessing, Rules};
use crate::error::LoadError;
use crate::json::Section;
use crate::resize::Filter;

const FILE: &str = "open_clip_config.json";
const KEY: &str = "preprocess_cfg";

impl Preprocessing {
    /// Reads `preprocess_cfg` of a whole `open_clip_config.json`. `size` is the height and width of
    /// the image tower's input.
    ///
    /// # Errors
    /// [`LoadError::Config`] naming the key.
    pub fn from_open_clip(config: &Value, size: (usize, usize)) -> Result<Self, LoadError> {
        let empty = Value::Object(serde_json::Map::new());
        let value = Section::top(FILE, config)?.value(KEY).unwrap_or(&empty);
        let section = Section::new(FILE, KEY, value)?;
        if let Some(mode) = section.get::<String>("mode")?
            && mode != "RGB"
        {
            return Err(section.error("mode", format!("is '{mode}', but must be 'RGB'")));
        }
        let filter = match section.get::<String>("interpolation")?.as_deref() {
            // 'random' is for training; at inference the library resamples by bicubic.
            None | Some("bicubic" | "random") => Filter::Bicubic,
            Some("bilinear") => Filter::Bilinear,
            Some(other) => {
                let reason = format!("is '{other}', but must be 'bicubic', 'bilinear' or 'random'");
                return Err(section.error("interpolation", reason));
            }
        };
        let (height, width) = size;
        let square = height == width;
        // The library resizes to other shapes than squares by bicubic whatever 'interpolation' says.
        let (resize, filter, crop) = match section.get::<String>("resize_mode")?.as_deref() {
            None | Some("shortest") if square => (Resize::ShortestEdge(height), filter, Some(size)),
            None | Some("shortest") => (Resize::Cover(height, width), Filter::Bicubic, Some(size)),
            Some("longest") => (Resize::Contain(height, width), filter, Some(size)),
            Some("squash") => (Resize::Exact(height, width), filter, None),
            Some(other) => {
                let reason = format!("is '{other}', but must be 'shortest', 'longest' or 'squash'");
                return Err(section.error("resize_mode", reason));
            }
        };
        let mean = channels(&section, "mean", CLIP_MEAN)?;
        let std = channels(&section, "std", CLIP_STD)?;
        if std.iter().any(|v| *v <= 0.0) {
            return Err(section.error("std", "must be above 0 in every channel; use the file as published"));
        }
        Ok(Self::new(Rules {
            library: Library::OpenClip,
            resize: Some(resize),
            filter,
            crop,
            fill: section.get_or("fill_color", 0u8)?,
            rescale: Some(1.0 / 255.0),
            normalize: Some((mean, std)),
            size,
        }))
    }
}

/// One number for all channels, or one for each. The library takes a single 0 as absent.
fn channels(section: &Section<'_>, key: &str, default: [f64; 3]) -> Result<[f64; 3], LoadError> {
    let read = match section.value(key) {
        Some(Value::Number(_)) => match section.get_or(key, 0.0)? {
            0.0 => default,
            value => [value; 3],
        },
        _ => section.get_or(key, default)?,
    };
    if read.iter().all(|v: &f64| v.is_finite()) {
        return Ok(read);
    }
    Err(section.error(key, "is not finite; use the file as published"))
}

/// The settings as the file holds them.
pub(super) fn to_value(rules: &Rules) -> Value {
    let (mean, std) = rules.normalize.unwrap_or(([0.0; 3], [1.0; 3]));
    let mode = match rules.resize {
        Some(Resize::Exact(..)) | None => "squash",
        Some(Resize::Contain(..)) => "longest",
        Some(Resize::ShortestEdge(_) | Resize::Cover(..)) => "shortest",
    };
    json!({KEY: {
        "size": [rules.size.0, rules.size.1],
        "mode": "RGB",
        "mean": mean,
        "std": std,
        "interpolation": rules.filter.name(),
        "resize_mode": mode,
        "fill_color": rules.fill,
    }})
}
