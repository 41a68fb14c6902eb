//! Large JPEG files, which are decoded at a reduced scale: the pixels and embeddings that come of
//! them against full decoding, and every kind of damage.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Noise, shared};
use diptych_core::Encode;
use diptych_encoder::{CLIP_MEAN, CLIP_STD, DualEncoder, Preprocessing, RgbImage, decode};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize};
use image::{DynamicImage, ExtendedColorType, Rgb};

fn settings(side: usize) -> Preprocessing {
    Preprocessing::for_training(side, CLIP_MEAN, CLIP_STD)
}

fn jpeg(image: &DynamicImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(image).unwrap();
    bytes
}

/// Smooth shapes, edges and grain.
fn scene(width: u32, height: u32) -> RgbImage {
    let mut noise = Noise::new(9);
    RgbImage::from_fn(width, height, |x, y| {
        let (u, v) = (x as f32 / 60.0, y as f32 / 60.0);
        let base = 120.0 + 50.0 * (u * 0.7).sin() * (v * 0.9).cos() + 25.0 * (3.1 * u + 2.3 * v).sin();
        let edge = if (u - 4.0).abs() + (v - 3.0).abs() < 2.5 { 60.0 } else { 0.0 };
        let grain = 8.0 * noise.next();
        Rgb([base + edge + grain, base * 0.8 + grain, 200.0 - base * 0.5].map(|s| s.clamp(0.0, 255.0) as u8))
    })
}

struct Difference {
    max: u8,
    mean: f64,
    /// Part of the samples that differ by more than two levels.
    far: f64,
}

fn difference(settings: &Preprocessing, bytes: &[u8]) -> Difference {
    let full = settings.pixels(&decode(bytes).unwrap());
    let ours = settings.pixels_of_file(bytes).unwrap();
    assert_eq!((full.width, full.height), (ours.width, ours.height));
    let all: Vec<u8> = full.data.iter().zip(&ours.data).map(|(a, b)| a.abs_diff(*b)).collect();
    let n = all.len() as f64;
    Difference {
        max: all.iter().copied().max().unwrap(),
        mean: all.iter().map(|d| f64::from(*d)).sum::<f64>() / n,
        far: all.iter().filter(|d| **d > 2).count() as f64 / n,
    }
}

#[test]
fn reduced_decoding_gives_the_pixels_of_full_decoding() {
    // Sides that divide by nothing, so that the last blocks and the last samples are partial.
    for (width, height) in [(1203, 905), (905, 1203), (1024, 768), (1001, 1601)] {
        let image = DynamicImage::ImageRgb8(scene(width, height));
        for image in [image.clone(), DynamicImage::ImageLuma8(image.to_luma8())] {
            for (side, quality) in [(32, 90), (64, 75), (100, 97), (128, 90)] {
                let found = difference(&settings(side), &jpeg(&image, quality));
                let facts = format!("{width} x {height} to {side}: {} {:.3}", found.max, found.mean);
                assert!(found.max <= 4 && found.mean <= 0.35 && found.far <= 0.005, "{facts}");
                assert!(found.max > 0, "not reduced: {facts}");
            }
        }
    }
}

#[test]
fn images_of_less_than_six_times_the_target_are_decoded_in_full() {
    let bytes = jpeg(&DynamicImage::ImageRgb8(scene(800, 599)), 90);
    assert_eq!(difference(&settings(100), &bytes).max, 0);
    assert!(difference(&settings(99), &bytes).max > 0);
}

/// A JPEG whose EXIF block holds nothing but the orientation.
fn oriented(jpeg: &[u8], orientation: u8) -> Vec<u8> {
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
fn reduced_images_are_turned_upright_too() {
    // Odd sides: the partly filled last samples end up on each of the four sides.
    let plain = jpeg(&DynamicImage::ImageRgb8(scene(997, 803)), 90);
    for orientation in 1..=8 {
        let bytes = oriented(&plain, orientation);
        let found = difference(&settings(32), &bytes);
        assert!(found.max <= 4 && found.mean <= 0.35, "{orientation}: {} {}", found.max, found.mean);
        let prepared = settings(32).prepare(&bytes).unwrap();
        let expected = if orientation >= 5 { (803, 997) } else { (997, 803) };
        assert_eq!((prepared.width, prepared.height), expected);
    }
}

#[test]
fn damaged_large_files_are_refused_or_read_but_never_bring_anything_down() {
    let whole = jpeg(&DynamicImage::ImageRgb8(scene(640, 480)), 90);
    let settings = settings(24);
    for part in 1..40 {
        let cut = &whole[..whole.len() * part / 40];
        let refusal = settings.prepare(cut).expect_err("cut short");
        assert_eq!(Some(refusal), decode(cut).err(), "cut to {part} of 40");
    }
    assert!(settings.prepare(&whole[..whole.len() - 2]).is_err());
    let mut noise = Noise::new(11);
    let mut refused = 0;
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            let at = ((noise.next() + 1.0) / 2.0 * bytes.len() as f32) as usize % bytes.len();
            bytes[at] = (noise.next() * 127.0 + 128.0) as u8;
        }
        match settings.prepare(&bytes) {
            Ok(prepared) => assert!(prepared.values.iter().all(|v| v.is_finite())),
            Err(_) => refused += 1,
        }
    }
    assert!(refused < 300, "a few wrong bytes in the data are mostly survivable");
}

