//! More than a server can answer, for as long as is wanted: what is refused how fast, whether health still
//! answers, and what memory it takes. The server is a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use diptych_proto::v1 as wire;
use serde_json::json;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::data;
use crate::measure::{Client, connect, percentile, print, rounded, search};

const CONNECTIONS: usize = 200;
const STREAMS: usize = 5;
/// How long a client that was refused waits before it asks again.
const PAUSE: Duration = Duration::from_millis(100);
/// How often health is asked.
const PROBE: Duration = Duration::from_millis(200);

/// What the clients of one stream saw.
#[derive(Default)]
struct Seen {
    answered: Vec<Duration>,
    refused: Vec<Duration>,
    failed: Vec<String>,
}

pub fn run(dir: &Path, model: &Path, seconds: f64) -> Result<()> {
    let server = Process::start(dir, model)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(flood(&server, Duration::from_secs_f64(seconds)));
    drop(server);
    result
}

async fn flood(server: &Process, time: Duration) -> Result<()> {
    let next = Arc::new(AtomicU64::new(1 << 28));
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(connect(&server.url).await?);
    }
    let until = Instant::now() + time;
    let tasks: Vec<_> = clients
        .iter()
        .flat_map(|client| (0..STREAMS).map(|_| client.clone()))
        .map(|client| tokio::spawn(stream(client, Arc::clone(&next), until)))
        .collect();
    let (mut health, memory) = watch(server, until).await?;
    let mut all = Seen::default();
    for task in tasks {
        let seen = task.await?;
        all.answered.extend(seen.answered);
        all.refused.extend(seen.refused);
        all.failed.extend(seen.failed);
    }
    let answers = all.answered.len();
    let peak = memory.iter().max().copied().unwrap_or_default();
    // The first tenth fills caches.
    let settled = memory.get(memory.len() / 10).copied().unwrap_or_default();
    let last = memory.last().copied().unwrap_or_default();
    print(&json!({
        "part": "flood",
        "connections": CONNECTIONS,
        "streams_each": STREAMS,
        "seconds": time.as_secs_f64(),
        "answers_per_second": rounded(answers as f64 / time.as_secs_f64(), 0),
        "answer_p50_micros": rounded(percentile(&mut all.answered, 0.5), 0),
        "refusals": all.refused.len(),
        "refusal_p50_micros": rounded(percentile(&mut all.refused, 0.5), 0),
        "refusal_p99_micros": rounded(percentile(&mut all.refused, 0.99), 0),
        "refusal_max_micros": rounded(percentile(&mut all.refused, 1.0), 0),
        "other_failures": all.failed.len(),
        "first_failure": all.failed.first(),
        "health_checks": health.len(),
        "health_p50_micros": rounded(percentile(&mut health, 0.5), 0),
        "health_max_micros": rounded(percentile(&mut health, 1.0), 0),
        "resident_mib": {"settled": settled >> 20, "peak": peak >> 20, "last": last >> 20},
    }));
    Ok(())
}

/// Asks without a pause, but for the one that a refusal asks for.
async fn stream(mut client: Client, next: Arc<AtomicU64>, until: Instant) -> Seen {
    let mut seen = Seen::default();
    while Instant::now() < until {
        let n = next.fetch_add(1, Ordering::Relaxed);
        let text = data::question(n);
        let asked = Instant::now();
        match client.search(search(wire::search_request::Query::Text(text))).await {
            Ok(_) => seen.answered.push(asked.elapsed()),
            Err(status) if status.code() == Code::ResourceExhausted => {
                seen.refused.push(asked.elapsed());
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) => seen.failed.push(status.to_string()),
        }
    }
    seen
}

/// Asks for health all the while, and reads the memory of the server.
async fn watch(server: &Process, until: Instant) -> Result<(Vec<Duration>, Vec<u64>)> {
    let channel = tonic::transport::Channel::from_shared(server.url.clone())?.connect().await?;
    let mut health = HealthClient::new(channel);
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    while Instant::now() < until {
        let asked = Instant::now();
        health.check(HealthCheckRequest::default()).await?;
        times.push(asked.elapsed());
        memory.push(server.resident_bytes()?);
        tokio::time::sleep(PROBE).await;
    }
    Ok((times, memory))
}

/// The program as it is run.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    fn start(dir: &Path, model: &Path) -> Result<Self> {
        let model = model.canonicalize()?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_diptych"))
            .current_dir(dir)
            .args(["serve", "--data", "data", "--listen", "127.0.0.1:0", "--model"])
            .arg(model)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("the output is a pipe")?).read_line(&mut line)?;
        let url = line.split_whitespace().find(|word| word.starts_with("http")).map(str::to_owned);
        match url {
            Some(url) => Ok(Self { child, url }),
            None => bail!("the server did not start: {line}"),
        }
    }

    /// Memory that the process holds, where the system tells.
    fn resident_bytes(&self) -> Result<u64> {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())) else {
            return Ok(0);
        };
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib =
            line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
        Ok(kib.unwrap_or_default() << 10)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
