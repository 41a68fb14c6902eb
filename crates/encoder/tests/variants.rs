//! The options that published checkpoints use and the golden fixtures lack: every case is a tiny model
//! whose weights follow a formula, with the outputs of the reference library.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::cases::{fixture, write};
use common::{formula, max_diff};
use diptych_core::{Embedding, Encode, PreparedImage};
use diptych_encoder::DualEncoder;
use serde_json::{Value, json};

/// Largest difference between components of unit vectors. What the golden fixtures allow, 1e-3, would
/// let one GELU pass for the other.
const TOLERANCE: f32 = 2e-5;

fn rows(case: &Value, key: &str) -> Vec<Embedding> {
    let rows: Vec<Vec<f32>> = serde_json::from_value(case[key].clone()).unwrap();
    rows.into_iter().map(|row| Embedding::new(row).unwrap()).collect()
}

fn images(case: &Value) -> Vec<PreparedImage> {
    let images = &case["images"];
    let shape: Vec<usize> = serde_json::from_value(images["shape"].clone()).unwrap();
    // One range of values for all images, or one for each.
    let ranges = match images["values"].as_array() {
        Some(ranges) => ranges.clone(),
        None => vec![images.clone(); images["count"].as_u64().unwrap() as usize],
    };
    let image = |(k, range): (usize, &Value)| {
        let number = |key: &str| range[key].as_f64().unwrap();
        let values = formula::tensor(&format!("image.{k}"), &shape, number("offset"), number("scale"));
        PreparedImage { values: values.into(), width: 1, height: 1 }
    };
    ranges.iter().enumerate().map(image).collect()
}

/// The worst cosine and absolute difference of a case, both towers.
fn compare(case: &Value, cases: &[Value]) -> Result<(f32, f32), String> {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), case, cases);
    let encoder = DualEncoder::load(dir.path()).map_err(|e| e.to_string())?;
    let ids: Vec<Vec<u32>> = serde_json::from_value(case["input_ids"].clone()).unwrap();
    let found = encoder.encode_images(&images(case)).unwrap().into_iter();
    let found: Vec<Embedding> = found.chain(encoder.encode_ids(&ids).unwrap()).collect();
    let truth: Vec<Embedding> =
        rows(case, "image_features").into_iter().chain(rows(case, "text_features")).collect();
    assert_eq!(found.len(), truth.len());
    Ok(found.iter().zip(&truth).fold((1f32, 0f32), |worst, (found, truth)| {
        let difference = max_diff(found.as_slice(), truth.as_slice());
        (worst.0.min(found.cosine(truth)), worst.1.max(difference))
    }))
}

/// Compares all cases of a fixture and says which fail.
fn check(fixture: &Value) {
    formula::check(fixture);
    let cases = fixture["cases"].as_array().unwrap();
    let mut wrong = BTreeSet::new();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        match compare(case, cases) {
            Ok((cosine, difference)) => {
                eprintln!("{name:42} 1-cos {:.1e}  max abs {difference:.1e}", 1.0 - cosine);
                if cosine < 0.9999 || difference > TOLERANCE {
                    wrong.insert(name.to_owned());
                }
            }
            Err(error) => {
                eprintln!("{name:42} refused: {error}");
                wrong.insert(name.to_owned());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn every_option_gives_the_references_embeddings() {
    let fixture = fixture("variants.json");
    assert!(fixture["cases"].as_array().unwrap().len() >= 50);
    check(&fixture);
}

#[test]
fn every_mobileclip_gives_the_references_embeddings() {
    let fixture = fixture("mobileclip.json");
    for size in ["mobileclip-s1", "mobileclip-s2", "mobileclip-b"] {
        assert!(fixture["cases"].as_array().unwrap().iter().any(|case| case["name"] == size), "{size}");
    }
    check(&fixture);
}

/// Options that would change the result and that no published weights use are not passed over.
#[test]
fn options_that_are_not_supported_are_refused_by_name() {
    let fixture = fixture("variants.json");
    let cases = fixture["cases"].as_array().unwrap();
    let plain = cases.iter().find(|case| case["name"] == "open-clip-plain").unwrap();
    let load = |section: &str, key: &str, value: Value| {
        let dir = tempfile::tempdir().unwrap();
        let mut case = plain.clone();
        case["config"]["model_cfg"][section][key] = value;
        write(dir.path(), &case, cases);
        DualEncoder::load(dir.path()).map(|_| ()).map_err(|e| e.to_string())
    };
    for (section, key, value) in [
        ("vision_cfg", "qk_norm", json!(true)),
        ("vision_cfg", "attentional_pool", json!("parallel")),
        ("vision_cfg", "layers", json!([3, 4, 6, 3])),
        ("vision_cfg", "pool_type", json!("none")),
        ("vision_cfg", "timm_model_name", json!("convnext_base")),
        ("text_cfg", "scale_fc", json!(true)),
        ("text_cfg", "embed_cls", json!(true)),
        ("text_cfg", "block_type", json!("custom")),
        ("text_cfg", "pool_type", json!("mean")),
        ("text_cfg", "hf_model_name", json!("google/mt5-base")),
        ("text_cfg", "tokenizer_mode", json!("clips")),
    ] {
        let error = load(section, key, value).unwrap_err();
        assert!(error.contains(&format!("{section}.{key}")), "{section}.{key}: {error}");
    }
    for (key, value) in
        [("block_type", json!("default")), ("qk_norm", json!(false)), ("output_tokens", json!(true))]
    {
        assert_eq!(load("text_cfg", key, value), Ok(()), "{key}");
    }
}
