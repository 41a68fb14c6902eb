//! Composed models: trunks of any kind under trained heads, written by `write_composed`, read by
//! `DualEncoder`, and refused by name where something does not fit.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::trunks::{write_bert, write_mobilenet};
use common::{Noise, max_diff, shared, tiny_config, write_model};
use diptych_core::{Embedding, Encode, Modality};
use diptych_encoder::{
    ComposeError, ComposedSide, DualEncoder, Family, HeadSpec, HeadTensor, ImageTrunk, RgbImage, TextTrunk,
    write_composed,
};
use serde_json::{Value, json};

const LOGIT_SCALE: f32 = 3.25;

fn mini() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/models/mini")
}

fn picture(seed: u64) -> RgbImage {
    RgbImage::from_raw(97, 80, Noise::new(seed).bytes(97 * 80 * 3)).unwrap()
}

fn spec(value: Value) -> HeadSpec {
    serde_json::from_value(value).unwrap()
}

fn identity() -> HeadSpec {
    HeadSpec::default()
}

/// Unit, norm, two linear layers with GELU between: what a trained head may have.
fn deep(input: usize, out: usize) -> HeadSpec {
    spec(json!({"layers": [
        {"unit": {}},
        {"layer_norm": {"width": input, "eps": 1e-5}},
        {"linear": {"input": input, "out": 24, "bias": true}},
        {"activation": "gelu"},
        {"linear": {"input": 24, "out": out, "bias": false}},
    ]}))
}

fn random(spec: &HeadSpec, side: Modality, seed: u64) -> Vec<HeadTensor> {
    let mut noise = Noise::new(seed);
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let values = (0..shape.iter().product()).map(|_| noise.next()).collect();
        (name, shape, values)
    };
    spec.tensors(side).into_iter().map(tensor).collect()
}

fn side<'a>(trunk: &'a Path, folder: &'a str, head: &HeadSpec, weights: &[HeadTensor]) -> ComposedSide<'a> {
    ComposedSide { trunk, folder, head: head.clone(), weights: weights.to_vec() }
}

/// The head by its definition, in double precision, one row at a time.
fn naive(spec: &HeadSpec, side: Modality, tensors: &[HeadTensor], row: &[f32]) -> Vec<f32> {
    let json = serde_json::to_value(spec).unwrap();
    let tensor = |i: usize, part: &str| -> Vec<f64> {
        let name = format!("{}_head.{i}.{part}", side.as_str());
        let found = tensors.iter().find(|(tensor, ..)| *tensor == name).unwrap();
        found.2.iter().map(|v| f64::from(*v)).collect()
    };
    let mut x: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
    let mut residual = x.clone();
    for (i, layer) in json["layers"].as_array().unwrap().iter().enumerate() {
        let n = x.len() as f64;
        if spec.residual == Some(i) {
            residual = x.clone();
        }
        if layer.get("unit").is_some() {
            let length = x.iter().map(|v| v * v).sum::<f64>().sqrt();
            x.iter_mut().for_each(|v| *v /= length);
        } else if let Some(norm) = layer.get("layer_norm") {
            let mean = x.iter().sum::<f64>() / n;
            let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            let scale = 1.0 / (variance + norm["eps"].as_f64().unwrap()).sqrt();
            let (weight, bias) = (tensor(i, "weight"), tensor(i, "bias"));
            x = (0..x.len()).map(|j| (x[j] - mean) * scale * weight[j] + bias[j]).collect();
        } else if let Some(linear) = layer.get("linear") {
            let weight = tensor(i, "weight");
            let mut y: Vec<f64> = weight
                .chunks_exact(x.len())
                .map(|row| row.iter().zip(&x).map(|(w, v)| w * v).sum())
                .collect();
            if linear["bias"] == true {
                y.iter_mut().zip(tensor(i, "bias")).for_each(|(y, b)| *y += b);
            }
            x = y;
        } else {
            assert_eq!(layer["activation"], "gelu");
            let erf = |v: f64| f64::from(diptych_kernels::erf(v as f32));
            x.iter_mut().for_each(|v| *v *= 0.5 * (1.0 + erf(*v / 2f64.sqrt())));
        }
    }
    if spec.residual.is_some() {
        x.iter_mut().zip(&residual).for_each(|(y, u)| *y += u);
    }
    x.into_iter().map(|v| v as f32).collect()
}

