//! Small pictures of images, to be shown beside a hit.
//!
//! Deliberately absent: where they are kept. What a model reads is never made from them.

use image::codecs::jpeg::JpegEncoder;
use image::imageops;
use image::{Pixel, RgbImage, Rgba, RgbaImage};

use crate::decode::{Decoded, Samples};
use diptych_core::EncodeError;

const QUALITY: u8 = 80;

/// A picture as a JPEG file whose longer side has at most `side` pixels; smaller pictures keep their size.
///
/// # Errors
/// [`EncodeError::Image`] when it cannot be written, such as one without pixels.
pub fn thumbnail(picture: &RgbImage, side: u32) -> Result<Vec<u8>, EncodeError> {
    let longest = picture.width().max(picture.height());
    if longest <= side {
        return to_jpeg(picture);
    }
    let scaled = |length: u32| (u64::from(length) * u64::from(side) / u64::from(longest)).max(1) as u32;
    let (width, height) = (scaled(picture.width()), scaled(picture.height()));
    // A mean over the pixels that each one covers: good enough to look at, and several times as fast as a filter.
    to_jpeg(&imageops::thumbnail(picture, width, height))
}

/// As [`thumbnail`], of an image that was decoded for a model.
pub(crate) fn thumbnail_of(decoded: &Decoded, side: u32) -> Result<Vec<u8>, EncodeError> {
    match &decoded.samples {
        Samples::Rgb(picture) | Samples::Palette(picture, _) => thumbnail(picture, side),
        Samples::Rgba(picture) => thumbnail(&without_alpha(picture), side),
        Samples::Reduced(picture) => {
            // The last row or column may be filled in part only.
            let whole = |range: &std::ops::Range<f64>| (range.start.ceil() as u32, range.end.floor() as u32);
            let ((left, right), (top, bottom)) = (whole(&decoded.x), whole(&decoded.y));
            let (width, height) = (right.saturating_sub(left).max(1), bottom.saturating_sub(top).max(1));
            let small = RgbImage::from_fn(width, height, |x, y| {
                picture.get_pixel(left + x, top + y).0.map(|v| v.round().clamp(0.0, 255.0) as u8).into()
            });
            thumbnail(&small, side)
        }
    }
}

fn without_alpha(picture: &RgbaImage) -> RgbImage {
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| Rgba::to_rgb(picture.get_pixel(x, y)))
}

fn to_jpeg(picture: &RgbImage) -> Result<Vec<u8>, EncodeError> {
    let mut jpeg = Vec::new();
    let written = JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode_image(picture);
    written.map_err(|e| EncodeError::Image { reason: format!("no small picture of it can be made: {e}") })?;
    Ok(jpeg)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::decode;

    /// Left half red, right half blue.
    fn halves(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, _| {
            [[255, 0, 0], [0, 0, 255]][usize::from(x >= width / 2)].into()
        })
    }

    #[test]
    fn a_thumbnail_is_the_picture_at_another_size() {
        for (size, small) in
            [((800, 400), (160, 80)), ((300, 600), (80, 160)), ((90, 20), (90, 20)), ((5000, 2), (160, 1))]
        {
            let again = decode(&thumbnail(&halves(size.0, size.1), 160).unwrap()).unwrap();
            assert_eq!(again.dimensions(), small);
            let close = |x: u32, wanted: [u8; 3]| {
                let found = again.get_pixel(x, small.1 / 2).0;
                assert!(found.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) < 24), "{size:?}: {found:?}");
            };
            close(small.0 / 4, [255, 0, 0]);
            close(small.0 * 3 / 4, [0, 0, 255]);
        }
        assert!(thumbnail(&RgbImage::new(0, 0), 160).is_err());
    }
}
