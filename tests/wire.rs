//! The service as any gRPC client sees it: codes, limits, paging, health, reflection.

use diptych_proto::v1 as wire;
use diptych_proto::v1::search_request::Query;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::{Client, Server, corpus, succeed};

async fn code(client: &mut Client, request: wire::SearchRequest) -> (Code, String) {
    match client.search(request).await {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.message().to_owned()),
    }
}

fn search(query: Query) -> wire::SearchRequest {
    wire::SearchRequest { query: Some(query), target: wire::Modality::Image as i32, ..Default::default() }
}

fn term(words: &str, weight: f32) -> wire::QueryTerm {
    let source = wire::query_term::Source::Text(words.to_owned());
    wire::QueryTerm { source: Some(source), weight: Some(weight) }
}

fn composed(terms: Vec<wire::QueryTerm>) -> wire::SearchRequest {
    wire::SearchRequest { terms, target: wire::Modality::Image as i32, ..Default::default() }
}

#[tokio::test]
async fn wrong_requests_get_the_right_code_and_the_server_goes_on() {
    let dir = corpus(12);
    let server = Server::start(dir.path());
    succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    let mut client = server.client().await;
    let stats = client.stats(wire::StatsRequest {}).await.unwrap().into_inner();
    let dim = stats.dimension as usize;
    let text = |t: &str| Query::Text(t.to_owned());
    let vector = |values: Vec<f32>| search(Query::Vector(wire::Vector { values }));
    let good = search(text("Cardiomegaly."));
    let invalid = Code::InvalidArgument;
    let mut nan = vec![0.5; dim];
    nan[3] = f32::NAN;
    let cases: Vec<(wire::SearchRequest, Code, &str)> = vec![
        (wire::SearchRequest { query: None, ..good.clone() }, invalid, "set one of"),
        (wire::SearchRequest { target: 77, ..good.clone() }, invalid, "MODALITY_IMAGE"),
        (wire::SearchRequest { terms: vec![term("a", 1.0)], ..good.clone() }, invalid, "one of the terms"),
        (composed(vec![term("a", 0.0)]), invalid, "weight"),
        (composed(vec![term("a", f32::NAN)]), invalid, "weight"),
        (composed(vec![term("a", -1.0)]), invalid, "add one to look for"),
        (composed(vec![wire::QueryTerm::default()]), invalid, "a term is empty"),
        (composed(vec![term("a", 1.0); 33]), invalid, "at most 32"),
        (composed(vec![term("a", 1.0), term("a", -1.0)]), invalid, "cancel"),
        (wire::SearchRequest { min_relevance: Some(1.5), ..good.clone() }, invalid, "from 0 to 1"),
        (wire::SearchRequest { diversity: Some(f32::NAN), ..good.clone() }, invalid, "from 0 to 1"),
        (
            wire::SearchRequest { min_relevance: Some(0.5), ..good.clone() },
            Code::FailedPrecondition,
            "fewer than 60",
        ),
        (wire::SearchRequest { page_token: "zz".into(), ..good.clone() }, invalid, "page token"),
        (wire::SearchRequest { page_token: "5-00".into(), ..good.clone() }, invalid, "another request"),
        (wire::SearchRequest { k: Some(0), ..good.clone() }, invalid, "1 to 1000"),
        (wire::SearchRequest { k: Some(u32::MAX), ..good.clone() }, invalid, "1 to 1000"),
        (wire::SearchRequest { ef: Some(u64::MAX), ..good.clone() }, invalid, "1 to 4096"),
        (
            wire::SearchRequest { collection: "nowhere".into(), ..good.clone() },
            Code::NotFound,
            "there are: default",
        ),
        (wire::SearchRequest { collection: "a/b".into(), ..good.clone() }, invalid, "letters, digits"),
        (search(text("")), invalid, "empty"),
        (search(text(" \n\t ")), invalid, "empty"),
        (search(text(&"long ".repeat(20_000))), invalid, "split it"),
        (search(Query::Image(vec![])), invalid, "no bytes"),
        (search(Query::Image(b"%PDF-1.7 not an image".to_vec())), invalid, "not a readable image"),
        (vector(vec![1.0; dim + 1]), invalid, "dimensions"),
        (vector(vec![]), invalid, "dimensions"),
        (vector(vec![0.0; dim]), invalid, "zero"),
        (vector(nan), invalid, "component 3"),
        (search(Query::Key(wire::KeyQuery { key: "nobody".into(), part: None })), Code::NotFound, "nobody"),
        (search(Query::Key(wire::KeyQuery { key: "a\u{0}b".into(), part: None })), invalid, "U+0000"),
    ];
    for (request, expected, says) in cases {
        let shown = format!("{request:?}").chars().take(120).collect::<String>();
        let (found, message) = code(&mut client, request).await;
        assert_eq!(found, expected, "{shown}: {message}");
        assert!(message.contains(says), "{shown}: '{message}' does not say '{says}'");
        assert_eq!(code(&mut client, good.clone()).await.0, Code::Ok, "after {shown}");
    }
    let missing_part = wire::PartRef { modality: wire::Modality::Text as i32, ordinal: 9, chunk: None };
    let query = wire::KeyQuery { key: "phantom-000001".into(), part: Some(missing_part) };
    assert_eq!(code(&mut client, search(Query::Key(query))).await.0, Code::NotFound);
    let mut after = client.stats(wire::StatsRequest {}).await.unwrap().into_inner();
    // What was asked in between is counted, and has opened an index, and nothing else.
    after.collections[0].recall.clear();
    after.collections[0].indexes.clear();
    assert_eq!(after.collections, stats.collections, "nothing was stored");
}