fn embedding(row: Vec<f32>) -> Vec<f32> {
    Embedding::new(row).unwrap().as_slice().to_vec()
}

/// Composes two trunks with random heads and compares embeddings with the trunks' features through naive
/// heads.
fn compose_and_compare(image: &Path, text: &Path) -> (tempfile::TempDir, DualEncoder) {
    let (image_trunk, text_trunk) = (ImageTrunk::open(image).unwrap(), TextTrunk::open(text).unwrap());
    let (image_head, text_head) = (deep(image_trunk.width(), 40), deep(text_trunk.width(), 40));
    let image_weights = random(&image_head, Modality::Image, 3);
    let text_weights = random(&text_head, Modality::Text, 4);
    let dir = tempfile::tempdir().unwrap();
    let sides =
        (side(image, "image", &image_head, &image_weights), side(text, "text", &text_head, &text_weights));
    let bytes = write_composed(dir.path(), sides.0, sides.1, LOGIT_SCALE, Some(-1.5)).unwrap();
    assert_eq!(bytes, bytes_below(dir.path()));
    let encoder = DualEncoder::load(dir.path()).unwrap();
    assert_eq!((encoder.family(), encoder.dim()), (Family::Composed, 40));
    assert_eq!((encoder.logit_scale(), encoder.logit_bias()), (LOGIT_SCALE, Some(-1.5)));
    let heads = image_weights.iter().chain(&text_weights).map(|(_, _, v)| v.len() as u64).sum::<u64>();
    assert_eq!(encoder.parameters(), image_trunk.parameters() + text_trunk.parameters() + heads + 2);

    let images: Vec<_> = [5, 6, 7].map(|seed| image_trunk.prepare_rgb(&picture(seed)).unwrap()).into();
    let rows = image_trunk.features(&images).unwrap();
    let found = encoder.encode_images(&images).unwrap();
    for (row, found) in rows.chunks_exact(image_trunk.width()).zip(&found) {
        let expected = embedding(naive(&image_head, Modality::Image, &image_weights, row));
        assert!(max_diff(&expected, found.as_slice()) < 1e-5);
    }
    let texts = ["a dog runs on the beach .", "the cat", &"a dog . ".repeat(200)];
    let texts: Vec<_> = texts.map(|text| text_trunk.prepare(text).unwrap()).into();
    assert_eq!(texts[2].ids, encoder.prepare_text(&"a dog . ".repeat(200)).unwrap().ids);
    let rows = text_trunk.features(&texts).unwrap();
    let found = encoder.encode_texts(&texts).unwrap();
    for (row, found) in rows.chunks_exact(text_trunk.width()).zip(&found) {
        let expected = embedding(naive(&text_head, Modality::Text, &text_weights, row));
        assert!(max_diff(&expected, found.as_slice()) < 1e-5);
    }
    (dir, encoder)
}

fn bytes_below(dir: &Path) -> u64 {
    let size = |entry: fs::DirEntry| match entry.metadata().unwrap() {
        found if found.is_dir() => bytes_below(&entry.path()),
        found => found.len(),
    };
    fs::read_dir(dir).unwrap().map(|entry| size(entry.unwrap())).sum()
}

#[test]
fn mobilenet_and_a_sentence_encoder_make_a_dual_encoder() {
    let sources = tempfile::tempdir().unwrap();
    let (image, text) = (sources.path().join("mobilenet_v2.safetensors"), sources.path().join("bert"));
    write_mobilenet(&image, 1);
    write_bert(&text, 2);
    let (dir, encoder) = compose_and_compare(&image, &text);
    // Nothing but the directory is needed.
    drop(sources);
    let again = DualEncoder::load(dir.path()).unwrap();
    assert_eq!(again.model_id(), encoder.model_id());
    assert_eq!(encoder.image_size(), (224, 224));
    assert_eq!(encoder.tokenizer().context_length(), 256);
    assert!(encoder.split_text(&"a dog runs . ".repeat(200)).len() > 2);
    let lines = encoder.describe();
    let value = |label: &str| lines.iter().find(|(l, _)| *l == label).unwrap().1.clone();
    assert_eq!(value("family"), "Diptych composed");
    assert!(value("image tower").contains("MobileNetV2") && value("  head").contains("linear 1280 to 24"));
}

