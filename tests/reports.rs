//! Reports and what they say: findings on the command line, and evaluation by published protocols.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{corpus, diptych, fail, mini_model, succeed, succeed_with_notes};

const REPORT: &str = "WET READ: normal\nFINAL REPORT\nREASON FOR EXAM: pneumothorax?\n\nFINDINGS: No effusion or\n \
                      pneumothorax. Old rib fracture.\n\nIMPRESSION:\n 1. Possible nodule.\n 2. Cardiomegaly.\n";

/// The cases of a corpus.
fn cases(dir: &Path) -> Vec<Value> {
    let lines = fs::read_to_string(dir.join("phantoms/cases.jsonl")).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The kinds of findings of a case, such as `effusion`.
fn kinds(case: &Value) -> Vec<&str> {
    let labels = case["attributes"]["labels"].as_array().unwrap();
    labels.iter().map(|label| label.as_str().unwrap().split('.').next().unwrap()).collect()
}

fn eval(dir: &Path, protocol: &str, pairs: &str, more: &[&str]) -> Value {
    let model = mini_model();
    let args =
        ["eval", "--model", model.to_str().unwrap(), "--protocol", protocol, "--pairs", pairs, "--json"];
    serde_json::from_str(&succeed(dir, &[&args, more].concat())).unwrap()
}

fn eval_fails(dir: &Path, protocol: &str, pairs: &str, more: &[&str]) -> String {
    let model = mini_model();
    let args = ["eval", "--model", model.to_str().unwrap(), "--protocol", protocol, "--pairs", pairs];
    fail(dir, &[&args, more].concat())
}

/// That a search is better than chance, and its control is not.
fn assert_learned(search: &Value, metric: &Value) {
    let [value, chance, shuffled] =
        ["value", "chance", "shuffled"].map(|name| metric[name].as_f64().unwrap());
    assert!(value > chance + 0.05, "{search}");
    assert!((shuffled - chance).abs() < 0.08, "{search}");
    let interval = metric["interval"].as_array().unwrap();
    assert!(interval[0].as_f64().unwrap() <= value && value <= interval[1].as_f64().unwrap(), "{search}");
}

#[test]
fn a_report_is_shown_by_its_sections_and_findings() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("report.txt"), REPORT).unwrap();
    let shown = succeed(dir.path(), &["findings", "report.txt"]);
    for line in [
        "INDICATION: pneumothorax?",
        "FINDINGS: No effusion or pneumothorax. Old rib fracture.",
        "finding.effusion = absent",
        "finding.fracture = present",
        "finding.nodule = uncertain",
        "finding.no_finding = absent",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "'{line}' is not in {shown}");
    }
    assert!(!shown.contains("WET READ"), "{shown}");
    let mut child = diptych(dir.path(), &["findings", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(REPORT.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["attributes"]["finding.cardiomegaly"], "present");
    assert_eq!(value["attributes"]["finding.pneumothorax"], "absent");
    assert_eq!(value["impression"], "Possible nodule.\nCardiomegaly.");
    assert_eq!(value["sentences"][0]["findings"], json!({"effusion": "absent", "pneumothorax": "absent"}));
}

#[test]
fn what_is_no_report_is_refused_and_what_is_long_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let said = fail(dir.path(), &["findings", "--text", " ___ XXXX "]);
    assert!(said.contains("there is no report in this"), "{said}");
    let said = fail(dir.path(), &["findings", "absent.txt"]);
    assert!(said.contains("cannot read the report in absent.txt"), "{said}");
    assert!(fail(dir.path(), &["findings", "."]).contains("cannot read the report"));
    fs::write(dir.path().join("long.txt"), "no effusion, ".repeat(40_000)).unwrap();
    let (shown, notes) = succeed_with_notes(dir.path(), &["findings", "long.txt"]);
    assert!(notes.contains("more than 65536 bytes"), "{notes}");
    assert!(shown.contains("finding.effusion = absent"));
    fs::write(dir.path().join("bytes.txt"), [0xff, 0xfe, b'n', b'o', 0, b'\n', 0x80].repeat(1_000)).unwrap();
    succeed(dir.path(), &["findings", "bytes.txt"]);
}

