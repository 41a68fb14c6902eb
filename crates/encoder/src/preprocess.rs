//! RGB pixels to the values an image tower reads: `preprocessor_config.json`.
//!
//! Owns: the file's keys in all their published spellings, the library's defaults, output geometry,
//! normalisation, and writing the file back. Does not own the resampling arithmetic or decoding.

use std::path::Path;

use diptych_core::{EncodeError, PreparedImage};
use image::RgbImage;
use serde::Serialize;
use serde_json::{Value, json};

use crate::config::VisionConfig;
use crate::decode::decode;
use crate::error::{LoadError, read_file};
use crate::json::{self, Section};
use crate::resize::{Axis, Filter, resize};

/// The file's name within a model directory.
pub const PREPROCESSOR_FILE: &str = "preprocessor_config.json";
/// Longest side that may be asked for.
const SIZE_MAX: usize = 4096;
/// Mean of CLIP's training images per channel, in 0 to 1.
pub const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
/// Standard deviation of CLIP's training images per channel, in 0 to 1.
pub const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

/// How a model wants its images: resize, centre crop, scale, normalise.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessing {
    resize: Option<Resize>,
    filter: Filter,
    /// Height and width.
    crop: Option<(usize, usize)>,
    rescale: Option<f64>,
    /// Mean and standard deviation.
    normalize: Option<([f64; 3], [f64; 3])>,
    /// Height and width of the tower's input.
    side: usize,
    /// What each 8-bit sample becomes, per channel.
    table: Box<[[f32; 256]; 3]>,
}

/// The size an image is scaled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resize {
    /// The shorter side to this many pixels, keeping the aspect.
    ShortestEdge(usize),
    /// Height and width, whatever the aspect.
    Exact(usize, usize),
}

/// Pixels after resize and crop, before normalisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    /// Interleaved RGB rows, `height * width * 3` samples.
    pub data: Vec<u8>,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Pixels {
    /// The samples as three planes, `[3, height, width]`.
    pub fn to_planes(&self) -> Vec<u8> {
        (0..3).flat_map(|c| self.data.iter().skip(c).step_by(3).copied()).collect()
    }
}

impl Preprocessing {
    /// Reads `preprocessor_config.json` of a model directory and checks it against the image tower.
    ///
    /// # Errors
    /// [`LoadError::MissingFile`], [`LoadError::Io`], or [`LoadError::Config`] naming the key.
    pub fn from_dir(dir: &Path, vision: &VisionConfig) -> Result<Self, LoadError> {
        let text = read_file(&dir.join(PREPROCESSOR_FILE), "the model's preprocessor_config.json")?;
        Self::from_json(&text, vision)
    }

    /// Reads the text of a `preprocessor_config.json`. Keys that are absent or null take the
    /// defaults of the transformers library's `CLIPImageProcessor`.
    ///
    /// # Errors
    /// [`LoadError::Config`] naming the key.
    pub fn from_json(text: &str, vision: &VisionConfig) -> Result<Self, LoadError> {
        let value = json::parse(PREPROCESSOR_FILE, text)?;
        let top = Section::top(PREPROCESSOR_FILE, &value)?;
        check_kind(&top)?;
        let flag = |key: &str| top.get_or(key, true);
        let filter = top.get_or("resample", Filter::Bicubic as u64)?;
        let filter = Filter::from_pillow(filter).ok_or_else(|| {
            top.error(
                "resample",
                format!("is {filter}, but Pillow's filters are 0 to 5; CLIP uses 3 (bicubic)"),
            )
        })?;
        let resize = read_size(&top)?;
        let crop = read_crop(&top)?;
        let factor: f64 = top.get_or("rescale_factor", 1.0 / 255.0)?;
        let mean: [f64; 3] = top.get_or("image_mean", CLIP_MEAN)?;
        let std: [f64; 3] = top.get_or("image_std", CLIP_STD)?;
        if !factor.is_finite() || factor <= 0.0 {
            return Err(
                top.error("rescale_factor", format!("is {factor}, but must be above 0, usually 1/255"))
            );
        }
        if mean.iter().any(|v| !v.is_finite()) {
            return Err(top.error("image_mean", "is not finite; use the file as published"));
        }
        if std.iter().any(|v| !v.is_finite() || *v <= 0.0) {
            return Err(top.error("image_std", "must be above 0 in every channel; use the file as published"));
        }
        let read = Self::build(
            flag("do_resize")?.then_some(resize),
            filter,
            flag("do_center_crop")?.then_some(crop),
            flag("do_rescale")?.then_some(factor),
            flag("do_normalize")?.then_some((mean, std)),
            vision.image_size,
        );
        read.check_against_tower(&top)?;
        Ok(read)
    }