#[test]
fn the_published_trunks_make_a_dual_encoder() {
    let Some(models) = shared("models") else { return };
    let image = models.join("mobilenet_v2/mobilenet_v2_imagenet.safetensors");
    compose_and_compare(&image, &models.join("all-MiniLM-L6-v2-fp16"));
}

#[test]
fn identity_heads_change_nothing_and_one_folder_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let mini = mini();
    let (image, text) = (side(&mini, "base", &identity(), &[]), side(&mini, "other", &identity(), &[]));
    write_composed(dir.path(), image, text, LOGIT_SCALE, None).unwrap();
    assert!(dir.path().join("base").is_dir() && !dir.path().join("other").exists());
    let (plain, composed) = (DualEncoder::load(&mini).unwrap(), DualEncoder::load(dir.path()).unwrap());
    assert_ne!(plain.model_id(), composed.model_id());
    assert_eq!(composed.parameters(), plain.parameters() + 1);
    let image = plain.preprocessing().prepare_rgb(&picture(1)).unwrap();
    let text = plain.prepare_text("a dog on the beach").unwrap();
    let images = std::slice::from_ref(&image);
    assert_eq!(plain.encode_images(images).unwrap(), composed.encode_images(images).unwrap());
    let texts = std::slice::from_ref(&text);
    assert_eq!(plain.encode_texts(texts).unwrap(), composed.encode_texts(texts).unwrap());
}

/// A linear head that is added to its input, as a light adapter is.
fn adapter(width: usize, side: Modality, seed: u64) -> (HeadSpec, Vec<HeadTensor>) {
    let layers = json!([{"unit": {}}, {"linear": {"input": width, "out": width, "bias": true}}]);
    let spec = spec(json!({"layers": layers, "residual": 1}));
    let weights = random(&spec, side, seed);
    (spec, weights)
}

#[test]
fn a_tuned_model_can_be_tuned_again() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let width = DualEncoder::load(&mini()).unwrap().dim();
    let write = |from: &Path, to: &Path, seed: u64| {
        let (image, image_weights) = adapter(width, Modality::Image, seed);
        let (text, text_weights) = adapter(width, Modality::Text, seed + 1);
        let sides = (side(from, "base", &image, &image_weights), side(from, "base", &text, &text_weights));
        write_composed(to, sides.0, sides.1, LOGIT_SCALE, None).unwrap();
        (image, image_weights)
    };
    write(&mini(), first.path(), 10);
    let (head, weights) = write(first.path(), second.path(), 20);
    let trunk = ImageTrunk::open(first.path()).unwrap();
    let encoder = DualEncoder::load(second.path()).unwrap();
    let image = [trunk.prepare_rgb(&picture(4)).unwrap()];
    let row = trunk.features(&image).unwrap();
    let expected = embedding(naive(&head, Modality::Image, &weights, &row));
    let found = encoder.encode_images(&image).unwrap();
    assert!(max_diff(&expected, found[0].as_slice()) < 1e-5);
    assert_ne!(trunk.digest(), ImageTrunk::open(&mini()).unwrap().digest());
    let heads = encoder.describe().into_iter().filter(|(label, _)| *label == "  head").count();
    assert_eq!(heads, 4);
    // A folder that leads to itself ends in an error.
    #[cfg(unix)]
    {
        fs::remove_dir_all(first.path().join("base")).unwrap();
        std::os::unix::fs::symlink(first.path(), first.path().join("base")).unwrap();
        let e = DualEncoder::load(first.path()).unwrap_err().to_string();
        assert!(e.contains("links to itself"), "{e}");
    }
}

