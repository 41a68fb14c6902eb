//! Decoded pixels to the values an image tower reads.
//!
//! Owns: [`Preprocessing`], the one value that all published settings files become, its pipeline of
//! resize, crop, scale and normalise, and writing it back. The files are read in [`hf`] and
//! [`open_clip`]; what torchvision's weights mean is in [`torchvision`]. Does not own the resampling arithmetic or decoding.

mod geometry;
mod hf;
mod open_clip;
mod torchvision;

use std::ops::Range;

use diptych_core::{EncodeError, PreparedImage};
use image::{ImageBuffer, Pixel, RgbImage, RgbaImage};
use serde_json::{Value, json};

use crate::decode::{Decoded, Samples, Wanted, decode_samples};
use crate::resize::{Axis, Filter, Sample, resize};
use crate::thumbnail::thumbnail_of;
use geometry::{CropRounding, Resize, Window};

pub use hf::{PREPROCESSOR_FILE, PROCESSOR_FILE, ProcessorFamily};

/// Longest side that may be asked for.
const SIZE_MAX: usize = 4096;
/// Mean of CLIP's training images per channel, in 0 to 1.
pub const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
/// Standard deviation of CLIP's training images per channel, in 0 to 1.
pub const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

/// How a model wants its images: resize, centre crop, scale, normalise.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessing {
    rules: Rules,
    /// What each 8-bit sample becomes, per channel.
    table: Box<[[f32; 256]; 3]>,
}

/// The settings, checked.
#[derive(Debug, Clone, PartialEq)]
struct Rules {
    library: Library,
    resize: Option<Resize>,
    filter: Filter,
    /// Height and width.
    crop: Option<(usize, usize)>,
    /// The sample of the border where an image is smaller than its crop.
    fill: u8,
    rescale: Option<f64>,
    /// Mean and standard deviation.
    normalize: Option<([f64; 3], [f64; 3])>,
    /// Height and width of the tower's input.
    size: (usize, usize),
}

/// Whose pipeline it is. Both resample with Pillow, but not the same things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Library {
    /// Converts to RGB, then resizes.
    Transformers,
    /// Resizes, then converts to RGB: transparent images are resampled with premultiplied alpha and
    /// palette images with the nearest sample, as Pillow does both.
    OpenClip,
    /// As its examples do: an image opened as RGB, then resized, with a crop that rounds like OpenCLIP's.
    Torchvision,
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

/// Interleaved samples to resample.
struct Source<'a, S> {
    samples: &'a [S],
    columns: usize,
    rows: usize,
    /// Where the picture lies in the columns and rows.
    x: Range<f64>,
    y: Range<f64>,
    /// Height and width to resample the picture to.
    resized: (u64, u64),
}

impl Pixels {
    /// The samples as three planes, `[3, height, width]`.
    pub fn to_planes(&self) -> Vec<u8> {
        (0..3).flat_map(|c| self.data.iter().skip(c).step_by(3).copied()).collect()
    }
}

impl Preprocessing {
    /// What a model trained here declares: shortest edge to `size` by bicubic resampling, centre
    /// crop of `size` by `size`, then `(value / 255 - mean) / std` per channel.
    pub fn for_training(size: usize, mean: [f64; 3], std: [f64; 3]) -> Self {
        Self::new(Rules {
            library: Library::Transformers,
            resize: Some(Resize::ShortestEdge(size)),
            filter: Filter::Bicubic,
            crop: Some((size, size)),
            fill: 0,
            rescale: Some(1.0 / 255.0),
            normalize: Some((mean, std)),
            size: (size, size),
        })
    }

    fn new(rules: Rules) -> Self {
        let mut table = Box::new([[0f32; 256]; 3]);
        let (mean, std) = rules.normalize.unwrap_or(([0.0; 3], [1.0; 3]));
        for (c, channel) in table.iter_mut().enumerate() {
            for (v, out) in channel.iter_mut().enumerate() {
                let scaled = v as f64 * rules.rescale.unwrap_or(1.0);
                *out = ((scaled - mean[c]) / std[c]) as f32;
            }
        }
        Self { rules, table }
    }

