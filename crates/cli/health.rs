//! `diptych health`: asks a server for its health, for those who start and watch it.
//!
//! The exit code is the answer. Deliberately absent: what health is, which the server decides.

use std::process::ExitCode;
use std::time::Duration;

use crate::{output, remote};
use anyhow::{Context, Result, bail};

#[derive(Debug, clap::Args)]
pub struct HealthArgs {
    /// Server to ask
    #[arg(long, env = "DIPTYCH_SERVER", default_value = "http://127.0.0.1:7700", value_name = "URL")]
    pub server: String,
    /// Seconds to wait for the answer
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "S")]
    pub timeout: u64,
}

pub fn run(args: &HealthArgs) -> Result<ExitCode> {
    let wait = Duration::from_secs(args.timeout);
    let asked = remote::runtime()?.block_on(async { tokio::time::timeout(wait, ask(&args.server)).await });
    let serves =
        asked.with_context(|| format!("{} has not answered within {} s", args.server, args.timeout))??;
    if !serves {
        bail!("{} is NOT_SERVING; its log says why", args.server);
    }
    output::line("SERVING")?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(url: &str) -> Result<bool> {
    Ok(remote::connect(url).await?.health().await?)
}
