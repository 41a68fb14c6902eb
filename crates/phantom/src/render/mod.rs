//! From anatomy and findings to pixels: the film curve, the grain and the size.
//!
//! A picture is computed as attenuation on a grid of samples, once or twice as fine as the pixels,
//! and developed like film. Small sizes are supersampled, so that a case looks the same at every
//! size up to what the size can show.
//! Deliberately absent: random draws. A picture follows from its arguments alone.

mod canvas;
mod devices;
mod frontal;
mod lateral;
mod signs;

use image::GrayImage;

use crate::anatomy::{Anatomy, View};
use crate::finding::Sign;
use canvas::{Canvas, step};

/// Smallest picture that is rendered, in pixels.
pub const SIZE_MIN: u32 = 16;
/// Largest picture that is rendered, in pixels.
pub const SIZE_MAX: u32 = 2048;

/// Size at which [`Anatomy`] states its grain.
const GRAIN_SIZE: f32 = 256.0;

/// Renders a patient with some findings as a square picture of `size` pixels.
///
/// # Panics
/// When `size` is outside [`SIZE_MIN`]`..=`[`SIZE_MAX`].
pub fn render(anatomy: &Anatomy, signs: &[Sign], size: u32) -> GrayImage {
    assert!((SIZE_MIN..=SIZE_MAX).contains(&size), "size {size} is outside {SIZE_MIN}..={SIZE_MAX}");
    let fine = if size <= 128 { 2 } else { 1 };
    let n = size as usize;
    let mut canvas = Canvas::new(n * fine, anatomy);
    if anatomy.view == View::Lateral {
        lateral::paint(&mut canvas, anatomy, signs);
    } else {
        frontal::paint(&mut canvas, anatomy, signs);
    }
    let mut light = develop(anatomy, &canvas);
    if fine == 2 {
        light = halve(&light, n);
    }
    if anatomy.view != View::Lateral {
        stamp_side_marker(&mut light, n);
    }
    let pixels = expose_grain(anatomy, &light, n);
    GrayImage::from_raw(size, size, pixels).expect("one byte per pixel was computed")
}

/// Attenuation to brightness: a straight line bent into a film's S curve.
fn develop(anatomy: &Anatomy, canvas: &Canvas) -> Vec<f32> {
    let scale = anatomy.contrast / 1.26;
    canvas
        .tissue
        .iter()
        .zip(&canvas.air)
        .map(|(tissue, air)| {
            let attenuation = (tissue - 0.64 * air).max(0.0);
            // Without a body there is nothing to be underexposed.
            let lift = anatomy.exposure * (attenuation * 8.0).min(1.0);
            let x = ((attenuation - 0.04) * scale + lift).clamp(0.0, 1.0);
            0.02 + 0.95 * (0.45 * x + 0.55 * x * x * (3.0 - 2.0 * x))
        })
        .collect()
}

/// Means over squares of 2 x 2 samples, for a picture of `n` x `n` pixels.
fn halve(light: &[f32], n: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(n * n);
    for rows in light.chunks_exact(4 * n) {
        let (upper, lower) = rows.split_at(2 * n);
        let pairs = upper.chunks_exact(2).zip(lower.chunks_exact(2));
        out.extend(pairs.map(|(u, l)| 0.25 * (u[0] + u[1] + l[0] + l[1])));
    }
    out
}

/// The lead letter `L` that marks the patient's left side.
fn stamp_side_marker(light: &mut [f32], n: usize) {
    let pixel = 2.0 / n as f32;
    let bar = |v: f32, from: f32, to: f32| step(v - from, pixel * 0.5) * step(to - v, pixel * 0.5);
    let first = (0.86 / pixel) as usize;
    for row in 0..n / 5 {
        let y = (row as f32 + 0.5) * pixel - 1.0;
        for column in n / 2 + first.min(n / 2)..n {
            let x = (column as f32 + 0.5) * pixel - 1.0;
            let stem = bar(x, 0.875, 0.900) * bar(y, -0.93, -0.80);
            let foot = bar(x, 0.875, 0.950) * bar(y, -0.825, -0.80);
            let v = &mut light[row * n + column];
            *v += (0.97 - *v) * stem.max(foot);
        }
    }
}

/// Adds the grain and rounds to 8 bits. The grain is weaker in smaller pictures, as it would be
/// after scaling down, and in dark parts.
fn expose_grain(anatomy: &Anatomy, light: &[f32], n: usize) -> Vec<u8> {
    // The sum of four bytes has a standard deviation of 147.8.
    let gain = anatomy.noise * (n as f32 / GRAIN_SIZE).min(1.0) / 147.8;
    let grain = |i: u32| {
        let mut h = (i ^ anatomy.grain).wrapping_mul(0x9e37_79b1);
        h = (h ^ (h >> 15)).wrapping_mul(0x85eb_ca77);
        h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae3d);
        h ^= h >> 16;
        ((h & 255) + (h >> 8 & 255) + (h >> 16 & 255) + (h >> 24)) as f32 - 510.0
    };
    (0..n * n)
        .zip(light)
        .map(|(i, &v)| {
            let noisy = v + grain(i as u32) * gain * (0.35 + 0.65 * v);
            (noisy.clamp(0.0, 1.0) * 255.0 + 0.5) as u8
        })
        .collect()
}
