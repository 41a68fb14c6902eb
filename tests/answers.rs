//! What answers can be asked for beside their hits, over the wire: counts, pictures, fewer fields; many searches
//! on one stream, an earlier one again, labels.

use diptych_proto::FieldMask;
use diptych_proto::v1 as wire;
use tonic::Code;

use crate::support::{Client, Server, corpus, filter, ingest, succeed};

/// A server with generated cases.
async fn serving(cases: u32) -> (tempfile::TempDir, Server, Client) {
    let dir = corpus(cases);
    let server = Server::start(dir.path());
    succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    let client = server.client().await;
    (dir, server, client)
}

fn search(text: &str) -> wire::SearchRequest {
    wire::SearchRequest {
        query: Some(wire::search_request::Query::Text(text.into())),
        target: wire::Modality::Image as i32,
        ..Default::default()
    }
}

fn facet(attribute: &str, limit: u32) -> wire::Facet {
    wire::Facet { attribute: attribute.into(), limit }
}

#[tokio::test]
async fn the_values_of_attributes_are_counted_beside_the_hits() {
    let (_dir, _server, mut client) = serving(40).await;
    let facets = vec![facet("sex", 0), facet("labels", 2), facet("absent", 5)];
    let request = wire::SearchRequest { k: Some(1), facets: facets.clone(), ..search("effusion") };
    let answer = client.search(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer.hits.len(), 1, "facets are not counted over the hits");
    let [sex, labels, absent] = answer.facets.as_slice() else { panic!("{:?}", answer.facets) };
    assert_eq!((sex.attribute.as_str(), sex.records, sex.distinct_values), ("sex", 40, 2));
    assert_eq!(sex.values.iter().map(|value| value.records).sum::<u64>(), 40);
    assert_eq!(labels.values.len(), 2);
    assert!(labels.distinct_values > 2 && labels.values[0].records >= labels.values[1].records);
    assert_eq!((absent.records, absent.values.len()), (0, 0));

    // The same numbers as by counting with a filter.
    for value in &sex.values {
        let Some(wire::filter_value::Value::StringValue(name)) =
            value.value.as_ref().and_then(|value| value.value.clone())
        else {
            panic!("{value:?}")
        };
        let filter = filter(&format!("sex = '{name}'"));
        let counted = wire::CountRecordsRequest { filter, facets: facets.clone(), ..Default::default() };
        let counted = client.count_records(counted).await.unwrap().into_inner();
        assert_eq!(counted.records, value.records);
        assert_eq!(counted.facets[0].values, std::slice::from_ref(value));
        assert_eq!(counted.facets[1].records, value.records);
    }
    let many = wire::SearchRequest { facets: vec![facet("sex", 0); 17], ..search("effusion") };
    let refused = client.search(many).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("at most 16"), "{refused:?}");
}

#[tokio::test]
async fn hits_come_with_pictures_and_without_what_is_not_wanted() {
    let (_dir, _server, mut client) = serving(12).await;
    let paths = vec!["attributes.sex".to_owned()];
    let request =
        wire::SearchRequest { thumbnails: true, read_mask: Some(FieldMask { paths }), ..search("effusion") };
    let answer = client.search(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer.hits.len(), 10);
    for hit in &answer.hits {
        assert_eq!((hit.part.as_ref(), hit.attributes.len()), (None, 1));
        let picture = diptych_encoder::decode(&hit.thumbnail).unwrap();
        assert!(picture.width().max(picture.height()) <= 160, "{:?}", picture.dimensions());
    }
    // A text is shown by the image of its record.
    let texts = wire::SearchRequest { target: wire::Modality::Text as i32, ..request.clone() };
    let texts = client.search(texts).await.unwrap().into_inner();
    let of = |hits: &[wire::Hit], key: &str| {
        hits.iter().find(|hit| hit.key == key).map(|hit| hit.thumbnail.clone())
    };
    let both = texts.hits.iter().filter(|hit| of(&answer.hits, &hit.key).is_some());
    let mut compared = 0;
    for hit in both {
        assert_eq!(of(&answer.hits, &hit.key).unwrap(), hit.thumbnail);
        compared += 1;
    }
    assert!(compared > 5, "{compared}");
    let plain = client.search(search("effusion")).await.unwrap().into_inner();
    assert!(plain.hits.iter().all(|hit| hit.thumbnail.is_empty() && hit.part.is_some()));
}

#[tokio::test]
async fn many_searches_on_one_stream_are_answered_in_their_order() {
    let (_dir, _server, mut client) = serving(30).await;
    let questions: Vec<wire::BatchSearchRequest> = (0..100)
        .map(|n| {
            let mut request = search(["effusion", "pneumothorax", "no finding", "a mass"][n % 4]);
            match n {
                17 => request.k = Some(0),
                18 => request.collection = "nowhere".into(),
                _ => {}
            }
            wire::BatchSearchRequest { id: n.to_string(), search: (n != 19).then_some(request) }
        })
        .collect();
    let mut singly = Vec::new();
    for question in &questions {
        singly.push(client.search(question.search.clone().unwrap_or_default()).await);
    }
    let mut answers = client.batch_search(tokio_stream::iter(questions)).await.unwrap().into_inner();
    let mut answered = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        assert_eq!(answer.id, answered.to_string());
        match (answer.outcome.unwrap(), &singly[answered]) {
            (wire::batch_search_response::Outcome::Response(found), Ok(alone)) => {
                assert_eq!(found.hits, alone.get_ref().hits);
            }
            (wire::batch_search_response::Outcome::Error(error), Err(alone)) => {
                assert_eq!(error.code, alone.code() as i32);
                assert!([17, 18, 19].contains(&answered));
            }
            other => panic!("{answered}: {other:?}"),
        }
        answered += 1;
    }
    assert_eq!(answered, 100);
}

