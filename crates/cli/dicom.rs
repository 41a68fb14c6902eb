//! `diptych dicom`: what can be done with DICOM files without a store.

pub mod deidentify;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use deidentify::DeidentifyArgs;

#[derive(Debug, Subcommand)]
pub enum DicomCommand {
    /// Write copies of a file or a tree without what identifies patients (PS3.15 Annex E)
    Deidentify(Box<DeidentifyArgs>),
}

pub fn run(command: &DicomCommand) -> Result<ExitCode> {
    match command {
        DicomCommand::Deidentify(args) => deidentify::run(args),
    }
}
