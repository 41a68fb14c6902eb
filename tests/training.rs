//! Training a model and tuning one: what comes out works everywhere, what is interrupted goes on, and
//! what cannot go well is refused in words that say what to do.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Server, corpus, diptych, fail, hits, mini_model, succeed, succeed_with_notes};

/// Towers that take a millisecond.
const TOWERS: &str = "
[model]
image_size = 32
patch_size = 8
vision_width = 32
vision_layers = 1
vision_heads = 2
text_width = 32
text_layers = 1
text_heads = 2
context_length = 32
projection_dim = 16
[tokenizer]
vocab_size = 600
";
/// A head on the towers of the model that ships, whose path is to be filled in.
const HEAD: &str = "
[towers]
both = 'MINI'
[head]
kind = 'mlp'
hidden = 16
dim = 8
";
const PHANTOMS: &str = "
[data.phantom]
cases = 64
seed = 3
validation_cases = 40
validation_seed = 4
";
const STEPS: &str = "
[train]
steps = 12
batch_size = 16
warmup_steps = 2
checkpoint_every = 1
";

/// Writes a recipe of these parts.
fn recipe(dir: &Path, parts: &[&str]) {
    let mini = mini_model();
    fs::write(dir.join("recipe.toml"), parts.concat().replace("MINI", mini.to_str().unwrap())).unwrap();
}

fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["train", "recipe.toml", "--out", "out"], more].concat()
}

/// Pairs whose texts the shipped model has never seen the like of: the labels in their written form.
fn label_pairs(dir: &Path) {
    let cases = fs::read_to_string(dir.join("phantoms/cases.jsonl")).unwrap();
    let lines = cases.lines().map(|line| {
        let mut case: Value = serde_json::from_str(line).unwrap();
        let of = &case["attributes"];
        let labels: Vec<&str> =
            of["labels"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
        let view = of["view"].as_str().unwrap();
        case["text"] = format!("{view} {}", labels.join(" ")).replace('.', " ").into();
        case.to_string()
    });
    fs::write(dir.join("phantoms/labels.jsonl"), lines.collect::<Vec<_>>().join("\n")).unwrap();
}

fn tune<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["tune", "--model", model, "--pairs", "phantoms/labels.jsonl", "--out", "tuned"], more].concat()
}

fn weights(dir: &Path, out: &str) -> Vec<u8> {
    fs::read(dir.join(out).join("model.safetensors")).unwrap()
}

#[test]
fn a_model_trained_from_a_recipe_is_taken_by_every_command() {
    let dir = corpus(30);
    recipe(dir.path(), &[PHANTOMS, TOWERS, STEPS, "validate_every = 4\n"]);
    let (said, notes) = succeed_with_notes(dir.path(), &train(&[]));
    assert!(
        said.contains("trained 12 steps in ") && said.contains("held out: text to image recall"),
        "{said}"
    );
    assert!(said.contains("40 images, chance @1 0.0250"), "{said}");
    assert_eq!(notes.matches("recall@1/5/10").count(), 2 * 2, "two looks on the way: {notes}");
    let log = fs::read_to_string(dir.path().join("out/training.jsonl")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().filter(|line| line["loss"].is_number()).count(), 12);
    assert_eq!(lines.last().unwrap()["validation"]["text_to_image"]["gallery"], 40);
    let curves = fs::read_to_string(dir.path().join("out/training.svg")).unwrap();
    assert!(curves.contains("training of out") && curves.contains("temperature"));

    let said = succeed(dir.path(), &["model", "inspect", "out"]);
    assert!(
        said.contains("32 x 32 pixels in patches of 8 x 8") && said.contains("dimensions      16"),
        "{said}"
    );
    let place = ["--data", "data", "--model", "out"];
    let said = succeed(dir.path(), &[&["ingest", "phantoms"], &place[..]].concat());
    assert!(said.contains("30 items") && said.contains("0 failed"), "{said}");
    let search = ["search", "--text", "effusion", "--target", "image", "-k", "3", "--json"];
    let here = hits(&succeed(dir.path(), &[&search, &place[..]].concat()));
    assert_eq!(here.len(), 3);
    let server = Server::start_with_model(dir.path(), Path::new("out"), &[]);
    let there = hits(&succeed(dir.path(), &[&search, &["--server", &server.url][..]].concat()));
    assert_eq!(there, here);
    server.stop();
    let eval = ["eval", "--model", "out", "--pairs", "phantoms/cases.jsonl", "--bootstrap", "20", "--json"];
    let report: Value = serde_json::from_str(&succeed(dir.path(), &eval)).unwrap();
    assert_eq!((&report["records"], &report["text_to_image"]["queries"]), (&30.into(), &30.into()));
}

