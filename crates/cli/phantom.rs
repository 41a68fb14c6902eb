//! `diptych phantom`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use diptych_phantom::{ArchiveOptions, SIZE_DEFAULT, write_archive};

use crate::args::{PhantomArgs, PhantomFormat};
use crate::output;

const SYNTHETIC: &str = "synthetic: they prove behaviour, not clinical quality";

pub fn run(args: &PhantomArgs) -> Result<ExitCode> {
    match args.format {
        PhantomFormat::Png if args.canaries.is_some() => {
            bail!("--canaries belongs to --format dicom; png phantoms name nobody")
        }
        PhantomFormat::Png => pictures(args)?,
        PhantomFormat::Dicom => archive(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn pictures(args: &PhantomArgs) -> Result<()> {
    let bar = output::progress_bar(Some(args.cases), "cases");
    let summary = diptych_phantom::write(&args.out, args.cases, args.seed, |done| bar.set_position(done))?;
    bar.finish_and_clear();
    output::line(&format!(
        "wrote {} cases, {} of them normal, to {} ({SYNTHETIC})",
        summary.cases,
        summary.normal,
        summary.list.display()
    ))
}

fn archive(args: &PhantomArgs) -> Result<()> {
    let options = ArchiveOptions {
        studies: args.cases,
        seed: args.seed,
        canaries: args.canaries.unwrap_or_else(|| args.cases.saturating_mul(3)),
        size: SIZE_DEFAULT,
    };
    let bar = output::progress_bar(Some(args.cases), "studies");
    let summary = write_archive(&args.out, options, |done| bar.set_position(done))?;
    bar.finish_and_clear();
    output::line(&format!(
        "wrote {} studies of {} patients, {} of them normal, with {} pictures, {} structured and {} text reports and \
         {} canaries, to {} ({SYNTHETIC})",
        summary.studies,
        summary.patients,
        summary.normal,
        summary.pictures,
        summary.structured_reports,
        summary.text_reports,
        summary.canaries,
        summary.archive.display()
    ))
}
