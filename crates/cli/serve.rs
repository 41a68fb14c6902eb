//! `diptych serve`.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use diptych_engine::{EngineOptions, RecallOptions};
use diptych_server::ServerOptions;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::ServeArgs;
use crate::{local, output};

pub fn run(args: &ServeArgs) -> Result<ExitCode> {
    if !args.listen.ip().is_loopback() {
        bail!(
            "{} is reachable from other machines, and this server has no authentication yet; \
             listen on 127.0.0.1 and put an authenticating proxy in front",
            args.listen
        );
    }
    output::init_logs();
    let encoder = local::load_model(&args.model.dir, args.model.precision)?;
    let (sample, busy_max) = (args.recall_sample, args.recall_busy);
    let recall = RecallOptions { sample, busy_max, ..RecallOptions::default() };
    let options = EngineOptions { recall, ..EngineOptions::default() };
    let engine = local::open_engine(&args.data, encoder, options, true)?;
    let overview = engine.overview()?;
    tracing::info!("loading indexes");
    engine.warm()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let listener = TcpListener::bind(args.listen)
            .await
            .with_context(|| format!("cannot listen on {}; is another server running there?", args.listen))?;
        let records: u64 = overview.collections.iter().map(|(_, stats)| stats.records).sum();
        output::line(&format!(
            "serving on http://{} · {} in {} · model {}",
            listener.local_addr()?,
            output::count(records, "record"),
            output::count(overview.collections.len() as u64, "collection"),
            output::short_id(&overview.model_id),
        ))?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping: finishing the requests in work");
        };
        diptych_server::run(listener, Arc::new(engine), ServerOptions::default(), shutdown)
            .await
            .map_err(|e| anyhow::anyhow!("the server failed: {e}"))
    });
    served?;
    Ok(ExitCode::SUCCESS)
}
