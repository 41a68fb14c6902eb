//! The `diptych` command: arguments, configuration, wiring.
//!
//! Each command has a file; what several share is in `local` (a store and a model on this machine),
//! `remote` (a server) and `output`. Nothing here knows how to encode, index or store.

mod args;
mod backup;
mod backup_args;
mod case_args;
mod classify;
mod collection;
mod completions;
mod config;
mod dicom;
mod embed;
mod eval;
mod export;
mod facets;
mod findings;
mod health;
mod hub;
mod import;
mod index;
mod ingest;
mod ingest_args;
mod keys;
mod local;
mod model;
mod operation;
mod output;
mod pairs;
mod phantom;
mod record;
mod record_args;
mod relevance;
mod remote;
mod search;
mod serve;
mod similar;
mod sources;
mod stats;
mod systemd;
mod terms;
mod train;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

/// Large, short-lived tensors are the main allocations; mimalloc keeps their pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Ingest(args) => ingest::run(&args),
        Command::Search(args) => search::run(&args),
        Command::Similar(args) => similar::run(&args),
        Command::Draft(args) => similar::run_draft(&args),
        Command::Index(args) => index::run(&args),
        Command::Embed(args) => embed::run(&args),
        Command::Phantom(args) => phantom::run(&args),
        Command::Dicom(command) => dicom::run(&command),
        Command::Train(args) => train::run(&args),
        Command::Tune(args) => train::run_tune(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Findings(args) => findings::run(&args),
        Command::Classify(args) => classify::run(&args),
        Command::Relevance(args) => relevance::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::Restore(args) => backup::run_restore(&args),
        Command::Export(args) => export::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Keys(command) => keys::run(&command),
        Command::Collection(command) => collection::run(&command),
        Command::Record(command) => record::run(&command),
        Command::Operation(command) => operation::run(&command),
        Command::Model(command) => model::run(&command),
        Command::Config(command) => config::run(&command),
        Command::Health(args) => health::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => completions::run_man(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", output::whole_error(&error));
            ExitCode::FAILURE
        }
    }
}
