//! Times and their order statistics, and how they are printed.

use std::time::{Duration, Instant};

use anyhow::Result;
use diptych_proto::v1 as wire;
use diptych_proto::v1::retrieval_service_client::RetrievalServiceClient;
use serde_json::Value;
use tonic::transport::Channel;

pub type Client = RetrievalServiceClient<Channel>;

pub async fn connect(url: &str) -> Result<Client> {
    Ok(RetrievalServiceClient::new(Channel::from_shared(url.to_owned())?.connect().await?))
}

/// The time of something that may fail.
pub async fn timed<T>(work: impl Future<Output = Result<T>>) -> Result<(T, Duration)> {
    let started = Instant::now();
    let done = work.await?;
    Ok((done, started.elapsed()))
}

/// The value below which a share of all lies, in microseconds.
pub fn percentile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let place = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
    times.get(place).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn search(query: wire::search_request::Query) -> wire::SearchRequest {
    wire::SearchRequest {
        query: Some(query),
        target: wire::Modality::Image as i32,
        k: Some(10),
        ..Default::default()
    }
}

/// One line of JSON on standard output.
pub fn print(line: &Value) {
    println!("{line}");
}

pub fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}
