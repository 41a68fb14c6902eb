//! The towers of every family and option: what the encoder computes, with true gradients.

#![allow(clippy::unwrap_used)]

// The tiny models that the encoder's own tests hold to the reference libraries.
#[path = "../../../encoder/tests/common/mod.rs"]
mod common;

use std::convert::Infallible;
use std::path::Path;

use common::{formula, shared};
use diptych_core::{Embedding, Encode, PreparedImage};
use diptych_encoder::anatomy::{TransformerSpec, VisionParts};
use diptych_encoder::{
    Activation, Checkpoint, ClipConfig, DualEncoder, TextConfig, VisionConfig, clip_anatomy,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde_json::Value;

use super::{ImageTower, Open, TextTower};
use crate::objective::unit_rows;
use crate::params::{Layout, Params, Values, normal};
use crate::tape::{Node, Tape};

fn noise(n: usize, seed: u64) -> Vec<f32> {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| normal(rng)).collect()
}

type Forward<'a> = Box<dyn Fn(&mut Tape, &Params<'_>) -> Node + 'a>;

/// One tower with its input, ready to run.
struct Bench<'a> {
    layout: Layout,
    values: Values,
    forward: Forward<'a>,
    tape: Tape,
    /// What finite differences may be off by, as a part of the gradient. ReLU has corners.
    slack: f64,
}

impl Bench<'_> {
    fn rows(&mut self) -> Vec<f32> {
        self.tape.reset();
        let node = (self.forward)(&mut self.tape, &self.values.params());
        self.tape.rows(node).to_vec()
    }

    fn gradient(&self, d_rows: &[f32]) -> Vec<f32> {
        let (mut tape, mut grads) = (Tape::new(), vec![0f32; self.layout.len()]);
        let node = (self.forward)(&mut tape, &self.values.params());
        tape.backward(node, d_rows, &self.values.params(), &mut grads);
        grads
    }

    /// Holds the gradient of a random functional of the output to finite differences, tensor by tensor.
    /// Gives the names of the tensors that it does not depend on.
    fn check_gradients(&mut self, what: &str) -> Vec<String> {
        let rows = self.rows();
        let weights = noise(rows.len(), 3);
        let grads = self.gradient(&weights);
        let dot = |rows: &[f32]| -> f64 {
            rows.iter().zip(&weights).map(|(r, w)| f64::from(*r) * f64::from(*w)).sum()
        };
        // How far rounding alone may move the functional.
        let size = rows.iter().zip(&weights).map(|(r, w)| f64::from(r * w).powi(2)).sum::<f64>().sqrt();
        let rounding = 2e-5 * size;
        let mut without = Vec::new();
        for slot in self.layout.slots().to_vec() {
            let gradient = slot.span.of(&grads);
            let norm = length(gradient);
            let start = slot.span.of(&self.values.trained).to_vec();
            // A small part of the functional, unless that is further than a part of the tensor's own size.
            let step = (0.003 * size / norm.max(1e-30)).min(0.03 * length(&start).max(1.0));
            let direction: Vec<f32> = if norm > 0.0 {
                gradient.iter().map(|g| (f64::from(*g) / norm) as f32).collect()
            } else {
                noise(gradient.len(), 8)
            };
            let mut at = |steps: f64| {
                let moved = slot.span.of_mut(&mut self.values.trained).iter_mut().zip(&start).zip(&direction);
                moved.for_each(|((v, s), d)| *v = s + (steps * step) as f32 * d);
                dot(&self.rows())
            };
            // Richardson's extrapolation of central differences.
            let measured = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * step);
            at(0.0);
            let tolerance = self.slack * norm + rounding / step;
            let name = &slot.name;
            assert!(
                (measured - norm).abs() < tolerance,
                "{what} {name}: measured {measured}, computed {norm}, tolerance {tolerance}"
            );
            if norm < rounding / step {
                without.push(name.clone());
            }
        }
        without
    }
}

fn length(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
}

