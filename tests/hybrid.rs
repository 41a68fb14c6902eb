//! Words beside vectors, served and from the command line.

use diptych_proto::v1 as wire;
use serde_json::Value;
use tonic::Code;

use crate::support::{
    Client, Server, corpus, diptych, fail, ingest, mini_model, succeed, succeed_with_notes,
};

fn item(key: &str, text: &str) -> wire::IngestRequest {
    wire::IngestRequest { key: key.to_owned(), texts: vec![text.to_owned()], ..Default::default() }
}

fn words(text: &str) -> wire::SearchRequest {
    let lexical = Some(wire::LexicalQuery { text: text.to_owned(), fusion: None });
    wire::SearchRequest { lexical, ..Default::default() }
}

async fn search(client: &mut Client, request: wire::SearchRequest) -> wire::SearchResponse {
    client.search(request).await.unwrap().into_inner()
}

fn keys(response: &wire::SearchResponse) -> Vec<&str> {
    response.hits.iter().map(|hit| hit.key.as_str()).collect()
}

#[tokio::test]
async fn words_are_a_query_of_their_own_or_stand_beside_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = server.client().await;
    let long = "The heart is of normal size. ".repeat(40) + "There is a small azygos lobe on the right.";
    let texts = [
        ("plain", "Large left pleural effusion."),
        ("turned", "Effusion, large. Pleural thickening on the left."),
        ("long", long.as_str()),
    ];
    ingest(&mut client, texts.iter().map(|(key, text)| item(key, text)).collect()).await;

    let alone = search(&mut client, words("\"pleural effusion\"")).await;
    assert_eq!(keys(&alone), ["plain"]);
    assert!(alone.hits[0].lexical_score.unwrap() > 0.0 && alone.hits[0].score == 0.0);
    let stats = alone.stats.unwrap();
    assert_eq!(stats.lexical_matches, Some(1));
    assert!(stats.lexical_micros > 0);

    let chunk = search(&mut client, words("azygos")).await;
    let part = chunk.hits[0].lexical_part.clone().unwrap();
    assert!(part.r#ref.unwrap().chunk.unwrap() > 0, "the last chunk has the word");
    let Some(wire::part::Content::Text(text)) = part.content else { panic!("no text") };
    assert!(text.text.contains("azygos") && text.text.len() < long.len(), "{}", text.text);

    let beside = wire::SearchRequest {
        query: Some(wire::search_request::Query::Text("Pleural effusion.".into())),
        ..words("effusion -thickening")
    };
    let both = search(&mut client, beside.clone()).await;
    assert_eq!(keys(&both), ["plain", "long"]);
    assert!(both.hits[0].lexical_score.unwrap() > 0.0 && both.hits[1].lexical_score.is_none());
    assert!(both.hits.iter().all(|hit| hit.score != 0.0), "both are compared with the query");
    assert_eq!(search(&mut client, beside.clone()).await.receipt, both.receipt);

    ingest(&mut client, vec![item("late", "A pleural effusion, at last.")]).await;
    assert_eq!(search(&mut client, words("\"pleural effusion\"")).await.hits.len(), 2);

    let fused = |fusion| wire::SearchRequest {
        lexical: Some(wire::LexicalQuery { text: "effusion".into(), fusion: Some(fusion) }),
        ..beside.clone()
    };
    let ranks = |k| wire::lexical_query::Fusion::RankFusion(wire::RankFusion { k: Some(k) });
    let weighted = |lexical| wire::lexical_query::Fusion::WeightedFusion(wire::WeightedFusion { lexical });
    assert_eq!(search(&mut client, fused(ranks(1.0))).await.hits.len(), 4);
    assert_eq!(search(&mut client, fused(weighted(0.3))).await.hits.len(), 4);
    for (refused, hint) in [
        (words(""), "at least one word"),
        (words("-effusion"), "to look for"),
        (wire::SearchRequest { min_relevance: Some(0.5), ..words("a") }, "relevance"),
        (fused(ranks(0.0)), "above 0"),
        (fused(weighted(1.5)), "from 0 to 1"),
    ] {
        let status = client.search(refused).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(hint), "{status}");
    }
}

#[test]
fn the_command_line_shows_why_a_hit_was_found() {
    let dir = corpus(60);
    let server = Server::start(dir.path());
    succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    let questions: [&[&str]; 4] = [
        &["--words", "effusion"],
        &["Pleural effusion.", "--hybrid", "--target", "image", "-k", "5"],
        &[
            "Pleural effusion.",
            "--words",
            "+effusion -fracture",
            "--fusion",
            "weighted:0.3",
            "--target",
            "text",
        ],
        &["--words", "\"pleural effusion\"", "--target", "image"],
    ];
    let there = ["--server", server.url.as_str()];
    let asked: Vec<String> = questions
        .iter()
        .map(|q| succeed(dir.path(), &[&["search", "--json"], *q, &there].concat()))
        .collect();
    for (question, said) in questions.iter().zip(&asked) {
        let said: Value = serde_json::from_str(said).unwrap();
        let hits = said["hits"].as_array().unwrap();
        assert!(!hits.is_empty() && said["stats"]["lexical_matches"].as_u64() > Some(0), "{question:?}");
        let found = hits.iter().find(|hit| hit["lexical_score"].as_f64() > Some(0.0)).unwrap();
        let sentence = found["lexical_sentence"].as_str().unwrap().to_lowercase();
        assert!(sentence.contains("effusion"), "{sentence}");
        assert!(!sentence.contains("impression:") || !sentence.contains("findings:"), "{sentence}");
    }
    let (said, notes) = succeed_with_notes(dir.path(), &[&["search"], questions[3], &there].concat());
    assert!(said.contains("\n       text:0: "), "{said}");
    assert!(notes.contains("with the words") && notes.contains("words "), "{notes}");
    let none = succeed(dir.path(), &[&["search", "--words", "quasar"], &there[..]].concat());
    assert_eq!(none.trim(), "no part of a record with these words");
    let refused =
        fail(dir.path(), &[&["search", "--key", "phantom-000001", "--hybrid"], &there[..]].concat());
    assert!(refused.contains("--words"), "{refused}");
    let typed =
        diptych(dir.path(), &["search", "--words", "a", "--fusion", "max"]).args(there).output().unwrap();
    assert!(String::from_utf8_lossy(&typed.stderr).contains("weighted:0.3"), "{typed:?}");

    assert!(server.stop().success());
    let model = mini_model();
    let here = ["--data", "data", "--model", model.to_str().unwrap()];
    let hits = |said: &str| serde_json::from_str::<Value>(said).unwrap()["hits"].clone();
    for (question, said) in questions.iter().zip(&asked) {
        let again = succeed(dir.path(), &[&["search", "--json"], *question, &here].concat());
        assert_eq!(hits(&again), hits(said), "{question:?}");
    }
}
