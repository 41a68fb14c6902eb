//! Every recipe that Diptych ships, carried out at a small size.
//!
//! Deliberately absent: how good the results are, which docs/training.md shows.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use diptych_core::Encode;
use diptych_encoder::DualEncoder;
use diptych_train::{
    CURVES_FILE, DataRecipe, LOG_FILE, ModelRecipe, PhantomRecipe, Recipe, TrainOptions, train,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/recipes")
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    files
}

/// The same recipe over a few phantoms, with small towers or the bundled model's.
fn small(path: &Path) -> Recipe {
    let mut recipe = Recipe::from_file(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let phantom = PhantomRecipe { cases: 24, seed: 1, validation_cases: 12, validation_seed: 2 };
    recipe.data =
        DataRecipe { phantom: Some(phantom), labels: recipe.data.labels.clone(), ..DataRecipe::default() };
    let mini = folder().join("../models/mini");
    for tower in [&mut recipe.towers.both, &mut recipe.towers.image, &mut recipe.towers.text] {
        if tower.is_some() {
            *tower = Some(mini.clone());
        }
    }
    recipe.towers.views = recipe.towers.views.min(2);
    recipe.model = ModelRecipe {
        image_size: 16,
        vision_width: 16,
        vision_layers: 1,
        vision_heads: 2,
        text_width: 16,
        text_layers: 1,
        text_heads: 2,
        projection_dim: 16,
        ..recipe.model
    };
    let train = &mut recipe.train;
    (train.steps, train.epochs, train.batch_size, train.warmup_steps) = (3, None, 8, 1);
    train.micro_batch = train.micro_batch.min(3);
    (train.checkpoint_every, train.validate_every) = (2, train.validate_every.min(2));
    recipe
}

fn carry_out(path: &Path) {
    let out = tempfile::tempdir().unwrap();
    let recipe = small(path);
    let name = path.display();
    let summary = train(&recipe, out.path(), &TrainOptions::default(), &mut |_| {})
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let validation = summary.validation.unwrap_or_else(|| panic!("{name} is not validated"));
    assert_eq!(validation.text_to_image.gallery, 12, "{name}");
    let model = DualEncoder::load(out.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let case = diptych_phantom::case(1, 0);
    let text = model.prepare_text(&case.report).unwrap();
    assert_eq!(model.encode_texts(&[text]).unwrap()[0].dim(), model.dim(), "{name}");
    if summary.steps > 0 {
        assert!(summary.loss.is_finite(), "{name}: loss {}", summary.loss);
        let log = fs::read_to_string(out.path().join(LOG_FILE)).unwrap();
        assert_eq!(log.lines().filter(|line| line.contains("gradient_norm")).count(), 3, "{name}");
        assert!(out.path().join(CURVES_FILE).exists(), "{name}");
    }
}

#[test]
fn every_recipe_is_valid_and_can_be_carried_out() {
    let paths = names(&folder());
    assert!(paths.len() >= 5, "{paths:?}");
    paths.iter().for_each(|path| carry_out(path));
}

#[test]
fn every_objective_has_a_recipe_that_can_be_carried_out() {
    let paths = names(&folder().join("objectives"));
    let all: String = paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let kinds = ["info-nce", "siglip", "convirt", "soft-targets", "vse0", "vse++", "simclr", "moco"];
    for kind in kinds.iter().chain(&["moco-cross", "dcca", "distance", "uncertainty", "normalized"]) {
        assert!(all.contains(&format!("\"{kind}\"")), "no recipe for {kind}");
    }
    paths.iter().for_each(|path| carry_out(path));
}