    /// What a model trained here declares: shortest edge to `size` by bicubic resampling, centre
    /// crop of `size` by `size`, then `(value / 255 - mean) / std` per channel.
    pub fn for_training(size: usize, mean: [f64; 3], std: [f64; 3]) -> Self {
        Self::build(
            Some(Resize::ShortestEdge(size)),
            Filter::Bicubic,
            Some((size, size)),
            Some(1.0 / 255.0),
            Some((mean, std)),
            size,
        )
    }

    fn build(
        resize: Option<Resize>,
        filter: Filter,
        crop: Option<(usize, usize)>,
        rescale: Option<f64>,
        normalize: Option<([f64; 3], [f64; 3])>,
        side: usize,
    ) -> Self {
        let mut table = Box::new([[0f32; 256]; 3]);
        let (mean, std) = normalize.unwrap_or(([0.0; 3], [1.0; 3]));
        for (c, channel) in table.iter_mut().enumerate() {
            for (v, out) in channel.iter_mut().enumerate() {
                let scaled = v as f64 * rescale.unwrap_or(1.0);
                *out = ((scaled - mean[c]) / std[c]) as f32;
            }
        }
        Self { resize, filter, crop, rescale, normalize, side, table }
    }

    /// Refuses a combination that gives the tower another size than it was built for.
    fn check_against_tower(&self, top: &Section<'_>) -> Result<(), LoadError> {
        let side = self.side;
        let (key, size) = match (self.crop, self.resize) {
            (Some(size), _) => ("crop_size", size),
            (None, Some(Resize::Exact(height, width))) => ("size", (height, width)),
            (None, Some(Resize::ShortestEdge(edge))) => ("size", (edge, edge)),
            (None, None) => return Ok(()),
        };
        if size == (side, side) {
            return Ok(());
        }
        let reason = format!(
            "gives images of {} x {}, but vision_config.image_size is {side}; use the two files that were published together",
            size.0, size.1
        );
        Err(top.error(key, reason))
    }

    /// Height and width of the tower's input, in pixels.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Decodes, resizes, crops and normalises one image file.
    ///
    /// # Errors
    /// [`EncodeError::Image`] or [`EncodeError::ImageTooLarge`].
    pub fn prepare(&self, bytes: &[u8]) -> Result<PreparedImage, EncodeError> {
        self.prepare_rgb(&decode(bytes)?)
    }

    /// Resizes, crops and normalises one decoded image.
    ///
    /// # Errors
    /// [`EncodeError::Image`] when the model does not crop and the image's shape does not fit it.
    pub fn prepare_rgb(&self, image: &RgbImage) -> Result<PreparedImage, EncodeError> {
        let side = self.side as u64;
        let resized = self.resized(image);
        if self.crop.is_none() && resized != (side, side) {
            let reason = format!(
                "this model does not crop, so an image of {} x {} becomes {} x {} where it reads {side} x {side}; crop it to a square",
                image.width(),
                image.height(),
                resized.1,
                resized.0
            );
            return Err(EncodeError::Image { reason });
        }
        let values = self.normalize(&self.pixels(image)).into_boxed_slice();
        Ok(PreparedImage { values, width: image.width(), height: image.height() })
    }

    /// Resizes and crops to the tower's input size. Where the settings crop nothing, the centre of
    /// that size counts, so that the result is bounded whatever the image's shape.
    pub fn pixels(&self, image: &RgbImage) -> Pixels {
        let (height, width) = self.crop.unwrap_or((self.side, self.side));
        let resized = self.resized(image);
        let rows = Window::new(resized.0, height);
        let columns = Window::new(resized.1, width);
        let x = Axis::new(self.filter, image.width() as usize, resized.1, columns.source.clone());
        let y = Axis::new(self.filter, image.height() as usize, resized.0, rows.source.clone());
        let inner = resize(image.as_raw(), image.width() as usize, &x, &y);
        let inner_width = columns.len();
        if (rows.len(), inner_width) == (height, width) {
            return Pixels { data: inner, width, height };
        }
        // Smaller than the crop: black around it.
        let mut data = vec![0u8; height * width * 3];
        for (r, row) in inner.chunks_exact(inner_width * 3).enumerate() {
            let at = ((rows.margin + r) * width + columns.margin) * 3;
            data[at..at + row.len()].copy_from_slice(row);
        }
        Pixels { data, width, height }
    }

