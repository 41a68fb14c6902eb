//! `diptych train` and `diptych tune`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use diptych_train::{
    CHECKPOINT_FOLDER, CURVES_FILE, FEATURES_FOLDER, HELD_OUT_FILE, LOG_FILE, Phase, Progress, Recipe,
    Resume, Summary, TrainOptions, tune,
};
use indicatif::{HumanDuration, ProgressBar};

use crate::args::{RunArgs, TrainArgs, TuneArgs};
use crate::hub::model_dir;
use crate::output;

pub fn run(args: &TrainArgs) -> Result<ExitCode> {
    let recipe = Recipe::from_file(&args.recipe)?;
    carry_out(&recipe, &args.run, false)
}

pub fn run_tune(args: &TuneArgs) -> Result<ExitCode> {
    let model = model_dir(&args.model)?;
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
    carry_out(&recipe, &args.run, !args.force)
}

fn carry_out(recipe: &Recipe, args: &RunArgs, refuse_worse: bool) -> Result<ExitCode> {
    let resume = match (args.resume, args.restart) {
        (true, _) => Resume::Continue,
        (_, true) => Resume::Restart,
        _ => Resume::Refuse,
    };
    let options = TrainOptions { resume, features: args.features.clone(), refuse_worse };
    let summary = train(recipe, &args.out, &options)?;
    report(&summary, &args.out)?;
    Ok(ExitCode::SUCCESS)
}

/// Trains with a progress bar; validations are printed above it.
fn train(recipe: &Recipe, out: &Path, options: &TrainOptions) -> Result<Summary> {
    let bar = output::bare_bar();
    let mut shown = None;
    let summary = diptych_train::train(recipe, out, options, &mut |p| {
        // Features are counted anew for each tower and each side of the data.
        if shown.replace((p.phase, p.steps)) != Some((p.phase, p.steps)) {
            bar.reset();
            bar.set_length(p.steps);
        }
        show(&bar, p);
    })?;
    bar.finish_and_clear();
    Ok(summary)
}

fn show(bar: &ProgressBar, p: &Progress) {
    bar.set_position(p.step);
    let done = format!("{}/{}", p.step, p.steps);
    bar.set_message(match p.phase {
        Phase::Data => "reading pairs".to_owned(),
        Phase::Features => format!("{done} inputs through a frozen tower"),
        Phase::Steps => {
            let temperature = p.temperature.map_or(String::new(), |t| format!("temperature {t:.4} · "));
            let left = HumanDuration(Duration::from_secs_f64(p.eta_seconds.clamp(0.0, 1e9)));
            format!(
                "step {done} · loss {:.3} · {temperature}{} images/s · {left:#} left",
                p.loss,
                output::grouped(p.images_per_second as u64)
            )
        }
    });
    if let Some(validation) = &p.validation {
        bar.suspend(|| eprintln!("step {}: {validation}", p.step));
    }
}

fn report(summary: &Summary, out: &Path) -> Result<()> {
    if summary.resumed_at > 0 && summary.resumed_at == summary.steps {
        output::line(&format!("all {} steps were done before; the model is written again", summary.steps))?;
    } else if summary.steps > 0 {
        if summary.resumed_at > 0 {
            output::line(&format!("continued from step {}", summary.resumed_at))?;
        }
        let temperature = summary.temperature.map_or(String::new(), |t| format!(", temperature {t:.4}"));
        output::line(&format!(
            "trained {} steps in {:.1} s to loss {:.3}{temperature}, {} images/s",
            summary.steps - summary.resumed_at,
            summary.seconds,
            summary.loss,
            output::grouped(summary.images_per_second as u64)
        ))?;
    } else {
        output::line(&format!("solved in {:.1} s, features included", summary.seconds))?;
    }
    output::line(&format!(
        "{} with {} trained parameters, {}",
        out.display(),
        output::grouped(summary.parameters as u64),
        output::mebibytes(summary.bytes)
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
    let kept = [LOG_FILE, CURVES_FILE, HELD_OUT_FILE, FEATURES_FOLDER, CHECKPOINT_FOLDER];
    let there: Vec<&str> = kept.into_iter().filter(|name| out.join(name).exists()).collect();
    if !there.is_empty() {
        output::line(&format!("beside the model, and not needed by it: {}", there.join(", ")))?;
    }
    Ok(())
}
