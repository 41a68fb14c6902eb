//! `grpc.health.v1` that runs inference: SERVING means that both towers answered just now. A server
//! that is about to stop says NOT_SERVING before it takes no more connections.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diptych_engine::{Engine, EngineError, Urgency};
use tokio::sync::{Mutex, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// A one-pixel image as plain text, which every encoder can read.
const PROBE_IMAGE: &[u8] = b"P3 1 1 255 128 128 128\n";
const PROBE_TEXT: &str = "a";
/// How long an answer stands, so that probes cannot crowd out work.
const FRESH: Duration = Duration::from_secs(1);
/// How often a watcher's status is taken anew.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);

const SERVICES: [&str; 4] =
    ["", "diptych.v1.RetrievalService", "diptych.v1.CollectionService", "diptych.v1.OperationService"];

/// `stopping` turns true when the server is about to stop.
pub(crate) fn service(engine: Arc<Engine>, stopping: watch::Receiver<bool>) -> HealthServer<InferenceHealth> {
    HealthServer::new(InferenceHealth { state: Arc::new(State { engine, stopping, last: Mutex::new(None) }) })
}

pub(crate) struct InferenceHealth {
    state: Arc<State>,
}

struct State {
    engine: Arc<Engine>,
    stopping: watch::Receiver<bool>,
    last: Mutex<Option<(Instant, ServingStatus)>>,
}

impl State {
    async fn status(self: &Arc<Self>) -> ServingStatus {
        if *self.stopping.borrow() {
            return ServingStatus::NotServing;
        }
        // Held across the probe on purpose: those who ask meanwhile wait for its answer.
        let mut last = self.last.lock().await;
        if let Some((at, status)) = *last
            && at.elapsed() < FRESH
        {
            return status;
        }
        let engine = Arc::clone(&self.engine);
        let status = match tokio::task::spawn_blocking(move || probe(&engine)).await {
            // Busy is alive: the queue in front of the model is full because it works.
            Ok(Ok(()) | Err(EngineError::Overloaded { .. })) => ServingStatus::Serving,
            Ok(Err(error)) => {
                tracing::error!(%error, "the health probe failed");
                ServingStatus::NotServing
            }
            Err(_) => ServingStatus::NotServing,
        };
        *last = Some((Instant::now(), status));
        status
    }
}

fn probe(engine: &Engine) -> Result<(), EngineError> {
    let image = engine.encoder().prepare_image(PROBE_IMAGE)?;
    let text = engine.encoder().prepare_text(PROBE_TEXT)?;
    engine.embed(vec![image], vec![text], Urgency::Search)?;
    engine.overview()?;
    Ok(())
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    let status = match status {
        ServingStatus::Unknown => 0,
        ServingStatus::Serving => 1,
        ServingStatus::NotServing => 2,
    };
    HealthCheckResponse { status }
}

/// `SERVICE_UNKNOWN`, which `Watch` answers for a name that is not served.
const SERVICE_UNKNOWN: i32 = 3;

#[tonic::async_trait]
impl Health for InferenceHealth {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            return Err(Status::not_found(format!(
                "there is no service '{service}'; ask for '' or '{}'",
                SERVICES[1]
            )));
        }
        Ok(Response::new(response(self.state.status().await)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = SERVICES.contains(&request.into_inner().service.as_str());
        let state = Arc::clone(&self.state);
        let (send, statuses) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(WATCH_INTERVAL);
            let mut told = None;
            let mut stopping = state.stopping.clone();
            loop {
                let stop = tokio::select! {
                    _ = interval.tick() => false,
                    _ = stopping.wait_for(|stopping| *stopping) => true,
                    () = send.closed() => return,
                };
                let now = if known {
                    response(state.status().await)
                } else {
                    HealthCheckResponse { status: SERVICE_UNKNOWN }
                };
                if told.replace(now.status) != Some(now.status) && send.send(now).await.is_err() {
                    return;
                }
                // The last word; a stream that goes on would keep the server from stopping.
                if stop {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(statuses).map(Ok))))
    }
}
