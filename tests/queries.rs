//! Queries of several terms, relevance and pages, from the command line and over the wire.

use diptych_proto::v1 as wire;
use serde_json::Value;

use crate::support::{Server, corpus, hits, mini_model, succeed, succeed_with_notes};

fn json(said: &str) -> Value {
    serde_json::from_str(said).unwrap()
}

#[test]
fn what_people_type_is_the_same_here_and_there() {
    let dir = corpus(120);
    let server = Server::start(dir.path());
    succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    let questions: [&[&str]; 5] = [
        &["2:Large left pleural effusion.", "-", "right", "pneumothorax", "--target", "image"],
        &["./phantoms/images/phantom-000003.png", "+", "Right pneumothorax.", "--target", "text"],
        &["key:phantom-000003", "-", "0.5:key:phantom-000004", "--target", "image"],
        &["Large left pleural effusion.", "--diversity", "0.4", "--target", "image"],
        &["Large left pleural effusion.", "--group-by", "sex", "--target", "image"],
    ];
    let there = ["--json", "--server", server.url.as_str()];
    let asked: Vec<String> =
        questions.iter().map(|q| succeed(dir.path(), &[&["search"], *q, &there].concat())).collect();
    for (question, said) in questions.iter().zip(&asked) {
        let found = json(said)["hits"].as_array().unwrap().clone();
        assert!(!found.is_empty(), "{question:?}");
        let terms = 1 + question.iter().filter(|word| ["+", "-"].contains(word)).count();
        for hit in found {
            let scores = hit["term_scores"].as_array().map_or(1, Vec::len);
            assert_eq!(scores, terms, "{question:?}");
        }
    }
    assert_eq!(hits(&asked[4]).len(), 2, "one hit for each sex");
    let unfamiliar = succeed_with_notes(dir.path(), &["search", "effusion", "--server", &server.url]);
    assert!(unfamiliar.1.contains("merged by rank"), "{unfamiliar:?}");

    assert!(server.stop().success());
    let model = mini_model();
    let here = ["--json", "--data", "data", "--model", model.to_str().unwrap()];
    for (question, said) in questions.iter().zip(&asked) {
        let again = succeed(dir.path(), &[&["search"], *question, &here].concat());
        assert_eq!(hits(&again), hits(said), "{question:?}");
    }
}

#[test]
fn no_good_match_is_an_answer() {
    let dir = corpus(150);
    let model = mini_model();
    let place = ["--data", "data", "--model", model.to_str().unwrap()];
    succeed(dir.path(), &[&["ingest", "phantoms"], &place[..]].concat());
    let ask = |words: &str, least: &str| {
        let query = ["search", words, "--target", "image", "--min-relevance", least];
        succeed(dir.path(), &[&query[..], &place].concat())
    };
    let said = ask("a red bicycle in the snow", "0.6");
    assert!(said.starts_with("no good match: nothing has a relevance of 60 % or more"), "{said}");
    assert_eq!(said.lines().count(), 4, "{said}");
    let said = ask("Large left pleural effusion.", "0");
    assert!(said.lines().all(|line| line.contains(" %  phantom-")), "{said}");

    let said = succeed(dir.path(), &[&["relevance", "--svg", "r.svg"], &place[..]].concat());
    assert!(said.contains("text to image") && said.contains("image to text"), "{said}");
    let drawn = std::fs::read_to_string(dir.path().join("r.svg")).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("text to image: error"), "{drawn}");
    let told = json(&succeed(dir.path(), &[&["relevance", "--json"], &place[..]].concat()));
    for direction in told.as_array().unwrap() {
        assert_eq!(direction["questions"], 150);
        assert!(direction["hits"]["expected_calibration_error"].as_f64().unwrap() <= 0.05, "{direction}");
    }
}

#[tokio::test]
async fn pages_follow_each_other_and_equal_requests_have_equal_receipts() {
    let dir = corpus(30);
    let server = Server::start(dir.path());
    succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    let mut client = server.client().await;
    let request = |k: u32, page_token: String| wire::SearchRequest {
        query: Some(wire::search_request::Query::Text("Pleural effusion.".into())),
        target: wire::Modality::Image as i32,
        k: Some(k),
        page_token,
        ..Default::default()
    };
    let whole = client.search(request(30, String::new())).await.unwrap().into_inner();
    assert_eq!((whole.hits.len(), whole.next_page_token.as_str()), (30, ""));
    let (mut keys, mut token) = (Vec::new(), String::new());
    loop {
        let page = client.search(request(8, token)).await.unwrap().into_inner();
        keys.extend(page.hits.into_iter().map(|hit| hit.key));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(keys, whole.hits.iter().map(|hit| hit.key.clone()).collect::<Vec<_>>());
    let again = client.search(request(30, String::new())).await.unwrap().into_inner();
    assert_eq!(again.receipt, whole.receipt);
    let receipt = again.receipt.unwrap();
    assert_eq!((receipt.request_digest.len(), receipt.generation), (32, 30));
    let other = client.search(request(29, String::new())).await.unwrap().into_inner().receipt.unwrap();
    assert_ne!(other.request_digest, receipt.request_digest);
}
