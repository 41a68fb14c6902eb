//! The audit log: every access, and nothing of what was said.

use std::path::Path;

use diptych_proto::v1 as wire;
use serde_json::Value;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{channel, client, code, create, ingest, record, search, stop, until};
use crate::support::Server;

fn audit_lines(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("audit.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn every_access_is_recorded_and_nothing_of_what_was_said() {
    let dir = tempfile::tempdir().unwrap();
    let writer = create(dir.path(), "write", &["--name", "writer", "--collection", "cases"]);
    let server = Server::start_with(dir.path(), &["--keys", "keys.toml", "--audit-log", "audit.jsonl"]);
    let mut client = client(&server, &writer).await;
    let items = vec![
        record("cases", "canary-key", "canary text"),
        record("cases", "b", "other"),
        record("x", "c", "d"),
    ];
    let answers = ingest(&mut client, items).await;
    assert_eq!(answers[2].error.as_ref().unwrap().code, Code::PermissionDenied as i32);
    let mut request = Request::new(search("cases", "canary query"));
    request.metadata_mut().insert("x-request-id", "from-the-client:1".parse().unwrap());
    let response = client.search(request).await.unwrap();
    assert_eq!(response.metadata().get("x-request-id").unwrap(), "from-the-client:1");
    let mut strange = Request::new(search("canary/collection", "q"));
    strange.metadata_mut().insert("x-request-id", "canary with spaces".parse().unwrap());
    client.search(strange).await.unwrap_err();
    let mut stranger = server.client().await;
    stranger.search(search("cases", "canary query")).await.unwrap_err();
    let channel = channel(&server).await;
    let no_method = "/diptych.v1.RetrievalService/Canary";
    assert_eq!(code(&channel, no_method, Some(&format!("Bearer {writer}"))).await, Code::PermissionDenied);
    assert_eq!(code(&channel, "/grpc.health.v1.Health/Check", None).await, Code::Ok);
    // Lines of streams are written as they end.
    stop(server).await;

    let lines = audit_lines(dir.path());
    let shown: Vec<(&str, &str, Option<&str>, &str, u64)> = lines
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap_or("");
            let method = text("method").rsplit('/').next().unwrap();
            (text("event"), method, line["key"].as_str(), text("code"), line["records"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("begin", "Ingest", Some("writer"), "", 0),
            ("end", "Ingest", Some("writer"), "OK", 2),
            ("end", "Search", Some("writer"), "OK", 2),
            ("end", "Search", Some("writer"), "PERMISSION_DENIED", 0),
            ("end", "Search", None, "UNAUTHENTICATED", 0),
            ("end", "unknown", Some("writer"), "PERMISSION_DENIED", 0),
        ]
    );
    assert_eq!(lines[1]["collections"], serde_json::json!(["cases", "x"]));
    assert_eq!(lines[2]["request_id"], "from-the-client:1");
    assert!(lines.iter().all(|line| line["peer"].as_str().unwrap().starts_with("127.0.0.1:")));
    assert!(lines.iter().all(|line| line["time"].is_string() && line["micros"].is_u64()));
    let text = std::fs::read_to_string(dir.path().join("audit.jsonl")).unwrap().to_lowercase();
    assert!(!text.contains("canary"), "{text}");
    assert!(!text.contains(writer.rsplit_once('_').unwrap().1), "the log has a key");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_cannot_be_recorded_is_refused_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--audit-log", "audit.jsonl"]);
    let mut client = server.client().await;
    client.stats(wire::StatsRequest {}).await.unwrap();
    // A device that is always full takes the place of the file.
    let path = dir.path().join("audit.jsonl");
    std::fs::rename(&path, dir.path().join("audit.jsonl.1")).unwrap();
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let refused = until("access is refused", async || client.stats(wire::StatsRequest {}).await.err()).await;
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("audit log"), "{}", refused.message());
    let mut answers =
        client.ingest(tokio_stream::once(record("", "a", "one"))).await.err().into_iter().collect::<Vec<_>>();
    assert_eq!(answers.pop().map(|status| status.code()), Some(Code::Unavailable));
    let health = HealthClient::new(channel(&server).await).check(HealthCheckRequest::default()).await;
    assert!(health.is_ok(), "health is no access to data");

    std::fs::remove_file(&path).unwrap();
    let stats =
        until("access is recorded again", async || client.stats(wire::StatsRequest {}).await.ok()).await;
    assert!(stats.into_inner().collections.is_empty(), "nothing was stored meanwhile");
    assert_eq!(audit_lines(dir.path())[0]["event"], "resume");
    let log = stop(server).await;
    assert!(log.contains("the audit log cannot be written"), "{log}");
}
