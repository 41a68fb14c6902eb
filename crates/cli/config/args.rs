//! What can be typed for `serve` and `config`: a flag and a variable for each setting.
//!
//! Made from the table of settings, so that a setting cannot lack its flag. Values are checked by the
//! parser; what was not given stays not given, since the file comes between it and the default.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, FromArgMatches, Subcommand, ValueHint};

use super::{Kind, SETTINGS, ServeConfig, Setting, Source};

// What stands below the options of what takes settings.
const PRECEDENCE_HELP: &str = "\
    A flag goes before its environment variable, that before the file, that before the default. \
    docs/configuration.md lists the keys of the file; `diptych config print` shows what counts.";

/// What `serve` is given.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = PRECEDENCE_HELP)]
pub struct ServeArgs {
    /// Read settings from a TOML file
    #[arg(long, env = "DIPTYCH_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub given: Given,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a file of settings; prints every problem, and the exit code is 1 when there is one
    Check(CheckArgs),
    /// Print the settings that count, as a file, with where each comes from
    Print(ServeArgs),
}

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The file
    pub file: PathBuf,
}

/// Settings that were given by flag or variable.
#[derive(Debug, Default)]
pub struct Given(Vec<(usize, String, Source)>);

impl Given {
    /// The place of each in [`SETTINGS`], its value and where it comes from.
    pub fn values(&self) -> &[(usize, String, Source)] {
        &self.0
    }
}

impl clap::Args for Given {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |(at, setting): (usize, &Setting)| {
            let text = matches.get_one::<String>(setting.flag)?.clone();
            match matches.value_source(setting.flag)? {
                ValueSource::CommandLine => Some((at, text, Source::Flag)),
                ValueSource::EnvVariable => Some((at, text, Source::Environment)),
                _ => None,
            }
        };
        Ok(Self(SETTINGS.iter().enumerate().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn argument(setting: &'static Setting) -> Arg {
    let help = match setting.default() {
        Some(default) if setting.kind != Kind::Switch => format!("{} [default: {default}]", setting.help),
        _ => setting.help.to_owned(),
    };
    let argument = Arg::new(setting.flag)
        .long(setting.flag)
        .env(setting.env)
        .value_name(setting.value)
        .help(help)
        .value_parser(move |text: &str| {
            (setting.set)(&mut ServeConfig::default(), text).map(|()| text.to_owned())
        });
    match setting.kind {
        Kind::Path | Kind::Model => argument.value_hint(ValueHint::AnyPath),
        Kind::Switch => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Kind::Text | Kind::Number => argument,
    }
}
