//! Whole runs of a tiny recipe, from TOML to a model directory.
//!
//! Deliberately absent: single steps and the numbers within them, which the modules test.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use diptych_core::Encode;
use diptych_encoder::DualEncoder;
use diptych_train::{
    CURVES_FILE, LOG_FILE, Phase, Progress, Recipe, Resume, Summary, TrainError, TrainOptions, train,
};

const STEPS: u64 = 7;

fn recipe(seed: u64) -> Recipe {
    let text = format!(
        "[data.phantom]
        cases = 40
        seed = 1
        validation_cases = 12
        validation_seed = 2
        [model]
        image_size = 16
        vision_width = 16
        vision_layers = 2
        vision_heads = 2
        text_width = 16
        text_layers = 1
        text_heads = 2
        projection_dim = 8
        [train]
        steps = {STEPS}
        batch_size = 16
        warmup_steps = 2
        checkpoint_every = 2
        validate_every = 3
        seed = {seed}
        [output]
        dtype = \"f32\""
    );
    Recipe::from_toml(&text).unwrap()
}

fn options(resume: Resume) -> TrainOptions {
    TrainOptions { resume, ..TrainOptions::default() }
}

fn run(out: &Path, resume: Resume) -> Result<Summary, TrainError> {
    train(&recipe(1), out, &options(resume), &mut |_| {})
}

/// A process that dies after a step, between two checkpoints.
fn run_and_die_after(out: &Path, step: u64) {
    let died = catch_unwind(AssertUnwindSafe(|| {
        train(&recipe(1), out, &options(Resume::Continue), &mut |p: &Progress| {
            assert!(p.phase != Phase::Steps || p.step < step, "dies as intended");
        })
    }));
    assert!(died.is_err(), "the run should have died at step {step}");
}

fn losses(out: &Path) -> Vec<(u64, f64)> {
    let log = fs::read_to_string(out.join(LOG_FILE)).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let steps = lines.filter(|line| line["loss"].is_number());
    steps.map(|line| (line["step"].as_u64().unwrap(), line["loss"].as_f64().unwrap())).collect()
}

#[test]
fn a_run_that_died_twice_ends_with_the_same_bytes_as_one_that_never_did() {
    let (straight, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let summary = run(straight.path(), Resume::Refuse).unwrap();
    assert_eq!((summary.steps, summary.resumed_at), (STEPS, 0));
    run_and_die_after(broken.path(), 3);
    run_and_die_after(broken.path(), 5);
    assert!(!broken.path().join("model.safetensors").exists(), "an unfinished run leaves no model");
    let resumed = run(broken.path(), Resume::Continue).unwrap();
    assert_eq!(resumed.resumed_at, 4);
    assert_eq!(resumed.loss, summary.loss);
    assert_eq!(resumed.validation, summary.validation);
    assert_eq!(losses(broken.path()), losses(straight.path()));
    for file in ["model.safetensors", "config.json", "tokenizer.json"] {
        let read = |dir: &Path| fs::read(dir.join(file)).unwrap();
        assert!(read(broken.path()) == read(straight.path()), "{file} differs");
    }
}

#[test]
fn a_finished_run_loads_and_has_nothing_left_to_do() {
    let out = tempfile::tempdir().unwrap();
    let mut validations = Vec::new();
    let summary = train(&recipe(1), out.path(), &TrainOptions::default(), &mut |p| {
        validations.extend(p.validation.as_ref().map(|v| (p.step, v.text_to_image.gallery)));
    })
    .unwrap();
    assert_eq!(validations, [(3, 12), (6, 12)]);
    let scores = summary.validation.unwrap().text_to_image;
    assert_eq!((scores.gallery, scores.queries), (12, 12));
    assert!((scores.chance_at_10 - 10.0 / 12.0).abs() < 1e-12);
    let curves = fs::read_to_string(out.path().join(CURVES_FILE)).unwrap();
    assert!(curves.contains("recall@10 among 12 held-out images"), "{curves}");
    let encoder = DualEncoder::load(out.path()).unwrap();
    assert_eq!((encoder.dim(), encoder.parameters()), (8, summary.parameters as u64));
    assert!((encoder.logit_scale() + summary.temperature.unwrap().ln()).abs() < 1e-5);
    let before = fs::read(out.path().join("model.safetensors")).unwrap();
    let log = fs::read_to_string(out.path().join(LOG_FILE)).unwrap();
    assert_eq!(log.matches("\"validation\"").count(), 3, "the last look is written down too: {log}");
    let again = run(out.path(), Resume::Continue).unwrap();
    assert_eq!(again.resumed_at, STEPS);
    assert_eq!(fs::read_to_string(out.path().join(LOG_FILE)).unwrap(), log);
    assert!(fs::read(out.path().join("model.safetensors")).unwrap() == before);
}

#[test]
fn the_checkpoint_of_another_run_is_kept_until_it_is_discarded() {
    let out = tempfile::tempdir().unwrap();
    run(out.path(), Resume::Refuse).unwrap();
    let error = run(out.path(), Resume::Refuse).unwrap_err().to_string();
    assert!(error.contains("--resume") && error.contains("step 7 of 7"), "{error}");
    let error = train(&recipe(2), out.path(), &options(Resume::Continue), &mut |_| {}).unwrap_err();
    assert!(matches!(error, TrainError::OtherRun { what: "recipe", .. }), "{error}");
    let summary = train(&recipe(2), out.path(), &options(Resume::Restart), &mut |_| {}).unwrap();
    assert_eq!(summary.resumed_at, 0);
    assert_eq!(losses(out.path()).len() as u64, STEPS);
}

#[test]
fn a_model_without_a_run_is_kept_until_it_is_discarded() {
    let out = tempfile::tempdir().unwrap();
    fs::write(out.path().join("model.safetensors"), "somebody's").unwrap();
    for resume in [Resume::Refuse, Resume::Continue] {
        let error = run(out.path(), resume).unwrap_err();
        assert!(matches!(error, TrainError::ModelThere { .. }), "{error}");
    }
    assert_eq!(fs::read(out.path().join("model.safetensors")).unwrap(), b"somebody's");
    run(out.path(), Resume::Restart).unwrap();
}

#[test]
fn recipe_files_are_found_or_missed_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.toml");
    let error = Recipe::from_file(&path).unwrap_err().to_string();
    assert!(error.contains("r.toml"), "{error}");
    fs::write(&path, "[data]\npairs = \"set/cases.jsonl\"\n").unwrap();
    let recipe = Recipe::from_file(&path).unwrap();
    assert_eq!(recipe.data.pairs.unwrap(), dir.path().join("set/cases.jsonl"));
}

