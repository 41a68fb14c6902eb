//! Reports that no model reads in one go: found by their ends, returned whole, counted.

use std::fs;
use std::path::Path;

use diptych_proto::v1 as wire;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Client, Server, corpus, mini_model, succeed, succeed_with_notes};

/// The last sentence of the long report; no other text of the corpus speaks of it.
const LAST: &str = "Large left pleural effusion, displaced left upper rib fracture, dense right upper lung \
    consolidation, right pneumothorax and severe cardiomegaly, with the enteric nasogastric tube in the stomach.";

/// Short reports and one of 5,000 words, in `long.jsonl`; also returns the long one.
fn long_corpus() -> (TempDir, String) {
    let dir = corpus(120);
    let cases = fs::read_to_string(dir.path().join("phantoms/cases.jsonl")).unwrap();
    let about_fluid = |text: &str| ["effusion", "fluid", "costophrenic"].iter().any(|w| text.contains(w));
    let texts: Vec<String> = cases
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned())
        .filter(|text| !about_fluid(&text.to_lowercase()))
        .collect();
    assert!(texts.len() >= 20, "{} reports are left", texts.len());
    let mut words: Vec<&str> = texts.iter().flat_map(|t| t.split_whitespace()).collect();
    while words.len() < 5000 {
        words.extend_from_within(..);
    }
    words.truncate(5000);
    let report = format!("{}.\n\n{LAST}", words.join(" "));
    let mut lines: Vec<String> = (0..)
        .zip(&texts)
        .map(|(n, text)| json!({"key": format!("short-{n:03}"), "text": text}).to_string())
        .collect();
    lines.push(json!({"key": "long", "text": [report, "A caption."]}).to_string());
    fs::write(dir.path().join("long.jsonl"), lines.join("\n")).unwrap();
    (dir, report)
}

/// The number before the last word of a line such as `1 text ... split into 120 parts`.
fn parts_said(said: &str) -> u64 {
    let line = said.lines().find(|line| line.contains("split into")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.starts_with("1 text longer than the model's context"), "{line}");
    line.rsplit(' ').nth(1).unwrap().parse().unwrap()
}

fn text_query(text: &str) -> wire::SearchRequest {
    wire::SearchRequest {
        query: Some(wire::search_request::Query::Text(text.to_owned())),
        target: wire::Modality::Text as i32,
        ..Default::default()
    }
}

async fn stats(client: &mut Client) -> wire::StatsResponse {
    client.stats(wire::StatsRequest {}).await.unwrap().into_inner()
}

#[test]
fn a_long_report_is_found_by_its_last_sentence_from_the_command_line() {
    let (dir, report) = long_corpus();
    let model = mini_model();
    let place = ["--data", "data", "--model", model.to_str().unwrap()];
    let said = succeed(dir.path(), &[&["ingest", "long.jsonl"], &place[..]].concat());
    let parts = parts_said(&said);
    assert!(parts >= 60 && said.contains("0 failed") && !said.contains("truncated"), "{said}");
    let again = succeed(dir.path(), &[&["ingest", "long.jsonl"], &place[..]].concat());
    assert!(again.contains("0 created, 0 updated") && !again.contains("split"), "{again}");

    let search = |text: &str| {
        let args = [&["search", "--text", text, "--target", "text", "--k", "5", "--json"], &place[..]];
        let (said, notes) = succeed_with_notes(dir.path(), &args.concat());
        (serde_json::from_str::<Value>(&said).unwrap(), notes)
    };
    let (answer, notes) = search(LAST);
    let hit = &answer["hits"][0];
    assert_eq!(hit["key"], "long", "{answer}");
    assert_eq!(hit["part"], format!("text:0#{}", parts - 1));
    let text = hit["text"].as_str().unwrap();
    assert!(text.ends_with(LAST) && text.len() < 1000, "a hit shows the chunk: {text}");
    let at = |n: usize| usize::try_from(hit["span"][n].as_u64().unwrap()).unwrap();
    assert_eq!(&report[at(0)..at(1)], text);
    assert_eq!((&answer["query_truncated_tokens"], notes.as_str()), (&json!(0), ""));
    let keys: Vec<&str> =
        answer["hits"].as_array().unwrap().iter().map(|h| h["key"].as_str().unwrap()).collect();
    assert_eq!(keys.iter().filter(|&&key| key == "long").count(), 1, "a record is one hit: {keys:?}");

    let (answer, notes) = search(&report);
    assert!(answer["query_truncated_tokens"].as_u64().unwrap() > 4000, "{answer}");
    assert!(notes.contains("longer than the model's context"), "{notes}");
    let said = succeed(dir.path(), &["verify", "--data", "data"]);
    assert!(said.contains("agree"), "{said}");
}

