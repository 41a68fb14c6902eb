//! Trains a recipe without the program around it: `train RECIPE.toml OUT`, one line every few steps.

use std::path::Path;

use diptych_train::{Phase, Recipe, Resume, TrainError, train};

fn main() -> Result<(), TrainError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [recipe, out] = arguments.as_slice() else {
        eprintln!("usage: train RECIPE.toml OUT");
        std::process::exit(2);
    };
    let recipe = Recipe::from_file(Path::new(recipe))?;
    let summary = train(&recipe, Path::new(out), Resume::Continue, &mut |p| {
        if p.phase == Phase::Steps && (p.step % 20 == 0 || p.step == p.steps) {
            eprintln!(
                "step {}/{} loss {:.3} temperature {:.4} {:.0} pairs/s, {:.0} s left",
                p.step, p.steps, p.loss, p.temperature, p.pairs_per_second, p.eta_seconds
            );
        }
        if let Some(validation) = &p.validation {
            eprintln!("step {}: {validation}", p.step);
        }
    })?;
    println!(
        "{} parameters, {} bytes, {:.0} pairs/s",
        summary.parameters, summary.bytes, summary.pairs_per_second
    );
    if let Some(validation) = &summary.validation {
        println!("{validation}");
    }
    Ok(())
}
