//! What a request takes beyond its work: the median of a search over loopback less the medians of encoding
//! and searching in the same process, asked in turns.

use std::time::{Duration, Instant};

use anyhow::Result;
use diptych_core::{CollectionName, Modality, Query, QuerySource};
use diptych_engine::SearchOutcome;
use diptych_proto::v1 as wire;
use serde_json::json;
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::measure::{connect, median, percentile, print, rounded, search, timed};
use crate::{Served, data};

/// The goals, in microseconds.
const GOALS: [(&str, f64); 2] = [("vector", 150.0), ("text", 300.0)];

pub fn run(runtime: &Runtime, served: &Served, rounds: usize, calls: usize) -> Result<()> {
    let mut client = runtime.block_on(connect(&served.url))?;
    transport(runtime, served, rounds * calls)?;
    for (kind, goal) in GOALS {
        let (mut over, mut inside, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        let mut inside_served = Vec::new();
        for round in 0..=rounds {
            let (mut whole, mut work, mut direct) = (Vec::new(), Vec::new(), Vec::new());
            let mut told = Vec::new();
            for call in 0..calls {
                // No text comes twice, so that none is known.
                let n = ((round * calls + call) * 2) as u64;
                let (found, took) = here(served, source(served, kind, n))?;
                work.push(found.times.encode + found.times.search);
                direct.push(took);
                let request = search(to_wire(source(served, kind, n + 1)));
                let asked = timed(async { Ok(client.search(request).await?) });
                let (answer, took) = runtime.block_on(asked)?;
                whole.push(took);
                let stats = answer.into_inner().stats.unwrap_or_default();
                let micros = stats.encode_micros + stats.search_micros + stats.fetch_micros;
                told.push(Duration::from_micros(micros));
            }
            // The first round warms up.
            if round > 0 {
                let [whole, work, direct] =
                    [&mut whole, &mut work, &mut direct].map(|times| percentile(times, 0.5));
                over.push(whole - work);
                inside.push(work);
                alone.push(direct);
                inside_served.push(percentile(&mut told, 0.5));
            }
        }
        print(&json!({
            "part": "overhead",
            "query": kind,
            "work_p50_micros": rounded(median(&mut inside), 0),
            "engine_p50_micros": rounded(median(&mut alone), 0),
            "stages_served_p50_micros": rounded(median(&mut inside_served), 0),
            "overhead_p50_micros": rounded(median(&mut over), 0),
            "goal_micros": goal,
        }));
    }
    Ok(())
}

/// A call that finds its answer ready: what remains when there is no work.
fn transport(runtime: &Runtime, served: &Served, calls: usize) -> Result<()> {
    let endpoint = Channel::from_shared(served.url.clone())?;
    let mut health = HealthClient::new(runtime.block_on(endpoint.connect())?);
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let asked = timed(async { Ok(health.check(HealthCheckRequest::default()).await?) });
        times.push(runtime.block_on(asked)?.1);
    }
    let p50 = percentile(&mut times, 0.5);
    print(&json!({"part": "overhead", "query": "health, known", "p50_micros": rounded(p50, 0)}));
    Ok(())
}

/// The same question without the service.
fn here(served: &Served, source: QuerySource) -> Result<(SearchOutcome, Duration)> {
    let query = Query::new(source, Modality::Image, 10, None)?;
    let started = Instant::now();
    let found = served.engine.search(&CollectionName::default(), &query)?;
    Ok((found, started.elapsed()))
}

fn source(served: &Served, kind: &str, n: u64) -> QuerySource {
    match kind {
        "text" => QuerySource::Text(data::question(n + (1 << 20))),
        _ => QuerySource::Vector(data::vector(served.engine.encoder().dim(), n + (1 << 40)).into_vec()),
    }
}

fn to_wire(source: QuerySource) -> wire::search_request::Query {
    match source {
        QuerySource::Text(text) => wire::search_request::Query::Text(text),
        QuerySource::Vector(values) => wire::search_request::Query::Vector(wire::Vector { values }),
        other => unreachable!("nothing else is asked here: {other:?}"),
    }
}
