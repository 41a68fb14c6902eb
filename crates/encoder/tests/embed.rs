//! What embedding promises whatever the weights: batching, padding and order do not matter, and a
//! second implementation agrees.

#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device, Tensor};
use candle_transformers::models::clip as other;
use common::{Noise, max_diff, tiny_config, tiny_model};
use diptych_core::{Embedding, Encode, EncodeError, PreparedImage, PreparedText};
use diptych_encoder::{DualEncoder, WEIGHTS_FILE};

fn images(encoder: &DualEncoder, n: usize) -> Vec<PreparedImage> {
    let mut noise = Noise::new(9);
    let side = encoder.image_size().0;
    (0..n)
        .map(|_| PreparedImage {
            values: (0..3 * side * side).map(|_| 2.0 * noise.next()).collect(),
            width: 1,
            height: 1,
        })
        .collect()
}

/// Texts of 1 to 24 tokens and beyond, in no order of length.
fn texts(encoder: &DualEncoder, n: usize) -> Vec<PreparedText> {
    (0..n).map(|i| encoder.prepare_text(&"the cat, ".repeat(1 + i * 7 % 13)).unwrap()).collect()
}

fn worst(a: &[Embedding], b: &[Embedding]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| max_diff(a.as_slice(), b.as_slice())).fold(0.0, f32::max)
}

#[test]
fn a_batch_equals_its_members_one_by_one() {
    let dir = tiny_model();
    let encoder = DualEncoder::load(dir.path()).unwrap();
    let images = images(&encoder, 150);
    let single: Vec<Embedding> =
        images.iter().flat_map(|i| encoder.encode_images(std::slice::from_ref(i)).unwrap()).collect();
    assert_eq!(encoder.encode_images(&images).unwrap(), single);

    let texts = texts(&encoder, 230);
    let single: Vec<Embedding> =
        texts.iter().flat_map(|t| encoder.encode_texts(std::slice::from_ref(t)).unwrap()).collect();
    assert_eq!(encoder.encode_texts(&texts).unwrap(), single);
    // The texts differ, so the agreement above says something.
    assert!(max_diff(single[0].as_slice(), single[1].as_slice()) > 1e-2);

    assert!(encoder.encode_images(&[]).unwrap().is_empty());
    assert!(encoder.encode_texts(&[]).unwrap().is_empty());
    assert_eq!(encoder.dim(), 40);
}

#[test]
fn padding_changes_nothing() {
    let dir = tiny_model();
    let encoder = DualEncoder::load(dir.path()).unwrap();
    let plain: Vec<Vec<u32>> = texts(&encoder, 12).into_iter().map(|t| t.ids).collect();
    for pad in [0, 5, tiny_config().text.eos_token_id] {
        let mut padded = plain.clone();
        padded.iter_mut().for_each(|ids| ids.resize(24, pad));
        let (a, b) = (encoder.encode_ids(&plain).unwrap(), encoder.encode_ids(&padded).unwrap());
        assert_eq!(a, b, "padded with {pad}");
    }
}

#[test]
fn long_text_keeps_its_end_token_and_says_what_was_cut() {
    let dir = tiny_model();
    let encoder = DualEncoder::load(dir.path()).unwrap();
    let eos = tiny_config().text.eos_token_id;
    let short = encoder.prepare_text("  The CAT ").unwrap();
    assert_eq!((short.ids.len(), short.truncated_tokens), (4, 0));
    let long = encoder.prepare_text(&"cat ".repeat(30)).unwrap();
    assert_eq!((long.ids.len(), long.truncated_tokens), (24, 8));
    assert_eq!(long.ids.last(), Some(&eos));
    assert_eq!(long.ids[22], short.ids[2]);
    assert_eq!(encoder.prepare_text(" \t\n\u{3000}"), Err(EncodeError::EmptyText));
    assert_eq!(encoder.prepare_text(""), Err(EncodeError::EmptyText));
    assert!(matches!(
        encoder.prepare_text(&"x".repeat(65_537)),
        Err(EncodeError::TextTooLong { bytes: 65_537 })
    ));
}

#[test]
fn input_of_another_model_is_refused() {
    let dir = tiny_model();
    let encoder = DualEncoder::load(dir.path()).unwrap();
    for (ids, words) in [(vec![], "0 tokens"), (vec![1; 25], "25 tokens"), (vec![1, 100_000], "100000")] {
        let error = encoder.encode_ids(&[ids]).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let wrong = PreparedImage { values: vec![0.0; 12].into(), width: 2, height: 2 };
    let error = encoder.encode_images(&[wrong]).unwrap_err().to_string();
    assert!(error.contains("12 values") && error.contains("32 x 32"), "{error}");
}

/// candle's own CLIP is right for one configuration (quick_gelu, epsilon 1e-5, the end token being
/// the largest id): an independent second opinion.
#[test]
fn a_second_implementation_agrees() {
    let dir = tiny_model();
    let encoder = DualEncoder::load(dir.path()).unwrap();
    let config = tiny_config();
    let settings = other::ClipConfig {
        text_config: other::text_model::ClipTextConfig {
            vocab_size: config.text.vocab_size,
            embed_dim: config.text.hidden_size,
            activation: other::text_model::Activation::QuickGelu,
            intermediate_size: config.text.intermediate_size,
            max_position_embeddings: config.text.max_position_embeddings,
            pad_with: None,
            num_hidden_layers: config.text.num_hidden_layers,
            num_attention_heads: config.text.num_attention_heads,
            projection_dim: config.projection_dim,
        },
        vision_config: other::vision_model::ClipVisionConfig {
            embed_dim: config.vision.hidden_size,
            activation: other::text_model::Activation::QuickGelu,
            intermediate_size: config.vision.intermediate_size,
            num_hidden_layers: config.vision.num_hidden_layers,
            num_attention_heads: config.vision.num_attention_heads,
            projection_dim: config.projection_dim,
            num_channels: 3,
            image_size: config.vision.image_size,
            patch_size: config.vision.patch_size,
        },
        logit_scale_init_value: config.logit_scale_init_value,
        image_size: config.vision.image_size,
    };
    let bytes = std::fs::read(dir.path().join(WEIGHTS_FILE)).unwrap();
    let weights = candle_nn::VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu).unwrap();
    let second = other::ClipModel::new(weights, &settings).unwrap();
    let rows = |features: Tensor| -> Vec<Embedding> {
        features.to_vec2::<f32>().unwrap().into_iter().map(|row| Embedding::new(row).unwrap()).collect()
    };

    let images = images(&encoder, 5);
    let pixels: Vec<f32> = images.iter().flat_map(|i| i.values.to_vec()).collect();
    let pixels = Tensor::from_vec(pixels, (5, 3, 32, 32), &Device::Cpu).unwrap();
    let theirs = rows(second.get_image_features(&pixels).unwrap());
    let difference = worst(&encoder.encode_images(&images).unwrap(), &theirs);
    eprintln!("images against candle-transformers: max abs {difference:.1e}");
    assert!(difference < 1e-5, "{difference}");

    for text in texts(&encoder, 9) {
        let ids = Tensor::new(text.ids.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let theirs = rows(second.get_text_features(&ids).unwrap());
        let difference = worst(&encoder.encode_texts(&[text]).unwrap(), &theirs);
        assert!(difference < 1e-5, "{difference}");
    }
}