    /// The tower's input, `[3, height, width]`.
    pub fn normalize(&self, pixels: &Pixels) -> Vec<f32> {
        let mut values = Vec::with_capacity(pixels.data.len());
        for (c, table) in self.table.iter().enumerate() {
            values.extend(pixels.data.iter().skip(c).step_by(3).map(|&v| table[usize::from(v)]));
        }
        values
    }

    /// Height and width after resizing, before cropping.
    fn resized(&self, image: &RgbImage) -> (u64, u64) {
        let (width, height) = (u64::from(image.width()), u64::from(image.height()));
        match self.resize {
            None => (height, width),
            Some(Resize::Exact(h, w)) => (h as u64, w as u64),
            // The longer side is truncated, not rounded, in all libraries of the family.
            Some(Resize::ShortestEdge(edge)) if width <= height => {
                (edge as u64 * height / width, edge as u64)
            }
            Some(Resize::ShortestEdge(edge)) => (edge as u64, edge as u64 * width / height),
        }
    }

    /// The text of a `preprocessor_config.json` that this loader and the transformers library read.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain numbers and strings always serialise")
    }
}

impl Serialize for Preprocessing {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (crop_height, crop_width) = self.crop.unwrap_or((self.side, self.side));
        let (mean, std) = self.normalize.unwrap_or((CLIP_MEAN, CLIP_STD));
        let size = match self.resize {
            Some(Resize::Exact(height, width)) => json!({"height": height, "width": width}),
            Some(Resize::ShortestEdge(edge)) => json!({"shortest_edge": edge}),
            None => json!({"shortest_edge": self.side}),
        };
        json!({
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": true,
            "do_resize": self.resize.is_some(),
            "size": size,
            "resample": self.filter as u64,
            "do_center_crop": self.crop.is_some(),
            "crop_size": {"height": crop_height, "width": crop_width},
            "do_rescale": self.rescale.is_some(),
            "rescale_factor": self.rescale.unwrap_or(1.0 / 255.0),
            "do_normalize": self.normalize.is_some(),
            "image_mean": mean,
            "image_std": std,
        })
        .serialize(serializer)
    }
}

/// A centre crop along one side, in coordinates of the resized image.
struct Window {
    /// The part of it that exists.
    source: std::ops::Range<u64>,
    /// Black samples before that part.
    margin: usize,
}

impl Window {
    fn new(resized: u64, crop: usize) -> Self {
        // Floor division, also below zero: `(h - c) // 2`.
        let start = (resized as i64 - crop as i64).div_euclid(2);
        let from = start.max(0) as u64;
        let to = resized.min((start + crop as i64).max(0) as u64);
        Self { source: from..to, margin: (-start).max(0) as usize }
    }

    fn len(&self) -> usize {
        (self.source.end - self.source.start) as usize
    }
}

/// Other processors have other defaults for absent keys, so their files are not guessed at.
fn check_kind(top: &Section<'_>) -> Result<(), LoadError> {
    for key in ["image_processor_type", "feature_extractor_type"] {
        if let Some(kind) = top.get::<String>(key)?
            && !kind.starts_with("CLIP")
        {
            let reason = format!(
                "is '{kind}', but CLIPModel goes with 'CLIPImageProcessor'; use the file as published"
            );
            return Err(top.error(key, reason));
        }
    }
    Ok(())
}

fn read_size(top: &Section<'_>) -> Result<Resize, LoadError> {
    match top.value("size") {
        None => Ok(Resize::ShortestEdge(224)),
        // The historic spelling: one number is the shortest edge.
        Some(Value::Number(_)) => Ok(Resize::ShortestEdge(side(top, "size")?)),
        Some(size) => {
            let section = Section::new(PREPROCESSOR_FILE, "size", size)?;
            if section.value("longest_edge").is_some() {
                return Err(
                    section.error("longest_edge", "is not part of CLIP's preprocessing; use 'shortest_edge'")
                );
            }
            if section.value("shortest_edge").is_some() {
                return Ok(Resize::ShortestEdge(side(&section, "shortest_edge")?));
            }
            Ok(Resize::Exact(side(&section, "height")?, side(&section, "width")?))
        }
    }
}

fn read_crop(top: &Section<'_>) -> Result<(usize, usize), LoadError> {
    match top.value("crop_size") {
        None => Ok((224, 224)),
        Some(Value::Number(_)) => side(top, "crop_size").map(|side| (side, side)),
        Some(size) => {
            let section = Section::new(PREPROCESSOR_FILE, "crop_size", size)?;
            Ok((side(&section, "height")?, side(&section, "width")?))
        }
    }
}

