//! From the bytes of a 12-megapixel JPEG to pixels of 224 x 224: ours against the `image` crate's
//! own decoder and resizer, both on one thread and interleaved, so that both see the same machine.
//!
//! Does not measure the towers. The picture is made here: smooth shapes, edges and grain.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use diptych_encoder::{CLIP_MEAN, CLIP_STD, Pixels, Preprocessing};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, crop_imm, resize};
use image::{Rgb, RgbImage};

const WIDTH: u32 = 4000;
const HEIGHT: u32 = 3000;
const SIDE: u32 = 224;
const REPEATS: usize = 15;

fn photo_like() -> RgbImage {
    let mut state = 1u64;
    RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let grain = (state >> 58) as f64 / 8.0 - 4.0;
        let (u, v) = (f64::from(x) / 400.0, f64::from(y) / 400.0);
        let sky = 120.0 + 60.0 * (u * 0.7).sin() * (v * 0.9).cos() + 25.0 * (3.1 * u + 2.3 * v).sin();
        let leaves = 18.0 * (23.0 * u + 5.0 * (2.0 * v).sin()).sin() * (19.0 * v).cos();
        let edge = if (u - 5.0).powi(2) + (v - 4.0).powi(2) < 4.0 { 45.0 } else { 0.0 };
        Rgb([1.0, 0.8, 0.6].map(|tint| ((sky + leaves) * tint + edge + grain).clamp(0.0, 255.0) as u8))
    })
}

fn image_crate(bytes: &[u8]) -> RgbImage {
    let image = image::load_from_memory(bytes).unwrap().into_rgb8();
    let (width, height) = (SIDE * image.width() / image.height(), SIDE);
    let small = resize(&image, width, height, FilterType::CatmullRom);
    crop_imm(&small, (width - SIDE) / 2, 0, SIDE, SIDE).to_image()
}

fn ours(settings: &Preprocessing, bytes: &[u8]) -> Pixels {
    settings.pixels_of_file(bytes).unwrap()
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Interleaved repeats and their ratio; also how far the pixels are apart.
fn ratio(settings: &Preprocessing, bytes: &[u8]) {
    let (theirs, mine) = (image_crate(bytes), ours(settings, bytes));
    let differences: Vec<u8> = theirs.as_raw().iter().zip(&mine.data).map(|(a, b)| a.abs_diff(*b)).collect();
    let mean = differences.iter().map(|d| f64::from(*d)).sum::<f64>() / differences.len() as f64;
    let (mut image_times, mut our_times) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        image_times.push(time(|| drop(black_box(image_crate(bytes)))));
        our_times.push(time(|| drop(black_box(ours(settings, bytes)))));
    }
    let (theirs, mine) = (median(image_times), median(our_times));
    println!(
        "decode + resize, {WIDTH} x {HEIGHT} JPEG of {} kB to {SIDE}: image crate {theirs:.1?}, ours {mine:.1?}, ratio {:.2}; pixels differ by {mean:.2} in the mean, {} at most",
        bytes.len() / 1000,
        theirs.as_secs_f64() / mine.as_secs_f64(),
        differences.iter().max().unwrap()
    );
}

fn decode(c: &mut Criterion) {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 90).encode_image(&photo_like()).unwrap();
    let settings = Preprocessing::for_training(SIDE as usize, CLIP_MEAN, CLIP_STD);
    ratio(&settings, &bytes);
    let mut group = c.benchmark_group("decode_12_megapixels");
    group.sample_size(10);
    group.bench_function("image_crate", |b| b.iter(|| image_crate(&bytes)));
    group.bench_function("ours", |b| b.iter(|| ours(&settings, &bytes)));
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
