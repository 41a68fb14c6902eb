//! gRPC over the engine.
//!
//! Owns the wire: the services of `diptych.v1`, health that runs inference, reflection, limits on
//! connections and requests, metrics and a line of log for each request, the conversion between wire and
//! core (all of it in `convert`, less what clients need too), and the
//! mapping of errors to codes (all of it in `status`). The only async crate: engine calls run on
//! blocking threads, and the model has its own.
//! Deliberately absent: the listening socket, signals and configuration, which the caller owns.

mod access;
mod backup;
mod cases;
mod collections;
mod connections;
mod convert;
mod groups;
mod health;
mod metrics;
mod observe;
mod operations;
mod queries;
mod service;
mod status;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use diptych_core::limits::IMAGE_BYTES_MAX;
use diptych_engine::Engine;
use diptych_proto::FILE_DESCRIPTOR_SET;
use diptych_proto::v1::backup_service_server::BackupServiceServer;
use diptych_proto::v1::case_service_server::CaseServiceServer;
use diptych_proto::v1::collection_service_server::CollectionServiceServer;
use diptych_proto::v1::operation_service_server::OperationServiceServer;
use diptych_proto::v1::retrieval_service_server::RetrievalServiceServer;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint, Server};
use tower::service_fn;

use observe::ObserveLayer;

pub use access::{
    AccessError, AccessOptions, KeyError, KeyLimits, KeyRecord, NewKey, Role, TlsError, TlsOptions,
    create_key, list_keys, revoke_key,
};
pub use convert::{index_to_wire, vector_record_from_wire, vector_record_to_wire};
pub use metrics::{Metrics, serve_metrics};

/// Bounds of a server. Past them it refuses, it does not queue.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Open connections.
    pub connections_max: usize,
    /// Streams on one connection.
    pub streams_per_connection_max: u32,
    /// Requests in work.
    pub requests_max: usize,
    /// Longest time to the first byte of an answer.
    pub timeout: Duration,
    /// Unary requests that take longer are logged at the level of warnings, with the time of each stage.
    pub slow: Option<Duration>,
    /// Where requests and connections are counted.
    pub metrics: Metrics,
    /// Who may reach the server.
    pub access: AccessOptions,
    /// How long health says NOT_SERVING before the server takes no more requests, so that those who
    /// spread them notice.
    pub drain_notice: Duration,
    /// How long requests in work may take after that before they are cut off.
    pub drain_time: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            connections_max: 256,
            streams_per_connection_max: 64,
            requests_max: 64,
            timeout: Duration::from_secs(30),
            slow: Some(Duration::from_secs(1)),
            metrics: Metrics::default(),
            access: AccessOptions::default(),
            drain_notice: Duration::ZERO,
            drain_time: Duration::from_secs(30),
        }
    }
}

/// A message holds one image and what surrounds it.
const MESSAGE_BYTES_MAX: usize = IMAGE_BYTES_MAX + (1 << 20);

/// Serves until `shutdown` resolves. Then health turns to NOT_SERVING, no more requests are taken
/// after the notice, and those in work are finished, or cut off when their time is over. Engine calls
/// that are cut off still run: whoever ends the runtime need not wait for them, since what was
/// acknowledged is durable.
///
/// # Errors
/// When the options do not allow to listen there, or when the transport fails.
pub async fn run(
    listener: TcpListener,
    engine: Arc<Engine>,
    options: ServerOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let gate = access::Gate::open(&options.access, listener.local_addr()?)?;
    let incoming =
        connections::accept(listener, options.connections_max, gate.tls(), options.metrics.clone());
    let shared = service::Retrieval::new(Arc::clone(&engine), options.requests_max);
    let collections = collections::Collections(shared.clone());
    let backups = backup::Backups(shared.clone());
    let cases = CaseServiceServer::new(access::Scoped(cases::Cases(shared.clone())))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let retrieval = RetrievalServiceServer::new(access::Scoped(shared.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let observe = ObserveLayer::new(options.metrics, options.slow, options.timeout);
    let (stop, stopping) = watch::channel(false);
    let (drain, draining) = oneshot::channel();
    let closing = async {
        shutdown.await;
        stop.send_replace(true);
        tokio::time::sleep(options.drain_notice).await;
        // Whoever waits for it is the select below.
        let _ = drain.send(());
    };
    let served = Server::builder()
        // The outermost layer, so that what another refuses is counted too.
        .layer(observe)
        .max_concurrent_streams(options.streams_per_connection_max)
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
        .http2_max_header_list_size(16 * 1024)
        .layer(gate.layer(options.timeout))
        .add_service(retrieval)
        .add_service(cases)
        .add_service(CollectionServiceServer::new(access::Scoped(collections.clone())))
        .add_service(OperationServiceServer::new(access::Scoped(collections)))
        .add_service(
            BackupServiceServer::new(access::Scoped(backups)).max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(health::service(engine, stopping))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(incoming, closing);
    let overdue = async {
        match draining.await {
            Ok(()) => tokio::time::sleep(options.drain_time).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = served => served?,
        () = overdue => {
            tracing::warn!(after = ?options.drain_time, "requests that were still in work were cut off");
        }
    }
    shared.operations().cancel_all();
    Ok(())
}

/// A channel to the services over an engine in this process, without a socket; for a single command.
///
/// # Errors
/// When the two ends cannot be joined.
pub async fn in_process(engine: Arc<Engine>) -> Result<Channel, Box<dyn std::error::Error + Send + Sync>> {
    let retrieval = service::Retrieval::new(engine, ServerOptions::default().requests_max);
    let collections = collections::Collections(retrieval.clone());
    let backups = backup::Backups(retrieval.clone());
    let cases = CaseServiceServer::new(cases::Cases(retrieval.clone()));
    let (client, server) = tokio::io::duplex(64 * 1024);
    let gate = access::Gate::open(&AccessOptions::default(), ([127, 0, 0, 1], 0).into())?;
    let served = Server::builder()
        .layer(gate.layer(Duration::MAX))
        .add_service(RetrievalServiceServer::new(retrieval).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(cases.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(CollectionServiceServer::new(collections.clone()))
        .add_service(OperationServiceServer::new(collections))
        .add_service(BackupServiceServer::new(backups).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .serve_with_incoming(tokio_stream::once(Ok::<_, std::io::Error>(server)));
    tokio::spawn(served);
    let mut client = Some(client);
    let connect = service_fn(move |_| {
        let end = client.take().map(TokioIo::new);
        // There is one connection; without it the command has ended.
        async move { end.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)) }
    });
    Endpoint::from_static("http://in.process").connect_with_connector(connect).await.map_err(Into::into)
}
