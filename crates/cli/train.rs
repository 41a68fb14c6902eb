//! `diptych train`.

use std::process::ExitCode;

use anyhow::Result;
use diptych_train::{Phase, Recipe, Resume};

use crate::args::TrainArgs;
use crate::output;

pub fn run(args: &TrainArgs) -> Result<ExitCode> {
    let recipe = Recipe::from_file(&args.recipe)?;
    let bar = output::progress_bar(Some(recipe.train.steps), "steps");
    let summary = diptych_train::train(&recipe, &args.out, Resume::Continue, &mut |p| {
        match p.phase {
            Phase::Data => bar.set_message("reading pairs, learning the tokenizer"),
            Phase::Steps => {
                bar.set_position(p.step);
                bar.set_message(format!(
                    "loss {:.3} · temperature {:.4} · {:.0} pairs/s",
                    p.loss, p.temperature, p.pairs_per_second
                ));
            }
        }
        if let Some(validation) = &p.validation {
            bar.suspend(|| eprintln!("step {}: {validation}", p.step));
        }
    })?;
    bar.finish_and_clear();
    if summary.resumed_at > 0 {
        output::line(&format!("continued from step {}", summary.resumed_at))?;
    }
    output::line(&format!(
        "trained {} steps to loss {:.3}, temperature {:.4}: {} parameters, {} bytes in {}",
        summary.steps,
        summary.loss,
        summary.temperature,
        summary.parameters,
        summary.bytes,
        args.out.display()
    ))?;
    if let Some(validation) = &summary.validation {
        output::line(&format!("held out: {validation}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
