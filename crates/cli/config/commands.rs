//! `diptych config`: check a file, print what counts.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use diptych_hub::ModelName;

use super::{ConfigCommand, Kind, Resolved, SETTINGS, ServeArgs, Setting, Source, check_file, resolve};
use crate::output;

pub fn run(command: &ConfigCommand) -> Result<ExitCode> {
    match command {
        ConfigCommand::Check(args) => {
            let settings = check_file(&args.file)?;
            output::line(&format!(
                "{} is right: it sets {}",
                args.file.display(),
                output::count(settings as u64, "setting")
            ))?;
        }
        ConfigCommand::Print(args) => output::line(print(&resolve(args)?, args).trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The settings as a file that says the same.
fn print(resolved: &Resolved, args: &ServeArgs) -> String {
    let mut lines = String::from("# The settings of `diptych serve`, and where each comes from.\n");
    let mut section = "";
    for (setting, source) in SETTINGS.iter().zip(&resolved.sources) {
        if setting.section != section {
            section = setting.section;
            lines.push_str(&format!("\n[{section}]\n"));
        }
        let line = match (setting.show)(&resolved.config) {
            Some(value) => format!(
                "{} = {}  # {}",
                setting.name,
                literal(setting, value),
                origin(setting, *source, args)
            ),
            None => format!("# {} is not set", setting.name),
        };
        writeln!(lines, "{line}").expect("a string takes everything");
    }
    lines
}

fn literal(setting: &Setting, value: String) -> String {
    match setting.kind {
        Kind::Number | Kind::Switch => value,
        Kind::Text => quoted(value),
        Kind::Model if value.starts_with(ModelName::PREFIX) => quoted(value),
        // Absolute, so that the file means the same wherever it is put.
        Kind::Path | Kind::Model => {
            let path = std::path::absolute(&value).map(|path| path.display().to_string());
            quoted(path.unwrap_or(value))
        }
    }
}

fn quoted(value: String) -> String {
    toml::Value::String(value).to_string()
}

fn origin(setting: &Setting, source: Source, args: &ServeArgs) -> String {
    match (source, &args.config) {
        (Source::Default, _) => "default".to_owned(),
        (Source::Flag, _) => format!("--{}", setting.flag),
        (Source::Environment, _) => setting.env.to_owned(),
        (Source::File(line), Some(file)) => format!("{}, line {line}", file.display()),
        (Source::File(line), None) => format!("line {line}"),
    }
}
