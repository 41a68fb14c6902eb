//! The page that Prometheus reads: `GET /metrics` over HTTP/1.1, and nothing else.
//!
//! Bounded like everything that listens: few connections, one request each, little time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use diptych_engine::Engine;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Metrics;

const CONNECTIONS_MAX: usize = 8;
/// For one request and its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_BYTES_MAX: usize = 16 * 1024;
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves the metrics of a server and its engine until the future is dropped.
pub async fn serve_metrics(listener: TcpListener, metrics: Metrics, engine: Arc<Engine>) -> Infallible {
    let open = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Dropped with this future, and the connections with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics could not be accepted");
                tokio::task::yield_now().await;
                continue;
            }
        };
        // Beyond the bound, the connection is closed by being dropped.
        let Ok(permit) = Arc::clone(&open).try_acquire_owned() else { continue };
        let (metrics, engine) = (metrics.clone(), Arc::clone(&engine));
        connections.spawn(async move {
            let _permit = permit;
            // Whoever left or took too long does not get an answer; nothing else depends on it.
            let _ = tokio::time::timeout(TIMEOUT, answer(stream, metrics, engine)).await;
        });
    }
}

async fn answer(stream: TcpStream, metrics: Metrics, engine: Arc<Engine>) -> Result<(), hyper::Error> {
    let service = service_fn(move |request| {
        let (metrics, engine) = (metrics.clone(), Arc::clone(&engine));
        async move { Ok::<_, Infallible>(respond(&request, metrics, engine).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn respond(
    request: &Request<Incoming>,
    metrics: Metrics,
    engine: Arc<Engine>,
) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n");
    }
    if request.method() != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "the metrics are read with GET\n");
    }
    match tokio::task::spawn_blocking(move || metrics.render(&engine)).await {
        Ok(Ok(page)) => {
            let mut response = Response::new(Full::from(page));
            let kind = header::HeaderValue::from_static(OPEN_METRICS);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "the metrics could not be read");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "the store cannot be read; the server's log says why\n")
        }
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be put together\n"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
