//! The towers of MobileCLIP against the reference: weights by formula, outputs as recorded.

#![allow(clippy::unwrap_used)]

#[path = "../../../tests/common/formula.rs"]
mod formula;

use std::collections::BTreeMap;
use std::path::Path;

use diptych_kernels::Threads;
use serde_json::Value;

use super::FastVit;
use crate::error::LoadError;
use crate::precision::Precision;
use crate::tower::conv_stem::ConvStem;
use crate::weights::Weights;

type Shapes = BTreeMap<String, Vec<usize>>;

fn fixture() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mobileclip.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn weights(shapes: &Shapes) -> Weights {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.safetensors"), formula::safetensors(shapes)).unwrap();
    Weights::open(dir.path(), &["model.safetensors"], Precision::F32).unwrap()
}

fn images(case: &Value) -> (Vec<Vec<f32>>, (usize, usize)) {
    let shape: Vec<usize> = serde_json::from_value(case["images"]["shape"].clone()).unwrap();
    let values = case["images"]["values"].as_array().unwrap().iter().enumerate();
    let images = values.map(|(k, v)| {
        let number = |key: &str| v[key].as_f64().unwrap();
        formula::tensor(&format!("image.{k}"), &shape, number("offset"), number("scale"))
    });
    (images.collect(), (shape[1], shape[2]))
}

fn truth(case: &Value, key: &str) -> Vec<f32> {
    let rows: Vec<Vec<f32>> = serde_json::from_value(case[key].clone()).unwrap();
    rows.concat()
}

/// The largest difference, relative to the largest value.
fn difference(found: &[f32], truth: &[f32]) -> f32 {
    assert_eq!(found.len(), truth.len());
    let scale = truth.iter().fold(0f32, |top, v| top.max(v.abs()));
    found.iter().zip(truth).fold(0f32, |top, (a, b)| top.max((a - b).abs())) / scale
}

fn case<'a>(fixture: &'a Value, list: &str, name: &str) -> &'a Value {
    fixture[list].as_array().unwrap().iter().find(|c| c["name"] == name).unwrap()
}

#[test]
fn shrunk_towers_agree_with_the_reference_in_either_form() {
    let fixture = fixture();
    formula::check(&fixture);
    for (name, model) in [
        ("fastvit", "fastvit_mci1"),
        ("fastvit-reparameterized", "fastvit_mci2.apple_mclip"),
        ("fastvit-five-stages", "fastvit_mci3"),
        ("fastvit-five-stages-reparameterized", "fastvit_mci4"),
    ] {
        let case = case(&fixture, "towers", name);
        let weights = weights(&formula::shapes(case, &[]));
        let (images, size) = images(case);
        let tower = FastVit::load(&weights, "", model, size, 12).unwrap();
        weights.finish().unwrap();
        assert_eq!(tower.spec.reparameterized, name.ends_with("reparameterized"), "{}", tower.spec);
        let both = tower.forward(&images.iter().map(|v| &v[..]).collect::<Vec<_>>());
        let worst = difference(&both, &truth(case, "features"));
        assert!(worst < 1e-5, "{name}: {worst}");
        assert_eq!(tower.forward(&[&images[1]]), both[tower.out()..], "{name}: alone and in a batch");
    }
}

#[test]
fn the_published_sizes_agree_with_the_reference() {
    let fixture = fixture();
    for name in ["mobileclip-s1", "mobileclip-s2-reparameterized"] {
        let case = case(&fixture, "cases", name);
        let mut shapes = formula::shapes(case, &[]);
        shapes.retain(|name, _| name.starts_with("visual."));
        let weights = weights(&shapes);
        let (images, size) = images(case);
        let model = case["config"]["model_cfg"]["vision_cfg"]["timm_model_name"].as_str().unwrap();
        let tower = FastVit::load(&weights, "visual.trunk.", model, size, 16).unwrap();
        weights.finish().unwrap();
        let found = tower.forward(&images.iter().map(|v| &v[..]).collect::<Vec<_>>());
        let worst = difference(&found, &truth(case, "image_features"));
        assert!(worst < 2e-5, "{name}: {worst}");
    }
}

#[test]
fn the_convolutional_stem_agrees_with_the_reference() {
    let fixture = fixture();
    let case = case(&fixture, "towers", "conv-stem");
    let weights = weights(&formula::shapes(case, &[]));
    let (images, size) = images(case);
    let stem = ConvStem::load(&weights, "", 16).unwrap();
    weights.finish().unwrap();
    let found = stem.forward(&images.iter().map(|v| &v[..]).collect::<Vec<_>>(), size, Threads::One);
    let worst = difference(&found, &truth(case, "features"));
    assert!(worst < 1e-5, "{worst}");
}

#[test]
fn missing_misshapen_and_foreign_tensors_are_refused_by_name() {
    let fixture = fixture();
    let load = |name: &str, model: &str, change: &dyn Fn(&mut Shapes)| {
        let mut shapes = formula::shapes(case(&fixture, "towers", name), &[]);
        change(&mut shapes);
        let weights = weights(&shapes);
        FastVit::load(&weights, "", model, (72, 72), 12).and_then(|_| weights.finish().map(|_| ()))
    };
    let without =
        |gone: &'static str| move |shapes: &mut Shapes| shapes.retain(|name, _| !name.starts_with(gone));
    for gone in [
        "stem.0.conv_scale.conv.weight",
        "stages.1.blocks.0.layer_scale.gamma",
        "stages.2.downsample.proj.0.se.fc1.weight",
        "stages.3.pos_emb.pos_enc.bias",
        "stages.3.blocks.1.norm.running_var",
        "final_conv.se.fc2.bias",
        "head.fc.weight",
    ] {
        let error = load("fastvit", "fastvit_mci1", &without(gone)).unwrap_err();
        assert!(matches!(&error, LoadError::MissingTensor { name, .. } if name == gone), "{gone}: {error}");
    }
    let gap = load("fastvit", "fastvit_mci1", &without("stages.1.blocks.0.")).unwrap_err();
    assert!(gap.to_string().contains("stages.1.blocks.0.mlp.fc1.weight"), "{gap}");
    let wrong = load("fastvit", "fastvit_mci1", &|shapes| {
        shapes.insert("stages.0.blocks.0.mlp.conv.conv.weight".into(), vec![8, 1, 5, 5]);
    });
    assert!(
        matches!(wrong.unwrap_err(), LoadError::TensorShape { expected, .. } if expected == [8, 1, 7, 7])
    );
    // A model of the other generation has no squeeze-and-excitation and other norms.
    let foreign = load("fastvit-reparameterized", "fastvit_mci3", &|_| {}).unwrap_err();
    assert!(foreign.to_string().contains("stages.4."), "{foreign}");
    let extra = load("fastvit", "fastvit_mci1", &|shapes| {
        shapes.insert("stages.0.blocks.7.layer_scale.gamma".into(), vec![8, 1, 1]);
    });
    assert!(matches!(extra.unwrap_err(), LoadError::ExtraTensors { .. }));
}

#[test]
fn a_published_width_has_its_published_depth() {
    let fixture = fixture();
    let mut shapes = formula::shapes(case(&fixture, "cases", "mobileclip-s1"), &[]);
    shapes.retain(|name, _| {
        name.starts_with("visual.trunk.st") && !name.starts_with("visual.trunk.stages.0.blocks.3.")
    });
    let error =
        FastVit::load(&weights(&shapes), "visual.trunk.", "fastvit_mci1", (256, 256), 16).err().unwrap();
    assert!(error.to_string().contains("stages.0.blocks.3.mlp.fc1.weight"), "{error}");
}
