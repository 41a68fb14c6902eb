//! Encoded image files to RGB pixels, within bounds.
//!
//! Owns: which formats are read, the bounds checked before anything is decoded, orientation, and
//! conversion to 8-bit RGB. Does not own resizing.
//!
//! Policy: the EXIF orientation is always applied, as transformers' `load_image` does, also for
//! OpenCLIP models, whose library ignores it. Alpha is dropped, not blended, so that colours hidden
//! under it show, as in Pillow's `convert("RGB")`. 16-bit samples keep their high byte. Of an
//! animation, the first frame counts.
//!
//! OpenCLIP resizes before it converts to RGB, so for its models alpha is kept, and images that Pillow
//! holds as palette indices or single bits are told apart: PNG of these kinds and GIF. The rarer
//! palette and bilevel images of other formats are taken as RGB.

use std::io::Cursor;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use diptych_core::limits::IMAGE_PIXELS_MAX;
use diptych_core::{EncodeError, PreparedImage};
use image::error::LimitErrorKind;
use image::metadata::Orientation;
use image::{
    DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, Pixel,
    Rgb32FImage, RgbImage, RgbaImage,
};

use crate::jpeg;

/// Longest side in pixels. No camera and no scanner comes near; without it an image of one column
/// could ask for gigabytes of resampling weights.
const SIDE_MAX: u32 = 1 << 20;
/// Most bytes a decoder may hold: the largest image at 16-bit RGBA, and some working space.
const DECODER_BYTES_MAX: u64 = IMAGE_PIXELS_MAX * 8 + (64 << 20);

/// The samples of a decoded image, upright, 8 bits each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Samples {
    /// Colours without alpha, or with the alpha dropped.
    Rgb(RgbImage),
    /// Colours of an image decoded at a reduced scale, in 0 to 255.
    Reduced(Rgb32FImage),
    /// Colours with their alpha, not premultiplied.
    Rgba(RgbaImage),
    /// Colours of an image that is stored as palette indices or single bits, and the palette.
    Palette(RgbImage, Vec<[u8; 3]>),
}

/// A decoded image file.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) samples: Samples,
    /// Where the picture lies in the samples: all of them, unless it was decoded at a reduced scale
    /// and its last row or column is only partly filled.
    pub(crate) x: Range<f64>,
    pub(crate) y: Range<f64>,
    /// Width of the original in pixels, after orientation.
    pub(crate) width: u32,
    /// Height of the original in pixels, after orientation.
    pub(crate) height: u32,
}

/// Decodes an image file, upright and as 8-bit RGB.
///
/// # Errors
/// [`EncodeError::ImageTooLarge`] when the file or the size in its header is over the bounds,
/// [`EncodeError::Image`] when the bytes are no image, an unknown format, or cut short.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, EncodeError> {
    match decode_samples(bytes, &Wanted::default())?.samples {
        Samples::Rgb(image) => Ok(image),
        _ => unreachable!("only what is wanted is returned"),
    }
}

/// From an image's width and height to the height and width it is going to be resampled to.
pub(crate) type Target<'a> = dyn Fn((u32, u32)) -> (u64, u64) + 'a;

/// What a caller can use of an image file.
#[derive(Default)]
pub(crate) struct Wanted<'a> {
    /// Keep alpha, and tell palette images apart; otherwise all is [`Samples::Rgb`].
    pub(crate) modes: bool,
    /// With it, a large JPEG may be decoded at a reduced scale.
    pub(crate) target: Option<&'a Target<'a>>,
}

/// Decodes an image file, upright.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_samples(bytes: &[u8], wanted: &Wanted<'_>) -> Result<Decoded, EncodeError> {
    PreparedImage::check(bytes)?;
    // Decoders of foreign bytes are the likeliest place for a panic; it must cost one image only.
    catch_unwind(AssertUnwindSafe(|| decode_upright(bytes, wanted)))
        .unwrap_or_else(|_| Err(unreadable("the decoder gave up on its content")))
}