fn side(section: &Section<'_>, key: &str) -> Result<usize, LoadError> {
    match section.get::<usize>(key)? {
        Some(side) if (1..=SIZE_MAX).contains(&side) => Ok(side),
        Some(side) => Err(section.error(key, format!("is {side}, but must be 1 to {SIZE_MAX} pixels"))),
        None => Err(section.error(key, "is missing; give the size in pixels")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vision(image_size: usize) -> VisionConfig {
        VisionConfig { image_size, patch_size: 8, ..VisionConfig::default() }
    }

    #[test]
    fn absent_keys_mean_the_clip_processor() {
        let read = Preprocessing::from_json("{}", &vision(224)).expect("defaults");
        assert_eq!(read, Preprocessing::for_training(224, CLIP_MEAN, CLIP_STD));
        let legacy =
            Preprocessing::from_json(r#"{"size": 64, "crop_size": 64}"#, &vision(64)).expect("legacy");
        assert_eq!(legacy, Preprocessing::for_training(64, CLIP_MEAN, CLIP_STD));
    }

    #[test]
    fn writing_and_reading_gives_the_same_settings() {
        for json in [
            r#"{"size": {"height": 32, "width": 32}, "do_center_crop": false, "resample": 2}"#,
            r#"{"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_rescale": false}"#,
            r#"{"do_resize": false, "do_center_crop": false, "do_normalize": false}"#,
        ] {
            let read = Preprocessing::from_json(json, &vision(32)).expect(json);
            assert_eq!(Preprocessing::from_json(&read.to_json(), &vision(32)).expect(json), read);
        }
    }

    #[test]
    fn wrong_settings_are_refused_by_name() {
        for (json, key) in [
            (r#"{"resample": 9}"#, "resample"),
            (r#"{"crop_size": 300}"#, "crop_size"),
            (r#"{"size": {"longest_edge": 224}}"#, "size.longest_edge"),
            (r#"{"size": {"height": 224}}"#, "size.width"),
            (r#"{"size": {"height": 99, "width": 224}, "do_center_crop": false}"#, "size"),
            (r#"{"image_std": [0, 1, 1]}"#, "image_std"),
            (r#"{"image_mean": [0, 1]}"#, "image_mean"),
            (r#"{"image_processor_type": "ViTImageProcessor"}"#, "image_processor_type"),
        ] {
            let error = Preprocessing::from_json(json, &vision(224)).expect_err(json).to_string();
            assert!(error.contains(key) && error.contains(PREPROCESSOR_FILE), "{json}: {error}");
        }
    }

    #[test]
    fn a_small_image_lies_in_the_middle_of_black() {
        let json = r#"{"do_resize": false, "crop_size": 8}"#;
        let settings = Preprocessing::from_json(json, &vision(8)).expect("valid");
        let image = RgbImage::from_pixel(3, 11, image::Rgb([9, 9, 9]));
        let pixels = settings.pixels(&image);
        let row: Vec<u8> = pixels.data.iter().step_by(3).take(8).copied().collect();
        // (3 - 8) // 2 is -3.
        assert_eq!(row, [0, 0, 0, 9, 9, 9, 0, 0]);
        assert!(pixels.data.chunks_exact(24).all(|r| r.iter().step_by(3).eq(row.iter())));
    }

    #[test]
    fn extreme_shapes_cost_no_more_than_the_crop() {
        let settings = Preprocessing::for_training(224, CLIP_MEAN, CLIP_STD);
        for (width, height) in [(1, 65_535), (65_535, 1), (1, 1), (1_000_000, 2)] {
            let image = RgbImage::from_pixel(width, height, image::Rgb([10, 20, 30]));
            let pixels = settings.pixels(&image);
            assert!(pixels.data.chunks_exact(3).all(|p| p == [10, 20, 30]), "{width} x {height}");
            assert_eq!(pixels.to_planes().len(), 224 * 224 * 3);
        }
    }

    #[test]
    fn without_a_crop_only_fitting_shapes_pass() {
        let json = r#"{"size": 16, "do_center_crop": false}"#;
        let settings = Preprocessing::from_json(json, &vision(16)).expect("valid");
        assert!(settings.prepare_rgb(&RgbImage::new(40, 40)).is_ok());
        let error = settings.prepare_rgb(&RgbImage::new(40, 80)).expect_err("not square").to_string();
        assert!(error.contains("40 x 80") && error.contains("square"), "{error}");
    }
}
