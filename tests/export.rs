//! Collections as folders of vectors and metadata, and back.

use std::path::Path;
use std::process::Command;

use diptych_proto::v1 as wire;
use serde_json::Value;

use crate::support::{Server, corpus, fail, hits, mini_model, succeed};

const LONG: &str = "There is a pleural effusion on the left. ";

/// Records with several parts, long texts, one modality, and all types of attributes.
fn odd_corpus(dir: &Path) {
    let image = |n: usize| {
        let cases = std::fs::read_to_string(dir.join("phantoms/cases.jsonl")).unwrap();
        let case: Value = serde_json::from_str(cases.lines().nth(n).unwrap()).unwrap();
        case["image"].as_str().unwrap().to_owned()
    };
    let lines = [
        serde_json::json!({"key": "both", "images": [image(0), image(1)], "texts": ["one", "two", LONG.repeat(40)],
            "attributes": {"age": 61, "dose": 5.0, "labels": ["a", "b"], "seen": true, "note": "Zürich \"x\""}}),
        serde_json::json!({"key": "only text", "texts": ["no picture"]}),
        serde_json::json!({"key": "only/image", "images": [image(2)], "attributes": {"age": 7}}),
    ];
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(dir.join("phantoms/odd.jsonl"), text).unwrap();
}

