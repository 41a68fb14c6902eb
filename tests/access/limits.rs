//! What one key may ask for before it is told to come back later.

use std::time::Duration;

use diptych_proto::v1 as wire;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use super::{Bearer, channel, client, create, record, until};
use crate::support::Server;

#[tokio::test]
async fn a_key_that_asks_too_fast_is_told_when_to_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (hasty, other) = (create(dir.path(), "read", &[]), create(dir.path(), "read", &[]));
    let limits = ["--keys", "keys.toml", "--rate-limit", "0.01", "--rate-burst", "2"];
    let server = Server::start_with(dir.path(), &limits);
    let mut client_1 = client(&server, &hasty).await;
    for _ in 0..2 {
        client_1.stats(wire::StatsRequest {}).await.unwrap();
    }
    let status = client_1.stats(wire::StatsRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("0.01 requests per second"), "{}", status.message());
    let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!((Duration::from_secs(1)..=Duration::from_secs(100)).contains(&wait), "{wait:?}");
    let mut client_2 = client(&server, &other).await;
    client_2.stats(wire::StatsRequest {}).await.unwrap();
    // Probes are not counted: a busy client must not make its server look dead.
    let mut health = HealthClient::with_interceptor(channel(&server).await, Bearer(hasty));
    for _ in 0..5 {
        health.check(HealthCheckRequest::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_key_has_so_many_requests_in_work_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let (busy, other) = (create(dir.path(), "write", &[]), create(dir.path(), "read", &[]));
    let server = Server::start_with(dir.path(), &["--keys", "keys.toml", "--key-concurrency", "1"]);
    let mut client_1 = client(&server, &busy).await;
    let (send, items) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(items);
    let mut answers = client_1.ingest(stream).await.unwrap().into_inner();
    send.send(record("", "a", "one")).await.unwrap();
    assert!(answers.message().await.unwrap().unwrap().error.is_none());
    let status = client_1.stats(wire::StatsRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("1 requests of this key are in work"), "{}", status.message());
    assert!(status.get_details_retry_info().is_some());
    client(&server, &other).await.stats(wire::StatsRequest {}).await.unwrap();
    drop(send);
    assert!(answers.message().await.unwrap().is_none());
    until("the place is free", async || client_1.stats(wire::StatsRequest {}).await.ok()).await;
}
