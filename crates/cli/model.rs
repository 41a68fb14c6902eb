//! `diptych model`: what there is to say about a model, without using it.
//!
//! Owns: the layout of the lines. Does not own what they say, which is the encoder's.

use std::process::ExitCode;

use anyhow::Result;

use crate::args::{InspectArgs, ModelCommand};
use crate::{local, output};

/// Runs the subcommand.
pub fn run(command: &ModelCommand) -> Result<ExitCode> {
    match command {
        ModelCommand::Inspect(args) => inspect(args),
    }
}

fn inspect(args: &InspectArgs) -> Result<ExitCode> {
    let model = local::load_model(&args.model, args.precision)?;
    let lines = model.describe();
    let width = lines.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    for (label, value) in lines {
        output::line(&format!("{label:width$}  {value}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
