//! Judging a model: retrieval with its page, classification by words, and what people get wrong.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{corpus, fail, mini_model, shared_data, succeed, succeed_with_notes};

const DIRECTIONS: [&str; 2] = ["text_to_image", "image_to_text"];

/// The arguments of a command with the bundled model.
fn with_model<'a>(command: &'a str, model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[command, "--model", model], more].concat()
}

fn eval_json(dir: &Path, more: &[&str]) -> Value {
    let model = mini_model();
    let args = with_model("eval", model.to_str().unwrap(), &[more, &["--json"]].concat());
    serde_json::from_str(&succeed(dir, &args)).unwrap()
}

/// Writes lines that pair the pictures of a corpus with texts.
fn write_pairs(dir: &Path, name: &str, lines: &[Value]) {
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    fs::write(dir.join(name), lines.join("\n")).unwrap();
}

fn picture(n: usize) -> String {
    format!("phantoms/images/phantom-{n:06}.png")
}

#[test]
fn a_model_that_works_is_clear_of_chance_and_its_control_is_not() {
    let dir = corpus(60);
    let report = eval_json(dir.path(), &["--pairs", "phantoms/cases.jsonl"]);
    assert_eq!((report["records"].as_u64(), report["control"]["shuffles"].as_u64()), (Some(60), Some(20)));
    for direction in DIRECTIONS {
        let (found, control) = (&report[direction], &report["control"][direction]);
        assert_eq!((found["queries"].as_u64(), found["groups"].as_u64()), (Some(60), Some(60)));
        for metric in ["recall@1", "recall@5", "recall@10", "mrr", "map", "ndcg@10", "label_precision@5"] {
            let chance = found["chance"][metric].as_f64().unwrap();
            let interval = &found["interval"][metric];
            let (low, high) = (interval[0].as_f64().unwrap(), interval[1].as_f64().unwrap());
            let value = found[metric].as_f64().unwrap();
            assert!(chance < low && low <= value && value <= high, "{direction} {metric}: {found}");
            let shuffled = control[metric].as_f64().unwrap();
            assert!((shuffled - chance).abs() < 0.06, "{direction} {metric}: {control}");
        }
        let curve = found["recall_curve"].as_array().unwrap();
        assert_eq!((curve.len(), &curve[9]), (50, &found["recall@10"]));
        let bins: u64 =
            found["ranks"].as_array().unwrap().iter().map(|bin| bin["queries"].as_u64().unwrap()).sum();
        assert_eq!(bins, 60);
    }
}

#[test]
fn the_page_is_complete_in_itself_and_the_same_every_time() {
    let dir = corpus(40);
    let model = mini_model();
    let pairs = fs::read_to_string(dir.path().join("phantoms/cases.jsonl")).unwrap();
    // What a text says must not become part of the page.
    let pairs = pairs.replacen("FINDINGS:", "<script>alert(1)</script> FINDINGS:", 40);
    fs::write(dir.path().join("phantoms/cases.jsonl"), pairs).unwrap();
    let page = |name: &str| {
        let more = ["--pairs", "phantoms/cases.jsonl", "--report", name, "--bootstrap", "50"];
        let table = succeed(dir.path(), &with_model("eval", model.to_str().unwrap(), &more));
        assert!(table.contains("95 % interval") && table.contains("nDCG@10"), "{table}");
        fs::read_to_string(dir.path().join(name)).unwrap()
    };
    let first = page("a.html");
    assert_eq!(first, page("b.html"));
    for outside in ["http:", "https:", "<script", "<link", "url(", "@import"] {
        assert!(!first.contains(outside), "the page has {outside}");
    }
    assert!(first.contains("&lt;script&gt;"));
    let count = |what: &str| first.matches(what).count();
    assert_eq!((count("<svg role=\"img\""), count("<title>"), count("<caption>")), (6, 7, 3));
    // Six queries each way, five answers each; pictures are answers one way and queries the other.
    assert_eq!((count("class=\"example\""), count("<img src=\"data:image/jpeg;base64,")), (12, 6 * 5 + 6));
    assert_eq!(count("alt=\"Image of record phantom-"), 36);
    assert!(count("<li class=\"right\">") > 0);
    // Pictures are letters and digits that may spell anything.
    assert!([">NaN", "\"NaN", " NaN", ",NaN"].iter().all(|wrong| !first.contains(wrong)));
}