#[test]
fn a_run_that_is_killed_goes_on_and_ends_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    recipe(dir.path(), &[PHANTOMS, TOWERS, &STEPS.replace("steps = 12", "steps = 500")]);
    let mut child =
        diptych(dir.path(), &train(&[])).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let checkpoint = dir.path().join("out/checkpoint/state.safetensors");
    while !checkpoint.exists() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    // It is held still, so that what comes next does not depend on who is faster.
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
    let said = fail(dir.path(), &train(&["--resume"]));
    assert!(said.contains("out is in use by another run"), "{said}");
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "the run was over before it could be killed");
    assert!(!dir.path().join("out/model.safetensors").exists(), "an unfinished run leaves no model");

    let said = fail(dir.path(), &train(&[]));
    assert!(said.contains(" of 500; continue it with --resume, discard it with --restart"), "{said}");
    let said = succeed(dir.path(), &train(&["--resume"]));
    assert!(said.contains("continued from step "), "{said}");
    succeed(dir.path(), &["train", "recipe.toml", "--out", "straight"]);
    assert!(weights(dir.path(), "out") == weights(dir.path(), "straight"));
    let said = succeed(dir.path(), &train(&["--resume"]));
    assert!(said.contains("all 500 steps were done before"), "{said}");
    assert!(weights(dir.path(), "out") == weights(dir.path(), "straight"));
}

#[test]
fn what_is_in_the_output_directory_stays_until_it_is_discarded() {
    let dir = tempfile::tempdir().unwrap();
    recipe(dir.path(), &[PHANTOMS, HEAD, STEPS]);
    fs::create_dir(dir.path().join("out")).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(mini_model().join(file), dir.path().join("out").join(file)).unwrap();
    }
    let before = weights(dir.path(), "out");
    for more in [&[][..], &["--resume"]] {
        let said = fail(dir.path(), &train(more));
        assert!(said.contains("out holds a model") && said.contains("--restart"), "{said}");
    }
    assert!(weights(dir.path(), "out") == before);
    succeed(dir.path(), &train(&["--restart"]));
    let said = succeed(dir.path(), &["model", "inspect", "out"]);
    assert!(said.contains("Diptych composed") && said.contains("dimensions      8"), "{said}");

    // Another recipe is another run, and a damaged checkpoint is none.
    recipe(dir.path(), &[PHANTOMS, HEAD, STEPS, "seed = 2\n"]);
    let said = fail(dir.path(), &train(&["--resume"]));
    assert!(said.contains("its recipe differs") && said.contains("--restart"), "{said}");
    let checkpoint = dir.path().join("out/checkpoint/state.safetensors");
    fs::write(&checkpoint, &fs::read(&checkpoint).unwrap()[..1000]).unwrap();
    for more in [&[][..], &["--resume"]] {
        let said = fail(dir.path(), &train(more));
        assert!(said.contains("is damaged") && said.contains("--restart"), "{said}");
    }
    // Damaged features are computed again without a word: the result is the same.
    let sound = weights(dir.path(), "out");
    recipe(dir.path(), &[PHANTOMS, HEAD, STEPS]);
    for file in fs::read_dir(dir.path().join("out/features")).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 4;
        bytes[last] ^= 0x7f;
        fs::write(&path, bytes).unwrap();
    }
    succeed(dir.path(), &train(&["--restart"]));
    assert!(weights(dir.path(), "out") == sound);
}

