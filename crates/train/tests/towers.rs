//! Open towers of one directory beside towers of another: what is written is what was trained, and nothing
//! else has changed.
//!
//! Deliberately absent: open towers of one dual encoder without heads (see `methods`).

#![allow(clippy::unwrap_used)]

// The tiny sentence encoder that the encoder's own tests hold to the reference library.
#[path = "../../encoder/tests/common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use common::read_tensors;
use common::trunks::write_bert_of;
use diptych_core::{Embedding, Encode};
use diptych_encoder::{DualEncoder, Family, RgbImage, WEIGHTS_FILE};
use diptych_eval::{Bootstrap, Options, Pairs, evaluate};
use diptych_train::{Recipe, Summary, TrainOptions, Validation, WeightType, train};

const HELD_OUT: (u64, usize) = (2, 16);
const DATA: &str = "[data.phantom]\ncases = 24\nseed = 1\nvalidation_cases = 16\nvalidation_seed = 2\n";

fn run(text: &str, out: &Path) -> Summary {
    let mut recipe = Recipe::from_toml(&format!("{DATA}{text}")).unwrap();
    recipe.output.dtype = WeightType::F32;
    train(&recipe, out, &TrainOptions::default(), &mut |_| {}).unwrap()
}

/// Two dual encoders with tensors of the same names, some of them of the same shapes, and a sentence encoder.
struct Towers(tempfile::TempDir);

impl Towers {
    fn new() -> Self {
        let towers = Self(tempfile::tempdir().unwrap());
        for (name, width, seed) in [("first", 16, 5), ("second", 24, 6)] {
            let model = format!(
                "[model]\nimage_size = 16\nvision_width = 16\nvision_layers = 2\nvision_heads = 2\n\
                 text_width = {width}\ntext_layers = 2\ntext_heads = 2\nprojection_dim = 8\n\
                 [train]\nsteps = 1\nbatch_size = 8\nwarmup_steps = 0\nseed = {seed}\n"
            );
            run(&model, &towers.path(name));
        }
        let reports: String =
            (0..24).map(|i| diptych_phantom::case(1, i).report.to_lowercase() + " ").collect();
        let words: BTreeSet<&str> =
            reports.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        write_bert_of(&towers.path("bert"), 7, &words.into_iter().collect::<Vec<_>>());
        towers
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A short run with heads on these towers.
    fn train(&self, image: (&str, &str), text: (&str, &str), out: &Path) -> Summary {
        let recipe = format!(
            "[towers]\nimage = {:?}\nopen_image = {}\ntext = {:?}\nopen_text = {}\n\
             [head]\nkind = \"linear\"\ndim = 12\ndropout = 0.0\n\
             [train]\nsteps = 4\nbatch_size = 8\nwarmup_steps = 1\nlearning_rate = 1e-2\n",
            self.path(image.0),
            image.1,
            self.path(text.0),
            text.1
        );
        run(&recipe, out)
    }
}

/// The scores of a model directory on the held-out phantoms, by the usual protocol.
fn validation(model: &DualEncoder) -> Validation {
    let cases: Vec<_> = (0..HELD_OUT.1 as u64).map(|i| diptych_phantom::case(HELD_OUT.0, i)).collect();
    let picture = |case: &diptych_phantom::Case| {
        let grey = &case.image;
        let values = grey.as_raw().iter().flat_map(|v| [*v; 3]).collect();
        let image = RgbImage::from_raw(grey.width(), grey.height(), values).unwrap();
        model.preprocessing().prepare_rgb(&image).unwrap()
    };
    let images: Vec<_> = cases.iter().map(picture).collect();
    let texts: Vec<_> = cases.iter().map(|case| model.prepare_text(&case.report).unwrap()).collect();
    let images: Vec<Embedding> = model.encode_images(&images).unwrap();
    let texts: Vec<Embedding> = model.encode_texts(&texts).unwrap();
    let records: Vec<u32> = (0..).take(cases.len()).collect();
    let wording = |case: &diptych_phantom::Case| {
        cases.iter().position(|other| other.report == case.report).unwrap() as u32
    };
    let wordings: Vec<u32> = cases.iter().map(wording).collect();
    let pairs = Pairs::new(&images, &records, &texts, &records, cases.len()).unwrap();
    let options =
        Options { bootstrap: Bootstrap { resamples: 0, ..Bootstrap::default() }, answers: 0, control: false };
    let report = evaluate(&pairs.with_equal_texts(&wordings).unwrap(), &options).unwrap();
    Validation { text_to_image: report.text_to_image.into(), image_to_text: report.image_to_text.into() }
}

fn tensors(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|e| e == "safetensors")).unwrap();
    read_tensors(&file).into_iter().map(|(name, (_, _, bytes))| (name, bytes)).collect()
}