#[tokio::test]
async fn a_receipt_gives_the_same_hits_while_nothing_has_changed() {
    let (_dir, _server, mut client) = serving(30).await;
    let term = |text: &str, weight| wire::QueryTerm {
        source: Some(wire::query_term::Source::Text(text.into())),
        weight: Some(weight),
    };
    let asked = wire::SearchRequest {
        query: None,
        terms: vec![term("effusion", 2.0), term("pneumothorax", -1.0)],
        k: Some(7),
        diversity: Some(0.3),
        filter: filter("exists sex"),
        ..search("")
    };
    let first = client.search(asked.clone()).await.unwrap().into_inner();
    let page = wire::SearchRequest { page_token: first.next_page_token.clone(), ..asked };
    let second = client.search(page).await.unwrap().into_inner();
    assert_ne!(first.hits, second.hits);
    let replay = |receipt: &Option<wire::Receipt>| wire::ReplayRequest {
        receipt: receipt.clone(),
        ..Default::default()
    };
    for answer in [&first, &second] {
        let again = client.replay(replay(&answer.receipt)).await.unwrap().into_inner();
        assert!(again.identical && again.same_generation, "{again:?}");
        assert_eq!(again.response.unwrap().hits, answer.hits);
    }

    // An image is not in the receipt: it comes again, and only the right one will do.
    let image = std::fs::read(_dir.path().join("phantoms/images/phantom-000003.png")).unwrap();
    let by_image = |bytes: Vec<u8>| wire::SearchRequest {
        query: Some(wire::search_request::Query::Image(bytes)),
        ..search("")
    };
    let found = client.search(by_image(image.clone())).await.unwrap().into_inner();
    let kept = found.receipt.as_ref().unwrap().parameters.clone().unwrap();
    assert_eq!(kept.query, Some(wire::search_request::Query::Image(Vec::new())));
    let alone = client.replay(replay(&found.receipt)).await.unwrap_err();
    assert!(alone.message().contains("send it, too"), "{alone:?}");
    let with = |image| wire::ReplayRequest { request: Some(by_image(image)), ..replay(&found.receipt) };
    let other = client.replay(with(vec![1])).await.unwrap_err();
    assert!(other.message().contains("not the one that the receipt is of"), "{other:?}");
    assert!(client.replay(with(image)).await.unwrap().into_inner().identical);

    // Another collection changes nothing here; a new record does.
    let record = |collection: &str| wire::IngestRequest {
        collection: collection.into(),
        key: "new".into(),
        texts: vec!["Effusion.".into()],
        ..Default::default()
    };
    ingest(&mut client, vec![record("other")]).await;
    assert!(client.replay(replay(&first.receipt)).await.unwrap().into_inner().same_generation);
    ingest(&mut client, vec![record("")]).await;
    assert!(!client.replay(replay(&first.receipt)).await.unwrap().into_inner().same_generation);
    let mut foreign = first.receipt.clone();
    foreign.as_mut().unwrap().model_id = "0".repeat(64);
    assert_eq!(client.replay(replay(&foreign)).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(client.replay(replay(&None)).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_image_or_a_record_is_given_the_label_that_fits() {
    let (dir, _server, mut client) = serving(12).await;
    let label = |name: &str| wire::ClassLabel { name: name.into(), prompts: Vec::new() };
    let key = wire::KeyQuery { key: "phantom-000003".into(), part: None };
    let request = wire::ClassifyRequest {
        subject: Some(wire::classify_request::Subject::Key(key)),
        labels: ["pleural effusion", "pneumothorax", "cardiomegaly"].map(label).to_vec(),
        templates: vec!["{}.".into(), "There is {}.".into()],
        ..Default::default()
    };
    let stored = client.classify(request.clone()).await.unwrap().into_inner();
    assert_eq!((stored.scores.len(), stored.independent), (3, false));
    assert!((stored.scores.iter().map(|score| score.probability).sum::<f64>() - 1.0).abs() < 1e-9);
    assert!(stored.scores.is_sorted_by(|a, b| a.probability >= b.probability && a.score >= b.score));
    let image = std::fs::read(dir.path().join("phantoms/images/phantom-000003.png")).unwrap();
    let subject = Some(wire::classify_request::Subject::Image(image));
    let sent = wire::ClassifyRequest { subject, k: Some(2), ..request.clone() };
    let sent = client.classify(sent).await.unwrap().into_inner();
    let names = |scores: &[wire::ClassScore]| scores.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&sent.scores), names(&stored.scores[..2]));
    assert!((sent.scores[0].score - stored.scores[0].score).abs() < 1e-4);

    for (wrong, says) in [
        (wire::ClassifyRequest { subject: None, ..request.clone() }, "nothing to classify"),
        (wire::ClassifyRequest { labels: vec![label("a")], ..request.clone() }, "2 to 1000"),
        (wire::ClassifyRequest { labels: vec![label("a"), label("a")], ..request.clone() }, "comes twice"),
        (wire::ClassifyRequest { labels: vec![label("a"), label(" ")], ..request.clone() }, "no name"),
        (wire::ClassifyRequest { templates: vec!["of".into()], ..request.clone() }, "no place for the label"),
        (wire::ClassifyRequest { k: Some(0), ..request.clone() }, "at least one label"),
    ] {
        let refused = client.classify(wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(says), "{refused:?}");
    }
}