#[test]
fn the_model_id_covers_what_decides_embeddings() {
    let sources = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| sources.path().join(name));
    write_model(&one, &tiny_config(), 1);
    write_model(&two, &tiny_config(), 2);
    let id = |image: &Path, folder: &str, seed: u64, scale: f32| {
        let dir = tempfile::tempdir().unwrap();
        let (head, weights) = adapter(40, Modality::Image, seed);
        let sides = (side(image, folder, &head, &weights), side(&one, "text", &identity(), &[]));
        write_composed(dir.path(), sides.0, sides.1, scale, None).unwrap();
        DualEncoder::load(dir.path()).unwrap().model_id()
    };
    let base = id(&two, "image", 1, 1.0);
    assert_eq!(base, id(&two, "picture", 1, 1.0), "names of folders decide nothing");
    for other in [id(&one, "image", 1, 1.0), id(&two, "image", 2, 1.0), id(&two, "image", 1, 2.0)] {
        assert_ne!(base, other);
    }
}

#[test]
fn an_older_composed_model_is_replaced_also_by_one_of_its_own_trunk() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model");
    let plain = identity();
    let write = |trunk: &Path, folder: &str, scale: f32| {
        write_composed(&out, side(trunk, folder, &plain, &[]), side(trunk, folder, &plain, &[]), scale, None)
    };
    write(&mini(), "base", 1.0).unwrap();
    fs::write(out.join("training.jsonl"), "kept").unwrap();
    // What an interrupted attempt leaves behind is no model and not in the way.
    fs::create_dir_all(out.join(".partial/base")).unwrap();
    fs::write(out.join(".partial/config.json"), "{").unwrap();
    let first = DualEncoder::load(&out).unwrap();
    write(&out.join("base"), "base", 1.0).unwrap();
    assert_eq!(DualEncoder::load(&out).unwrap().model_id(), first.model_id());
    write(&out.join("base"), "trunk", 2.0).unwrap();
    assert_eq!(DualEncoder::load(&out).unwrap().logit_scale(), 2.0);
    assert!(out.join("trunk").is_dir() && !out.join("base").exists() && !out.join(".partial").exists());
    assert_eq!(fs::read_to_string(out.join("training.jsonl")).unwrap(), "kept");
    fs::remove_file(out.join("model.safetensors")).unwrap();
    let e = DualEncoder::load(&out).unwrap_err().to_string();
    assert!(e.contains("model.safetensors is missing"), "{e}");
}

#[test]
fn nothing_is_written_where_it_does_not_belong() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("tiny");
    write_model(&copy, &tiny_config(), 1);
    let before = fs::read(copy.join("model.safetensors")).unwrap();
    let plain = identity();
    let write = |out: &Path, image: (&Path, &str), text: (&Path, &str)| -> String {
        let sides = (side(image.0, image.1, &plain, &[]), side(text.0, text.1, &plain, &[]));
        write_composed(out, sides.0, sides.1, 1.0, None).unwrap_err().to_string()
    };
    let out = dir.path().join("out");
    let mini = mini();
    let e = write(&copy, (&mini, "base"), (&mini, "base"));
    assert!(e.contains("was not composed here"), "{e}");
    assert_eq!(fs::read(copy.join("model.safetensors")).unwrap(), before);
    let e = write(&out, (&copy, "base"), (&mini, "base"));
    assert!(e.contains("two different trunks"), "{e}");
    for name in ["../base", "a/b", "", ".partial", "model.safetensors"] {
        let e = write(&out, (&mini, name), (&mini, name));
        assert!(e.contains("no plain folder name"), "{name}: {e}");
    }
    let e = write(&out, (&copy, "image"), (&mini, "text"));
    assert!(e.contains("must end in one width"), "{e}");
    assert!(!out.exists(), "checks come before the first file");
    fs::create_dir_all(out.join("base")).unwrap();
    let e = write(&out, (&mini, "base"), (&mini, "base"));
    assert!(e.contains("belongs to no composed model"), "{e}");
    let composed = dir.path().join("composed");
    write_composed(&composed, side(&mini, "base", &plain, &[]), side(&mini, "base", &plain, &[]), 1.0, None)
        .unwrap();
    let e = write(&composed, (&composed, "base"), (&composed, "base"));
    assert!(e.contains("the trunk itself is there"), "{e}");
}

