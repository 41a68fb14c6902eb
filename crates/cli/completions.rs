//! `diptych completions` and `diptych man`: what shells and manual pages need to know of the commands.
//!
//! Made from the same definitions as the parser and `--help`. Deliberately absent: installing them.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;
use crate::output;

const COMPLETIONS_HELP: &str = "\
    bash: diptych completions bash > ~/.local/share/bash-completion/completions/diptych\n\
    zsh:  diptych completions zsh > a directory of $fpath, as _diptych\n\
    fish: diptych completions fish > ~/.config/fish/completions/diptych.fish";

#[derive(Debug, clap::Args)]
#[command(after_help = COMPLETIONS_HELP)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: ShellName,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum ShellName {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Directory to write, created when absent: diptych.1 and a page for each command
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub out: PathBuf,
}

/// Prints the completions of a shell.
pub fn run(args: &CompletionsArgs) -> Result<ExitCode> {
    let shell = match args.shell {
        ShellName::Bash => Shell::Bash,
        ShellName::Zsh => Shell::Zsh,
        ShellName::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "diptych", &mut script);
    output::line(String::from_utf8(script)?.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Writes manual pages.
pub fn run_man(args: &ManArgs) -> Result<ExitCode> {
    let writing = || format!("cannot write manual pages to {}", args.out.display());
    fs::create_dir_all(&args.out).with_context(writing)?;
    clap_mangen::generate_to(Args::command(), &args.out).with_context(writing)?;
    Ok(ExitCode::SUCCESS)
}
