//! Towers by themselves, as sources of features: against stored outputs of the reference libraries where
//! the weights are at hand, and against the dual encoders they belong to.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::trunks::write_bert;
use common::{max_diff, shared};
use diptych_core::Encode;
use diptych_encoder::{DualEncoder, ImageTrunk, LoadError, RgbImage, TextTrunk};
use serde_json::Value;

fn fixture() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/trunks.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn mini() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/models/mini")
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The formula of `fixtures/trunks.py`.
fn picture(width: u32, height: u32, wave: u32) -> RgbImage {
    let triangle = |t: u32| (t % (2 * wave)).abs_diff(wave);
    RgbImage::from_fn(width, height, |x, y| {
        let channel = |c: u32| (triangle(x * (c + 1) + 2 * y) + 3 * triangle(y + 5 * c)) % 256;
        image::Rgb([0, 1, 2].map(|c| channel(c) as u8))
    })
}

#[test]
fn mobilenet_gives_the_features_that_torchvision_gives() {
    let Some(models) = shared("models") else { return };
    let file = models.join("mobilenet_v2/mobilenet_v2_imagenet.safetensors");
    let trunk = ImageTrunk::open(&file).unwrap();
    assert_eq!(trunk.width(), 1280);
    let fixture = fixture();
    let cases = fixture["images"].as_array().unwrap();
    let prepared: Vec<_> = cases
        .iter()
        .map(|case| {
            let [width, height, wave] = [0, 1, 2].map(|i| case["picture"][i].as_u64().unwrap() as u32);
            trunk.prepare_rgb(&picture(width, height, wave)).unwrap()
        })
        .collect();
    let rows = trunk.features(&prepared).unwrap();
    assert_eq!(rows.len(), cases.len() * 1280);
    for (row, case) in rows.chunks_exact(1280).zip(cases) {
        let stored = floats(&case["features"]);
        let worst = max_diff(row, &stored);
        assert!(worst < 1e-4 && cosine(row, &stored) > 0.999_999, "{}: {worst}", case["picture"]);
    }
    assert_eq!(rows[1280..], trunk.features(&prepared[1..]).unwrap(), "the batch decides nothing");
    // The folder is the file, and a directory with a configuration too.
    let folder = ImageTrunk::open(file.parent().unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), r#"{"model_type": "mobilenet_v2"}"#).unwrap();
    std::fs::copy(&file, dir.path().join("model.safetensors")).unwrap();
    let directory = ImageTrunk::open(dir.path()).unwrap();
    assert_eq!([folder.digest(), directory.digest()], [trunk.digest(); 2]);
    let refused = TextTrunk::open(&file).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("without a text tower"), "{refused}");
}

#[test]
fn a_sentence_encoder_gives_the_features_that_transformers_gives() {
    let Some(models) = shared("models") else { return };
    let trunk = TextTrunk::open(&models.join("all-MiniLM-L6-v2-fp16")).unwrap();
    assert_eq!((trunk.width(), trunk.tokenizer().context_length()), (384, 256));
    let fixture = fixture();
    let cases = fixture["texts"].as_array().unwrap();
    let prepared: Vec<_> =
        cases.iter().map(|case| trunk.prepare(case["text"].as_str().unwrap()).unwrap()).collect();
    let rows = trunk.features(&prepared).unwrap();
    for ((row, case), prepared) in rows.chunks_exact(384).zip(cases).zip(&prepared) {
        let ids: Vec<u64> = prepared.ids.iter().map(|&id| u64::from(id)).collect();
        assert_eq!(serde_json::json!(ids), case["ids"], "{}", case["text"]);
        let stored = floats(&case["features"]);
        let worst = max_diff(row, &stored);
        assert!(worst < 1e-5 && cosine(row, &stored) > 0.999_999, "{}: {worst}", case["text"]);
    }
    let refused =
        ImageTrunk::open(&models.join("all-MiniLM-L6-v2-fp16")).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("without an image tower"), "{refused}");
}