#[test]
fn the_recipe_of_the_bundled_model_is_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/recipes/mini.toml");
    let recipe = Recipe::from_file(&path).unwrap();
    assert_eq!(recipe.data.phantom.unwrap().validation_cases, 1000);
}

#[test]
fn batches_larger_than_the_data_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let list = diptych_phantom::write(dir.path(), 6, 1, |_| {}).unwrap().list;
    let mut small = recipe(1);
    small.data = diptych_train::DataRecipe { pairs: Some(list), ..Default::default() };
    small.train.validate_every = 0;
    let error = train(&small, &dir.path().join("out"), &TrainOptions::default(), &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(error.contains("train.batch_size") && error.contains("6 training images"), "{error}");
}

/// Each of a few pairs finds its own counterpart first, in both directions, through the encoder.
#[test]
fn sixteen_pairs_are_learned_by_heart() {
    let dir = tempfile::tempdir().unwrap();
    diptych_phantom::write(dir.path(), 16, 5, |_| {}).unwrap();
    let text = "[data]
        pairs = \"cases.jsonl\"
        [model]
        image_size = 32
        vision_width = 32
        vision_layers = 2
        text_width = 32
        text_layers = 1
        projection_dim = 32
        [train]
        steps = 200
        batch_size = 16
        learning_rate = 3e-3
        warmup_steps = 10
        [augment]
        shift = 0.0
        scale = 0.0
        brightness = 0.0
        contrast = 0.0
        noise = 0.0
        [text]
        whole = 1.0
        impression = 0.0
        sentence = 0.0";
    let path = dir.path().join("recipe.toml");
    fs::write(&path, text).unwrap();
    let out = dir.path().join("model");
    let summary =
        train(&Recipe::from_file(&path).unwrap(), &out, &TrainOptions::default(), &mut |_| {}).unwrap();
    assert!(summary.loss < 0.05, "loss {}", summary.loss);

    let encoder = DualEncoder::load(&out).unwrap();
    let cases: Vec<_> = (0..16).map(|index| diptych_phantom::case(5, index)).collect();
    let image = |key: &str| fs::read(dir.path().join(format!("images/{key}.png"))).unwrap();
    let images: Vec<_> = cases.iter().map(|c| encoder.prepare_image(&image(&c.key)).unwrap()).collect();
    let texts: Vec<_> = cases.iter().map(|c| encoder.prepare_text(&c.report).unwrap()).collect();
    let (images, texts) = (encoder.encode_images(&images).unwrap(), encoder.encode_texts(&texts).unwrap());
    for (queries, gallery) in [(&images, &texts), (&texts, &images)] {
        for (i, query) in queries.iter().enumerate() {
            let own = query.cosine(&gallery[i]);
            let better = gallery.iter().filter(|other| query.cosine(other) > own).count();
            assert_eq!(better, 0, "pair {i} is not its own first answer");
        }
    }
}

#[test]
fn the_bundled_model_is_small_and_complete() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/models/mini");
    let shipped = ["config.json", "merges.txt", "model.safetensors", "preprocessor_config.json"];
    let shipped = shipped.iter().chain(&["tokenizer.json", "vocab.json", "tokenizer_config.json"]);
    let bytes: u64 = shipped.map(|name| fs::metadata(folder.join(name)).unwrap().len()).sum();
    assert!(bytes < 8_000_000, "{bytes} bytes");
    let encoder = DualEncoder::load(&folder).unwrap();
    let large = encoder.prepare_text("Large left pleural effusion.").unwrap();
    assert!(large.ids.len() <= 8, "the tokenizer knows the words of the reports: {:?}", large.ids);
}