fn decode_upright(bytes: &[u8], wanted: &Wanted<'_>) -> Result<Decoded, EncodeError> {
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| unreadable(&e.to_string()))?;
    let Some(format) = reader.format() else {
        return Err(unreadable("it begins like none of the known formats"));
    };
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(DECODER_BYTES_MAX);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(explain)?;
    check_size(decoder.dimensions())?;
    // The limits above bind what decoders allocate themselves; this is the result they fill.
    if decoder.total_bytes() > DECODER_BYTES_MAX {
        return Err(too_much_memory());
    }
    // The JPEG decoder fills missing rows with grey and reports success.
    if format == ImageFormat::Jpeg && !jpeg::reaches_its_end(bytes) {
        return Err(unreadable("the JPEG data stops before its end marker, the file is cut short"));
    }
    // A damaged EXIF block is no reason to lose the picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    if let (ImageFormat::Jpeg, Some(target)) = (format, wanted.target)
        && let Some(decoded) = decode_reduced(bytes, decoder.dimensions(), orientation, target)
    {
        return Ok(decoded);
    }
    let image = DynamicImage::from_decoder(decoder).map_err(explain)?;
    let mode = if wanted.modes { stored_mode(format, bytes, image.color().has_alpha()) } else { Mode::Rgb };
    let (width, height) = upright_size((image.width(), image.height()), orientation);
    // Down to 8 bits first: turning an image copies it, and deep samples are up to three times as large.
    let samples = match mode {
        Mode::Rgb => Samples::Rgb(upright(DynamicImage::ImageRgb8(to_rgb(image)), orientation).into_rgb8()),
        Mode::Palette(palette) => Samples::Palette(
            upright(DynamicImage::ImageRgb8(to_rgb(image)), orientation).into_rgb8(),
            palette,
        ),
        Mode::Rgba => {
            Samples::Rgba(upright(DynamicImage::ImageRgba8(to_rgba(image)), orientation).into_rgba8())
        }
    };
    Ok(Decoded { samples, x: 0.0..f64::from(width), y: 0.0..f64::from(height), width, height })
}

/// A JPEG much larger than what it is resampled to, decoded at half, a quarter or an eighth. None
/// where it is not large enough or only the full decoder can tell what is wrong with it.
fn decode_reduced(
    bytes: &[u8],
    size: (u32, u32),
    orientation: Orientation,
    target: &Target<'_>,
) -> Option<Decoded> {
    let (width, height) = upright_size(size, orientation);
    let factor = jpeg::factor((width, height), target((width, height)))?;
    let image = jpeg::decode_reduced(bytes, size, factor)?;
    let image = upright(DynamicImage::ImageRgb32F(image), orientation).into_rgb32f();
    // The partly filled end of a side comes first when the side is mirrored.
    let (mirror_x, mirror_y) = mirrors(orientation);
    let extent = |full: u32, reduced: u32, mirrored: bool| {
        let length = f64::from(full) / factor as f64;
        if mirrored { f64::from(reduced) - length..f64::from(reduced) } else { 0.0..length }
    };
    let x = extent(width, image.width(), mirror_x);
    let y = extent(height, image.height(), mirror_y);
    Some(Decoded { samples: Samples::Reduced(image), x, y, width, height })
}

fn upright_size((width, height): (u32, u32), orientation: Orientation) -> (u32, u32) {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    match orientation {
        Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH => (height, width),
        _ => (width, height),
    }
}

/// Whether an orientation puts the end of the stored rows, or columns, at the left, or at the top.
fn mirrors(orientation: Orientation) -> (bool, bool) {
    // A clockwise quarter turn brings the last stored row to the left; a flip exchanges left and right.
    match orientation {
        Orientation::NoTransforms | Orientation::Rotate90FlipH => (false, false),
        Orientation::FlipHorizontal | Orientation::Rotate90 => (true, false),
        Orientation::FlipVertical | Orientation::Rotate270 => (false, true),
        Orientation::Rotate180 | Orientation::Rotate270FlipH => (true, true),
    }
}

fn upright(mut image: DynamicImage, orientation: Orientation) -> DynamicImage {
    image.apply_orientation(orientation);
    image
}

/// What Pillow would hold in memory, as far as it matters for resampling.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    Rgb,
    Rgba,
    Palette(Vec<[u8; 3]>),
}

/// The decoders expand palettes and transparent colours, so the file itself is asked.
fn stored_mode(format: ImageFormat, bytes: &[u8], has_alpha: bool) -> Mode {
    match format {
        ImageFormat::Gif => Mode::Palette(gif_palette(bytes)),
        // Bit depth and colour type of the header (PNG specification, 11.2.1).
        ImageFormat::Png => match (bytes.get(24), bytes.get(25)) {
            (_, Some(3)) => Mode::Palette(png_palette(bytes)),
            // Single bits: all that is not 0 is white.
            (Some(1), Some(0)) => {
                let mut palette = vec![[255; 3]; 256];
                palette[0] = [0; 3];
                Mode::Palette(palette)
            }
            (_, Some(4 | 6)) => Mode::Rgba,
            // A single transparent colour is a note beside the pixels for Pillow.
            _ => Mode::Rgb,
        },
        _ if has_alpha => Mode::Rgba,
        _ => Mode::Rgb,
    }
}

