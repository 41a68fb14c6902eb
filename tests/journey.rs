//! A newcomer's way: generate, ingest, search in both directions, serve, do it again.

use diptych_proto::v1 as wire;
use serde_json::Value;

use crate::support::{Server, corpus, hits, mini_model, succeed};

#[test]
fn text_finds_images_and_images_find_texts_from_the_command_line() {
    let dir = corpus(60);
    let model = mini_model();
    let place = ["--data", "data", "--model", model.to_str().unwrap()];
    let said = succeed(dir.path(), &[&["ingest", "phantoms"], &place[..]].concat());
    assert!(said.contains("60 created") && said.contains("0 failed"), "{said}");

    // Every report finds itself first, and every picture finds itself first.
    let cases = std::fs::read_to_string(dir.path().join("phantoms/cases.jsonl")).unwrap();
    let case: Value = serde_json::from_str(cases.lines().nth(7).unwrap()).unwrap();
    let key = case["key"].as_str().unwrap();
    let text = case["text"].as_str().unwrap();
    let image = format!("phantoms/{}", case["image"].as_str().unwrap());
    let search = |query: &[&str], target: &str| {
        let args = [&["search"], query, &["--target", target, "--k", "5", "--json"], &place[..]].concat();
        hits(&succeed(dir.path(), &args))
    };
    for (query, target, part) in [
        (["--text", text], "text", "text:0"),
        (["--image", &image], "image", "image:0"),
        (["--key", key], "image", "image:0"),
    ] {
        let found = search(&query, target);
        assert_eq!(found.len(), 5);
        assert!(found[0].1 > 0.999, "{found:?}");
        assert_eq!(found[0].2, part);
        assert!(found.iter().any(|h| h.0 == key && h.1 > 0.999), "{key} is missing in {found:?}");
        assert!(found.windows(2).all(|w| w[0].1 >= w[1].1), "best first: {found:?}");
    }
    // Across the modalities there are answers, too.
    assert_eq!(search(&["--text", text], "image")[0].2, "image:0");
    assert_eq!(search(&["--image", &image], "text")[0].2, "text:0");
}

#[test]
fn ingesting_again_changes_nothing_and_verify_agrees() {
    let dir = corpus(40);
    let model = mini_model();
    let ingest = ["ingest", "phantoms", "--data", "data", "--model", model.to_str().unwrap()];
    succeed(dir.path(), &ingest);
    let said = succeed(dir.path(), &ingest);
    assert!(said.contains("0 created, 0 updated, 40 unchanged"), "{said}");
    let said = succeed(dir.path(), &["verify", "--data", "data"]);
    assert!(said.contains("40 records, 80 vectors: store and index agree"), "{said}");
}

#[test]
fn the_server_answers_as_the_one_shot_search_does() {
    let dir = corpus(60);
    let server = Server::start(dir.path());
    let said = succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    assert!(said.contains("60 created"), "{said}");
    let said = succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    assert!(said.contains("60 unchanged"), "{said}");
    let ask = |place: &[&str]| {
        let query = ["search", "--text", "Large left pleural effusion.", "--target", "image", "--json"];
        hits(&succeed(dir.path(), &[&query[..], place].concat()))
    };
    let there = ask(&["--server", &server.url]);
    assert!(server.stop().success(), "a server that is asked to stop ends well");
    let model = mini_model();
    let here = ask(&["--data", "data", "--model", model.to_str().unwrap()]);
    let keys = |hits: &[(String, f64, String)]| hits.iter().map(|h| h.0.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&there), keys(&here));
    assert_eq!(here.len(), 10);
}

#[test]
fn embed_and_eval_write_what_they_promise() {
    let dir = corpus(30);
    let model = mini_model();
    let model = model.to_str().unwrap();
    let cases = std::fs::read_to_string(dir.path().join("phantoms/cases.jsonl")).unwrap();
    let texts: Vec<String> = cases
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned())
        .collect();
    std::fs::write(dir.path().join("texts.txt"), texts.join("\n")).unwrap();
    let images: Vec<String> = (0..30).map(|n| format!("phantoms/images/phantom-{n:06}.png")).collect();
    let mut args =
        vec!["embed", "--model", model, "--texts", "texts.txt", "--out", "e.safetensors", "--images"];
    args.extend(images.iter().map(String::as_str));
    succeed(dir.path(), &args);
    let bytes = std::fs::read(dir.path().join("e.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for name in ["image_embeds", "text_embeds"] {
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.shape()[0], 30);
        for row in tensor.data().chunks(4 * tensor.shape()[1]) {
            let norm: f32 = row.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).powi(2)).sum();
            assert!((norm - 1.0).abs() < 1e-4, "{name} has a row of norm² {norm}");
        }
    }

    let report =
        succeed(dir.path(), &["eval", "--model", model, "--pairs", "phantoms/cases.jsonl", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    for direction in ["text_to_image", "image_to_text"] {
        let of = |name: &str| report[direction][name].as_f64().unwrap();
        assert_eq!((of("queries"), of("gallery")), (30.0, 30.0));
        assert!((of("chance@10") - 1.0 / 3.0).abs() < 1e-9);
        assert!(of("recall@1") <= of("recall@5") && of("recall@5") <= of("recall@10"));
        assert!(of("recall@10") > of("chance@10"), "the mini model beats chance on phantoms: {report}");
    }
}

#[tokio::test]
async fn upsert_and_delete_work_while_others_search() {
    let dir = corpus(40);
    let server = Server::start(dir.path());
    succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    let client = server.client().await;
    let searches = (0..4).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                let response = client.search(text_query("Cardiomegaly.", 10)).await.unwrap().into_inner();
                assert_eq!(response.hits.len(), 10);
            }
        })
    });
    let searches: Vec<_> = searches.collect();
    let mut writer = client.clone();
    for n in 0..20 {
        let key = format!("phantom-{n:06}");
        if n % 2 == 0 {
            let request = wire::DeleteRecordRequest { key: key.clone(), ..Default::default() };
            writer.delete_record(request).await.unwrap();
            let request = wire::GetRecordRequest { key, ..Default::default() };
            assert_eq!(writer.get_record(request).await.unwrap_err().code(), tonic::Code::NotFound);
        } else {
            let item =
                wire::IngestRequest { key, texts: vec![format!("replaced {n}")], ..Default::default() };
            let mut answers = writer.ingest(tokio_stream::iter([item])).await.unwrap().into_inner();
            let answer = answers.message().await.unwrap().unwrap();
            assert_eq!(answer.outcome(), wire::WriteOutcome::Updated, "{answer:?}");
        }
    }
    for search in searches {
        search.await.unwrap();
    }
    let mut client = client;
    let stats = client.stats(wire::StatsRequest {}).await.unwrap().into_inner();
    let counts = &stats.collections[0];
    assert_eq!((counts.records, counts.image_points, counts.text_points), (30, 20, 30));
    let everything = client.search(text_query("Cardiomegaly.", 1000)).await.unwrap().into_inner();
    let gone = |key: &str| key < "phantom-000020";
    assert_eq!(everything.hits.len(), 20);
    assert!(everything.hits.iter().all(|h| !gone(&h.key)), "deleted and replaced images are not found");
    drop(server);
    let said = succeed(dir.path(), &["verify", "--data", "data"]);
    assert!(said.contains("agree"), "{said}");
}

fn text_query(text: &str, k: u32) -> wire::SearchRequest {
    wire::SearchRequest {
        query: Some(wire::search_request::Query::Text(text.to_owned())),
        target: wire::Modality::Image as i32,
        k: Some(k),
        ..Default::default()
    }
}
