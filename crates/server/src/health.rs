//! `grpc.health.v1` that runs inference: SERVING means that both towers answered just now. A server
//! that is about to stop says NOT_SERVING before it takes no more connections.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use diptych_engine::{Engine, EngineError, Urgency};
use tokio::sync::{OwnedMutexGuard, watch};
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
/// How long a good answer is given while a new probe runs: under load that waits for its turn at the model, and
/// whoever asks for health has little patience. A model that hangs is noticed when this is over.
const STALE: Duration = Duration::from_secs(10);
/// How often a watcher's status is taken anew.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);

const SERVICES: [&str; 4] =
    ["", "diptych.v1.RetrievalService", "diptych.v1.CollectionService", "diptych.v1.OperationService"];

/// `stopping` turns true when the server is about to stop.
pub(crate) fn service(engine: Arc<Engine>, stopping: watch::Receiver<bool>) -> HealthServer<InferenceHealth> {
    let (last, probing) = (Mutex::default(), Arc::default());
    HealthServer::new(InferenceHealth { state: Arc::new(State { engine, stopping, last, probing }) })
}

pub(crate) struct InferenceHealth {
    state: Arc<State>,
}

struct State {
    engine: Arc<Engine>,
    stopping: watch::Receiver<bool>,
    last: Mutex<Option<(Instant, ServingStatus)>>,
    /// Held by the one probe that runs.
    probing: Arc<tokio::sync::Mutex<()>>,
}

impl State {
    async fn status(self: &Arc<Self>) -> ServingStatus {
        if *self.stopping.borrow() {
            return ServingStatus::NotServing;
        }
        match self.known() {
            Some((age, status)) if age < FRESH => status,
            Some((age, ServingStatus::Serving)) if age < STALE => {
                if let Ok(turn) = Arc::clone(&self.probing).try_lock_owned() {
                    tokio::spawn(Arc::clone(self).probe(turn));
                }
                ServingStatus::Serving
            }
            _ => {
                // Those who ask meanwhile wait for the same answer.
                let turn = Arc::clone(&self.probing).lock_owned().await;
                match self.known() {
                    Some((age, status)) if age < FRESH => status,
                    _ => Arc::clone(self).probe(turn).await,
                }
            }
        }
    }

    /// The last answer and its age.
    fn known(&self) -> Option<(Duration, ServingStatus)> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.map(|(at, status)| (at.elapsed(), status))
    }

    async fn probe(self: Arc<Self>, _turn: OwnedMutexGuard<()>) -> ServingStatus {
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
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), status));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::await_holding_lock)]

    use diptych_core::{Embedding, Encode, EncodeError, HashEncoder, ModelId, PreparedImage, PreparedText};
    use diptych_engine::EngineOptions;
    use diptych_store::{Store, StoreOptions};

    use super::*;

    /// Embeds when it is let.
    struct Held {
        inner: HashEncoder,
        gate: Mutex<()>,
    }

    impl Encode for Held {
        fn model_id(&self) -> ModelId {
            self.inner.model_id()
        }
        fn dim(&self) -> usize {
            self.inner.dim()
        }
        fn prepare_image(&self, bytes: &[u8]) -> Result<PreparedImage, EncodeError> {
            self.inner.prepare_image(bytes)
        }
        fn prepare_text(&self, text: &str) -> Result<PreparedText, EncodeError> {
            self.inner.prepare_text(text)
        }
        fn encode_images(&self, images: &[PreparedImage]) -> Result<Vec<Embedding>, EncodeError> {
            drop(self.gate.lock().unwrap());
            self.inner.encode_images(images)
        }
        fn encode_texts(&self, texts: &[PreparedText]) -> Result<Vec<Embedding>, EncodeError> {
            self.inner.encode_texts(texts)
        }
    }

    #[tokio::test]
    async fn health_is_told_at_once_while_a_probe_waits_for_the_model() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
        let encoder = Arc::new(Held { inner: HashEncoder::new(8), gate: Mutex::new(()) });
        let engine =
            Engine::open(store, Arc::clone(&encoder) as Arc<dyn Encode>, EngineOptions::default()).unwrap();
        let (_stop, stopping) = watch::channel(false);
        let state = Arc::new(State {
            engine: Arc::new(engine),
            stopping,
            last: Mutex::default(),
            probing: Arc::default(),
        });
        assert_eq!(state.status().await, ServingStatus::Serving);
        let age = |by: Duration| {
            let mut last = state.last.lock().unwrap();
            *last = last.map(|(at, status)| (at.checked_sub(by).unwrap(), status));
        };
        // The model is busy: the answer of before stands, and one probe waits.
        let busy = encoder.gate.lock().unwrap();
        age(2 * FRESH);
        assert_eq!(state.status().await, ServingStatus::Serving);
        assert_eq!(state.status().await, ServingStatus::Serving);
        assert!(state.probing.try_lock().is_err());
        drop(busy);
        drop(state.probing.lock().await);
        assert!(state.known().unwrap().0 < FRESH);
        // What is too old, or was not good, is not told again.
        age(2 * STALE);
        assert_eq!(state.status().await, ServingStatus::Serving);
        *state.last.lock().unwrap() = Some((Instant::now(), ServingStatus::NotServing));
        age(2 * FRESH);
        assert_eq!(state.status().await, ServingStatus::Serving);
    }
}