#[test]
fn findings_are_measured_on_labelled_texts() {
    let dir = tempfile::tempdir().unwrap();
    let sentences =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/radiology/tests/findings/sentences.jsonl");
    let sentences = sentences.to_str().unwrap();
    let table = succeed(dir.path(), &["findings", "--labels", sentences]);
    assert!(
        table.starts_with("344 texts, ") && table.contains("precision") && table.contains("uncertain"),
        "{table}"
    );
    let value: Value =
        serde_json::from_str(&succeed(dir.path(), &["findings", "--labels", sentences, "--json"])).unwrap();
    assert!(value["agreement"]["all"]["f1"].as_f64().unwrap() > 0.97, "{value}");
    for (line, reason) in [
        ("not json", "line 2: is not a JSON object"),
        (r#"{"present": ["effusion"]}"#, "line 2: has no \"text\""),
        (r#"{"text": "a", "present": ["efusion"]}"#, "'efusion' is no finding; use one of no_finding"),
        (r#"{"text": "a", "present": "effusion"}"#, "\"present\" is no list"),
        (r#"{"text": "a", "present": ["edema"], "absent": ["edema"]}"#, "'edema' has more than one status"),
    ] {
        fs::write(dir.path().join("labels.jsonl"), format!("{{\"text\": \"Clear.\"}}\n{line}\n")).unwrap();
        let said = fail(dir.path(), &["findings", "--labels", "labels.jsonl"]);
        assert!(said.contains(reason), "{said}");
    }
    fs::write(dir.path().join("labels.jsonl"), "\n").unwrap();
    assert!(fail(dir.path(), &["findings", "--labels", "labels.jsonl"]).contains("has no labelled texts"));
}

#[test]
fn what_phantoms_are_said_to_have_is_found_in_their_reports() {
    let dir = corpus(150);
    let names = [
        ("effusion", "effusion"),
        ("pneumothorax", "pneumothorax"),
        ("cardiomegaly", "cardiomegaly"),
        ("nodule", "nodule"),
        ("line", "device"),
        ("fracture", "fracture"),
    ];
    let mut labelled = String::new();
    for case in cases(dir.path()) {
        let present: Vec<&str> =
            names.iter().filter(|(kind, _)| kinds(&case).contains(kind)).map(|(_, name)| *name).collect();
        writeln!(labelled, "{}", json!({ "text": case["text"], "present": present })).unwrap();
    }
    fs::write(dir.path().join("labels.jsonl"), labelled).unwrap();
    let value: Value =
        serde_json::from_str(&succeed(dir.path(), &["findings", "--labels", "labels.jsonl", "--json"]))
            .unwrap();
    for (_, name) in names {
        // What is said to be absent is not labelled, so wrong answers are counted against denials too.
        let recall = value["agreement"][name]["recall"].as_f64().unwrap();
        assert!(recall > 0.98, "{name}: {value}");
    }
}

#[test]
fn studies_look_for_those_with_the_same_findings() {
    let dir = corpus(120);
    let report = eval(dir.path(), "study", "phantoms/cases.jsonl", &["--bootstrap", "100"]);
    let directions = ["images_to_reports", "reports_to_images", "images_to_images", "reports_to_reports"];
    for direction in directions {
        let search = &report[direction];
        assert_eq!((search["queries"].as_u64(), search["gallery"].as_u64()), (Some(120), Some(120)));
        assert_learned(search, &search["ndcg@10"]);
        assert_learned(search, &search["mean"]["precision@5"]);
        assert!(search["labels"]["effusion"]["positives"].as_u64().unwrap() > 10, "{search}");
        assert!(search["labels"]["normal"]["precision@1"]["chance"].as_f64().unwrap() < 0.5);
    }
    // Two patients: each study finds only those of the other.
    let lines: Vec<String> = cases(dir.path())
        .into_iter()
        .enumerate()
        .map(|(n, mut case)| {
            case["attributes"]["patient_id"] = json!(if n / 4 % 2 == 0 { "a" } else { "b" });
            case["attributes"]["study"] = json!(n / 4);
            case.to_string()
        })
        .collect();
    fs::write(dir.path().join("phantoms/patients.jsonl"), lines.join("\n")).unwrap();
    let args = ["--bootstrap", "0", "--study-by", "study"];
    let merged = eval(dir.path(), "study", "phantoms/patients.jsonl", &args);
    assert_eq!(merged["images_to_images"]["gallery"], 30, "four records make a study");
    let model = mini_model();
    let args = [
        "eval",
        "--model",
        model.to_str().unwrap(),
        "--protocol",
        "study",
        "--pairs",
        "phantoms/patients.jsonl",
    ];
    let (table, notes) = succeed_with_notes(dir.path(), &[&args[..], &["--bootstrap", "50"]].concat());
    assert!(table.contains("120 studies of 2 groups by 'patient_id'"), "{table}");
    assert!(
        table.contains("nDCG@10") && table.contains("images to reports: 120 queries of 2 groups"),
        "{table}"
    );
    assert!(notes.contains("this measures retrieval, not diagnosis"), "{notes}");
}

/// A table of the first categories of CheXpert over some cases, and how many rows it has.
fn chexpert(
    dir: &Path,
    columns: &[(&str, &str)],
    more: &str,
    row: impl Fn(&Value) -> String,
) -> (String, usize) {
    let mut table =
        format!("Path,{}{more}\n", columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(","));
    let mut rows = 0;
    for case in cases(dir) {
        let kinds = kinds(&case);
        let cells: Vec<&str> =
            columns.iter().map(|(_, kind)| if kinds.contains(kind) { "1.0" } else { "" }).collect();
        if cells.contains(&"1.0") {
            writeln!(table, "release/{},{}{}", case["image"].as_str().unwrap(), cells.join(","), row(&case))
                .unwrap();
            rows += 1;
        }
    }
    (table, rows)
}

#[test]
fn five_categories_are_read_as_they_are_published() {
    let dir = corpus(120);
    let columns = [
        ("Atelectasis", "fracture"),
        ("Cardiomegaly", "cardiomegaly"),
        ("Consolidation", "pneumothorax"),
        ("Edema", "nodule"),
        ("Pleural Effusion", "effusion"),
    ];
    let (table, rows) = chexpert(dir.path(), &columns, ",Report Impression", |case| {
        format!(",\"{}\"", case["attributes"]["impression"].as_str().unwrap())
    });
    let file = dir.path().join("phantoms/chexpert_5x200.csv");
    fs::write(&file, &table).unwrap();
    let report = eval(dir.path(), "5x200", "phantoms", &["--bootstrap", "100"]);
    for direction in ["image_to_text", "text_to_image"] {
        let search = &report[direction];
        assert_eq!(
            (search["queries"].as_u64(), search["gallery"].as_u64()),
            (Some(rows as u64), Some(rows as u64))
        );
        assert_learned(search, &search["mean"]["precision@5"]);
        assert_eq!(search["labels"].as_object().unwrap().len(), 5);
        assert!(search["mean"]["precision@100"]["value"].is_f64());
    }
    assert!(
        eval_fails(dir.path(), "5x200", "phantoms", &["--report", "a.html"]).contains("there is no page")
    );
    for (wrong, reason) in [
        (table.replace("Report Impression", "Words"), "has no column 'Report Impression'"),
        (table.replace("Edema", "Oedema"), "has no column 'Edema' (it has Path, "),
        (table.replacen("release/images/", "release/../images/", 1), "no path below the folder of images"),
        (
            table.replacen("release/images/", "release/pictures/", 1),
            "line 2: there is no phantoms/release/pictures",
        ),
        (table.lines().next().unwrap().to_owned(), "has no rows below its header"),
        (
            format!("{table}release/images/phantom-000000.png,0,0,0,0,0,x\n"),
            "is positive in none of Atelectasis",
        ),
        (format!("{table}release/images/phantom-000000.png,1,0,0,0,0,\n"), "has no report"),
        (format!("{table}short,row\n"), "cannot read phantoms/chexpert_5x200.csv"),
    ] {
        fs::write(&file, wrong).unwrap();
        let said = eval_fails(dir.path(), "5x200", "phantoms", &[]);
        assert!(said.contains(reason), "{said}");
    }
    assert!(eval_fails(dir.path(), "5x200", "nothing.csv", &[]).contains("cannot read nothing.csv"));
}

#[test]
fn eight_categories_are_asked_for_by_texts_and_images() {
    let dir = corpus(120);
    let columns = [
        ("No Finding", "none"),
        ("Cardiomegaly", "cardiomegaly"),
        ("Edema", "-"),
        ("Pneumonia", "consolidation"),
        ("Atelectasis", "-"),
        ("Pneumothorax", "pneumothorax"),
        ("Pleural Effusion", "effusion"),
        ("Fracture", "-"),
    ];
    let (table, rows) = chexpert(dir.path(), &columns, "", |_| String::new());
    let eight = dir.path().join("eight");
    for (file, content) in [
        ("image-retrieval/candidate.csv", table),
        ("image-retrieval/query.csv", "Variable,Path\nPneumothorax,release/images/phantom-000003.png\n".to_owned()),
        (
            "text-retrieval/query.csv",
            "Variable,Text\nPleural Effusion,Large pleural effusion.\nPneumothorax,Large pneumothorax.\n\
             Cardiomegaly,Severe cardiomegaly.\nCardiomegaly,The heart is enlarged.\nNo Finding,Normal chest.\n"
                .to_owned(),
        ),
    ] {
        let file = eight.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
    let report = eval(dir.path(), "8x200", "eight", &["--images", "phantoms", "--bootstrap", "50"]);
    let search = &report["text_to_image"];
    assert_eq!((search["queries"].as_u64(), search["gallery"].as_u64()), (Some(5), Some(rows as u64)));
    assert!(
        search["mean"]["precision@5"]["value"].as_f64() > search["mean"]["precision@5"]["chance"].as_f64()
    );
    assert_eq!(search["labels"]["Cardiomegaly"]["queries"], 2);
    assert_eq!(report["image_to_image"]["queries"], 1);
    fs::write(eight.join("text-retrieval/query.csv"), "Variable,Text\nFlu,Influenza.\n").unwrap();
    let said = eval_fails(dir.path(), "8x200", "eight", &["--images", "phantoms"]);
    assert!(said.contains("query.csv line 2: 'Flu' is no category; use one of Atelectasis"), "{said}");
    let said = eval_fails(dir.path(), "8x200", "phantoms", &[]);
    assert!(said.contains("has no image-retrieval/candidate.csv"), "{said}");
}

#[test]
fn captions_of_rocov2_find_their_images() {
    let dir = corpus(60);
    let images = dir.path().join("roco/test_images/test");
    fs::create_dir_all(&images).unwrap();
    let mut table = "ID,Caption\n".to_owned();
    for (n, case) in cases(dir.path()).iter().enumerate() {
        let id = format!("ROCOv2_2023_test_{n:06}");
        fs::copy(
            dir.path().join("phantoms").join(case["image"].as_str().unwrap()),
            images.join(format!("{id}.png")),
        )
        .unwrap();
        writeln!(table, "{id},\"{}\"", case["text"].as_str().unwrap()).unwrap();
    }
    let file = dir.path().join("roco/test_captions.csv");
    fs::write(&file, &table).unwrap();
    let report = eval(dir.path(), "rocov2", "roco", &["--bootstrap", "100"]);
    for direction in ["text_to_image", "image_to_text"] {
        let found = &report[direction];
        assert_eq!(found["queries"], 60);
        assert!(found["recall@10"].as_f64() > found["chance"]["recall@10"].as_f64(), "{found}");
        assert!(
            found["interval"]["recall@1"].is_array() && report["control"][direction]["recall@1"].is_f64()
        );
    }
    for (wrong, reason) in [
        (
            table.replacen("test_000003,", "test_900003,", 1),
            "line 5: there is no image ROCOv2_2023_test_900003.jpg",
        ),
        (
            table.replacen("ROCOv2_2023_test_000000,", "../test/ROCOv2_2023_test_000000,", 1),
            "line 2: there is no image",
        ),
        (format!("{table}ROCOv2_2023_test_000000,\n"), "has no caption"),
        (table.replacen("ID,", "Name,", 1), "has no column 'ID'"),
    ] {
        fs::write(&file, wrong).unwrap();
        let said = eval_fails(dir.path(), "rocov2", "roco", &[]);
        assert!(said.contains(reason), "{said}");
    }
    assert!(eval_fails(dir.path(), "rocov2", "phantoms", &[]).contains("has no test_captions.csv"));
}
