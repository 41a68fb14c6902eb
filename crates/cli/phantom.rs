//! `diptych phantom`.

use std::process::ExitCode;

use anyhow::Result;

use crate::args::PhantomArgs;
use crate::output;

pub fn run(args: &PhantomArgs) -> Result<ExitCode> {
    let bar = output::progress_bar(Some(args.cases), "cases");
    let summary = diptych_phantom::write(&args.out, args.cases, args.seed, |done| bar.set_position(done))?;
    bar.finish_and_clear();
    output::line(&format!(
        "wrote {} cases, {} of them normal, to {} (synthetic: they prove behaviour, not clinical quality)",
        summary.cases,
        summary.normal,
        summary.list.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}
