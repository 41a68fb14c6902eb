//! `diptych dicom`: what can be done with DICOM files without a store.

mod deidentify;
mod show;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use deidentify::DeidentifyArgs;
use show::ShowArgs;

#[derive(Debug, Subcommand)]
pub enum DicomCommand {
    /// Print what is understood of a DICOM file, and write its picture
    Show(ShowArgs),
    /// Write copies of a file or a tree without what identifies patients (PS3.15 Annex E)
    Deidentify(Box<DeidentifyArgs>),
}

pub fn run(command: &DicomCommand) -> Result<ExitCode> {
    match command {
        DicomCommand::Show(args) => show::run(args),
        DicomCommand::Deidentify(args) => deidentify::run(args),
    }
}