#[test]
fn several_images_and_texts_and_no_attributes_are_fine() {
    let dir = corpus(8);
    let line = |n: usize| json!({"images": [picture(n), picture(n + 1)], "captions": [format!("text {n}"), "shared"]});
    write_pairs(dir.path(), "pairs.jsonl", &[line(0), line(2), line(4)]);
    let model = mini_model();
    let args = |more: &[&'static str]| [&["--pairs", "pairs.jsonl", "--json"], more].concat();
    let run = |more: &[&'static str]| {
        let args = args(more);
        let (said, notes) =
            succeed_with_notes(dir.path(), &with_model("eval", model.to_str().unwrap(), &args));
        (serde_json::from_str::<Value>(&said).unwrap(), notes)
    };
    let (report, notes) = run(&[]);
    assert!(notes.contains("3 of 6 texts occur in other records too"), "{notes}");
    assert!(notes.contains("3 groups are few"), "{notes}");
    let chance = |report: &Value, direction: &str| report[direction]["chance"]["recall@1"].as_f64().unwrap();
    // A text of its own has two of six images, a shared one all six.
    assert!((chance(&report, "text_to_image") - (1.0 / 3.0 + 1.0) / 2.0).abs() < 1e-9, "{report}");
    // An image has two right texts of four: its own and the shared one, which is there once.
    assert_eq!(report["image_to_text"]["gallery"], 4);
    assert!((chance(&report, "image_to_text") - 0.5).abs() < 1e-9, "{report}");
    assert!(report["text_to_image"].get("ndcg@10").is_none());
    let (strict, notes) = run(&["--duplicates-wrong"]);
    assert!(notes.contains("counts those as wrong"), "{notes}");
    assert!((chance(&strict, "text_to_image") - 1.0 / 3.0).abs() < 1e-9, "{strict}");
}

#[test]
fn what_cannot_be_evaluated_says_what_to_do() {
    let dir = corpus(4);
    let model = mini_model();
    let model = model.to_str().unwrap();
    fs::write(dir.path().join("empty.jsonl"), "\n").unwrap();
    fs::write(dir.path().join("torn.png"), &fs::read(dir.path().join(picture(0))).unwrap()[..200]).unwrap();
    let pair = |n: usize| json!({"image": picture(n), "text": "a chest", "attributes": {"labels": ["x"]}});
    let torn = json!({"image": "torn.png", "text": "a chest"});
    write_pairs(dir.path(), "torn.jsonl", &[pair(0), torn.clone()]);
    write_pairs(dir.path(), "half.jsonl", &[pair(0), json!({"text": "no picture"})]);
    write_pairs(dir.path(), "pairs.jsonl", &[pair(0), json!({"image": picture(1), "text": "another"})]);
    fs::write(dir.path().join("nan.jsonl"), r#"{"image": "torn.png", "text": "a", "age": NaN}"#).unwrap();
    for (args, says) in [
        (vec!["--pairs", "empty.jsonl"], "one JSON object per line"),
        (vec!["--pairs", "torn.jsonl"], "send a whole JPEG"),
        (vec!["--pairs", "half.jsonl"], "every line needs an image and a text"),
        (vec!["--pairs", "nan.jsonl"], "not a JSON object"),
        (vec!["--pairs", "pairs.jsonl", "--labels", "finding"], "has no attribute 'finding' (it has labels)"),
        (
            vec!["--pairs", "pairs.jsonl", "--group-by", "labels"],
            "line 2: has no attribute 'labels' (it has none)",
        ),
        (vec!["--pairs", "pairs.jsonl", "--bootstrap", "1000000"], "100000"),
        (vec!["--pairs", "pairs.jsonl", "--report", "nowhere/page.html"], "cannot write nowhere/page.html"),
    ] {
        let said = fail(dir.path(), &with_model("eval", model, &args));
        assert!(said.contains(says), "{args:?} said: {said}");
    }
}

#[test]
fn one_pair_and_equal_texts_are_measured_at_chance() {
    let dir = corpus(5);
    let model = mini_model();
    let pair = |n: usize| json!({"image": picture(n), "text": "a chest"});
    write_pairs(dir.path(), "one.jsonl", &[pair(0)]);
    write_pairs(dir.path(), "same.jsonl", &(0..5).map(pair).collect::<Vec<_>>());
    let args = with_model("eval", model.to_str().unwrap(), &["--pairs", "one.jsonl", "--report", "one.html"]);
    let (said, notes) = succeed_with_notes(dir.path(), &args);
    assert!(notes.contains("neither intervals nor a control"), "{notes}");
    assert!(said.contains("1 query of 1 group, gallery of 1") && !said.contains("shuffled"), "{said}");
    assert!(!fs::read_to_string(dir.path().join("one.html")).unwrap().contains("\"NaN"));
    let report = eval_json(dir.path(), &["--pairs", "same.jsonl"]);
    for direction in DIRECTIONS {
        assert_eq!(report[direction]["recall@1"], report[direction]["chance@1"], "{report}");
    }
}

#[test]
fn findings_are_told_from_pictures_by_words_alone() {
    let dir = corpus(150);
    let model = mini_model();
    let more = [
        ["--pairs", "phantoms/cases.jsonl", "--truth", "labels"],
        ["--labels", "effusion,pneumothorax,cardiomegaly", "--prompts", "radiology"],
    ]
    .concat();
    let args = with_model("classify", model.to_str().unwrap(), &more);
    let table = succeed(dir.path(), &args);
    assert!(table.contains("AUC") && table.contains("each against its denial"), "{table}");
    let found: Value =
        serde_json::from_str(&succeed(dir.path(), &[&args[..], &["--json"]].concat())).unwrap();
    let measured = &found["measured"];
    assert_eq!((measured["images"].as_u64(), measured["accuracy"].is_null()), (Some(150), true));
    for label in measured["labels"].as_array().unwrap() {
        let (auc, low) = (&label["auc"], label["auc"]["interval"][0].as_f64().unwrap());
        assert_eq!(label["positives"].as_u64().unwrap() + label["negatives"].as_u64().unwrap(), 150);
        assert!(auc["value"].as_f64().unwrap() > 0.75 && low > 0.6, "{label}");
    }
    assert_eq!(found["images"].as_array().unwrap().len(), 150);
}

#[test]
fn images_are_given_their_likeliest_labels() {
    let dir = corpus(2);
    let model = mini_model();
    let labels = r#"["effusion", {"name": "normal", "prompts": ["Normal chest.", "The lungs are clear."]}]"#;
    fs::write(dir.path().join("labels.json"), labels).unwrap();
    let (first, second) = (picture(0), picture(1));
    let more = ["--labels-file", "labels.json", "--template", "{}.", "--images", &first, &second];
    let args = with_model("classify", model.to_str().unwrap(), &more);
    let said = succeed(dir.path(), &args);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[3]), (6, first.as_str(), second.as_str()));
    let probability = |line: &str| line.split_whitespace().next().unwrap().parse::<f64>().unwrap();
    for image in lines.chunks(3) {
        assert!(probability(image[1]) >= probability(image[2]), "{said}");
        assert!((probability(image[1]) + probability(image[2]) - 1.0).abs() < 0.0015, "{said}");
    }
    let top = succeed(dir.path(), &[&args[..], &["--top", "1"]].concat());
    assert_eq!(top.lines().count(), 4);
    let alone = ["--labels", "effusion", "--images", &first];
    let (_, notes) = succeed_with_notes(dir.path(), &with_model("classify", model.to_str().unwrap(), &alone));
    assert!(notes.contains("a single label always has the probability 1"), "{notes}");
    let json: Value = serde_json::from_str(&succeed(dir.path(), &[&args[..], &["--json"]].concat())).unwrap();
    assert_eq!(json["classes"][1]["prompts"][1], "The lungs are clear.");
    assert!(json.get("measured").is_none());
}

