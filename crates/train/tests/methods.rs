//! Ways to train, from the recipe to the model directory: frozen, open and partly open towers, large
//! batches in pieces, objectives with a memory, tuning.
//!
//! Deliberately absent: plain training from scratch (see `train`), and each shipped recipe (`recipes`).

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use diptych_core::{Embedding, Encode};
use diptych_encoder::{Checkpoint, DualEncoder};
use diptych_train::{
    FEATURES_FOLDER, Phase, Recipe, Resume, Summary, TrainError, TrainOptions, WeightType, train, tune,
};
use safetensors::SafeTensors;

fn mini() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/models/mini")
}

/// A few phantoms, and whatever else a recipe says.
fn recipe(rest: &str) -> Recipe {
    let data = "[data.phantom]\ncases = 24\nseed = 1\nvalidation_cases = 12\nvalidation_seed = 2\n";
    let rest = rest.replace("MINI", mini().to_str().unwrap());
    let mut recipe = Recipe::from_toml(&format!("{data}{rest}")).unwrap();
    recipe.output.dtype = WeightType::F32;
    recipe
}

const SMALL: &str = "[model]\nimage_size = 16\nvision_width = 16\nvision_layers = 1\nvision_heads = 2\n\
                     text_width = 16\ntext_layers = 1\ntext_heads = 2\nprojection_dim = 8\n";
const HEADS: &str = "[towers]\nimage = \"MINI\"\ntext = \"MINI\"\n\
                     [head]\nkind = \"mlp\"\nhidden = 32\ndim = 16\ndropout = 0.3\n";

fn run(recipe: &Recipe, out: &Path) -> Summary {
    train(recipe, out, &TrainOptions::default(), &mut |_| {}).unwrap()
}