#[tokio::test]
async fn a_server_returns_the_long_report_unchanged_and_counts_what_it_did() {
    let (dir, report) = long_corpus();
    let server = Server::start(dir.path());
    let said = succeed(dir.path(), &["ingest", "long.jsonl", "--server", &server.url]);
    let parts = parts_said(&said);
    let mut client = server.client().await;

    let request = wire::GetRecordRequest { key: "long".into(), ..Default::default() };
    let record = client.get_record(request).await.unwrap().into_inner().record.unwrap();
    assert_eq!(record.parts.len(), 2);
    let Some(wire::part::Content::Text(text)) = &record.parts[0].content else { panic!("{record:?}") };
    assert_eq!((text.text.as_str(), text.truncated_tokens), (report.as_str(), 0));
    assert_eq!((text.chunks.len() as u64, &text.span), (parts, &None));
    let mut end = 0;
    for chunk in &text.chunks {
        assert!(chunk.start == end && chunk.end > end, "{:?}", text.chunks);
        end = chunk.end;
    }
    assert_eq!(end as usize, report.len(), "the chunks are the text");

    let found = client.search(text_query(LAST)).await.unwrap().into_inner();
    let part = found.hits[0].part.clone().unwrap();
    let reference = part.r#ref.unwrap();
    assert_eq!((found.hits[0].key.as_str(), reference.ordinal), ("long", 0));
    assert_eq!(reference.chunk.map(u64::from), Some(parts - 1));
    let Some(wire::part::Content::Text(hit)) = part.content else { panic!("{found:?}") };
    let span = hit.span.unwrap();
    assert_eq!(hit.text, report[span.start as usize..span.end as usize]);
    assert!(hit.text.ends_with(LAST) && hit.chunks.is_empty());

    // The chunk can be searched from, by the name that the hit gave it.
    let query = wire::KeyQuery { key: "long".into(), part: Some(reference) };
    let query = Some(wire::search_request::Query::Key(query));
    let by_key = client.search(wire::SearchRequest { query, ..text_query("") }).await.unwrap().into_inner();
    assert_eq!(by_key.hits[0].part.clone().unwrap().r#ref, Some(reference));
    assert!(by_key.hits[0].score > 0.999);

    let after = stats(&mut client).await;
    let encoding = after.encoding.unwrap();
    assert_eq!((encoding.split_texts, encoding.text_chunks, encoding.truncated_texts), (1, parts, 0));
    let collection = &after.collections[0];
    assert_eq!((collection.text_points, collection.truncated_texts), (collection.records + parts, 0));
}

#[tokio::test]
async fn a_repeated_query_is_answered_from_the_cache_and_a_long_one_is_counted() {
    let (dir, report) = long_corpus();
    let server = Server::start(dir.path());
    succeed(dir.path(), &["ingest", "long.jsonl", "--server", &server.url]);
    let mut client = server.client().await;
    assert_eq!(stats(&mut client).await.encoding.unwrap().query_cache, Some(Default::default()));

    let first = client.search(text_query(LAST)).await.unwrap().into_inner();
    let shouted = format!(" {} ", LAST.to_uppercase().replace(' ', "  "));
    for spelling in [LAST, &shouted] {
        let again = client.search(text_query(spelling)).await.unwrap().into_inner();
        assert_eq!(again.hits, first.hits, "{spelling}");
    }
    let cut = client.search(text_query(&report)).await.unwrap().into_inner();
    assert!(cut.stats.unwrap().truncated_tokens > 4000);
    let texts = vec!["short".to_owned(), report];
    let request = wire::EmbedRequest { texts, ..Default::default() };
    let embedded = client.embed(request).await.unwrap().into_inner();
    assert_eq!(embedded.truncated_tokens.len(), 2);
    assert!(embedded.truncated_tokens[0] == 0 && embedded.truncated_tokens[1] > 4000);

    let encoding = stats(&mut client).await.encoding.unwrap();
    assert_eq!(encoding.truncated_queries, 2);
    let cache = encoding.query_cache.unwrap();
    assert_eq!((cache.hits, cache.misses, cache.entries), (2, 2, 2));
    assert!(cache.bytes > 0);
}

#[test]
fn embed_names_the_texts_it_truncates() {
    let dir = tempfile::tempdir().unwrap();
    let long = "No pleural effusion. ".repeat(40);
    fs::write(dir.path().join("texts.txt"), format!("short\n{long}\nalso short\n{long}\n")).unwrap();
    let embed = |file: &str| {
        let model = mini_model();
        let model: &Path = &model;
        let args = ["embed", "--model", model.to_str().unwrap(), "--texts", file, "--out", "e.safetensors"];
        succeed_with_notes(dir.path(), &args).1
    };
    let notes = embed("texts.txt");
    assert_eq!(notes, "2 texts were truncated to the model's context of 77 tokens: number 2, 4\n");
    fs::write(dir.path().join("short.txt"), "short\n").unwrap();
    assert_eq!(embed("short.txt"), "");
}