/// The weights in `after` are those in `before` but for the tensors that were `open`.
fn assert_changed(before: &Path, after: &Path, open: impl Fn(&str) -> bool) {
    let (before, after) = (tensors(before), tensors(after));
    assert!(before.keys().eq(after.keys()), "{:?} and {:?}", before.keys(), after.keys());
    for (name, values) in &before {
        let (open, same) = (open(name), *values == after[name]);
        // A bias on all keys has no gradient.
        let idle = name.ends_with("k_proj.bias") || name.ends_with("key.bias");
        assert!(same != open || (open && idle), "{name}: open {open}, same {same}");
    }
}

/// What opening the last block, or all, means for the names of either side of a dual encoder.
fn last_image(name: &str) -> bool {
    ["visual_projection", "vision_model.post_layernorm", "vision_model.encoder.layers.1."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

fn all_image(name: &str) -> bool {
    name.starts_with("vis")
}

fn last_text(name: &str) -> bool {
    ["text_projection", "text_model.final_layer_norm", "text_model.encoder.layers.1."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

fn all_text(name: &str) -> bool {
    name.starts_with("text_")
}

fn last_bert(name: &str) -> bool {
    name.starts_with("encoder.layer.1.")
}

fn all_bert(name: &str) -> bool {
    !name.starts_with("pooler.")
}

fn nothing(_: &str) -> bool {
    false
}

#[test]
fn what_is_written_is_what_was_validated_and_only_open_tensors_change() {
    type Names = fn(&str) -> bool;
    let towers = Towers::new();
    let cases: [(&str, &str, Names, &str, &str, Names); 7] = [
        ("first", "\"none\"", nothing, "bert", "\"all\"", all_bert),
        ("first", "\"none\"", nothing, "bert", "1", last_bert),
        ("first", "\"all\"", all_image, "bert", "\"all\"", all_bert),
        ("first", "1", last_image, "bert", "\"none\"", nothing),
        ("first", "\"all\"", all_image, "second", "\"none\"", nothing),
        ("first", "\"none\"", nothing, "second", "1", last_text),
        ("first", "\"all\"", all_image, "second", "\"all\"", all_text),
    ];
    for (image, open_image, image_names, text, open_text, text_names) in cases {
        let case = format!("{image} {open_image} beside {text} {open_text}");
        let out = tempfile::tempdir().unwrap();
        let summary = towers.train((image, open_image), (text, open_text), out.path());
        let model = DualEncoder::load(out.path()).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(model.family(), Family::Composed, "{case}");
        assert_eq!(summary.validation.unwrap(), validation(&model), "{case}");
        assert_changed(&towers.path(image), &out.path().join("image"), image_names);
        assert_changed(&towers.path(text), &out.path().join("text"), text_names);
        let left: BTreeSet<String> = fs::read_dir(out.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(!left.iter().any(|name| name.ends_with(".staged")), "{case}: {left:?}");
    }
}

/// One directory is written once, whatever of it is open.
#[test]
fn towers_of_one_directory_stay_in_one() {
    let towers = Towers::new();
    for (open_image, open_text) in [("1", "\"none\""), ("\"none\"", "1"), ("1", "1")] {
        let out = tempfile::tempdir().unwrap();
        let summary = towers.train(("first", open_image), ("first", open_text), out.path());
        let model = DualEncoder::load(out.path()).unwrap();
        assert_eq!(summary.validation.unwrap(), validation(&model), "{open_image} {open_text}");
        assert!(!out.path().join("text").exists());
        assert_changed(&towers.path("first"), &out.path().join("image"), |name| {
            (open_image == "1" && last_image(name)) || (open_text == "1" && last_text(name))
        });
    }
}

/// Before the first step an open sentence encoder gives what the frozen one does.
#[test]
fn an_open_sentence_encoder_starts_as_it_is() {
    let towers = Towers::new();
    let first = |open: &str| {
        let out = tempfile::tempdir().unwrap();
        let recipe = format!(
            "[towers]\nimage = {:?}\ntext = {:?}\nopen_text = {open}\n\
             [head]\nkind = \"linear\"\ndim = 12\ndropout = 0.0\n\
             [train]\nsteps = 1\nbatch_size = 8\nwarmup_steps = 0\nkeep = \"best\"\n",
            towers.path("first"),
            towers.path("bert")
        );
        run(&recipe, out.path()).first.unwrap()
    };
    let frozen = first("\"none\"");
    assert_eq!([first("\"all\""), first("1")], [frozen; 2]);
}

#[test]
fn a_sentence_encoder_has_no_images_to_open() {
    let towers = Towers::new();
    let out = tempfile::tempdir().unwrap();
    for open in ["\"none\"", "\"all\""] {
        let recipe = format!(
            "{DATA}[towers]\nboth = {:?}\nopen_image = {open}\nopen_text = \"all\"\n\
             [train]\nsteps = 1\nbatch_size = 8\nwarmup_steps = 0\n",
            towers.path("bert")
        );
        let recipe = Recipe::from_toml(&recipe).unwrap();
        let error =
            train(&recipe, out.path(), &TrainOptions::default(), &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("bert"), "{error}");
        assert!(!out.path().join(WEIGHTS_FILE).exists());
    }
}
