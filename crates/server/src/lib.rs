//! gRPC over the engine.
//!
//! Owns the wire: the service `diptych.v1`, health that runs inference, reflection, limits on
//! connections and requests, metrics and a line of log for each request, the conversion between wire and core (all of it in `convert`), and the
//! mapping of errors to codes (all of it in `status`). The only async crate: engine calls run on
//! blocking threads, and the model has its own.
//! Deliberately absent: the listening socket, signals and configuration, which the caller owns.

mod connections;
mod convert;
mod health;
mod metrics;
mod observe;
mod service;
mod status;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use diptych_core::limits::IMAGE_BYTES_MAX;
use diptych_engine::Engine;
use diptych_proto::FILE_DESCRIPTOR_SET;
use diptych_proto::v1::retrieval_service_server::RetrievalServiceServer;
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;

use observe::ObserveLayer;

pub use convert::{
    attributes_from_wire, attributes_to_wire, filter_to_wire, index_to_wire, modality_from_wire,
    modality_to_wire, plan_from_wire,
};
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
        }
    }
}

/// A message holds one image and what surrounds it.
const MESSAGE_BYTES_MAX: usize = IMAGE_BYTES_MAX + (1 << 20);

/// Serves until `shutdown` resolves, then finishes the requests in work.
///
/// # Errors
/// When the transport fails.
pub async fn run(
    listener: TcpListener,
    engine: Arc<Engine>,
    options: ServerOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let retrieval = service::Retrieval::new(Arc::clone(&engine), options.requests_max);
    let retrieval = RetrievalServiceServer::new(retrieval)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let observe = ObserveLayer::new(options.metrics.clone(), options.slow, options.timeout);
    let connections = connections::accept(listener, options.connections_max, options.metrics);
    Server::builder()
        // The outermost layer, so that what another refuses is counted too.
        .layer(observe)
        .timeout(options.timeout)
        .max_concurrent_streams(options.streams_per_connection_max)
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
        .http2_max_header_list_size(16 * 1024)
        .add_service(retrieval)
        .add_service(health::service(engine))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(connections, shutdown)
        .await?;
    Ok(())
}