#[test]
fn one_of_several_classes_is_counted_as_right_or_wrong() {
    let dir = corpus(40);
    let model = mini_model();
    let more = [
        "--pairs",
        "phantoms/cases.jsonl",
        "--truth",
        "view",
        "--template",
        "{} view.",
        "--labels",
        "PA,LATERAL",
    ];
    let said = succeed(
        dir.path(),
        &with_model("classify", model.to_str().unwrap(), &[&more[..], &["--json"]].concat()),
    );
    let found: Value = serde_json::from_str(&said).unwrap();
    let accuracy = &found["measured"]["accuracy"];
    let count = |value: &Value| value.as_u64().unwrap();
    let classes = accuracy["classes"].as_array().unwrap();
    let right: u64 = classes.iter().map(|class| count(&class["right"])).sum();
    let images: u64 = classes.iter().map(|class| count(&class["images"])).sum();
    // Pictures of the third view have none of the labels.
    assert!(count(&accuracy["left_out"]) > 0);
    assert_eq!((count(&accuracy["images"]), images + count(&accuracy["left_out"])), (images, 40));
    let value = accuracy["top_1"]["value"].as_f64().unwrap();
    assert!((value - right as f64 / images as f64).abs() < 1e-12 && value > 0.5, "{accuracy}");
    assert_eq!(accuracy["top_1"]["chance"], 0.5);
}

