//! How torchvision's weights for ImageNet want their images.
//!
//! Owns: the preset `ImageClassification` with its defaults. Does not own what the settings do to pixels.

use serde_json::{Value, json};

use super::geometry::Resize;
use super::{Library, Preprocessing, Rules};
use crate::resize::Filter;

const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];

impl Preprocessing {
    /// Shorter side to `resize` pixels by bilinear resampling with antialiasing, centre crop of `size` by
    /// `size`, then `(value / 255 - mean) / std` with ImageNet's statistics.
    pub(crate) fn torchvision(resize: usize, size: usize) -> Self {
        Self::new(Rules {
            library: Library::Torchvision,
            resize: Some(Resize::ShortestEdge(resize)),
            filter: Filter::Bilinear,
            crop: Some((size, size)),
            fill: 0,
            rescale: Some(1.0 / 255.0),
            normalize: Some((MEAN, STD)),
            size: (size, size),
        })
    }
}

/// The preset's arguments.
pub(super) fn to_value(rules: &Rules) -> Value {
    let (mean, std) = rules.normalize.unwrap_or(([0.0; 3], [1.0; 3]));
    let resize = match rules.resize {
        Some(Resize::ShortestEdge(edge)) => json!(edge),
        _ => Value::Null,
    };
    json!({"torchvision": {
        "resize_size": resize,
        "crop_size": rules.size.0,
        "interpolation": rules.filter.name(),
        "mean": mean,
        "std": std,
    }})
}
