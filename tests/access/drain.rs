//! How a server stops.

use diptych_proto::v1 as wire;
use tempfile::TempDir;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{channel, record, until};
use crate::support::{Server, succeed};

/// A server with a stream of its own in work, and a watcher of its health.
struct Busy {
    dir: TempDir,
    server: Server,
    send: tokio::sync::mpsc::Sender<wire::IngestRequest>,
    answers: tonic::Streaming<wire::IngestResponse>,
    health: tonic::Streaming<tonic_health::pb::HealthCheckResponse>,
}

async fn busy(more: &[&str]) -> Busy {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), more);
    let watching = HealthClient::new(channel(&server).await).watch(HealthCheckRequest::default()).await;
    let mut health = watching.unwrap().into_inner();
    assert_eq!(health.message().await.unwrap().unwrap().status, 1, "SERVING");
    let (send, items) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(items);
    let mut answers = server.client().await.ingest(stream).await.unwrap().into_inner();
    send.send(record("", "before", "one")).await.unwrap();
    assert!(answers.message().await.unwrap().unwrap().error.is_none());
    Busy { dir, server, send, answers, health }
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_says_so_and_finishes_what_is_in_work() {
    let Busy { dir, server, send, mut answers, mut health } = busy(&[]).await;
    let stopping = tokio::task::spawn_blocking(move || server.stop());
    assert_eq!(health.message().await.unwrap().unwrap().status, 2, "NOT_SERVING");
    assert!(health.message().await.unwrap().is_none(), "there is nothing more to say");
    send.send(record("", "after", "two")).await.unwrap();
    assert!(answers.message().await.unwrap().unwrap().error.is_none());
    drop(send);
    assert!(answers.message().await.unwrap().is_none());
    assert_eq!(stopping.await.unwrap().code(), Some(0));
    let said = succeed(dir.path(), &["verify", "--data", "data"]);
    assert!(said.contains("2 records"), "{said}");
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_cuts_off_what_takes_too_long() {
    let Busy { dir, server, send, mut answers, .. } = busy(&["--drain-time", "0"]).await;
    let status = tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(answers.message().await.is_err(), "the stream was cut off");
    drop(send);
    let said = succeed(dir.path(), &["verify", "--data", "data"]);
    assert!(said.contains("1 record,"), "what was acknowledged is there: {said}");
}

#[tokio::test]
async fn health_says_not_serving_while_requests_are_still_taken() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--drain-notice", "3600", "--drain-time", "0"]);
    let (mut client, channel) = (server.client().await, channel(&server).await);
    server.signal("TERM");
    let mut health = HealthClient::new(channel);
    until("health says so", async || {
        let answer = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
        (answer.status == 2).then_some(())
    })
    .await;
    client.stats(wire::StatsRequest {}).await.unwrap();
    server.client().await.stats(wire::StatsRequest {}).await.unwrap();
}
