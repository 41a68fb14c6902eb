//! One request in work: what is known of it, and what is written when it ends.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use diptych_engine::SearchTimes;
use diptych_proto::v1 as wire;
use tonic::Code;
use tracing::Span;

use super::method::Method;
use super::{RequestId, micros};
use crate::Metrics;
use crate::metrics::Stage;
use crate::status::name_of;

/// A request in work.
pub(super) struct Work {
    metrics: Metrics,
    method: Method,
    arrived: Instant,
    slow: Option<Duration>,
    span: Span,
    spent: Mutex<Spent>,
}

/// Where the time of a request went so far.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    admission: Option<Duration>,
    search: SearchTimes,
}

impl Work {
    pub(super) fn new(metrics: Metrics, method: Method, id: &RequestId, slow: Option<Duration>) -> Self {
        metrics.request_begins();
        let span = tracing::info_span!("request", id = id.as_str(), method = &*method.name);
        Self { metrics, method, arrived: Instant::now(), slow, span, spent: Mutex::default() }
    }

    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    fn finish(&self, code: Code) {
        let (code, took) = (name_of(code), self.arrived.elapsed());
        self.metrics.request_ends(&self.method.name, code, (!self.method.streams).then_some(took));
        let Spent { admission, search } = *self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let is_slow = !self.method.streams && self.slow.is_some_and(|slow| took > slow);
        let _entered = self.span.enter();
        if is_slow {
            tracing::warn!(
                code,
                micros = micros(took),
                admission_micros = micros(admission.unwrap_or_default()),
                encode_micros = micros(search.encode),
                search_micros = micros(search.search),
                lexical_micros = micros(search.lexical),
                fetch_micros = micros(search.fetch),
                "a slow request"
            );
        } else {
            tracing::debug!(code, micros = micros(took), "a request");
        }
    }
}

/// A request whose end has not been seen yet. Dropped without one, it was given up: by the client, or
/// because its time was over.
pub(super) struct Unfinished {
    work: Option<Arc<Work>>,
    timeout: Duration,
}

impl Unfinished {
    pub(super) fn new(work: Arc<Work>, timeout: Duration) -> Self {
        Self { work: Some(work), timeout }
    }

    pub(super) fn finish(mut self, code: Code) {
        if let Some(work) = self.work.take() {
            work.finish(code);
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        // A stream has had its first byte in time, and then lasts as long as both sides want.
        let late = !work.method.streams && work.arrived.elapsed() >= self.timeout;
        work.finish(if late { Code::DeadlineExceeded } else { Code::Cancelled });
    }
}

tokio::task_local! {
    static CURRENT: Arc<Work>;
}

/// The request that the current task works on, to be told what only its handler knows. Taken in the
/// handler, it can go to other threads.
#[derive(Clone)]
pub(crate) struct Observed(Option<Arc<Work>>);

impl Observed {
    /// The request of the task that calls; none outside the layer, where telling it does nothing.
    pub(crate) fn current() -> Self {
        Self(CURRENT.try_with(Arc::clone).ok())
    }

    pub(super) fn scope<F: Future>(work: Arc<Work>, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(work, future)
    }

    /// Runs the request's work in the engine, whose log lines then name the request. Everything before
    /// the first is counted as admission.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let Some(request) = &self.0 else { return work() };
        let waited = request.arrived.elapsed();
        let first = {
            let mut spent = request.spent.lock().unwrap_or_else(PoisonError::into_inner);
            spent.admission.replace(waited).is_none()
        };
        if first {
            request.metrics.stage(&request.method.name, Stage::Admission, waited);
        }
        request.span.in_scope(work)
    }

    /// A search of the request has been answered.
    pub(crate) fn searched(&self, times: &SearchTimes) {
        let Some(request) = &self.0 else { return };
        for (stage, time) in
            [(Stage::Encode, times.encode), (Stage::Search, times.search), (Stage::Fetch, times.fetch)]
        {
            request.metrics.stage(&request.method.name, stage, time);
        }
        // Few searches ask for words.
        if !times.lexical.is_zero() {
            request.metrics.stage(&request.method.name, Stage::Lexical, times.lexical);
        }
        let mut spent = request.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.search.encode += times.encode;
        spent.search.search += times.search;
        spent.search.fetch += times.fetch;
        spent.search.lexical += times.lexical;
    }

    /// Items of the request have been answered.
    pub(crate) fn ingested(&self, answers: &[wire::IngestResponse]) {
        let Some(request) = &self.0 else { return };
        for answer in answers {
            request.metrics.item(match answer.outcome() {
                wire::WriteOutcome::Created => "created",
                wire::WriteOutcome::Updated => "updated",
                wire::WriteOutcome::Unchanged => "unchanged",
                wire::WriteOutcome::Unspecified => "failed",
            });
        }
    }
}