#[test]
fn tuning_says_what_it_was_good_for_and_the_tuned_model_serves() {
    let dir = corpus(150);
    label_pairs(dir.path());
    let model = mini_model();
    let model = model.to_str().unwrap();
    let args = tune(model, &["--epochs", "20", "--batch-size", "32", "--learning-rate", "1e-3"]);
    let said = succeed(dir.path(), &args);
    let recall = |name: &str| {
        let line = said.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.contains(" images, chance @1 0.0"), "{line}");
        let after = line.split("recall@1/5/10 ").nth(1).unwrap();
        after.split([' ', ',']).take(3).map(|v| v.parse::<f64>().unwrap()).sum::<f64>()
    };
    assert!(recall("after:") > recall("before:"), "{said}");
    assert!(said.contains("chosen on these held-out pairs"), "{said}");
    let said = fail(dir.path(), &args);
    assert!(said.contains("--resume") && said.contains("--restart"), "{said}");

    let said = succeed(dir.path(), &["model", "inspect", "tuned"]);
    assert!(said.contains("Diptych composed") && said.contains("head "), "{said}");
    fs::write(dir.path().join("texts.txt"), "PA effusion left large\nAP pneumothorax right\n").unwrap();
    let embed = |model: &str, out: &str| {
        succeed(dir.path(), &["embed", "--model", model, "--texts", "texts.txt", "--out", out]);
        let bytes = fs::read(dir.path().join(out)).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let rows = tensors.tensor("text_embeds").unwrap();
        assert_eq!(rows.shape(), [2, 128]);
        rows.data().to_vec()
    };
    assert!(embed("tuned", "a.safetensors") != embed(model, "b.safetensors"), "the adapter changes nothing");
    succeed(dir.path(), &["ingest", "phantoms/cases.jsonl", "--data", "data", "--model", "tuned"]);
    let server = Server::start_with_model(dir.path(), Path::new("tuned"), &[]);
    let search = ["search", "--server", &server.url, "--text", "AP pneumothorax right", "--target", "image"];
    let found = hits(&succeed(dir.path(), &[&search[..], &["-k", "2", "--json"]].concat()));
    assert_eq!(found.len(), 2);
}

#[test]
fn a_tuned_model_that_is_no_better_is_written_only_when_that_is_asked_for() {
    let dir = corpus(40);
    label_pairs(dir.path());
    let model = mini_model();
    let more = ["--epochs", "1", "--learning-rate", "1e-8"];
    let args = tune(model.to_str().unwrap(), &more);
    let said = fail(dir.path(), &args);
    assert!(said.contains("no better than before") && said.contains("--resume --force"), "{said}");
    assert!(!dir.path().join("tuned/model.safetensors").exists());
    let said = succeed(dir.path(), &[&args[..], &["--resume", "--force"]].concat());
    assert!(said.contains("were done before") && said.contains("before: "), "{said}");
    succeed(dir.path(), &["model", "inspect", "tuned"]);
}

