//! `diptych serve`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use diptych_server::{Metrics, serve_metrics};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::config::{self, ServeArgs, ServeConfig};
use crate::{local, output, systemd};

/// How long what was cut off may take to notice.
const CUT_OFF: Duration = Duration::from_secs(1);

pub fn run(args: &ServeArgs) -> Result<ExitCode> {
    let config = config::resolve(args)?.config;
    let (data, model) = config.places()?;
    let server = config.server_options();
    server.access.check(config.listen)?;
    output::init_server_logs(config.log_format);
    let encoder = local::load_model(model, config.precision)?;
    let engine = local::open_engine(data, encoder, config.engine.clone(), true)?;
    let overview = engine.overview()?;
    tracing::info!("loading indexes");
    engine.warm()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let listener = listen(config.listen).await?;
        let engine = Arc::new(engine);
        let (_metrics, scraped) = metrics(&config, &engine).await?;
        // Before the line below, on which those wait who may then stop the server.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let records: u64 = overview.collections.iter().map(|(_, stats)| stats.records).sum();
        output::line(&format!(
            "serving on {}://{} · {} in {} · model {}{scraped}",
            if server.access.tls.is_some() { "https" } else { "http" },
            listener.local_addr()?,
            output::count(records, "record"),
            output::count(overview.collections.len() as u64, "collection"),
            output::short_id(&overview.model_id),
        ))?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            systemd::notify("STOPPING=1");
            tracing::info!("stopping: finishing the requests in work");
        };
        systemd::notify("READY=1");
        diptych_server::run(listener, engine, server, shutdown)
            .await
            .map_err(|e| anyhow::anyhow!("the server failed: {e}"))
    });
    // Engine calls that were cut off are not waited for: what was acknowledged is durable.
    runtime.shutdown_timeout(CUT_OFF);
    served?;
    Ok(ExitCode::SUCCESS)
}

/// Serves metrics, if they are wanted, until the first result is dropped. The second says where.
async fn metrics(
    config: &ServeConfig,
    engine: &Arc<diptych_engine::Engine>,
) -> Result<(JoinSet<()>, String)> {
    let mut serving = JoinSet::new();
    let Some(address) = config.metrics_listen else { return Ok((serving, String::new())) };
    let listener = listen(address).await?;
    let said = format!(" · metrics http://{}/metrics", listener.local_addr()?);
    let (metrics, engine): (Metrics, _) = (config.server.metrics.clone(), Arc::clone(engine));
    serving.spawn(async move { match serve_metrics(listener, metrics, engine).await {} });
    Ok((serving, said))
}

async fn listen(address: std::net::SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; is another server running there?"))
}