#[test]
fn heads_that_do_not_fit_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let width = DualEncoder::load(&mini()).unwrap().dim();
    let write = |head: &HeadSpec, weights: &[HeadTensor], scale: f32| -> ComposeError {
        let mini = mini();
        let sides = (side(&mini, "base", head, weights), side(&mini, "base", &identity(), &[]));
        write_composed(dir.path(), sides.0, sides.1, scale, None).unwrap_err()
    };
    let (head, mut weights) = adapter(width, Modality::Image, 1);
    let e = write(&head, &weights[..1], 1.0).to_string();
    assert!(e.contains("'image_head.1.bias'"), "{e}");
    let e = write(&head, &weights, f32::NAN).to_string();
    assert!(e.contains("'logit_scale'") && e.contains("not finite"), "{e}");
    weights[0].2[3] = f32::INFINITY;
    let e = write(&head, &weights, 1.0).to_string();
    assert!(e.contains("'image_head.1.weight'") && e.contains("position 3"), "{e}");
    let (head, weights) = adapter(width + 1, Modality::Image, 1);
    let e = write(&head, &weights, 1.0).to_string();
    assert!(e.contains("image.head.layers.1") && e.contains(&format!("rows of {}", width + 1)), "{e}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_damaged_directory_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let width = DualEncoder::load(&mini()).unwrap().dim();
    let (head, weights) = adapter(width, Modality::Image, 1);
    let (mini, plain) = (mini(), identity());
    write_composed(
        dir.path(),
        side(&mini, "base", &head, &weights),
        side(&mini, "base", &plain, &[]),
        1.0,
        None,
    )
    .unwrap();
    let path = dir.path().join("config.json");
    let config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let load = |config: &Value| {
        fs::write(&path, config.to_string()).unwrap();
        DualEncoder::load(dir.path()).map(|_| ()).map_err(|e| e.to_string())
    };
    load(&config).unwrap();
    let narrow = json!([{"unit": {}}, {"linear": {"input": width, "out": 8, "bias": true}}]);
    for (pointer, value, words) in [
        ("/format", json!(2), vec!["config.json: format", "is 2"]),
        ("/image/trunk", json!("../base"), vec!["image.trunk", "'../base'", "plain name"]),
        ("/image/trunk", json!("/etc"), vec!["image.trunk", "plain name"]),
        ("/text/trunk", json!("gone"), vec!["gone/config.json is missing"]),
        ("/image/trunk", Value::Null, vec!["image.trunk", "is missing"]),
        ("/text/head", Value::Null, vec!["text.head", "is missing"]),
        ("/image/head/layers/0", json!({"dropout": {}}), vec!["image.head", "dropout", "layer_norm"]),
        ("/image/head/layers/0", json!({"activation": "softmax"}), vec!["image.head", "'softmax'"]),
        ("/image/head/residual", json!("all"), vec!["image.head", "usize"]),
        ("/image/head/layers/1/linear/input", json!(7), vec!["image.head.layers.1", "rows of 7"]),
        ("/image/head", json!({"layers": narrow}), vec!["'image_head.1.weight'", "[8, "]),
        ("/text/head", json!({"layers": narrow}), vec!["'text_head.1.weight'", "lack the tensor"]),
        ("/image/head", json!({"layers": []}), vec!["'image_head.1.bias'", "does not call for"]),
    ] {
        let mut wrong = config.clone();
        *wrong.pointer_mut(pointer).unwrap() = value;
        let e = load(&wrong).unwrap_err();
        assert!(words.iter().all(|words| e.contains(words)), "{pointer}: {e}");
    }
    // A trunk that lacks the tower, and an error within a trunk.
    let mut wrong = config.clone();
    wrong["text"]["trunk"] = json!("image");
    write_mobilenet(&dir.path().join("mobilenet_v2.safetensors"), 1);
    fs::create_dir(dir.path().join("image")).unwrap();
    fs::rename(
        dir.path().join("mobilenet_v2.safetensors"),
        dir.path().join("image/mobilenet_v2.safetensors"),
    )
    .unwrap();
    let e = load(&wrong).unwrap_err();
    assert!(e.contains("text.trunk") && e.contains("no text tower"), "{e}");
    fs::remove_file(dir.path().join("base/config.json")).unwrap();
    fs::write(dir.path().join("base/config.json"), r#"{"model_type": "gpt"}"#).unwrap();
    let e = load(&config).unwrap_err();
    assert!(e.contains("base/config.json: model_type"), "{e}");
}
