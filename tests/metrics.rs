//! What a running server tells of itself: metrics and logs, and that neither holds content.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use diptych_proto::v1 as wire;
use diptych_proto::v1::search_request::Query;
use serde_json::Value;
use tonic::Request;

use crate::support::{Client, Server, corpus, diptych, mini_model, succeed};

const METRICS: [&str; 2] = ["--metrics-listen", "127.0.0.1:0"];
/// Stands for what must not be told: it is searched for, stored and sent in every other way.
const CANARY: &str = "canary-4711";

/// What a web server answers to a request line: its head and its body.
pub(crate) fn ask(server: &Server, request: &str) -> (String, String) {
    let url = server.line.split_whitespace().last().unwrap();
    let address = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Every sample by its name and labels.
fn scrape(server: &Server) -> BTreeMap<String, f64> {
    let (head, page) = ask(server, "GET /metrics");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/openmetrics-text"), "{head}");
    assert!(page.ends_with("# EOF\n"), "{page}");
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(n, v)| (n.to_owned(), v.parse().unwrap()))
        .collect()
}

async fn search(client: &mut Client, text: &str, k: u32) -> Result<wire::SearchResponse, tonic::Status> {
    let request = wire::SearchRequest {
        query: Some(Query::Text(text.to_owned())),
        target: wire::Modality::Image as i32,
        k: Some(k),
        ..Default::default()
    };
    client.search(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_scrape_counts_what_was_asked() {
    let dir = corpus(6);
    let more = [&METRICS[..], &["--recall-sample", "1", "--recall-busy", "1"]].concat();
    let server = Server::start_with(dir.path(), &more);
    succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    succeed(dir.path(), &["health", "--server", &server.url]);
    let mut client = server.client().await;
    for text in ["Cardiomegaly.", "Right pneumothorax.", "Cardiomegaly."] {
        search(&mut client, text, 3).await.unwrap();
    }
    search(&mut client, "Cardiomegaly.", 0).await.unwrap_err();

    let now = scrape(&server);
    let service = "diptych.v1.RetrievalService";
    let requests = |method: &str, code: &str| {
        now[&format!("diptych_requests_total{{method=\"{method}\",code=\"{code}\"}}")]
    };
    assert_eq!(requests(&format!("{service}/Search"), "OK"), 3.0);
    assert_eq!(requests(&format!("{service}/Search"), "INVALID_ARGUMENT"), 1.0);
    assert_eq!(requests(&format!("{service}/Ingest"), "OK"), 2.0);
    assert_eq!(requests("grpc.health.v1.Health/Check", "OK"), 1.0);
    let search_count = format!("diptych_request_seconds_count{{method=\"{service}/Search\"}}");
    assert_eq!(now[&search_count], 4.0);
    for (stage, count) in [("admission", 3.0), ("encode", 3.0), ("search", 3.0), ("fetch", 3.0)] {
        let labels = format!("method=\"{service}/Search\",stage=\"{stage}\"");
        assert_eq!(now[&format!("diptych_stage_seconds_count{{{labels}}}")], count, "{stage}");
        assert!(now[&format!("diptych_stage_seconds_sum{{{labels}}}")] > 0.0, "{stage}");
    }
    for (name, value) in [
        ("diptych_ingest_items_total{outcome=\"created\"}", 6.0),
        ("diptych_ingest_items_total{outcome=\"unchanged\"}", 6.0),
        ("diptych_query_cache_hits_total", 1.0),
        ("diptych_query_cache_misses_total", 2.0),
        ("diptych_query_cache_entries", 2.0),
        ("diptych_records{collection=\"default\"}", 6.0),
        ("diptych_points{collection=\"default\",modality=\"image\"}", 6.0),
        ("diptych_index_points{collection=\"default\",modality=\"image\",state=\"tombstone\"}", 0.0),
        ("diptych_encoder_waiting{urgency=\"search\"}", 0.0),
        ("diptych_encoder_waiting{urgency=\"ingest\"}", 0.0),
        ("diptych_requests_in_work", 0.0),
        ("diptych_connections_refused_total", 0.0),
    ] {
        assert_eq!(now.get(name), Some(&value), "{name}");
    }
    let points = ["live", "sealing", "sealed"].map(|state| {
        now[&format!("diptych_index_points{{collection=\"default\",modality=\"image\",state=\"{state}\"}}")]
    });
    assert_eq!(points.iter().sum::<f64>(), 6.0, "{points:?}");
    assert!(now["diptych_connections"] >= 1.0 && now["diptych_store_bytes"] > 0.0);
    let way = "collection=\"default\",query=\"text\",target=\"image\",filtered=\"false\"";
    assert_eq!(now[&format!("diptych_searches_total{{{way}}}")], 3.0);

    // The meter works in the background, so it is asked until it is through.
    let measured = format!("diptych_recall_measured_total{{{way}}}");
    let metered = (0..10_000).map(|_| scrape(&server)).find(|now| now[&measured] == 3.0).unwrap();
    assert_eq!(metered[&format!("diptych_recall_ratio{{{way},bound=\"mean\"}}")], 1.0);
    assert!(metered[&format!("diptych_recall_ratio{{{way},bound=\"low\"}}")] < 1.0);
    assert_eq!(metered[&search_count], 4.0, "a scrape is no request");
    the_table_is_that_of(&server);
}

#[test]
fn the_page_answers_to_its_path_and_method_only() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &METRICS);
    assert!(ask(&server, "GET /").0.starts_with("HTTP/1.1 404"));
    assert!(ask(&server, "POST /metrics").0.starts_with("HTTP/1.1 405"));
    assert!(ask(&server, "GET /metrics").0.starts_with("HTTP/1.1 200"));
    assert!(server.stop().success());
}