#[test]
fn the_towers_of_a_dual_encoder_are_trunks() {
    let encoder = DualEncoder::load(&mini()).unwrap();
    let (image, text) = (ImageTrunk::open(&mini()).unwrap(), TextTrunk::open(&mini()).unwrap());
    assert_eq!([image.width(), text.width()], [encoder.dim(); 2]);
    assert_ne!(image.digest(), text.digest());
    let picture = image.prepare_rgb(&picture(90, 70, 20)).unwrap();
    let caption = text.prepare("a dog on the beach").unwrap();
    let pairs = [
        (image.features(std::slice::from_ref(&picture)).unwrap(), encoder.encode_images(&[picture]).unwrap()),
        (text.features(std::slice::from_ref(&caption)).unwrap(), encoder.encode_texts(&[caption]).unwrap()),
    ];
    for (mut row, embedding) in pairs {
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        assert!((norm - 1.0).abs() > 1e-3, "features are not normalised");
        row.iter_mut().for_each(|v| *v /= norm);
        assert!(max_diff(&row, embedding[0].as_slice()) < 1e-6);
    }
    let labels: Vec<&str> = text.describe().iter().map(|(label, _)| *label).collect();
    assert!(labels.contains(&"digest") && labels.contains(&"tokenizer"), "{labels:?}");
}

#[test]
fn what_is_no_trunk_is_refused_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let message = |e: LoadError| e.to_string();
    let empty = message(ImageTrunk::open(dir.path()).map(|_| ()).unwrap_err());
    assert!(
        empty.contains("config.json is missing") && empty.contains("mobilenet_v2*.safetensors"),
        "{empty}"
    );
    std::fs::write(dir.path().join("config.json"), r#"{"model_type": "mobilenet_v2"}"#).unwrap();
    let no_weights = message(ImageTrunk::open(dir.path()).map(|_| ()).unwrap_err());
    assert!(no_weights.contains("model.safetensors is missing"), "{no_weights}");
    // A checkpoint of another library for the same network.
    std::fs::copy(mini().join("model.safetensors"), dir.path().join("any.safetensors")).unwrap();
    let foreign = message(ImageTrunk::open(dir.path()).map(|_| ()).unwrap_err());
    assert!(foreign.contains("features.0.0.weight") && foreign.contains("torchvision"), "{foreign}");
    std::fs::copy(mini().join("model.safetensors"), dir.path().join("other.safetensors")).unwrap();
    let two = message(ImageTrunk::open(dir.path()).map(|_| ()).unwrap_err());
    assert!(two.contains("any.safetensors and other.safetensors"), "{two}");
}

#[test]
fn a_sentence_encoder_obeys_the_files_of_its_library() {
    let dir = tempfile::tempdir().unwrap();
    write_bert(dir.path(), 1);
    let text = "the dog runs on a beach .";
    let open = || TextTrunk::open(dir.path());
    let row = |trunk: &TextTrunk| trunk.features(&[trunk.prepare(text).unwrap()]).unwrap();
    let mean = open().unwrap();
    assert_eq!(mean.tokenizer().context_length(), 256);
    assert_eq!(mean.prepare(text).unwrap().ids.len(), 9, "stored padding and truncation are not obeyed");

    std::fs::create_dir(dir.path().join("1_Pooling")).unwrap();
    let pooling =
        |settings: &str| std::fs::write(dir.path().join("1_Pooling/config.json"), settings).unwrap();
    pooling(r#"{"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}"#);
    assert_eq!(open().unwrap().digest(), mean.digest());
    pooling(r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#);
    let first = open().unwrap();
    assert_ne!(first.digest(), mean.digest());
    assert!(max_diff(&row(&first), &row(&mean)) > 1e-2);
    for (settings, key) in [
        (r#"{"pooling_mode_max_tokens": true}"#, "pooling_mode_max_tokens"),
        (r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}"#, "pooling_mode_cls_token"),
    ] {
        pooling(settings);
        let e = open().map(|_| ()).unwrap_err().to_string();
        assert!(e.contains("1_Pooling/config.json") && e.contains(key), "{e}");
    }
    std::fs::remove_dir_all(dir.path().join("1_Pooling")).unwrap();
    std::fs::write(dir.path().join("sentence_bert_config.json"), r#"{"max_seq_length": 5}"#).unwrap();
    let short = open().unwrap();
    assert_eq!(short.prepare(text).unwrap().ids.len(), 5);
    assert_ne!(short.digest(), mean.digest());
}
