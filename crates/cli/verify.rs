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
        let problems = output::count(report.problems.len() as u64, "problem");
        format!("{problems}; keep a copy of the directory, then ingest again")
    };
    output::line(&format!(
        "{}, {}, {}: {verdict}",
        output::count(report.collections as u64, "collection"),
        output::count(report.records, "record"),
        output::count(report.points, "vector"),
    ))?;
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