/// A metric that nothing has moved yet is not on the page, so this wants a server that was used.
fn the_table_is_that_of(server: &Server) {
    let (_, page) = ask(server, "GET /metrics");
    let kinds = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let served: BTreeSet<String> = kinds
        .map(|kind| match kind.split_once(' ').unwrap() {
            (name, "counter") => format!("{name}_total"),
            (name, "info") => format!("{name}_info"),
            (name, _) => name.to_owned(),
        })
        .collect();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let rows = docs.lines().filter_map(|line| line.strip_prefix("| `diptych_"));
    let told: BTreeSet<String> =
        rows.map(|row| format!("diptych_{}", row.split(['`', '{']).next().unwrap())).collect();
    assert_eq!(served, told);
}

/// Sends the canary in every way that a client has, to a server with much to say.
async fn sing(server: &Server) {
    let mut client = server.client().await;
    let attribute =
        wire::AttributeValue { value: Some(wire::attribute_value::Value::StringValue(CANARY.to_owned())) };
    let item = wire::IngestRequest {
        key: CANARY.to_owned(),
        texts: vec![format!("{CANARY} in the left lung.")],
        attributes: [(CANARY.to_owned(), attribute)].into(),
        ..Default::default()
    };
    let bad = wire::IngestRequest { key: format!("{CANARY}\u{0}"), ..item.clone() };
    let mut answers = client.ingest(tokio_stream::iter([item, bad])).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().unwrap().error.is_none());
    assert!(answers.message().await.unwrap().unwrap().error.is_some());
    assert!(answers.message().await.unwrap().is_none());
    search(&mut client, CANARY, 1).await.unwrap();
    let filter = wire::Filter { condition: Some(wire::filter::Condition::Exists(CANARY.to_owned())) };
    let by_key = |key: &str| wire::SearchRequest {
        query: Some(Query::Key(wire::KeyQuery { key: key.to_owned(), part: None })),
        target: wire::Modality::Text as i32,
        filter: Some(filter.clone()),
        ..Default::default()
    };
    client.search(by_key(CANARY)).await.unwrap();
    client.search(by_key(&format!("{CANARY}-absent"))).await.unwrap_err();
    // As an id of a request, with a blank in it, which ids have not.
    let mut request = Request::new(wire::StatsRequest {});
    request.metadata_mut().insert("x-request-id", format!("{CANARY} b").parse().unwrap());
    client.stats(request).await.unwrap();
    // As a method.
    let channel =
        tonic::transport::Channel::from_shared(server.url.clone()).unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = format!("/{CANARY}/{CANARY}").parse().unwrap();
    let codec = tonic_prost::ProstCodec::<wire::StatsRequest, wire::StatsResponse>::default();
    let refused = grpc.unary(Request::new(wire::StatsRequest {}), path, codec).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
}