    /// Height and width of the tower's input, in pixels.
    pub fn size(&self) -> (usize, usize) {
        self.rules.size
    }

    /// Height of the tower's input, in pixels. It is the width too, unless [`Self::size`] says otherwise.
    pub fn side(&self) -> usize {
        self.rules.size.0
    }

    /// Decodes, resizes, crops and normalises one image file.
    ///
    /// # Errors
    /// [`EncodeError::Image`] or [`EncodeError::ImageTooLarge`].
    pub fn prepare(&self, bytes: &[u8]) -> Result<PreparedImage, EncodeError> {
        self.prepare_decoded(&self.decode(bytes)?)
    }

    /// As [`Self::prepare`], with a small picture of the whole image, from one decoding.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_with_thumbnail(
        &self,
        bytes: &[u8],
        side: u32,
    ) -> Result<(PreparedImage, Option<Vec<u8>>), EncodeError> {
        let decoded = self.decode(bytes)?;
        Ok((self.prepare_decoded(&decoded)?, Some(thumbnail_of(&decoded, side)?)))
    }

    fn prepare_decoded(&self, decoded: &Decoded) -> Result<PreparedImage, EncodeError> {
        self.check_shape(decoded.width, decoded.height)?;
        let values = self.normalize(&self.crop(decoded)).into_boxed_slice();
        Ok(PreparedImage { values, width: decoded.width, height: decoded.height })
    }

    /// Resizes, crops and normalises one decoded image.
    ///
    /// # Errors
    /// [`EncodeError::Image`] when the model does not crop and the image's shape does not fit it.
    pub fn prepare_rgb(&self, image: &RgbImage) -> Result<PreparedImage, EncodeError> {
        self.check_shape(image.width(), image.height())?;
        let values = self.normalize(&self.pixels(image)).into_boxed_slice();
        Ok(PreparedImage { values, width: image.width(), height: image.height() })
    }

    /// Decodes, resizes and crops one image file to the tower's input size.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn pixels_of_file(&self, bytes: &[u8]) -> Result<Pixels, EncodeError> {
        let decoded = self.decode(bytes)?;
        self.check_shape(decoded.width, decoded.height)?;
        Ok(self.crop(&decoded))
    }

    /// Resizes and crops to the tower's input size. Where the settings crop nothing, the centre of
    /// that size counts, so that the result is bounded whatever the image's shape.
    pub fn pixels(&self, image: &RgbImage) -> Pixels {
        self.window(&self.source(image), self.rules.filter, [self.rules.fill; 3])
    }

    /// The tower's input, `[3, height, width]`.
    pub fn normalize(&self, pixels: &Pixels) -> Vec<f32> {
        let mut values = Vec::with_capacity(pixels.data.len());
        for (c, table) in self.table.iter().enumerate() {
            values.extend(pixels.data.iter().skip(c).step_by(3).map(|&v| table[usize::from(v)]));
        }
        values
    }

    /// What the tower reads for a sample of 0 and for one of 255, per channel; everything between lies on
    /// a straight line.
    pub fn levels(&self) -> [(f32, f32); 3] {
        [0, 1, 2].map(|c: usize| (self.table[c][0], self.table[c][255]))
    }

    fn decode(&self, bytes: &[u8]) -> Result<Decoded, EncodeError> {
        let target = |size| self.resized(size);
        let antialiases = self.rules.filter != Filter::Nearest;
        let wanted = Wanted {
            modes: self.rules.library == Library::OpenClip,
            target: if antialiases { Some(&target) } else { None },
        };
        decode_samples(bytes, &wanted)
    }

    fn crop(&self, decoded: &Decoded) -> Pixels {
        match &decoded.samples {
            Samples::Rgb(image) => self.pixels(image),
            Samples::Reduced(image) => {
                let source = Source {
                    x: decoded.x.clone(),
                    y: decoded.y.clone(),
                    resized: self.resized((decoded.width, decoded.height)),
                    ..self.source(image)
                };
                self.window(&source, self.rules.filter, [self.rules.fill; 3])
            }
            // The fill colour is a palette index too.
            Samples::Palette(image, palette) => {
                let border = palette.get(usize::from(self.rules.fill)).copied().unwrap_or_default();
                self.window(&self.source(image), Filter::Nearest, border)
            }
            Samples::Rgba(image) => self.crop_rgba(image),
        }
    }

    fn crop_rgba(&self, image: &RgbaImage) -> Pixels {
        let (source, filter, fill) = (self.source(image), self.rules.filter, self.rules.fill);
        // Pillow leaves the alpha alone where nothing is resampled.
        let blend = filter != Filter::Nearest && source.resized != swap(image.dimensions());
        let border = [fill, fill, fill, 255];
        let pixels = if blend {
            let premultiplied: Vec<u8> =
                image.as_raw().as_chunks::<4>().0.iter().flat_map(|p| premultiply(*p)).collect();
            self.window(&Source { samples: &premultiplied, ..source }, filter, border)
        } else {
            self.window(&source, filter, border)
        };
        let undo = |p: [u8; 4]| if blend { unpremultiply(p) } else { p };
        let data = pixels.data.as_chunks::<4>().0.iter().flat_map(|p| undo(*p).into_iter().take(3)).collect();
        Pixels { data, ..pixels }
    }

    /// A whole decoded image.
    fn source<'a, P: Pixel>(&self, image: &'a ImageBuffer<P, Vec<P::Subpixel>>) -> Source<'a, P::Subpixel> {
        let (width, height) = image.dimensions();
        Source {
            samples: image.as_raw(),
            columns: width as usize,
            rows: height as usize,
            x: 0.0..f64::from(width),
            y: 0.0..f64::from(height),
            resized: self.resized((width, height)),
        }
    }

    /// The crop of the resized image, with its border; `C` interleaved samples per pixel.
    fn window<S: Sample, const C: usize>(
        &self,
        source: &Source<'_, S>,
        filter: Filter,
        border: [u8; C],
    ) -> Pixels {
        let rules = &self.rules;
        let (height, width) = rules.crop.unwrap_or(rules.size);
        let resized = source.resized;
        let rounding = match rules.library {
            Library::Transformers => CropRounding::Floor,
            Library::OpenClip | Library::Torchvision => CropRounding::TiesToEven,
        };
        let rows = Window::new(resized.0, height, rounding);
        let columns = Window::new(resized.1, width, rounding);
        let x = Axis::new(filter, source.columns, source.x.clone(), resized.1, columns.source.clone());
        let y = Axis::new(filter, source.rows, source.y.clone(), resized.0, rows.source.clone());
        let inner = resize::<S, C>(source.samples, source.columns, &x, &y);
        let inner_width = columns.len();
        if (rows.len(), inner_width) == (height, width) {
            return Pixels { data: inner, width, height };
        }
        // Smaller than the crop: a border around it.
        let mut data = border.repeat(height * width);
        for (r, row) in inner.chunks_exact(inner_width * C).enumerate() {
            let at = ((rows.margin + r) * width + columns.margin) * C;
            data[at..at + row.len()].copy_from_slice(row);
        }
        Pixels { data, width, height }
    }

    /// Height and width after resizing, before cropping, of an image of `(width, height)`.
    fn resized(&self, size: (u32, u32)) -> (u64, u64) {
        self.rules.resize.map_or(swap(size), |resize| resize.output(swap(size)))
    }

    /// Refuses what the reference would hand to its tower in a wrong shape.
    fn check_shape(&self, width: u32, height: u32) -> Result<(), EncodeError> {
        let resized = self.resized((width, height));
        let (h, w) = self.rules.size;
        if self.rules.crop.is_some() || resized == (h as u64, w as u64) {
            return Ok(());
        }
        let reason = format!(
            "this model does not crop, so an image of {width} x {height} becomes {} x {} where it reads {w} x {h}; crop it to that shape",
            resized.1, resized.0
        );
        Err(EncodeError::Image { reason })
    }

    /// The settings as a file: a `preprocessor_config.json` that this loader and the transformers
    /// library read, for OpenCLIP models the part of `open_clip_config.json` about images, or for
    /// torchvision's the arguments of its preset, which no file holds. It tells apart any two settings that give different values.
    pub fn to_json(&self) -> String {
        let value = match self.rules.library {
            Library::Transformers => hf::to_value(&self.rules),
            Library::OpenClip => open_clip::to_value(&self.rules),
            Library::Torchvision => torchvision::to_value(&self.rules),
        };
        serde_json::to_string_pretty(&value).expect("plain numbers and strings always serialise")
    }

    /// What is done to an image, step by step, for people: a name and what it means.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let rules = &self.rules;
        let resize = match rules.resize {
            None => "none".to_owned(),
            Some(Resize::ShortestEdge(edge)) => format!("shorter side to {edge}, aspect kept"),
            Some(Resize::Exact(h, w)) => format!("squashed to {w} x {h}, aspect not kept"),
            Some(Resize::Cover(h, w)) => format!("aspect kept, covering {w} x {h}"),
            Some(Resize::Contain(h, w)) => format!("aspect kept, within {w} x {h}"),
        };
        let crop = match (rules.crop, rules.fill) {
            (None, _) => "none".to_owned(),
            (Some((h, w)), 0) => format!("centre {w} x {h}, black border where smaller"),
            (Some((h, w)), fill) => format!("centre {w} x {h}, border of grey {fill} where smaller"),
        };
        let scale = rules.rescale.map_or("none".to_owned(), |factor| {
            let inverse = 1.0 / factor;
            if (inverse - inverse.round()).abs() < 1e-6 {
                format!("divided by {}", inverse.round())
            } else {
                format!("multiplied by {factor}")
            }
        });
        let normalize =
            rules.normalize.map_or("none".to_owned(), |(mean, std)| format!("mean {mean:?}, std {std:?}"));
        let alpha = match rules.library {
            Library::Transformers | Library::Torchvision => "dropped before resizing",
            Library::OpenClip => "dropped after resizing, which weights colours by it",
        };
        vec![
            ("preprocessing", format!("{} x {}, RGB, EXIF orientation applied", rules.size.1, rules.size.0)),
            ("  resize", resize),
            ("  filter", rules.filter.name().to_owned()),
            ("  crop", crop),
            ("  scale", scale),
            ("  normalize", normalize),
            ("  transparency", alpha.to_owned()),
        ]
    }
}

fn swap((width, height): (u32, u32)) -> (u64, u64) {
    (u64::from(height), u64::from(width))
}

/// Pillow's RGBA to RGBa: each colour times alpha over 255, rounded in integers.
fn premultiply([r, g, b, a]: [u8; 4]) -> [u8; 4] {
    let scaled = |v: u8| {
        let product = u32::from(v) * u32::from(a) + 128;
        (((product >> 8) + product) >> 8) as u8
    };
    [scaled(r), scaled(g), scaled(b), a]
}

/// Pillow's RGBa to RGBA: truncated, clipped, and left alone at alpha 0 and 255.
fn unpremultiply([r, g, b, a]: [u8; 4]) -> [u8; 4] {
    if a == 0 || a == 255 {
        return [r, g, b, a];
    }
    let scaled = |v: u8| (255 * u32::from(v) / u32::from(a)).min(255) as u8;
    [scaled(r), scaled(g), scaled(b), a]
}

fn size_value((height, width): (usize, usize)) -> Value {
    json!({"height": height, "width": width})
}

#[cfg(test)]
mod tests;
