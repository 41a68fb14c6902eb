//! `diptych train` and `diptych tune`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use diptych_train::{
    CURVES_FILE, FEATURES_FOLDER, HELD_OUT_FILE, LOG_FILE, Phase, Progress, Recipe, Resume, Summary,
    TrainOptions, tune,
};
use indicatif::ProgressBar;

use crate::args::{TrainArgs, TuneArgs};
use crate::hub::model_dir;
use crate::output;

pub fn run(args: &TrainArgs) -> Result<ExitCode> {
    let recipe = Recipe::from_file(&args.recipe)?;
    let resume = match (args.resume, args.restart) {
        (true, _) => Resume::Continue,
        (_, true) => Resume::Restart,
        _ => Resume::Refuse,
    };
    let options = TrainOptions { resume, features: args.features.clone(), refuse_worse: false };
    let summary = train(&recipe, &args.out, &options)?;
    report(&summary, &args.out)?;
    Ok(ExitCode::SUCCESS)
}

pub fn run_tune(args: &TuneArgs) -> Result<ExitCode> {
    let model = model_dir(&args.model)?;
    if args.out == model {
        bail!("{} is the model itself; name another directory with --out", args.out.display());
    }
    let settings = tune::Settings {
        validation: args.validation.clone(),
        validation_share: args.validation_share,
        group_by: args.group_by.clone(),
        hidden: args.hidden,
        epochs: args.epochs,
        batch_size: args.batch_size,
        learning_rate: args.learning_rate,
        seed: args.seed,
    };
    let recipe = tune::recipe(&model, &args.pairs, &settings)?;
    let resume = if args.restart { Resume::Restart } else { Resume::Refuse };
    let options = TrainOptions { resume, features: args.features.clone(), refuse_worse: !args.force };
    let summary = train(&recipe, &args.out, &options)?;
    report(&summary, &args.out)?;
    Ok(ExitCode::SUCCESS)
}

/// Trains with a progress bar; validations are printed above it.
fn train(recipe: &Recipe, out: &Path, options: &TrainOptions) -> Result<Summary> {
    let bar = output::progress_bar(Some(recipe.train.steps), "steps");
    let mut phase = None;
    let summary = diptych_train::train(recipe, out, options, &mut |p| {
        if phase.replace(p.phase) != Some(p.phase) {
            bar.reset();
        }
        show(&bar, p);
    })?;
    bar.finish_and_clear();
    Ok(summary)
}

fn show(bar: &ProgressBar, p: &Progress) {
    bar.set_length(p.steps);
    bar.set_position(p.step);
    match p.phase {
        Phase::Data => bar.set_message("reading pairs"),
        Phase::Features => bar.set_message("features of frozen towers"),
        Phase::Steps => {
            let temperature = p.temperature.map_or(String::new(), |t| format!("temperature {t:.4} · "));
            bar.set_message(format!("loss {:.3} · {temperature}{:.0} images/s", p.loss, p.images_per_second));
        }
    }
    if let Some(validation) = &p.validation {
        bar.suspend(|| eprintln!("step {}: {validation}", p.step));
    }
}

fn report(summary: &Summary, out: &Path) -> Result<()> {
    if summary.resumed_at > 0 {
        output::line(&format!("continued from step {}", summary.resumed_at))?;
    }
    if summary.steps > 0 {
        let temperature = summary.temperature.map_or(String::new(), |t| format!(", temperature {t:.4}"));
        output::line(&format!(
            "trained {} steps in {:.1} s to loss {:.3}{temperature}, {:.0} images/s",
            summary.steps, summary.seconds, summary.loss, summary.images_per_second
        ))?;
    } else {
        output::line(&format!("solved in {:.1} s, features included", summary.seconds))?;
    }
    output::line(&format!(
        "{} trained parameters, {} bytes in {}",
        summary.parameters,
        summary.bytes,
        out.display()
    ))?;
    if let Some(first) = &summary.first {
        output::line(&format!("before:   {first}"))?;
    }
    if let Some(validation) = &summary.validation {
        let name = if summary.first.is_some() { "after:   " } else { "held out:" };
        output::line(&format!("{name} {validation}"))?;
    }
    if summary.first.is_some() {
        output::line(
            "The best step was chosen on these held-out pairs; judge it on others with `diptych eval`.",
        )?;
    }
    let kept = [LOG_FILE, CURVES_FILE, HELD_OUT_FILE, FEATURES_FOLDER];
    let there: Vec<&str> = kept.into_iter().filter(|name| out.join(name).exists()).collect();
    if !there.is_empty() {
        output::line(&format!("beside the model: {}", there.join(", ")))?;
    }
    Ok(())
}
