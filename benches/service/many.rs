//! Many clients with texts: how much of the encoder's own rate they get together, and how long one waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use diptych_core::PreparedText;
use diptych_proto::v1 as wire;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::measure::{connect, median, percentile, print, rounded, search};
use crate::{Served, data};

const CLIENTS: usize = 32;

pub fn run(runtime: &Runtime, served: &Served, rounds: usize, seconds: f64) -> Result<()> {
    let time = Duration::from_secs_f64(seconds);
    let next = Arc::new(AtomicU64::new(1 << 24));
    let (mut shares, mut encoded, mut answered) = (Vec::new(), Vec::new(), Vec::new());
    let (mut middle, mut tail) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let alone = encoder_rate(served, &next, time)?;
        let (rate, mut times) = runtime.block_on(clients(served, &next, time))?;
        if round > 0 {
            shares.push(rate / alone);
            encoded.push(alone);
            answered.push(rate);
            middle.push(percentile(&mut times, 0.5));
            tail.push(percentile(&mut times, 0.99));
        }
    }
    let (p50, p99) = (median(&mut middle), median(&mut tail));
    print(&json!({
        "part": "many",
        "clients": CLIENTS,
        "encoder_texts_per_second": rounded(median(&mut encoded), 0),
        "answers_per_second": rounded(median(&mut answered), 0),
        "share": rounded(median(&mut shares), 3),
        "p50_micros": rounded(p50, 0),
        "p99_micros": rounded(p99, 0),
        "p99_by_p50": rounded(p99 / p50, 2),
    }));
    Ok(())
}

/// A text that was not asked before.
fn fresh(next: &AtomicU64) -> String {
    let n = next.fetch_add(1, Ordering::Relaxed);
    data::question(n)
}

/// Texts per second in batches of as many as there are clients, tokenised before.
fn encoder_rate(served: &Served, next: &AtomicU64, time: Duration) -> Result<f64> {
    let encoder = served.engine.encoder();
    let batches: Vec<Vec<PreparedText>> = (0..8)
        .map(|_| (0..CLIENTS).map(|_| encoder.prepare_text(&fresh(next))).collect())
        .collect::<Result<_, _>>()?;
    let started = Instant::now();
    let mut done = 0;
    for batch in batches.iter().cycle() {
        encoder.encode_texts(batch)?;
        done += batch.len();
        if started.elapsed() >= time {
            break;
        }
    }
    Ok(done as f64 / started.elapsed().as_secs_f64())
}

/// Answers per second of clients that each ask again as soon as they are answered, and all their times.
async fn clients(served: &Served, next: &Arc<AtomicU64>, time: Duration) -> Result<(f64, Vec<Duration>)> {
    let mut connected = Vec::new();
    for _ in 0..CLIENTS {
        connected.push(connect(&served.url).await?);
    }
    let started = Instant::now();
    let tasks: Vec<_> = connected
        .into_iter()
        .map(|mut client| {
            let next = Arc::clone(next);
            tokio::spawn(async move {
                let mut times = Vec::new();
                while started.elapsed() < time {
                    let request = search(wire::search_request::Query::Text(fresh(&next)));
                    let asked = Instant::now();
                    client.search(request).await?;
                    times.push(asked.elapsed());
                }
                Ok::<_, tonic::Status>(times)
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok((all.len() as f64 / started.elapsed().as_secs_f64(), all))
}
