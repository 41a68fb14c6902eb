//! What people really have on disk: broken files, wrong folders, other models.

use std::fs;

use serde_json::Value;

use crate::support::{corpus, fail, hits, mini_model, succeed};

/// A PNG header that promises 100,000 x 100,000 pixels, and nothing behind it.
fn bomb() -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    png.extend(100_000u32.to_be_bytes());
    png.extend(100_000u32.to_be_bytes());
    png.extend([8, 2, 0, 0, 0]);
    png.extend([0xd6, 0x6d, 0x2a, 0x1c]);
    png
}

#[test]
fn bad_files_are_skipped_listed_and_counted() {
    let dir = corpus(3);
    let photos = dir.path().join("photos");
    fs::create_dir(&photos).unwrap();
    let good = fs::read(dir.path().join("phantoms/images/phantom-000000.png")).unwrap();
    fs::write(photos.join("good.png"), &good).unwrap();
    fs::write(photos.join("good.txt"), "A picture that is whole.").unwrap();
    fs::write(photos.join("truncated.png"), &good[..good.len() / 2]).unwrap();
    fs::write(photos.join("empty.jpg"), b"").unwrap();
    fs::write(photos.join("text.jpg"), b"this is not a picture").unwrap();
    fs::write(photos.join("bomb.png"), bomb()).unwrap();
    fs::write(photos.join("one.pgm"), b"P5 1 1 255 \x80").unwrap();
    let model = mini_model();
    let place = ["--data", "data", "--model", model.to_str().unwrap()];
    let said = succeed(dir.path(), &[&["ingest", "photos", "--report", "failed.jsonl"], &place[..]].concat());
    assert!(said.contains("2 created") && said.contains("4 failed"), "{said}");
    let report = fs::read_to_string(dir.path().join("failed.jsonl")).unwrap();
    let failures: Vec<Value> = report.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(failures.len(), 4);
    for name in ["truncated.png", "empty.jpg", "text.jpg", "bomb.png"] {
        let failure = failures.iter().find(|f| f["origin"].as_str().unwrap().contains(name));
        let failure = failure.unwrap_or_else(|| panic!("{name} is not listed in {report}"));
        assert!(failure["reason"].as_str().unwrap().contains(';'), "{failure} does not say what to do");
    }
    let args = [&["search", "--text", "A picture that is whole.", "--target", "text", "--json"], &place[..]];
    assert_eq!(hits(&succeed(dir.path(), &args.concat()))[0].0, "good");
}

#[test]
fn lines_that_are_no_records_are_listed_with_their_number() {
    let dir = corpus(2);
    let list = [
        r#"{"key": "a", "text": "fine"}"#,
        r#"{"key": "b", "image": "nowhere.png"}"#,
        "not json",
        r#"{"key": "c"}"#,
        r#"{"key": "a", "text": "again"}"#,
        r#"{"key": "d", "image": "../../etc/hostname"}"#,
    ];
    fs::write(dir.path().join("list.jsonl"), list.join("\n")).unwrap();
    let model = mini_model();
    let args = ["ingest", "list.jsonl", "--data", "data", "--model", model.to_str().unwrap()];
    let said = succeed(dir.path(), &args);
    assert!(said.contains("1 created") && said.contains("5 failed"), "{said}");
    let report = fs::read_to_string(dir.path().join("ingest-failures.jsonl")).unwrap();
    for line in 2..=6 {
        assert!(report.contains(&format!("line {line}")), "line {line} is not listed in {report}");
    }
}

#[test]
fn wrong_commands_say_what_would_be_right() {
    let dir = corpus(2);
    let model = mini_model();
    let model = model.to_str().unwrap();
    let place = ["--data", "data", "--model", model];
    let said = fail(dir.path(), &[&["ingest", "nowhere"], &place[..]].concat());
    assert!(said.contains("nowhere"), "{said}");
    succeed(dir.path(), &[&["ingest", "phantoms"], &place[..]].concat());
    for (args, says) in [
        (vec!["search", "--text", "a", "--target", "image", "--k", "0"], "1 to 1000"),
        (vec!["search", "--text", "a", "--target", "image", "--k", "99999"], "1 to 1000"),
        (vec!["search", "--text", "  ", "--target", "image"], "empty"),
        (vec!["search", "--text", "a", "--target", "sound"], "image"),
        (vec!["search", "--key", "nobody", "--target", "image"], "nobody"),
        (vec!["search", "--image", "nowhere.png", "--target", "text"], "nowhere.png"),
        (vec!["search", "--text", "a", "--target", "text", "--collection", "other"], "there are: default"),
    ] {
        let said = fail(dir.path(), &[&args[..], &place[..]].concat());
        assert!(said.contains(says), "{args:?} said: {said}");
    }
    let said =
        fail(dir.path(), &["search", "--text", "a", "--target", "image", "--data", "none", "--model", model]);
    assert!(said.contains("no store"), "{said}");
    let said = fail(dir.path(), &["verify", "--data", "none"]);
    assert!(said.contains("no store"), "{said}");
    let said =
        fail(dir.path(), &["search", "--text", "a", "--target", "image", "--server", "http://127.0.0.1:1"]);
    assert!(said.contains("cannot reach"), "{said}");
}

#[test]
fn a_model_that_lacks_a_tensor_or_is_another_one_is_refused() {
    let dir = corpus(2);
    let model = mini_model();
    let copy = dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(&model).unwrap().flatten().filter(|e| e.path().is_file()) {
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let ingest = |model: &str| ["ingest", "phantoms", "--data", "data", "--model", model].map(str::to_owned);
    let args = |model: &str| ingest(model);
    succeed(dir.path(), &args(model.to_str().unwrap()).each_ref().map(String::as_str));

    // Other preprocessing makes another model: its vectors must not meet the stored ones.
    let path = copy.join("preprocessor_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["image_mean"] = serde_json::json!([0.5, 0.5, 0.5]);
    fs::write(&path, config.to_string()).unwrap();
    let said = fail(dir.path(), &args("copy").each_ref().map(String::as_str));
    assert!(said.contains("was made with model"), "{said}");

    let weights = copy.join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let kept = tensors.tensors().into_iter().filter(|(name, _)| name != "visual_projection.weight");
    safetensors::serialize_to_file(kept, None, &copy.join("cut.safetensors")).unwrap();
    fs::rename(copy.join("cut.safetensors"), &weights).unwrap();
    let said = fail(dir.path(), &args("copy").each_ref().map(String::as_str));
    assert!(said.contains("visual_projection.weight"), "{said}");
    let said = succeed(dir.path(), &["verify", "--data", "data"]);
    assert!(said.contains("agree"), "{said}");
}
