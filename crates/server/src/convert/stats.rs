//! What a server holds.

use diptych_engine::{
    CacheStats, Estimate, IndexReport, IndexStats, Overview, QueryKind, RecallReport, RelevanceReport,
    Reliability, ReliabilityBin, TextTotals,
};
use diptych_proto::convert::modality_to_wire;
use diptych_proto::v1 as wire;

pub(crate) fn overview_to_wire(overview: Overview) -> wire::StatsResponse {
    let (mut recall, mut indexes) = (overview.recall, overview.indexes);
    let mut relevance = overview.relevance;
    wire::StatsResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model_id: overview.model_id.to_string(),
        dimension: u32::try_from(overview.dim).unwrap_or(u32::MAX),
        collections: overview
            .collections
            .into_iter()
            .map(|(name, stats)| wire::CollectionStats {
                name: name.to_string(),
                records: stats.records,
                image_points: stats.image_points,
                text_points: stats.text_points,
                truncated_texts: stats.truncated_texts,
                recall: recall.extract_if(.., |r| r.collection == name).map(recall_to_wire).collect(),
                relevance: relevance
                    .extract_if(.., |r| r.collection == name)
                    .map(|report| relevance_to_wire(&report))
                    .collect(),
                indexes: indexes
                    .extract_if(.., |i| i.collection == name)
                    .map(|index| index_to_wire(&index))
                    .collect(),
            })
            .collect(),
        encoding: Some(encoding_to_wire(overview.texts, overview.query_cache)),
        recall_sample: overview.recall_sample,
    }
}

/// What an index is made of.
pub fn index_to_wire(report: &IndexReport) -> wire::IndexStats {
    let IndexStats { live, sealing, segments, links, added_links, hot_bytes, vector_bytes } = &report.stats;
    wire::IndexStats {
        modality: modality_to_wire(report.modality),
        segment_points: segments.iter().map(|&points| points as u64).collect(),
        live_points: *live as u64,
        sealing_points: *sealing as u64,
        links: *links as u64,
        added_links: *added_links as u64,
        hot_bytes: *hot_bytes as u64,
        vector_bytes: *vector_bytes as u64,
        tombstones: report.tombstones as u64,
        stragglers: report.stragglers as u64,
    }
}

fn recall_to_wire(report: RecallReport) -> wire::DirectionRecall {
    let query_kind = match report.direction.from {
        QueryKind::Image => wire::QueryKind::Image,
        QueryKind::Text => wire::QueryKind::Text,
        QueryKind::Vector => wire::QueryKind::Vector,
    };
    let rung = |(ef, recall)| wire::LadderRung { ef: ef as u64, recall: Some(estimate_to_wire(recall)) };
    wire::DirectionRecall {
        query_kind: query_kind as i32,
        target: modality_to_wire(report.direction.to),
        filtered: report.direction.filtered,
        searches: report.searches,
        measured: report.measured,
        dropped: report.dropped,
        mean: report.mean,
        latest: report.latest.map(estimate_to_wire),
        ladder: report.ladder.into_iter().map(rung).collect(),
    }
}

fn estimate_to_wire(Estimate { mean, low, high, queries }: Estimate) -> wire::RecallEstimate {
    wire::RecallEstimate { mean, low, high, queries: queries as u64 }
}

fn encoding_to_wire(texts: TextTotals, cache: CacheStats) -> wire::EncodingStats {
    let CacheStats { hits, misses, entries, bytes } = cache;
    wire::EncodingStats {
        truncated_texts: texts.ingested.truncated,
        split_texts: texts.ingested.split,
        text_chunks: texts.ingested.chunks,
        truncated_queries: texts.truncated_queries,
        query_cache: Some(wire::QueryCacheStats { hits, misses, entries, bytes }),
    }
}

fn relevance_to_wire(report: &RelevanceReport) -> wire::DirectionRelevance {
    let calibration = &report.calibration;
    wire::DirectionRelevance {
        source: modality_to_wire(report.from),
        target: modality_to_wire(report.to),
        questions: calibration.questions as u64,
        points: calibration.points as u64,
        hits: Some(reliability_to_wire(&calibration.reliability)),
        first_hits: Some(reliability_to_wire(&calibration.first_hits)),
    }
}

fn reliability_to_wire(reliability: &Reliability) -> wire::Reliability {
    let bin = |&ReliabilityBin { predicted, observed, hits }: &ReliabilityBin| wire::ReliabilityBin {
        predicted,
        observed,
        hits: hits as u64,
    };
    wire::Reliability {
        expected_calibration_error: reliability.error,
        bins: reliability.bins.iter().map(bin).collect(),
    }
}
