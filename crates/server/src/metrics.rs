//! What is counted, and how it is written for Prometheus.
//!
//! Owns the counters and histograms that requests move (`observe` moves them, from one layer around all
//! services) and the page that a scrape reads. What the engine knows of itself is asked when a scrape
//! comes (`engine`). Labels hold names of methods, codes, stages, collections and directions: never
//! a key, a text or anything else that a record or a query consists of.
//! Deliberately absent: the listening socket, which the caller owns.

mod engine;
mod page;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use diptych_engine::{Engine, EngineError};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use page::serve_metrics;

/// Upper bounds of the histograms, in seconds: from a cached query to the longest timeout that is usual.
const BUCKETS: [f64; 19] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

/// The counters of one server. Clones count together.
#[derive(Clone)]
pub struct Metrics(Arc<Counts>);

struct Counts {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<MethodLabels, Histogram, Seconds>,
    stages: Family<StageLabels, Histogram, Seconds>,
    in_work: Gauge,
    items: Family<OutcomeLabels, Counter>,
    connections: Gauge,
    refused: Counter,
    registry: Registry,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: Arc<str>,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    method: Arc<str>,
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, Copy)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BUCKETS)
    }
}

/// A part of a request's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// From the request's head to the beginning of its work in the engine.
    Admission,
    /// From a query to its vector.
    Encode,
    /// In the index.
    Search,
    /// Looking up words.
    Lexical,
    /// Reading hits from the store.
    Fetch,
}

impl Stage {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Encode => "encode",
            Self::Search => "search",
            Self::Lexical => "lexical",
            Self::Fetch => "fetch",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut counts = Counts {
            requests: Family::default(),
            seconds: Family::new_with_constructor(Seconds),
            stages: Family::new_with_constructor(Seconds),
            in_work: Gauge::default(),
            items: Family::default(),
            connections: Gauge::default(),
            refused: Counter::default(),
            registry: Registry::with_prefix("diptych"),
        };
        let Counts { requests, seconds, stages, in_work, items, connections, refused, registry } =
            &mut counts;
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What the server was built from", version);
        registry.register("requests", "Requests that were answered or given up", requests.clone());
        let help = "Time from a unary request's head to the end of its answer";
        registry.register("request_seconds", help, seconds.clone());
        registry.register("stage_seconds", "Time of one stage of a request", stages.clone());
        registry.register("requests_in_work", "Requests and streams that are open", in_work.clone());
        registry.register("ingest_items", "Items of ingest streams that were answered", items.clone());
        registry.register("connections", "Open connections", connections.clone());
        registry.register(
            "connections_refused",
            "Connections closed at once because too many were open",
            refused.clone(),
        );
        Self(Arc::new(counts))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Everything, the engine's own figures included, in the OpenMetrics text format.
    ///
    /// # Errors
    /// When the engine's store cannot be read.
    pub fn render(&self, engine: &Engine) -> Result<String, EngineError> {
        let of_engine = engine::registry(engine)?;
        let mut page = String::new();
        text::encode_registry(&mut page, &self.0.registry)
            .and_then(|()| text::encode_registry(&mut page, &of_engine))
            .and_then(|()| text::encode_eof(&mut page))
            .expect("a string takes everything");
        Ok(page)
    }

    /// What the server itself counts, without an engine.
    #[cfg(test)]
    pub(crate) fn page(&self) -> String {
        let mut page = String::new();
        text::encode(&mut page, &self.0.registry).expect("a string takes everything");
        page
    }

    pub(crate) fn request_begins(&self) {
        self.0.in_work.inc();
    }

    /// A request has come to its end; streams have no time of their own, they last as long as they are
    /// used.
    pub(crate) fn request_ends(&self, method: &Arc<str>, code: &'static str, time: Option<Duration>) {
        self.0.in_work.dec();
        self.0.requests.get_or_create(&RequestLabels { method: Arc::clone(method), code }).inc();
        if let Some(time) = time {
            let labels = MethodLabels { method: Arc::clone(method) };
            self.0.seconds.get_or_create(&labels).observe(time.as_secs_f64());
        }
    }

    pub(crate) fn stage(&self, method: &Arc<str>, stage: Stage, time: Duration) {
        let labels = StageLabels { method: Arc::clone(method), stage: stage.as_str() };
        self.0.stages.get_or_create(&labels).observe(time.as_secs_f64());
    }

    pub(crate) fn item(&self, outcome: &'static str) {
        self.0.items.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// A connection is open until the value is dropped.
    pub(crate) fn connection(&self) -> OpenConnection {
        self.0.connections.inc();
        OpenConnection(self.clone())
    }

    pub(crate) fn connection_refused(&self) {
        self.0.refused.inc();
    }
}

/// Counts as a connection for as long as it lives.
#[derive(Debug)]
pub(crate) struct OpenConnection(Metrics);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.0.connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_method_and_code_and_timed_unless_they_are_streams() {
        let metrics = Metrics::default();
        let (search, ingest) = (Arc::from("s/Search"), Arc::from("s/Ingest"));
        for (method, code, time) in [
            (&search, "OK", Some(3)),
            (&search, "OK", Some(700)),
            (&search, "NOT_FOUND", Some(1)),
            (&ingest, "OK", None),
        ] {
            metrics.request_begins();
            metrics.request_ends(method, code, time.map(Duration::from_millis));
        }
        metrics.request_begins();
        metrics.stage(&search, Stage::Encode, Duration::from_micros(40));
        let open = metrics.connection();
        drop(metrics.connection());
        let page = metrics.page();
        for line in [
            "diptych_requests_total{method=\"s/Search\",code=\"OK\"} 2",
            "diptych_requests_total{method=\"s/Search\",code=\"NOT_FOUND\"} 1",
            "diptych_requests_total{method=\"s/Ingest\",code=\"OK\"} 1",
            "diptych_request_seconds_count{method=\"s/Search\"} 3",
            "diptych_request_seconds_bucket{le=\"0.005\",method=\"s/Search\"} 2",
            "diptych_stage_seconds_bucket{le=\"0.00005\",method=\"s/Search\",stage=\"encode\"} 1",
            "diptych_stage_seconds_bucket{le=\"0.000025\",method=\"s/Search\",stage=\"encode\"} 0",
            "diptych_requests_in_work 1",
            "diptych_connections 1",
        ] {
            assert!(page.lines().any(|l| l == line), "no '{line}' in\n{page}");
        }
        assert!(!page.contains("diptych_request_seconds_count{method=\"s/Ingest\"}"), "streams have no time");
        drop(open);
    }
}
