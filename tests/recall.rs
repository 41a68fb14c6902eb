//! The recall meter and target recalls, as an operator and a client see them.

use diptych_proto::v1 as wire;
use serde_json::Value;
use tonic::Code;

use crate::support::{Client, Server, corpus, fail, succeed};

/// Asks for the stats until the meter has done what is due; it works in the background.
async fn stats(
    client: &mut Client,
    done: impl Fn(&[wire::DirectionRecall]) -> bool,
) -> Vec<wire::DirectionRecall> {
    for _ in 0..100_000 {
        let stats = client.stats(wire::StatsRequest {}).await.unwrap().into_inner();
        let recall = stats.collections[0].recall.clone();
        if done(&recall) {
            return recall;
        }
    }
    panic!("the meter never got there");
}

#[tokio::test]
async fn both_directions_are_metered_and_a_target_recall_is_served() {
    let dir = corpus(60);
    let server = Server::start_with(dir.path(), &["--recall-sample", "1", "--recall-busy", "1"]);
    succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    let mut client = server.client().await;
    let image = std::fs::read(dir.path().join("phantoms/images/phantom-000003.png")).unwrap();
    let ask = |image: Option<&Vec<u8>>, target_recall| wire::SearchRequest {
        query: Some(match image {
            Some(bytes) => wire::search_request::Query::Image(bytes.clone()),
            None => wire::search_request::Query::Text("Cardiomegaly.".to_owned()),
        }),
        target: if image.is_some() { wire::Modality::Text } else { wire::Modality::Image } as i32,
        target_recall,
        ..Default::default()
    };
    for source in [None, Some(&image)] {
        let plain = client.search(ask(source, None)).await.unwrap().into_inner();
        for recall in [0.5, 0.95, 0.999] {
            let answer = client.search(ask(source, Some(recall))).await.unwrap().into_inner();
            assert_eq!(answer.hits, plain.hits, "sixty points are scanned, whatever is asked");
            let stats = answer.stats.unwrap();
            assert_eq!((stats.plan(), stats.ef), (wire::SearchPlan::Scan, None));
        }
    }
    let recall = stats(&mut client, |recall| {
        recall.len() == 2 && recall.iter().all(|r| r.measured == 4 && r.ladder.len() == 8)
    })
    .await;
    let directions: Vec<_> = recall.iter().map(|r| (r.query_kind(), r.target())).collect();
    let expected =
        [(wire::QueryKind::Image, wire::Modality::Text), (wire::QueryKind::Text, wire::Modality::Image)];
    assert_eq!(directions, expected);
    for direction in recall {
        assert_eq!((direction.searches, direction.dropped), (4, 0));
        let latest = direction.latest.unwrap();
        assert_eq!((direction.mean, latest.mean, latest.high), (Some(1.0), 1.0, 1.0));
        assert!(latest.low < 1.0 && latest.queries == direction.measured);
        assert_eq!(direction.ladder.last().unwrap().ef, 2048);
        assert!(
            direction.ladder.iter().all(|rung| rung.recall.is_some_and(|r| r.mean == 1.0 && r.queries >= 60))
        );
    }
    for (request, says) in [
        (ask(None, Some(1.0)), "between 0 and 1"),
        (ask(None, Some(f64::NAN)), "between 0 and 1"),
        (wire::SearchRequest { ef: Some(64), ..ask(None, Some(0.9)) }, "keep one"),
    ] {
        let status = client.search(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(says), "{status}");
    }

    let said = succeed(dir.path(), &["stats", "--server", &server.url]);
    assert!(said.contains("default: 60 records, 60 images, 60 texts"), "{said}");
    assert!(said.contains("text to image") && said.contains("at 10 with ef 2048"), "{said}");
    let said = succeed(dir.path(), &["stats", "--server", &server.url, "--json"]);
    let json: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(json["collections"][0]["recall"][1]["direction"], "text to image");
    assert_eq!(json["recall_sample"], 1.0);

    let search = ["search", "--text", "Cardiomegaly.", "--target", "image", "--server", &server.url];
    let said = succeed(dir.path(), &[&search[..], &["--recall", ".95", "--json"]].concat());
    let json: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&json["stats"]["plan"], json["hits"].as_array().unwrap().len()), (&"scan".into(), 10));
    let said = fail(dir.path(), &[&search[..], &["--recall", ".95", "--ef", "64"]].concat());
    assert!(said.contains("cannot be used with"), "{said}");
}