// A server that stops waits for its clients to close; another thread does that meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn neither_metrics_nor_logs_hold_content() {
    let dir = tempfile::tempdir().unwrap();
    let model = mini_model();
    let args = ["serve", "--data", "data", "--model", model.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let args = [&args[..], &METRICS, &["--log-slow-seconds", "0.000001"]].concat();
    let server = Server::spawn(diptych(dir.path(), &args).env("RUST_LOG", "debug"));
    sing(&server).await;
    let (_, page) = ask(&server, "GET /metrics");
    assert!(page.contains("method=\"other\",code=\"UNIMPLEMENTED\"} 1"), "{page}");
    assert!(page.contains("diptych_ingest_items_total{outcome=\"failed\"} 1"), "{page}");
    let log = server.stop_and_read_log();
    for (name, said) in [("metrics", page), ("log", log)] {
        assert!(said.contains("RetrievalService/Search"), "the {name} tell of searches:\n{said}");
        assert!(!said.contains(CANARY), "the {name} hold content:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_one_line_with_its_id_and_slow_ones_are_told_with_their_stages() {
    let dir = corpus(3);
    let model = mini_model();
    let started = |slow: &str| {
        let args = ["serve", "--data", "data", "--model", model.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        let args = [&args[..], &["--log-format", "json", "--log-slow-seconds", slow]].concat();
        Server::spawn(diptych(dir.path(), &args).env("RUST_LOG", "warn,diptych_server=debug"))
    };
    for (slow, level) in [("0", "DEBUG"), ("3600", "DEBUG"), ("0.000001", "WARN")] {
        let server = started(slow);
        let mut client = server.client().await;
        if slow == "0" {
            succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
        }
        let mut ids = Vec::new();
        for given in [Some("job-7"), None, None] {
            let mut request = Request::new(wire::SearchRequest {
                query: Some(Query::Text("Cardiomegaly.".to_owned())),
                target: wire::Modality::Image as i32,
                ..Default::default()
            });
            if let Some(id) = given {
                request.metadata_mut().insert("x-request-id", id.parse().unwrap());
            }
            let response = client.search(request).await.unwrap();
            ids.push(response.metadata().get("x-request-id").unwrap().to_str().unwrap().to_owned());
        }
        assert!(ids[0] == "job-7" && ids[1] != ids[2] && ids[1].len() == 16, "{ids:?}");

        drop(client);
        let log = server.stop_and_read_log();
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of_search = |line: &&Value| {
            line["span"]["method"] == "diptych.v1.RetrievalService/Search"
                && !line["fields"]["code"].is_null()
        };
        let lines: Vec<&Value> = lines.iter().filter(of_search).collect();
        let told: Vec<&str> = lines.iter().map(|line| line["span"]["id"].as_str().unwrap()).collect();
        assert_eq!(told, ids, "one line each, in {log}");
        for line in lines {
            assert_eq!((line["level"].as_str(), line["fields"]["code"].as_str()), (Some(level), Some("OK")));
            let micros = |name: &str| line["fields"][name].as_u64();
            assert!(micros("micros").unwrap() > 0, "{line}");
            let stages = ["admission_micros", "encode_micros", "search_micros", "fetch_micros"].map(micros);
            if level == "WARN" {
                let sum: u64 = stages.iter().map(|stage| stage.unwrap()).sum();
                assert!(sum <= micros("micros").unwrap(), "{line}");
            } else {
                assert_eq!(stages, [None; 4], "{line}");
            }
        }
    }
}