#[test]
fn recipes_that_cannot_go_well_say_what_would() {
    let dir = corpus(20);
    fs::write(dir.path().join("file"), "").unwrap();
    let soft = "[[objective]]\nkind = 'soft-targets'\n";
    let pairs = "[data]\npairs = 'phantoms/cases.jsonl'\n";
    for (parts, more, says) in [
        (vec![""], vec![], "missing field `data`"),
        (vec![PHANTOMS, "[traim]\nsteps = 1\n"], vec![], "unknown field `traim`"),
        (vec![PHANTOMS, "[train]\nsteps = 'many'\n"], vec![], "invalid type: string \"many\""),
        (vec!["[data]\npairs = 'nowhere.jsonl'\n", TOWERS, STEPS], vec![], "check the path"),
        (vec![pairs, TOWERS, STEPS, "[augment]\nmirror = 0.5\n"], vec![], "augment.mirror"),
        (vec![pairs, TOWERS, &STEPS.replace("= 16", "= 64")], vec![], "more than the 20 training images"),
        (
            vec![pairs, "validation_pairs = 5\ngroup_by = 'patient'\n", TOWERS, STEPS],
            vec![],
            "no attribute 'patient'",
        ),
        (vec![pairs, "labels = 'mood'\n", TOWERS, STEPS, soft], vec![], "data.labels"),
        (vec![PHANTOMS, &HEAD.replace("MINI", "nowhere"), STEPS], vec![], "nowhere/config.json is missing"),
        (vec![PHANTOMS, "[towers]\nimage = 'MINI'\ntext = 'MINI'\n", STEPS], vec![], "`head` is missing"),
        (
            vec![PHANTOMS, HEAD, STEPS],
            vec!["--features", "file"],
            "file is a file, but a directory is needed",
        ),
        (vec![PHANTOMS, &HEAD.replace("MINI", "out"), STEPS], vec![], "it is the output directory too"),
    ] {
        recipe(dir.path(), &parts);
        let said = fail(dir.path(), &train(&more));
        assert!(said.contains(says), "{parts:?} {more:?} said: {said}");
    }
    recipe(dir.path(), &[PHANTOMS, TOWERS, STEPS]);
    for out in ["file", "file/below"] {
        let said = fail(dir.path(), &["train", "recipe.toml", "--out", out]);
        assert!(said.contains("file is a file, but a directory is needed there"), "{said}");
    }
    let said = fail(dir.path(), &["train", "nowhere.toml", "--out", "out"]);
    assert_eq!(said.matches("No such file").count(), 1, "once is enough: {said}");
}

#[test]
fn pairs_that_cannot_be_tuned_on_say_what_would_be_right() {
    let dir = corpus(20);
    let cases = fs::read_to_string(dir.path().join("phantoms/cases.jsonl")).unwrap();
    let lines: Vec<&str> = cases.lines().collect();
    let texts: String = (0..9).map(|n| format!("{{\"key\": \"{n}\", \"text\": \"b\"}}\n")).collect();
    let model = mini_model();
    let model = model.to_str().unwrap();
    for (pairs, says) in [
        (String::new(), "no record with both image and text"),
        (lines[0].to_owned(), "at least 6"),
        (format!("{cases}{{\"key\": "), "line 21: not a JSON object"),
        (cases.replacen("images/phantom", "images/none", 1), "cannot be read"),
        (texts, "no record with both image and text"),
    ] {
        fs::write(dir.path().join("phantoms/labels.jsonl"), pairs).unwrap();
        let said = fail(dir.path(), &tune(model, &[]));
        assert!(said.contains(says), "it said: {said}");
    }
    fs::write(dir.path().join("phantoms/labels.jsonl"), &cases).unwrap();
    for (more, says) in [
        (["--group-by", "patient"], "no attribute 'patient'"),
        (["--validation", "nowhere.jsonl"], "check the path"),
        (["--validation-share", "1"], "between 0 and 1"),
        (["--batch-size", "0"], "choose 2 at least"),
        (["--hidden", "0"], "choose a value from 1"),
        (["--learning-rate", "nan"], "choose a value from"),
    ] {
        let said = fail(dir.path(), &tune(model, &more));
        assert!(said.contains(says), "{more:?} said: {said}");
    }
    // Under another name it is still the model itself.
    let copy = dir.path().join("model");
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(model).unwrap() {
        let path = file.unwrap().path();
        fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    let args = ["tune", "--model", "model", "--pairs", "phantoms/labels.jsonl", "--out", "phantoms/../model"];
    let said = fail(dir.path(), &[&args[..], &["--restart"]].concat());
    assert!(said.contains("is the output directory too"), "{said}");
    assert!(weights(dir.path(), "model") == weights(Path::new(model), "."));
}
