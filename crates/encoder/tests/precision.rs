//! What 8-bit weights and activations cost, against `f32` on the same inputs.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{Noise, tiny_model};
use diptych_core::{Embedding, Encode, PreparedImage};
use diptych_encoder::{DualEncoder, Precision};

fn images(encoder: &DualEncoder, n: usize) -> Vec<PreparedImage> {
    let mut noise = Noise::new(5);
    let (height, width) = encoder.image_size();
    let mut image = || (0..3 * height * width).map(|_| 2.0 * noise.next()).collect();
    (0..n).map(|_| PreparedImage { values: image(), width: 1, height: 1 }).collect()
}

fn worst(a: &[Embedding], b: &[Embedding]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a.cosine(b)).fold(1.0, f32::min)
}

/// The bundled model's embeddings of reports and of noise barely move, and its id does.
#[test]
fn eight_bits_stay_near_full_precision() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/models/mini");
    let full = DualEncoder::load(&dir).unwrap();
    let eight = DualEncoder::load_with(&dir, Precision::Int8).unwrap();
    assert_ne!(full.model_id(), eight.model_id());
    assert_eq!(full.parameters(), eight.parameters());
    let texts: Vec<_> = ["Large left pleural effusion.", "No effusion.", "Right pneumothorax, chest tube."]
        .iter()
        .map(|text| full.prepare_text(text).unwrap())
        .collect();
    let cosine = worst(&full.encode_texts(&texts).unwrap(), &eight.encode_texts(&texts).unwrap());
    eprintln!("texts: 1-cos {:.1e}", 1.0 - cosine);
    assert!(cosine >= 0.995, "{cosine}");
    let images = images(&full, 9);
    let cosine = worst(&full.encode_images(&images).unwrap(), &eight.encode_images(&images).unwrap());
    eprintln!("images: 1-cos {:.1e}", 1.0 - cosine);
    assert!(cosine >= 0.995, "{cosine}");
}

/// Integer sums are exact, so that neither batches nor runs change a bit.
#[test]
fn eight_bit_embeddings_do_not_depend_on_the_batch() {
    let dir = tiny_model();
    let encoder = DualEncoder::load_with(dir.path(), Precision::Int8).unwrap();
    let images = images(&encoder, 40);
    let single: Vec<Embedding> =
        images.iter().flat_map(|i| encoder.encode_images(std::slice::from_ref(i)).unwrap()).collect();
    assert_eq!(encoder.encode_images(&images).unwrap(), single);
}
