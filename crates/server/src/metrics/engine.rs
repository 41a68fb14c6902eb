//! What the engine reports of itself, as metrics: asked when a scrape comes, kept nowhere.

use std::sync::atomic::AtomicU64;

use diptych_engine::{
    Direction, Engine, EngineError, IndexReport, Overview, QueryKind, RecallReport, Urgency,
};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Whole = Gauge<u64, AtomicU64>;
type Share = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Place {
    collection: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Part {
    collection: String,
    modality: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartState {
    collection: String,
    modality: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartKind {
    collection: String,
    modality: &'static str,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Way {
    collection: String,
    query: &'static str,
    target: &'static str,
    filtered: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WayBound {
    collection: String,
    query: &'static str,
    target: &'static str,
    filtered: bool,
    bound: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waiting {
    urgency: &'static str,
}

/// The engine's figures of this moment.
pub(super) fn registry(engine: &Engine) -> Result<Registry, EngineError> {
    let overview = engine.overview()?;
    let mut registry = Registry::with_prefix("diptych");
    queue(&mut registry, engine);
    texts(&mut registry, &overview);
    records(&mut registry, &overview);
    indexes(&mut registry, &overview.indexes);
    recall(&mut registry, &overview.recall);
    let bytes = Whole::default();
    bytes.set(engine.store_bytes());
    registry.register("store_bytes", "Bytes of the store's files, indexes not included", bytes);
    Ok(registry)
}

fn queue(registry: &mut Registry, engine: &Engine) {
    let waiting = Family::<Waiting, Whole>::default();
    for (name, urgency) in [("search", Urgency::Search), ("ingest", Urgency::Ingest)] {
        waiting.get_or_create(&Waiting { urgency: name }).set(engine.waiting(urgency) as u64);
    }
    registry.register("encoder_waiting", "Jobs that wait for the model", waiting);
}

fn texts(registry: &mut Registry, overview: &Overview) {
    let mut count = |name, help, value| {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    };
    let cache = &overview.query_cache;
    count("query_cache_hits", "Query texts answered without the model", cache.hits);
    count("query_cache_misses", "Query texts that the model had to embed", cache.misses);
    let texts = &overview.texts;
    count("queries_truncated", "Query texts longer than the model's context", texts.truncated_queries);
    for (name, help, value) in [
        ("query_cache_entries", "Embeddings of query texts that are kept", cache.entries),
        ("query_cache_bytes", "Memory that they take", cache.bytes),
    ] {
        let gauge = Whole::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    }
}

fn records(registry: &mut Registry, overview: &Overview) {
    let (records, points) = (Family::<Place, Whole>::default(), Family::<Part, Whole>::default());
    for (name, stats) in &overview.collections {
        let collection = name.to_string();
        records.get_or_create(&Place { collection: collection.clone() }).set(stats.records);
        for (modality, count) in [("image", stats.image_points), ("text", stats.text_points)] {
            points.get_or_create(&Part { collection: collection.clone(), modality }).set(count);
        }
    }
    registry.register("records", "Records that are stored", records);
    registry.register("points", "Images, texts and chunks of texts that are stored", points);
}

fn indexes(registry: &mut Registry, reports: &[IndexReport]) {
    let (points, bytes) = (Family::<PartState, Whole>::default(), Family::<PartKind, Whole>::default());
    for report in reports {
        let (collection, modality) = (report.collection.to_string(), report.modality.as_str());
        let stats = &report.stats;
        for (state, count) in [
            ("live", stats.live),
            ("sealing", stats.sealing),
            ("sealed", stats.segments.iter().sum()),
            ("tombstone", report.tombstones),
            ("straggler", report.stragglers),
        ] {
            let labels = PartState { collection: collection.clone(), modality, state };
            points.get_or_create(&labels).set(count as u64);
        }
        for (kind, count) in [("hot", stats.hot_bytes), ("vector", stats.vector_bytes)] {
            let labels = PartKind { collection: collection.clone(), modality, kind };
            bytes.get_or_create(&labels).set(count as u64);
        }
    }
    registry.register("index_points", "Points of an index by what has become of them", points);
    registry.register("index_bytes", "Bytes of an index's segments", bytes);
}

fn recall(registry: &mut Registry, reports: &[RecallReport]) {
    let searches = Family::<Way, Counter>::default();
    let measured = Family::<Way, Counter>::default();
    let dropped = Family::<Way, Counter>::default();
    let ratio = Family::<WayBound, Share>::default();
    for report in reports {
        let way = way(report);
        searches.get_or_create(&way).inc_by(report.searches);
        measured.get_or_create(&way).inc_by(report.measured);
        dropped.get_or_create(&way).inc_by(report.dropped);
        let Some(latest) = report.latest else { continue };
        for (bound, share) in [("mean", latest.mean), ("low", latest.low), ("high", latest.high)] {
            let Way { collection, query, target, filtered } = way.clone();
            ratio.get_or_create(&WayBound { collection, query, target, filtered, bound }).set(share);
        }
    }
    registry.register("searches", "Searches by what they started from and what they searched", searches);
    registry.register("recall_measured", "Searches that were repeated exactly", measured);
    registry.register("recall_dropped", "Searches that were drawn to be repeated but were not", dropped);
    registry.register(
        "recall_ratio",
        "Share of the true answer that the latest repeated searches had found, with its 95 % interval",
        ratio,
    );
}

fn way(report: &RecallReport) -> Way {
    let Direction { from, to, filtered } = report.direction;
    let query = match from {
        QueryKind::Image => "image",
        QueryKind::Text => "text",
        QueryKind::Vector => "vector",
    };
    Way { collection: report.collection.to_string(), query, target: to.as_str(), filtered }
}
