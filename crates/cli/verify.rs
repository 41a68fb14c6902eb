//! `diptych verify`.

use std::process::ExitCode;

use anyhow::Result;

use crate::args::VerifyArgs;
use crate::{local, output};

pub fn run(args: &VerifyArgs) -> Result<ExitCode> {
    let store = local::open_store(&args.data, false)?;
    let report = diptych_engine::verify(&store)?;
    for problem in &report.problems {
        output::line(&format!("problem: {problem}"))?;
    }
    let verdict = if report.problems.is_empty() {
        "store and index agree".to_owned()
    } else {
        format!("{} problems; keep a copy of the directory, then ingest again", report.problems.len())
    };
    output::line(&format!(
        "{} collections, {} records, {} vectors: {verdict}",
        report.collections, report.records, report.points
    ))?;
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