fn check_size((width, height): (u32, u32)) -> Result<(), EncodeError> {
    if width == 0 || height == 0 {
        return Err(unreadable(&format!("its size is {width} x {height}")));
    }
    if u64::from(width) * u64::from(height) > IMAGE_PIXELS_MAX {
        let reason = format!("{width} x {height} pixels, at most {IMAGE_PIXELS_MAX} in all");
        return Err(EncodeError::ImageTooLarge { reason });
    }
    if width.max(height) > SIDE_MAX {
        let reason = format!("{width} x {height} pixels, at most {SIDE_MAX} along one side");
        return Err(EncodeError::ImageTooLarge { reason });
    }
    Ok(())
}

fn unreadable(reason: &str) -> EncodeError {
    EncodeError::Image { reason: reason.to_owned() }
}

fn explain(error: ImageError) -> EncodeError {
    match error {
        ImageError::Limits(e) if !matches!(e.kind(), LimitErrorKind::Unsupported { .. }) => too_much_memory(),
        other => unreadable(&other.to_string()),
    }
}

fn too_much_memory() -> EncodeError {
    EncodeError::ImageTooLarge { reason: format!("decoding it needs over {DECODER_BYTES_MAX} bytes") }
}

/// The global colour table (GIF89a, sections 18 and 19).
fn gif_palette(bytes: &[u8]) -> Vec<[u8; 3]> {
    let entries = match bytes.get(10) {
        Some(flags) if flags & 0x80 != 0 => 2usize << (flags & 7),
        _ => 0,
    };
    bytes.get(13..13 + 3 * entries).map_or(Vec::new(), |table| table.as_chunks::<3>().0.to_vec())
}

/// The PLTE chunk (PNG specification, 11.2.2).
fn png_palette(bytes: &[u8]) -> Vec<[u8; 3]> {
    let mut at = 8;
    while let Some(head) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if &head[4..] == b"PLTE" {
            let table = bytes.get(at + 8..at + 8 + length).unwrap_or_default();
            return table.as_chunks::<3>().0.to_vec();
        }
        at += 12 + length;
    }
    Vec::new()
}

/// Eight bits per channel, three channels.
fn to_rgb(image: DynamicImage) -> RgbImage {
    let size = (image.width(), image.height());
    let high = |v: &u16| (v >> 8) as u8;
    match image {
        DynamicImage::ImageLuma16(i) => pack(size, i.into_raw().iter().map(|v| [high(v); 3])),
        DynamicImage::ImageLumaA16(i) => pack(size, i.into_raw().chunks_exact(2).map(|p| [high(&p[0]); 3])),
        DynamicImage::ImageRgb16(i) => {
            pack(size, i.into_raw().chunks_exact(3).map(|p| [0, 1, 2].map(|c| high(&p[c]))))
        }
        DynamicImage::ImageRgba16(i) => {
            pack(size, i.into_raw().chunks_exact(4).map(|p| [0, 1, 2].map(|c| high(&p[c]))))
        }
        other => other.into_rgb8(),
    }
}

/// Eight bits per channel, four channels.
fn to_rgba(image: DynamicImage) -> RgbaImage {
    let size = (image.width(), image.height());
    let high = |v: &u16| (v >> 8) as u8;
    match image {
        DynamicImage::ImageLumaA16(i) => {
            let pixels = i.into_raw();
            pack(size, pixels.chunks_exact(2).map(|p| [high(&p[0]), high(&p[0]), high(&p[0]), high(&p[1])]))
        }
        DynamicImage::ImageRgba16(i) => {
            pack(size, i.into_raw().chunks_exact(4).map(|p| [0, 1, 2, 3].map(|c| high(&p[c]))))
        }
        other => other.into_rgba8(),
    }
}

fn pack<P: Pixel<Subpixel = u8>, const C: usize>(
    (width, height): (u32, u32),
    pixels: impl Iterator<Item = [u8; C]>,
) -> ImageBuffer<P, Vec<u8>> {
    ImageBuffer::from_raw(width, height, pixels.flatten().collect())
        .expect("one pixel for each pixel of the source")
}
