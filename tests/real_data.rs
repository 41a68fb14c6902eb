//! Real photos with captions and real chest radiographs with notes: everything goes in, everything
//! finds itself. The bundled model was trained on phantoms, so recall across modalities is printed,
//! not asserted: it is near chance, and saying so is the point.

use std::path::Path;

use diptych_proto::v1 as wire;
use serde_json::Value;

use crate::support::{Client, Server, mini_model, run, shared_data, succeed};

#[tokio::test]
async fn real_photos_and_captions_find_themselves() {
    let Some(data) = shared_data("flickr8k-1000") else { return };
    for (split, images) in [("val", 100), ("train", 700)] {
        ingest_and_check(&data.join(split).join("captions.jsonl"), images).await;
    }
}

#[tokio::test]
async fn real_radiographs_and_notes_find_themselves() {
    let Some(data) = shared_data("covid-chestxray") else { return };
    ingest_and_check(&data.join("cases.jsonl"), 268).await;
}

async fn ingest_and_check(list: &Path, records: u64) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let said = succeed(dir.path(), &["ingest", list.to_str().unwrap(), "--server", &server.url]);
    assert!(said.contains(&format!("{records} created")) && said.contains("0 failed"), "{said}");
    let mut client = server.client().await;
    let stats = client.stats(wire::StatsRequest {}).await.unwrap().into_inner();
    assert_eq!(stats.collections[0].records, records);

    let mut token = String::new();
    let mut checked = 0;
    loop {
        let request = wire::ListRecordsRequest { page_token: token, ..Default::default() };
        let page = client.list_records(request).await.unwrap().into_inner();
        for record in &page.records {
            for part in &record.parts {
                for piece in pieces(part) {
                    finds_itself(&mut client, &record.key, &piece).await;
                    checked += 1;
                }
            }
        }
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let counts = &stats.collections[0];
    assert_eq!(checked, counts.image_points + counts.text_points);
    eprintln!("{}: {records} records, {checked} parts, each finds itself first", list.display());

    let model = mini_model();
    let args = ["eval", "--model", model.to_str().unwrap(), "--pairs", list.to_str().unwrap(), "--json"];
    let output = run(dir.path(), &args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for direction in ["text_to_image", "image_to_text"] {
        let d = &report[direction];
        eprintln!(
            "{direction}: recall@10 {} (chance {}, gallery {}); the bundled model knows phantoms only",
            d["recall@10"], d["chance@10"], d["gallery"]
        );
    }
}

/// What is searched of a part: the part, or the chunks of a long text.
fn pieces(part: &wire::Part) -> Vec<wire::Part> {
    use wire::part::Content;
    let Some(Content::Text(text)) = &part.content else { return vec![part.clone()] };
    if text.chunks.is_empty() {
        return vec![part.clone()];
    }
    let chunk = |span: &wire::TextSpan| {
        let text = text.text[span.start as usize..span.end as usize].to_owned();
        wire::Part {
            content: Some(Content::Text(wire::TextPart { text, ..Default::default() })),
            ..part.clone()
        }
    };
    text.chunks.iter().map(chunk).collect()
}

/// The content of the part, sent anew, finds its own record first, or one with the same content.
async fn finds_itself(client: &mut Client, key: &str, part: &wire::Part) {
    use wire::part::Content;
    use wire::search_request::Query;
    let query = match part.content.as_ref().unwrap() {
        Content::Text(text) => Query::Text(text.text.clone()),
        Content::Image(image) => Query::Image(std::fs::read(&image.source).unwrap()),
    };
    let reference = part.r#ref.unwrap();
    let request = wire::SearchRequest {
        query: Some(query),
        target: reference.modality,
        k: Some(10),
        ..Default::default()
    };
    let hits = client.search(request).await.unwrap().into_inner().hits;
    assert!(hits[0].score > 0.9999, "{key}: best score {}", hits[0].score);
    let own = hits.iter().find(|h| h.key == key);
    // Several records may share a text word for word; then all of them score the same.
    let tied = hits.iter().all(|h| h.score > 0.9999);
    assert!(own.is_some_and(|h| h.score > 0.9999) || tied, "{key} does not find itself: {hits:?}");
}