#[tokio::test]
async fn a_bad_item_of_a_stream_is_answered_and_the_stream_goes_on() {
    let dir = corpus(1);
    let server = Server::start(dir.path());
    let mut client = server.client().await;
    let item = |key: &str, texts: &[&str]| wire::IngestRequest {
        key: key.to_owned(),
        texts: texts.iter().map(|&t| t.to_owned()).collect(),
        ..Default::default()
    };
    let bad_image = wire::ImageInput { data: vec![0xFF, 0xD8, 0xFF, 0xD9], source: "x.jpg".into() };
    let items = vec![
        item("a", &["first"]),
        item("", &["no key"]),
        item("b", &[]),
        item("c", &["  "]),
        wire::IngestRequest { images: vec![bad_image], ..item("d", &["with a broken image"]) },
        wire::IngestRequest { mode: wire::WriteMode::Insert as i32, ..item("a", &["other"]) },
        wire::IngestRequest { mode: wire::WriteMode::Insert as i32, ..item("a", &["first"]) },
        item("e", &["last"]),
    ];
    let sent: Vec<String> = items.iter().map(|i| i.key.clone()).collect();
    let mut answers = client.ingest(tokio_stream::iter(items)).await.unwrap().into_inner();
    let mut got = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        got.push(answer);
    }
    assert_eq!(got.iter().map(|a| a.key.clone()).collect::<Vec<_>>(), sent, "one answer each, in order");
    let codes: Vec<i32> = got.iter().map(|a| a.error.as_ref().map_or(0, |e| e.code)).collect();
    let invalid = Code::InvalidArgument as i32;
    assert_eq!(codes, [0, invalid, invalid, invalid, invalid, Code::AlreadyExists as i32, 0, 0]);
    assert_eq!(got[6].outcome(), wire::WriteOutcome::Unchanged);
    let stats = client.stats(wire::StatsRequest {}).await.unwrap().into_inner();
    assert_eq!(stats.collections[0].records, 2);
}

#[tokio::test]
async fn records_are_read_and_listed_page_by_page() {
    let dir = corpus(25);
    let server = Server::start(dir.path());
    succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    let mut client = server.client().await;
    let request = wire::GetRecordRequest { key: "phantom-000003".into(), ..Default::default() };
    let record = client.get_record(request).await.unwrap().into_inner().record.unwrap();
    assert_eq!(record.parts.len(), 2);
    assert!(record.attributes.contains_key("labels"));

    let (mut keys, mut token) = (Vec::new(), String::new());
    loop {
        let request = wire::ListRecordsRequest { page_size: 10, page_token: token, ..Default::default() };
        let page = client.list_records(request).await.unwrap().into_inner();
        assert!(page.records.len() <= 10);
        keys.extend(page.records.into_iter().map(|r| r.key));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let expected: Vec<String> = (0..25).map(|n| format!("phantom-{n:06}")).collect();
    assert_eq!(keys, expected);
    let wrong = wire::ListRecordsRequest { page_token: "zz".into(), ..Default::default() };
    assert_eq!(client.list_records(wrong).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn health_runs_inference_and_embed_gives_unit_vectors() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let channel =
        tonic::transport::Channel::from_shared(server.url.clone()).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel);
    for service in ["", "diptych.v1.RetrievalService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        assert_eq!(health.check(request).await.unwrap().into_inner().status, 1, "SERVING");
    }
    let unknown = HealthCheckRequest { service: "other".to_owned() };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);

    let mut client = server.client().await;
    let request = wire::EmbedRequest { texts: vec!["a".into(), "b c".into()], images: vec![] };
    let embedded = client.embed(request).await.unwrap().into_inner();
    assert_eq!(embedded.text_embeddings.len(), 2);
    for vector in &embedded.text_embeddings {
        let norm: f32 = vector.values.iter().map(|v| v * v).sum();
        assert!((norm - 1.0).abs() < 1e-4);
    }
    assert_eq!(embedded.model_id.len(), 64);
    let nothing = client.embed(wire::EmbedRequest::default()).await.unwrap_err();
    assert_eq!(nothing.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn reflection_names_the_service_and_its_types() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let channel =
        tonic::transport::Channel::from_shared(server.url.clone()).unwrap().connect().await.unwrap();
    let mut reflection = ServerReflectionClient::new(channel);
    let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let requests = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("diptych.v1.SearchRequest".to_owned())),
    ];
    let mut answers =
        reflection.server_reflection_info(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = first else { panic!("{first:?}") };
    let names: Vec<&str> = list.service.iter().map(|s| s.name.as_str()).collect();
    assert!(names.contains(&"diptych.v1.RetrievalService"), "{names:?}");
    assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");
    let second = answers.message().await.unwrap().unwrap().message_response.unwrap();
    assert!(matches!(second, MessageResponse::FileDescriptorResponse(_)), "{second:?}");
}