fn tensors(out: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = fs::read(out.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    tensors.iter().map(|(name, view)| (name.to_owned(), values(view.data()))).collect()
}

/// Largest difference of any weight of two model directories.
fn difference(a: &Path, b: &Path) -> f32 {
    let (a, b) = (tensors(a), tensors(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    let pairs = a.values().flatten().zip(b.values().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_batch_in_pieces_teaches_what_the_whole_batch_does() {
    for sides in [SMALL, HEADS] {
        let settings = "[train]\nsteps = 3\nbatch_size = 12\nwarmup_steps = 1\ntexts_per_image = 2\n";
        let whole = recipe(&format!("{sides}{settings}"));
        let pieces = recipe(&format!("{sides}{settings}micro_batch = 5\n"));
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (first, second) = (run(&whole, a.path()), run(&pieces, b.path()));
        assert!((first.loss - second.loss).abs() < 1e-5, "{} and {}", first.loss, second.loss);
        // Adam divides by the size of a gradient, so that rounding shows more in weights than in losses.
        let difference = difference(a.path(), b.path());
        assert!(difference < 2e-4, "weights differ by {difference}");
    }
}

#[test]
fn two_views_of_texts_teach_the_text_side_alone() {
    let out = tempfile::tempdir().unwrap();
    let simclr = "[train]\nsteps = 4\nbatch_size = 12\nwarmup_steps = 1\nweight_decay = 0.0\nMICRO\n\
                  [[objective]]\nkind = \"simclr\"\nimages = false\ntexts = true\n";
    for micro in ["", "micro_batch = 5"] {
        let recipe = recipe(&format!("{SMALL}{}", simclr.replace("MICRO", micro)));
        run(&recipe, &out.path().join(format!("after{micro}")));
    }
    assert!(difference(&out.path().join("after"), &out.path().join("aftermicro_batch = 5")) < 1e-5);
    let still = recipe(&format!("{SMALL}{}", simclr.replace("MICRO", "learning_rate = 1e-8")));
    run(&still, &out.path().join("still"));
    let (still, after) = (tensors(&out.path().join("still")), tensors(&out.path().join("after")));
    let moved = |name: &str| still[name].iter().zip(&after[name]).any(|(a, b)| (a - b).abs() > 1e-5);
    assert!(moved("text_projection.weight") && !moved("visual_projection.weight"));
}

#[test]
fn deep_cca_ends_in_one_space_for_both_sides() {
    let steps = "[train]\nsteps = 20\nbatch_size = 16\nwarmup_steps = 2\nlearning_rate = 3e-4\n\
                 [[objective]]\nkind = \"dcca\"\ndims = 8\nimage_regularization = 0.1\n\
                 text_regularization = 0.1\n";
    let mut deep = recipe(&format!("{HEADS}{steps}"));
    let phantoms = deep.data.phantom.as_mut().unwrap();
    (phantoms.cases, phantoms.validation_cases) = (256, 100);
    deep.train.batch_size = 128;
    let out = tempfile::tempdir().unwrap();
    let validation = run(&deep, out.path()).validation.unwrap();
    // Chance is .1; without a common coordinate system nothing better could be expected.
    for scores in [validation.text_to_image, validation.image_to_text] {
        assert!(scores.recall_at_10 > 0.5, "{validation}");
    }
    // What was validated is what was written.
    let model = DualEncoder::load(out.path()).unwrap();
    let prepared = |case: diptych_phantom::Case| {
        let path = out.path().join("case.png");
        case.image.save(&path).unwrap();
        let image = fs::read(&path).unwrap();
        (model.prepare_image(&image).unwrap(), model.prepare_text(&case.report).unwrap())
    };
    let (images, texts): (Vec<_>, Vec<_>) = (0..40).map(|i| prepared(diptych_phantom::case(9, i))).unzip();
    let (images, texts) = (model.encode_images(&images).unwrap(), model.encode_texts(&texts).unwrap());
    let better = |(i, text): (usize, &Embedding)| {
        let own = text.cosine(&images[i]);
        images.iter().filter(|image| text.cosine(image) > own).count()
    };
    let found = texts.iter().enumerate().map(better).filter(|better| *better < 4).count();
    assert!(found > 20, "{found} of 40 texts find their image among the first 4");

    let adapter = "[towers]\nboth = \"MINI\"\n[head]\nkind = \"adapter\"\n";
    let refused = recipe(&format!("{adapter}{steps}"));
    let error = train(
        &refused,
        out.path(),
        &TrainOptions { resume: Resume::Restart, ..Default::default() },
        &mut |_| {},
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("objective.dcca") && error.contains("info-nce"), "{error}");
}

#[test]
fn batches_add_up_to_one_step() {
    let out = tempfile::tempdir().unwrap();
    let text = format!("{SMALL}[train]\nepochs = 2\nbatch_size = 6\naccumulate = 2\nwarmup_steps = 1\n");
    assert_eq!(run(&recipe(&text), out.path()).steps, 4, "24 images, 12 to a step, twice");
}

#[test]
fn a_run_with_queues_averages_and_a_best_continues_to_the_same_bits() {
    let text = format!(
        "{SMALL}[train]\nsteps = 6\nbatch_size = 8\nwarmup_steps = 1\ncheckpoint_every = 2\n\
         validate_every = 2\nkeep = \"best\"\naverage = 0.5\nweighting = \"normalized\"\n\
         [[objective]]\nkind = \"info-nce\"\n[[objective]]\nkind = \"moco-cross\"\nqueue = 16\n\
         [[objective]]\nkind = \"moco\"\nqueue = 16\nweight = 0.5\n"
    );
    let recipe = recipe(&text);
    let (straight, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = run(&recipe, straight.path());
    let options = TrainOptions { resume: Resume::Continue, ..TrainOptions::default() };
    let died = catch_unwind(AssertUnwindSafe(|| {
        train(&recipe, broken.path(), &options, &mut |p| {
            assert!(p.phase != Phase::Steps || p.step < 5, "dies as intended");
        })
    }));
    assert!(died.is_err());
    let resumed = train(&recipe, broken.path(), &options, &mut |_| {}).unwrap();
    assert_eq!(resumed.resumed_at, 4);
    assert_eq!(
        (resumed.loss, resumed.first, resumed.validation),
        (expected.loss, expected.first, expected.validation)
    );
    for file in ["model.safetensors", "checkpoint/state.safetensors"] {
        let read = |dir: &Path| fs::read(dir.join(file)).unwrap();
        assert!(read(broken.path()) == read(straight.path()), "{file} differs");
    }
}

#[test]
fn only_what_is_open_changes() {
    let out = tempfile::tempdir().unwrap();
    let text = "[towers]\nboth = \"MINI\"\nopen_image = 1\nopen_text = \"all\"\n\
                [train]\nsteps = 2\nbatch_size = 8\nwarmup_steps = 1\nlearning_rate = 1e-2\n";
    run(&recipe(text), out.path());
    let (before, after) = (Checkpoint::open(&mini()).unwrap(), Checkpoint::open(out.path()).unwrap());
    assert_eq!(before.family(), after.family());
    for source in before.anatomy().sources() {
        let name = &source.name;
        let same = before.tensor(name).unwrap() == after.tensor(name).unwrap();
        let open = name.starts_with("text_")
            || name.starts_with("visual_projection")
            || name.starts_with("vision_model.post_layernorm")
            || name.starts_with("vision_model.encoder.layers.3.")
            || name == "logit_scale";
        // A bias on all keys has no gradient.
        assert!(same != open || name.ends_with("k_proj.bias"), "{name}: open {open}, same {same}");
    }
    assert!(DualEncoder::load(out.path()).is_ok());
}

#[test]
fn frozen_towers_run_once() {
    let (out, shared) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let text = format!("{HEADS}[train]\nsteps = 2\nbatch_size = 8\nwarmup_steps = 1\n");
    let recipe = recipe(&text);
    let options = TrainOptions { features: Some(shared.path().to_path_buf()), ..TrainOptions::default() };
    train(&recipe, &out.path().join("a"), &options, &mut |_| {}).unwrap();
    let files = || -> BTreeMap<PathBuf, std::time::SystemTime> {
        let files = fs::read_dir(shared.path()).unwrap().map(|file| file.unwrap());
        files.map(|file| (file.path(), file.metadata().unwrap().modified().unwrap())).collect()
    };
    let before = files();
    assert_eq!(before.len(), 4, "images and texts, to train on and held out: {before:?}");
    train(&recipe, &out.path().join("b"), &options, &mut |_| {}).unwrap();
    assert_eq!(files(), before);
    assert!(!out.path().join("a").join(FEATURES_FOLDER).exists());
    assert_eq!(difference(&out.path().join("a"), &out.path().join("b")), 0.0);
}

fn pairs(dir: &Path, cases: u64) -> PathBuf {
    diptych_phantom::write(dir, cases, 7, |_| {}).unwrap().list
}

#[test]
fn tuning_starts_at_the_model_and_keeps_the_best() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = pairs(dir.path(), 60);
    let settings = tune::Settings { epochs: 4.0, ..tune::Settings::default() };
    let recipe = tune::recipe(&mini(), &pairs, &settings).unwrap();
    let out = dir.path().join("tuned");
    let summary = train(&recipe, &out, &TrainOptions::default(), &mut |_| {}).unwrap();
    let (first, last) = (summary.first.unwrap(), summary.validation.unwrap());
    assert_eq!(first.text_to_image.gallery, 20, "a third, but at most 20, of 60 records");
    assert!(last.score() >= first.score(), "{first} to {last}");
    let tuned = DualEncoder::load(&out).unwrap();
    assert_eq!(tuned.dim(), DualEncoder::load(&mini()).unwrap().dim());
}

#[test]
fn tuning_that_helps_nobody_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = pairs(dir.path(), 40);
    let settings = tune::Settings { epochs: 1.0, learning_rate: 1e-8, ..tune::Settings::default() };
    let recipe = tune::recipe(&mini(), &pairs, &settings).unwrap();
    let out = dir.path().join("tuned");
    let options = TrainOptions { refuse_worse: true, ..TrainOptions::default() };
    let error = train(&recipe, &out, &options, &mut |_| {}).unwrap_err();
    assert!(matches!(error, TrainError::NotBetter { .. }), "{error}");
    assert!(error.to_string().contains("--force"), "{error}");
    assert!(!out.join("model.safetensors").exists());
    let options = TrainOptions { resume: Resume::Restart, ..TrainOptions::default() };
    train(&recipe, &out, &options, &mut |_| {}).unwrap();
    // The best was the start: the adapter changes nothing.
    let (tuned, base) = (DualEncoder::load(&out).unwrap(), DualEncoder::load(&mini()).unwrap());
    let embed = |model: &DualEncoder| {
        let text = model.prepare_text("Large left pleural effusion.").unwrap();
        model.encode_texts(&[text]).unwrap()[0].clone()
    };
    assert!(embed(&tuned).cosine(&embed(&base)) > 0.999_99);
}

#[test]
fn pairs_that_cannot_be_tuned_on_are_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let few = pairs(dir.path(), 4);
    let refused = |settings: &tune::Settings| tune::recipe(&mini(), &few, settings).unwrap_err().to_string();
    assert!(refused(&tune::Settings::default()).contains("at least 6"));
    let wrong = tune::Settings { validation_share: 1.0, ..tune::Settings::default() };
    assert!(refused(&wrong).contains("validation share"));
    let enough = pairs(dir.path(), 40);
    for (setting, name) in [
        (tune::Settings { learning_rate: 0.0, ..tune::Settings::default() }, "`learning rate`"),
        (tune::Settings { epochs: -1.0, ..tune::Settings::default() }, "`epochs`"),
        (tune::Settings { hidden: 0, ..tune::Settings::default() }, "`hidden`"),
    ] {
        let error = tune::recipe(&mini(), &enough, &setting).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn towers_that_cannot_be_used_are_refused_by_name() {
    let out = tempfile::tempdir().unwrap();
    let steps = "[train]\nsteps = 1\nbatch_size = 8\nwarmup_steps = 0\n";
    let nowhere = "[towers]\nboth = \"/no/such/model\"\nopen_text = \"all\"\n";
    let error =
        train(&recipe(&format!("{nowhere}{steps}")), out.path(), &TrainOptions::default(), &mut |_| {});
    assert!(error.unwrap_err().to_string().contains("/no/such/model"));
    for side in ["open_image", "open_text"] {
        let towers = format!("[towers]\nboth = \"MINI\"\n{side} = 99\n");
        let error =
            train(&recipe(&format!("{towers}{steps}")), out.path(), &TrainOptions::default(), &mut |_| {});
        let error = error.unwrap_err().to_string();
        assert!(error.contains(side) && error.contains("99"), "{error}");
    }
}