fn records(dir: &Path, place: &[&str]) -> Vec<Value> {
    let fields = ["record", "list", "--limit", "1000", "--fields", "key,parts,attributes"];
    let said = succeed(dir, &[&fields[..], place].concat());
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_is_exported_and_imported_has_the_same_records_and_hits() {
    let dir = corpus(30);
    odd_corpus(dir.path());
    let model = mini_model();
    let model = model.to_str().unwrap();
    let place = |data: &'static str| ["--data", data, "--model", model];
    for source in ["phantoms", "phantoms/odd.jsonl"] {
        let said = succeed(dir.path(), &[&["ingest", source], &place("data")[..]].concat());
        assert!(said.contains(" 0 failed"), "{said}");
    }
    let update =
        ["record", "update", "both", "--set", "taken=time(\"2024-01-31T10:00:00Z\")", "--data", "data"];
    succeed(dir.path(), &update);
    let search = |data: &'static str, query: &[&str], target: &str| {
        let args = [&["search"], query, &["--target", target, "--k", "20", "--json"], &place(data)].concat();
        hits(&succeed(dir.path(), &args))
    };
    let queries: [(&[&str], &str); 3] = [
        (&["--text", "pleural effusion"], "image"),
        (&["--key", "both"], "text"),
        (&["--key", "only/image"], "image"),
    ];

    for (dtype, shard) in [("f32", "100000"), ("f16", "7")] {
        let (out, data) = (format!("out-{dtype}"), if dtype == "f32" { "again-f32" } else { "again-f16" });
        let said = succeed(
            dir.path(),
            &["export", "default", &out, "--data", "data", "--dtype", dtype, "--shard", shard],
        );
        assert!(said.contains("exported 33 records as ") && said.contains(dtype), "{said}");
        // Without the model: the folder says which it is.
        let said = succeed(dir.path(), &["import", &out, "--data", data]);
        assert!(
            said.contains("33 records") && said.contains("33 created, 0 updated, 0 unchanged, 0 failed"),
            "{said}"
        );
        let said = succeed(dir.path(), &["import", &out, "--data", data]);
        assert!(said.contains("0 created, 0 updated, 33 unchanged"), "{said}");
        assert!(succeed(dir.path(), &["verify", "--data", data]).contains("store and index agree"));
        assert_eq!(records(dir.path(), &["--data", data]), records(dir.path(), &["--data", "data"]));
        for (query, target) in queries {
            let (before, after) = (search("data", query, target), search(data, query, target));
            assert_eq!(before.len(), after.len());
            if dtype == "f32" {
                assert_eq!(before, after, "every bit is kept");
            }
            for (b, a) in before.iter().zip(&after) {
                assert!((b.1 - a.1).abs() < 2e-3, "{b:?} {a:?}");
            }
            assert_eq!(before[0].0, after[0].0);
        }
    }
    // To ingest the originals again changes nothing, since they are what was exported.
    let said = succeed(dir.path(), &[&["ingest", "phantoms"], &place("again-f16")[..]].concat());
    assert!(said.contains("30 unchanged"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_exports_by_filter_and_imports_with_the_schema() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let url = server.url.clone();
    let create =
        ["collection", "create", "cases", "--attribute", "age:integer", "--closed", "--server", &url];
    succeed(dir.path(), &create);
    let item = |n: i64| wire::IngestRequest {
        collection: "cases".into(),
        key: format!("r{n:03}"),
        texts: vec![format!("case {n}")],
        attributes: [(
            "age".to_owned(),
            wire::AttributeValue { value: Some(wire::attribute_value::Value::IntegerValue(n)) },
        )]
        .into(),
        ..Default::default()
    };
    crate::support::ingest(&mut server.client().await, (0..150).map(item).collect()).await;
    let path = dir.path().to_owned();
    let told = tokio::task::spawn_blocking(move || {
        let dir = path.as_path();
        let said = succeed(dir, &["export", "cases", "out", "--server", &url, "--filter", "age >= 100"]);
        assert!(said.contains("exported 50 records as 50 rows in 1 shard"), "{said}");
        let said = succeed(dir, &["import", "out", "--server", &url, "--collection", "copy"]);
        assert!(said.contains("50 created"), "{said}");
        let said = fail(dir, &["export", "nowhere", "out2", "--server", &url]);
        assert!(said.contains("there is no collection 'nowhere'") && !dir.join("out2").exists(), "{said}");
        let said = fail(dir, &["export", "cases", "out", "--server", &url]);
        assert!(said.contains("out is not empty"), "{said}");
        succeed(dir, &["collection", "describe", "copy", "--json", "--server", &url])
    });
    let described: Value = serde_json::from_str(&told.await.unwrap()).unwrap();
    assert_eq!(described["records"], 50);
    assert_eq!(
        (&described["attributes"]["age"], &described["closed"]),
        (&Value::from("integer"), &Value::from(true))
    );
    assert!(server.stop_with_clients().await.success());
}

#[test]
fn vectors_of_another_model_and_damage_are_refused_before_anything_is_stored() {
    let dir = corpus(10);
    let model = mini_model();
    let place = ["--data", "data", "--model", model.to_str().unwrap()];
    succeed(dir.path(), &[&["ingest", "phantoms"], &place[..]].concat());
    succeed(dir.path(), &["export", "default", "out", "--data", "data"]);
    let description = dir.path().join("out/diptych.json");
    let good = std::fs::read_to_string(&description).unwrap();
    let said: Value = serde_json::from_str(&good).unwrap();
    let id = said["model_id"].as_str().unwrap();
    let import = ["import", "out", "--data", "data", "--collection", "copy"];
    let refused = |more: &[&str], says: &str| {
        let said = fail(dir.path(), &[&import[..], more].concat());
        assert!(said.contains(says), "{said}");
    };
    std::fs::write(&description, good.replace(id, &"0".repeat(64))).unwrap();
    refused(&[], "are of model 000000000000");
    refused(&["--trust-vectors"], "are of model 000000000000");
    // Without a description it is a folder of somebody's.
    std::fs::remove_file(&description).unwrap();
    refused(&[], "does not say which model its vectors are of");
    assert!(fail(dir.path(), &["import", "out", "--data", "new"]).contains("name it with --model"));
    refused(&["--trust-vectors", "--key-column", "url"], "leave --key-column out");
    std::fs::write(&description, &good).unwrap();
    let array = dir.path().join("out/img_emb/img_emb_0.npy");
    let bytes = std::fs::read(&array).unwrap();
    std::fs::write(&array, &bytes[..bytes.len() - 1]).unwrap();
    refused(&[], "img_emb_0.npy: it has");
    assert!(fail(dir.path(), &["import", "phantoms", "--data", "data"]).contains("no folder 'metadata'"));
    // Changed on purpose, with NaN in one vector: that record is refused by name, the others are stored.
    let mut spoiled = bytes.clone();
    let width = (bytes.len() - 128) / 10;
    spoiled[128 + 3 * width..128 + 3 * width + 2].copy_from_slice(&[0x00, 0x7e]);
    std::fs::write(&array, &spoiled).unwrap();
    refused(&[], "img_emb_0.npy: it is not what was exported");
    std::fs::remove_file(&description).unwrap();
    let told = succeed(dir.path(), &[&import[..], &["--trust-vectors"]].concat());
    assert!(
        told.contains("9 created") && told.contains("1 failed") && told.contains("import-failures.jsonl"),
        "{told}"
    );
    let failures = std::fs::read_to_string(dir.path().join("import-failures.jsonl")).unwrap();
    assert!(failures.contains("image:0: component 0 of the vector is not finite"), "{failures}");
    assert!(failures.contains("metadata_0.parquet, row 3"), "{failures}");
    // The same run again with the array as it was.
    std::fs::write(&array, &bytes).unwrap();
    std::fs::write(&description, &good).unwrap();
    let told = succeed(dir.path(), &import);
    assert!(told.contains("1 created") && told.contains("9 unchanged"), "{told}");
    assert!(succeed(dir.path(), &["verify", "--data", "data"]).contains("store and index agree"));
}

/// As clip-retrieval and pandas read a folder.
#[test]
fn numpy_and_pyarrow_read_what_is_exported() {
    let dir = corpus(10);
    let model = mini_model();
    succeed(dir.path(), &["ingest", "phantoms", "--data", "data", "--model", model.to_str().unwrap()]);
    succeed(dir.path(), &["export", "default", "out", "--data", "data"]);
    let arrays = "import numpy as np\n\
        i, t = np.load('out/img_emb/img_emb_0.npy'), np.load('out/text_emb/text_emb_0.npy')\n\
        assert i.dtype == t.dtype == np.float16 and i.shape == t.shape and i.shape[0] == 10, (i.dtype, i.shape)\n\
        n = np.linalg.norm(i.astype('float32'), axis=1)\n\
        assert abs(n - 1).max() < 2e-3, n\n";
    let table = "import pyarrow.parquet as pq\n\
        t = pq.read_table('out/metadata/metadata_0.parquet').to_pydict()\n\
        assert len(t['key']) == 10 and all(t['caption']) and all(t['image_path']), t\n";
    for (modules, script) in [("numpy", arrays), ("pyarrow.parquet", table)] {
        let Some(python) = crate::python_client::python_that(&format!("import {modules}")) else { continue };
        let output = Command::new(python).args(["-c", script]).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