/// Both towers of a checkpoint, or the text tower alone where there are convolutions.
fn towers<'a>(
    checkpoint: &Checkpoint,
    open: Open,
    images: &'a [f32],
    texts: &'a [Vec<u32>],
) -> Vec<(&'static str, Bench<'a>)> {
    let load = |layout: &Layout| {
        let rng = &mut ChaCha8Rng::seed_from_u64(0);
        layout.load(rng, |slot| checkpoint.tensor(&slot.name).map(Some)).unwrap()
    };
    let slack = |spec: &TransformerSpec| if spec.activation == Activation::Relu { 0.15 } else { 0.01 };
    let mut found: Vec<(&'static str, Bench<'a>)> = Vec::new();
    if let VisionParts::Vit(parts) = &checkpoint.anatomy().vision {
        let mut layout = Layout::default();
        let tower = ImageTower::new(parts, open, &mut layout);
        let values = load(&layout);
        let forward = Box::new(move |tape: &mut Tape, p: &Params<'_>| tower.forward(tape, p, images));
        let slack = slack(&parts.spec.transformer);
        found.push(("image", Bench { layout, values, forward, tape: Tape::new(), slack }));
    }
    let mut layout = Layout::default();
    let tower = TextTower::new(&checkpoint.anatomy().text, open, &mut layout);
    let values = load(&layout);
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let forward = Box::new(move |tape: &mut Tape, p: &Params<'_>| tower.forward(tape, p, &texts));
    let slack = slack(&checkpoint.anatomy().text.spec.transformer);
    found.push(("text", Bench { layout, values, forward, tape: Tape::new(), slack }));
    found
}

/// Largest difference between unit vectors.
fn difference(found: &[f32], expected: &[Embedding]) -> f32 {
    let dim = expected[0].as_slice().len();
    let (_, found) = unit_rows(found, dim);
    let expected: Vec<f32> = expected.iter().flat_map(|e| e.as_slice().to_vec()).collect();
    common::max_diff(&found, &expected)
}

/// Everything that must hold of a model directory. Gives the tensors without a gradient.
fn verify(name: &str, dir: &Path, images: &[PreparedImage], texts: &[Vec<u32>]) -> Vec<String> {
    let encoder = DualEncoder::load(dir).unwrap();
    let checkpoint = Checkpoint::open(dir).unwrap();
    let pixels: Vec<f32> = images.iter().flat_map(|image| image.values.to_vec()).collect();
    let mut without = Vec::new();
    let mut replaced = std::collections::BTreeMap::new();
    for (which, mut all) in towers(&checkpoint, Open::All, &pixels, texts) {
        let what = format!("{name} {which}");
        let expected = match which {
            "image" => encoder.encode_images(images).unwrap(),
            _ => encoder.encode_ids(texts).unwrap(),
        };
        let rows = all.rows();
        let off = difference(&rows, &expected);
        assert!(off < 1e-4, "{what} is off by {off}");
        let d_rows = noise(rows.len(), 3);
        let grads = all.gradient(&d_rows);
        for open in [Open::None, Open::Last(0), Open::Last(1), Open::Last(2)] {
            let some = towers(&checkpoint, open, &pixels, texts).into_iter().find(|(w, _)| *w == which);
            let (_, mut some) = some.unwrap();
            let off = difference(&some.rows(), &expected);
            assert!(off < 1e-4, "{what} {open:?} is off by {off}");
            assert_eq!(some.layout.len() + some.layout.frozen_len(), all.layout.len());
            same_gradients(&what, &some, &d_rows, (&all.layout, &grads));
        }
        without.extend(all.check_gradients(&what));
        replaced.extend(all.layout.collect(&all.values.trained));
    }
    // What was read and collected again is the same model.
    let out = tempfile::tempdir().unwrap();
    checkpoint.write(out.path(), &replaced).unwrap();
    assert_eq!(DualEncoder::load(out.path()).unwrap().model_id(), encoder.model_id(), "{name}");
    without
}

/// A tower that is partly frozen has the gradients of the open one, as far as it has any.
fn same_gradients(what: &str, some: &Bench<'_>, d_rows: &[f32], (layout, grads): (&Layout, &[f32])) {
    let found = some.gradient(d_rows);
    for slot in some.layout.slots().iter().filter(|slot| slot.span.trained()) {
        let full = layout.slots().iter().find(|other| other.name == slot.name).unwrap();
        let off = common::max_diff(slot.span.of(&found), full.span.of(grads));
        let most = full.span.of(grads).iter().fold(0f32, |most, g| most.max(g.abs()));
        assert!(off <= 1e-4 * (1.0 + most), "{what} {}: off by {off} of {most}", slot.name);
    }
}

/// A bias on all keys of a head shifts whole rows of scores, which changes nothing.
fn is_key_bias(name: &str) -> bool {
    [".k_proj.bias", ".key.bias"].iter().any(|end| name.ends_with(end))
}

#[test]
fn towers_with_every_option_compute_what_the_encoder_computes_and_have_true_gradients() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../encoder/tests/fixtures");
    let fixture = std::fs::read_to_string(fixtures.join("variants.json")).unwrap();
    let fixture: Value = serde_json::from_str(&fixture).unwrap();
    let cases = fixture["cases"].as_array().unwrap();
    cases.par_iter().for_each(|case| {
        let name = case["name"].as_str().unwrap();
        let dir = tempfile::tempdir().unwrap();
        common::cases::write(dir.path(), case, cases);
        let shape: Vec<usize> = serde_json::from_value(case["images"]["shape"].clone()).unwrap();
        let image = |k: usize| {
            let values = formula::tensor(&format!("image.{k}"), &shape, 0.0, 1.5);
            PreparedImage { values: values.into(), width: 1, height: 1 }
        };
        let texts: Vec<Vec<u32>> = serde_json::from_value(case["input_ids"].clone()).unwrap();
        let without = verify(name, dir.path(), &[image(0), image(1)], &texts);
        assert!(without.iter().all(|tensor| is_key_bias(tensor)), "{name}: {without:?}");
    });
}

#[test]
fn published_families_compute_what_the_encoder_computes_and_have_true_gradients() {
    let Some(root) = shared("golden") else { return };
    let folders = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let mut seen = 0;
    for folder in folders.filter(|folder| folder.join("golden.json").exists()) {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let dir = folder.join("model");
        let encoder = DualEncoder::load(&dir).unwrap();
        let (height, width) = encoder.image_size();
        let image =
            |seed| PreparedImage { values: noise(3 * height * width, seed).into(), width: 1, height: 1 };
        let texts = ["A chest X-ray.", "no effusion", "two cats asleep on a red sofa"];
        let texts: Vec<Vec<u32>> = texts.iter().map(|t| encoder.prepare_text(t).unwrap().ids).collect();
        let without = verify(&name, &dir, &[image(1), image(2)], &texts);
        assert!(without.iter().all(|tensor| is_key_bias(tensor)), "{name}: {without:?}");
        seen += 1;
    }
    assert!(seen >= 7, "{seen} families");
}

#[test]
fn a_frozen_tower_keeps_no_more_than_a_block() {
    let config = ClipConfig {
        text: TextConfig {
            vocab_size: 30,
            hidden_size: 16,
            num_attention_heads: 2,
            num_hidden_layers: 12,
            ..TextConfig::default()
        },
        vision: VisionConfig {
            hidden_size: 16,
            num_attention_heads: 2,
            image_size: 32,
            patch_size: 4,
            ..VisionConfig::default()
        },
        projection_dim: 8,
        ..ClipConfig::default()
    };
    let VisionParts::Vit(parts) = clip_anatomy(&config).vision else { panic!("CLIP") };
    let images = noise(2 * 3 * 32 * 32, 1);
    let bytes = |open| {
        let mut layout = Layout::default();
        let tower = ImageTower::new(&parts, open, &mut layout);
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        let values = layout.load(rng, |_| Ok::<_, Infallible>(None)).unwrap();
        let mut tape = Tape::new();
        tower.forward(&mut tape, &values.params(), &images);
        tape.bytes()
    };
    let (shut, half, open) = (bytes(Open::None), bytes(Open::Last(6)), bytes(Open::All));
    assert!(shut * 4 < open && half < open * 2 / 3, "{shut}, {half} and {open} bytes");
}