#[test]
fn wrong_labels_say_what_would_be_right() {
    let dir = corpus(3);
    let model = mini_model();
    let model = model.to_str().unwrap();
    fs::write(dir.path().join("wrong.json"), r#"{"effusion": 1}"#).unwrap();
    let truth = ["--pairs", "phantoms/cases.jsonl", "--truth", "labels"];
    let image = picture(0);
    for (args, says) in [
        (vec!["--labels", "a,b"], "--images"),
        (vec!["--images", &image], "--labels"),
        (vec!["--images", &image, "--labels", "a,,b"], "a label is empty"),
        (vec!["--images", &image, "--labels", "a,b,a"], "'a' is given twice"),
        (vec!["--images", &image, "--labels", "a", "--template", "a photo"], "has no {}"),
        (vec!["--images", &image, "--labels-file", "wrong.json"], "no JSON list of labels"),
        (vec!["--images", "nowhere.png", "--labels", "a"], "nowhere.png"),
        (
            [&truth[..], &["--labels", "zebra"]].concat(),
            "no record has any of the labels in 'labels'; there are: ",
        ),
        (
            vec!["--pairs", "phantoms/cases.jsonl", "--truth", "mood", "--labels", "a"],
            "has no attribute 'mood'",
        ),
    ] {
        let said = fail(dir.path(), &with_model("classify", model, &args));
        assert!(said.contains(says), "{args:?} said: {said}");
    }
}

#[test]
fn patients_are_kept_together_on_real_radiographs() {
    let Some(data) = shared_data("covid-chestxray") else { return };
    let dir = tempfile::tempdir().unwrap();
    let pairs = data.join("cases.jsonl");
    let more = ["--pairs", pairs.to_str().unwrap(), "--labels", "finding", "--group-by", "patient_id"];
    let report = eval_json(dir.path(), &more);
    assert_eq!(
        (report["records"].as_u64(), report["text_to_image"]["groups"].as_u64()),
        (Some(268), Some(176))
    );
    for direction in DIRECTIONS {
        let range = &report["control"][direction]["range"]["recall@10"];
        let chance = report[direction]["chance@10"].as_f64().unwrap();
        let (low, high) = (range[0].as_f64().unwrap(), range[1].as_f64().unwrap());
        assert!(low <= chance && chance <= high, "the control is at chance: {range}, {chance}");
    }
}
