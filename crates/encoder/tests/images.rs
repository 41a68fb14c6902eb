//! Image files of every kind and in every state of damage.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Cursor;

use common::Noise;
use diptych_core::EncodeError;
use diptych_encoder::{CLIP_MEAN, CLIP_STD, Preprocessing, decode};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ExtendedColorType, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage, Rgba};

fn file(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn photo(width: u32, height: u32) -> RgbImage {
    let bytes = Noise::new(4).bytes((width * height * 3) as usize);
    ImageBuffer::from_raw(width, height, bytes).unwrap()
}

fn settings() -> Preprocessing {
    Preprocessing::for_training(224, CLIP_MEAN, CLIP_STD)
}

fn refused(bytes: &[u8]) -> EncodeError {
    let error = settings().prepare(bytes).unwrap_err();
    eprintln!("{error}");
    error
}

#[test]
fn every_format_decodes_to_the_same_pixels() {
    let image = photo(40, 30);
    let formats =
        [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP, ImageFormat::Pnm];
    for format in formats {
        let bytes = file(&DynamicImage::ImageRgb8(image.clone()), format);
        assert_eq!(decode(&bytes).unwrap(), image, "{format:?}");
    }
    // 256 colours only: the first frame, nearly.
    let flat = DynamicImage::ImageRgb8(RgbImage::from_pixel(9, 7, Rgb([10, 200, 30])));
    let gif = decode(&file(&flat, ImageFormat::Gif)).unwrap();
    assert_eq!(gif.dimensions(), (9, 7));
    assert!(gif.pixels().all(|p| p.0.iter().zip([10u8, 200, 30]).all(|(a, b)| a.abs_diff(b) < 8)));
}

#[test]
fn damaged_files_are_refused_with_a_reason() {
    let image = DynamicImage::ImageRgb8(photo(200, 150));
    for format in [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
        ImageFormat::Tiff,
        ImageFormat::Bmp,
        ImageFormat::Gif,
        ImageFormat::Pnm,
    ] {
        let whole = file(&image, format);
        assert!(decode(&whole).is_ok(), "{format:?}");
        for part in [2, 10, 50, 90, 99] {
            let cut = &whole[..whole.len() * part / 100];
            assert!(matches!(refused(cut), EncodeError::Image { .. }), "{format:?} cut to {part} %");
        }
    }
    let whole = file(&image, ImageFormat::Jpeg);
    let without_end = &whole[..whole.len() - 2];
    assert!(refused(without_end).to_string().contains("cut short"));
}

#[test]
fn things_that_are_no_image_are_refused() {
    assert!(refused(b"").to_string().contains("no bytes"));
    for bytes in [
        b"Dear Sir or Madam,\n".as_slice(),
        &[0],
        &[0xFF, 0xD8, 0xFF],
        b"\x89PNG\r\n\x1a\n",
        b"%PDF-1.7",
        b"GIF89a",
    ] {
        assert!(matches!(refused(bytes), EncodeError::Image { .. }));
    }
    let oversized = vec![0; 32 * 1024 * 1024 + 1];
    assert!(matches!(refused(&oversized), EncodeError::ImageTooLarge { .. }));
}

/// A PNG whose header promises `width` by `height` pixels that are not there.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    bytes.extend(&header);
    bytes.extend(crc32(&header).to_be_bytes());
    bytes.extend(b"\0\0\0\x0aIDAT\x78\x9c\x03\0\0\0\0\0\0\x01");
    bytes.extend(crc32(b"IDAT\x78\x9c\x03\0\0\0\0\0\0\x01").to_be_bytes());
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &b| {
        (0..8).fold(crc ^ u32::from(b), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn bombs_are_refused_by_their_header() {
    for (width, height) in [(100_000, 100_000), (8_001, 8_000), (2_000_000, 1)] {
        let error = refused(&bomb(width, height));
        let named = error.to_string().contains(&format!("{width} x {height}"));
        assert!(matches!(error, EncodeError::ImageTooLarge { .. }) && named, "{error}");
    }
    assert!(matches!(refused(&bomb(8_000, 8_000)), EncodeError::Image { .. }));
}

/// A TIFF whose header promises `side` by `side` pixels of three 32-bit floats that are not there.
fn deep_bomb(side: u32) -> Vec<u8> {
    let (short, long) = (3u16, 4u16);
    let after = 8 + 2 + 10 * 12 + 4;
    let entries = [
        (256, long, 1, side),
        (257, long, 1, side),
        (258, short, 3, after),
        (259, short, 1, 1),
        (262, short, 1, 2),
        (273, long, 1, after),
        (277, short, 1, 3),
        (278, long, 1, side),
        (279, long, 1, 12),
        (339, short, 3, after + 6),
    ];
    let mut bytes = b"II*\0\x08\0\0\0\x0a\0".to_vec();
    for (tag, kind, count, value) in entries {
        bytes.extend(u16::to_le_bytes(tag));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(u32::to_le_bytes(count));
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes.extend([32, 0, 32, 0, 32, 0, 3, 0, 3, 0, 3, 0]);
    bytes
}

#[test]
fn few_but_deep_pixels_are_bounded_too() {
    // 64 million pixels are allowed, but not at twelve bytes each.
    let error = refused(&deep_bomb(8_000));
    assert!(matches!(error, EncodeError::ImageTooLarge { .. }), "{error}");
    let error = refused(&deep_bomb(4_000));
    assert!(matches!(error, EncodeError::Image { .. }), "within bounds, but without data: {error}");
}

#[test]
fn extreme_shapes_are_fine() {
    for (width, height) in [(1, 1), (1, 65_535), (65_535, 1), (3, 2)] {
        let image = DynamicImage::ImageRgb8(RgbImage::from_pixel(width, height, Rgb([7, 8, 9])));
        let prepared = settings().prepare(&file(&image, ImageFormat::Png)).unwrap();
        assert_eq!((prepared.width, prepared.height), (width, height));
        assert_eq!(prepared.values.len(), 3 * 224 * 224);
        let first = (7.0 / 255.0 - CLIP_MEAN[0]) / CLIP_STD[0];
        assert!(prepared.values[..224 * 224].iter().all(|&v| (f64::from(v) - first).abs() < 1e-6));
    }
}

#[test]
fn depth_grey_and_alpha_become_rgb() {
    let deep: ImageBuffer<Rgb<u16>, Vec<u16>> = ImageBuffer::from_pixel(4, 4, Rgb([0x12FF, 0x3400, 0xFFFF]));
    let decoded = decode(&file(&DynamicImage::ImageRgb16(deep), ImageFormat::Png)).unwrap();
    assert_eq!(decoded.get_pixel(0, 0).0, [0x12, 0x34, 0xFF]);

    let deep: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_pixel(4, 4, Luma([0x80FF]));
    let decoded = decode(&file(&DynamicImage::ImageLuma16(deep), ImageFormat::Png)).unwrap();
    assert_eq!(decoded.get_pixel(3, 3).0, [0x80; 3]);

    let grey = DynamicImage::ImageLuma8(ImageBuffer::from_pixel(4, 4, Luma([77])));
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        assert_eq!(decode(&file(&grey, format)).unwrap().get_pixel(1, 2).0, [77; 3]);
    }

    let clear: ImageBuffer<Rgba<u8>, Vec<u8>> = ImageBuffer::from_pixel(4, 4, Rgba([5, 6, 7, 0]));
    let decoded = decode(&file(&DynamicImage::ImageRgba8(clear), ImageFormat::Png)).unwrap();
    assert_eq!(decoded.get_pixel(0, 0).0, [5, 6, 7]);
}

/// A JPEG whose EXIF block holds nothing but the orientation.
fn oriented(image: &RgbImage, orientation: u8) -> Vec<u8> {
    let mut jpeg = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut jpeg, 100);
    image::ImageEncoder::write_image(
        encoder,
        image.as_raw(),
        image.width(),
        image.height(),
        ExtendedColorType::Rgb8,
    )
    .unwrap();
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let mut bytes = jpeg[..2].to_vec();
    bytes.extend([0xFF, 0xE1]);
    bytes.extend(((exif.len() + 2) as u16).to_be_bytes());
    bytes.extend(exif);
    bytes.extend(&jpeg[2..]);
    bytes
}

#[test]
fn every_exif_orientation_is_applied() {
    // Dark but for a bright top left quarter; where that quarter must be after orientation 1 to 8.
    let stored = RgbImage::from_fn(32, 16, |x, y| if x < 16 && y < 8 { Rgb([250; 3]) } else { Rgb([5; 3]) });
    let bright = [(0, 0), (1, 0), (1, 1), (0, 1), (0, 0), (1, 0), (1, 1), (0, 1)];
    for (orientation, corner) in (1..=8u8).zip(bright) {
        let upright = decode(&oriented(&stored, orientation)).unwrap();
        let turned = orientation >= 5;
        assert_eq!(upright.dimensions(), if turned { (16, 32) } else { (32, 16) }, "{orientation}");
        let (w, h) = upright.dimensions();
        for (x, y) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            let value = upright.get_pixel(w / 4 + x * w / 2, h / 4 + y * h / 2).0[0];
            assert_eq!(value > 128, (x, y) == corner, "orientation {orientation} at {x}, {y}: {value}");
        }
    }
    assert_eq!(decode(&oriented(&stored, 99)).unwrap().dimensions(), (32, 16));
}
