//! The service: what gRPC, admission and conversion cost on top of the engine, what many clients get, and
//! what each addition to a query costs.
//!
//! Owns: the command line, the order of the parts and their JSON lines. All parts ask the same data through
//! real sockets; what is compared is asked in turns, so that what else the machine does meets both.
//! Deliberately absent: the index alone (`benches/ann`) and the encoder alone (`benches/encode`).
//!
//! - `cargo bench --bench service` runs all parts in small,
//! - `cargo bench --bench service -- --points 100000 --rounds 9 --flood-seconds 300` in earnest.

#![allow(missing_docs)]

mod additions;
mod data;
mod flood;
mod many;
mod measure;
mod overhead;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;
use diptych_encoder::DualEncoder;
use diptych_engine::{Engine, EngineOptions};
use diptych_server::ServerOptions;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the service over sockets of this machine.
#[derive(Debug, Parser)]
#[command(name = "service")]
struct Args {
    /// The model; the one that ships with the program if not given
    #[arg(long)]
    model: Option<PathBuf>,
    /// Records, each with an image and a text
    #[arg(long, default_value_t = 5_000)]
    points: u64,
    /// Rounds, in each of which everything that is compared is asked once
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Requests of each kind in a round
    #[arg(long, default_value_t = 200)]
    calls: usize,
    /// Seconds of a round of many clients
    #[arg(long, default_value_t = 1.0)]
    many_seconds: f64,
    /// Seconds that the server is asked more than it can answer
    #[arg(long, default_value_t = 2.0)]
    flood_seconds: f64,
    /// Parts to run: overhead, additions, many, flood
    #[arg(long, value_delimiter = ',', default_value = "overhead,additions,many,flood")]
    parts: Vec<String>,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// An engine that is served, and its address.
struct Served {
    engine: Arc<Engine>,
    url: String,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/mini");
    let model = args.model.clone().unwrap_or(bundled);
    let encoder = Arc::new(DualEncoder::load(&model).with_context(|| model.display().to_string())?);
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Of a client alone, so that its hops between threads do not count.
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let store = data::fill(dir.path(), &*encoder, args.points)?;
    let engine = Arc::new(Engine::open(store, encoder, EngineOptions::default())?);
    engine.warm()?;
    let wanted = |part: &str| args.parts.iter().any(|name| name == part);
    {
        let served = serve(&runtime, engine)?;
        if wanted("overhead") {
            overhead::run(&client, &served, args.rounds, args.calls)?;
        }
        if wanted("additions") {
            additions::run(&client, &served, args.rounds, args.calls)?;
        }
        if wanted("many") {
            many::run(&runtime, &served, args.rounds, args.many_seconds)?;
        }
    }
    // Its engine has to be gone before a process of its own opens the directory.
    runtime.shutdown_timeout(std::time::Duration::from_secs(10));
    if wanted("flood") {
        flood::run(dir.path(), &model, args.flood_seconds)?;
    }
    Ok(())
}

/// Serves until the runtime ends.
fn serve(runtime: &Runtime, engine: Arc<Engine>) -> Result<Served> {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let url = format!("http://{}", listener.local_addr()?);
    let of = Arc::clone(&engine);
    runtime.spawn(async move {
        let ran = diptych_server::run(listener, of, ServerOptions::default(), std::future::pending()).await;
        ran.expect("the server runs");
    });
    Ok(Served { engine, url })
}