#[test]
fn the_same_bytes_give_the_same_values() {
    let bytes = jpeg(&DynamicImage::ImageRgb8(scene(1203, 905)), 90);
    let first = settings(64).prepare(&bytes).unwrap();
    assert!((0..3).all(|_| settings(64).prepare(&bytes).unwrap() == first));
}

fn photographs(n: usize) -> Vec<Vec<u8>> {
    let Some(folder) = shared("data/flickr8k-1000") else { return Vec::new() };
    let mut paths: Vec<_> = ["train/images", "val/images"]
        .iter()
        .filter_map(|part| std::fs::read_dir(folder.join(part)).ok())
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "jpg"))
        .collect();
    paths.sort();
    assert!(paths.len() >= n, "{} photographs", paths.len());
    paths.iter().step_by(paths.len() / n).take(n).map(|path| std::fs::read(path).unwrap()).collect()
}

/// Photographs as cameras and websites store them, with colour at half the size.
#[test]
fn photographs_give_the_pixels_of_full_decoding() {
    let photographs = photographs(60);
    let mut found = Vec::new();
    for bytes in &photographs {
        found.extend([20, 40, 50].map(|side| difference(&settings(side), bytes)));
    }
    let worst = |part: fn(&Difference) -> f64| found.iter().map(part).fold(0.0, f64::max);
    let (max, mean, far) = (worst(|d| f64::from(d.max)), worst(|d| d.mean), worst(|d| d.far));
    eprintln!("worst of {}: max {max}/255, mean {mean:.3}, over 2: {:.2} %", found.len(), far * 100.0);
    // The worst is a saturated picture: full decoding clips its colours before they are averaged.
    // libjpeg's reduced decoding has the same difference.
    assert!(max <= 16.0 && mean <= 1.0 && far <= 0.1, "{max} {mean} {far}");
    let mean = found.iter().map(|d| d.mean).sum::<f64>() / found.len().max(1) as f64;
    assert!(mean <= 0.3, "mean over all photographs: {mean}");
}

/// Twelve megapixels: one photograph enlarged, and a mosaic of many, which has finer detail.
fn twelve_megapixels(photographs: &[Vec<u8>]) -> Vec<RgbImage> {
    let large = |bytes: &[u8]| resize(&decode(bytes).unwrap(), 4000, 3000, FilterType::CatmullRom);
    let mut images: Vec<RgbImage> = photographs.iter().take(4).map(|bytes| large(bytes)).collect();
    let mut mosaic = RgbImage::new(4000, 3000);
    for (i, bytes) in photographs.iter().enumerate().take(64) {
        let tile = resize(&decode(bytes).unwrap(), 500, 375, FilterType::CatmullRom);
        image::imageops::replace(&mut mosaic, &tile, (i % 8) as i64 * 500, (i / 8) as i64 * 375);
    }
    images.push(mosaic);
    images
}

/// The gate: the fixtures' towers amplify every grey level on purpose, far beyond trained ones.
#[test]
fn embeddings_of_reduced_images_are_those_of_full_decoding() {
    let photographs = photographs(64);
    let Some(golden) = shared("golden") else { return };
    if photographs.is_empty() {
        return;
    }
    let files: Vec<Vec<u8>> = twelve_megapixels(&photographs)
        .iter()
        .map(|image| {
            let mut bytes = Vec::new();
            JpegEncoder::new_with_quality(&mut bytes, 90)
                .encode(image.as_raw(), 4000, 3000, ExtendedColorType::Rgb8)
                .unwrap();
            bytes
        })
        .collect();
    for family in ["hf-clip-openai", "hf-clip-laion"] {
        let encoder = DualEncoder::load(&golden.join(family).join("model")).unwrap();
        for (i, bytes) in files.iter().enumerate() {
            let found = difference(encoder.preprocessing(), bytes);
            let full = encoder.preprocessing().prepare_rgb(&decode(bytes).unwrap()).unwrap();
            let ours = encoder.prepare_image(bytes).unwrap();
            let rows = encoder.encode_images(&[full, ours]).unwrap();
            let cosine = rows[0].cosine(&rows[1]);
            eprintln!(
                "{family:15} image {i}: max {}/255, mean {:.3}, over 2: {:.2} %, 1-cos {:.1e}",
                found.max,
                found.mean,
                found.far * 100.0,
                1.0 - cosine
            );
            assert!(cosine >= 0.995 && found.max <= 8 && found.mean <= 0.4, "{family} {i}: {cosine}");
        }
    }
}
