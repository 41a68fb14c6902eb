//! `diptych dicom deidentify`: a tree of DICOM files and report texts to a tree of de-identified copies.
//!
//! Owns: which files are read, where copies go, and what is told. Nothing that is printed or reported holds a
//! value; paths, which often name patients, are told on standard error alone, of files that were not taken.
//! Deliberately absent: what identifies, which `radiology` knows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use diptych_files::replace;
use diptych_radiology::deidentify::{
    Annotation, BurnedIn, CleanFile, Dates, Deidentifier, FileError, Known, Options, Removed, open_key,
};
use serde_json::json;

use crate::output;

/// Largest text that is taken for a report, in bytes.
const TEXT_MAX: u64 = 1 << 20;

// What stands below the options.
const HELP: &str = "\
    UIDs and patient numbers become keyed hashes and dates move by a number of days of each patient's own, so \
    that studies stay together and in order, also over several runs with the same key. Keep the key as you \
    keep the originals, or delete it: without it nobody can go back. Texts beside the images of one study are \
    taken for its reports and scrubbed by rules, which find no name that nothing announces. Pixels are not \
    looked into.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct DeidentifyArgs {
    /// A DICOM file, or a folder with DICOM files and .txt reports at any depth
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// Folder for the copies, as STUDY/SERIES/INSTANCE.dcm by their new UIDs; a file when IN is one and this
    /// ends in .dcm
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// Secret of the replacements, made when it is not there [default: OUT.key]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Pictures with names burned into their pixels, and those of kinds that often have them: refuse the
    /// former and flag the latter, refuse-suspected (both), flag, or accept
    #[arg(long, default_value_t = BurnedIn::Refuse, value_name = "POLICY")]
    pub burned_in: BurnedIn,
    /// Dates: shift (modified dates option), keep (full dates option) or remove
    #[arg(long, default_value_t = Dates::Shift, value_name = "shift|keep|remove")]
    pub dates: Dates,
    #[command(flatten)]
    pub switches: Switches,
    /// Also write the counts to a JSON file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// The options of PS3.15 Annex E that are on or off.
#[derive(Debug, clap::Args)]
pub struct Switches {
    /// Keep UIDs
    #[arg(long)]
    pub retain_uids: bool,
    /// Keep names and numbers of devices
    #[arg(long)]
    pub retain_device_identity: bool,
    /// Keep name and address of the institution
    #[arg(long)]
    pub retain_institution_identity: bool,
    /// Keep age (at most 90), sex, size, weight and the like
    #[arg(long)]
    pub retain_patient_characteristics: bool,
    /// Keep private attributes that the standard calls safe
    #[arg(long)]
    pub retain_safe_private: bool,
    /// Keep descriptions, scrubbed as texts are
    #[arg(long)]
    pub clean_descriptors: bool,
    /// Keep drawn annotation, its texts scrubbed; overlays and curves always go
    #[arg(long)]
    pub clean_graphics: bool,
    /// Remove the content of structured reports instead of scrubbing it
    #[arg(long)]
    pub remove_structured_content: bool,
}

pub fn run(args: &DeidentifyArgs) -> Result<ExitCode> {
    let input = fs::metadata(&args.input)
        .with_context(|| format!("cannot read {}; name a DICOM file or a folder", args.input.display()))?;
    if input.is_dir() {
        apart(&args.input, &args.out)?;
    }
    let key_file = args.key_file.clone().unwrap_or_else(|| beside(&args.out));
    if let Some(folder) = key_file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let key = open_key(&key_file)?;
    if key.created {
        eprintln!(
            "made the key {}: the same key gives the same replacements in later runs; who has it can link copies \
             to originals",
            key_file.display()
        );
    }
    let mut run = Run {
        with: Deidentifier::new(options(args, key.key)),
        out: &args.out,
        single: None,
        placed: HashMap::new(),
        tally: Tally::default(),
        bar: output::progress_bar(None, "files"),
    };
    if input.is_dir() {
        run.folder(&args.input)?;
    } else {
        run.single =
            args.out.extension().filter(|e| e.eq_ignore_ascii_case("dcm")).map(|_| args.out.as_path());
        run.dicom(&args.input)?;
    }
    run.bar.finish_and_clear();
    let tally = run.tally;
    if tally.files == 0 {
        bail!("nothing was de-identified: {}", tally.left_out());
    }
    tell(args, &tally)?;
    Ok(ExitCode::SUCCESS)
}

fn options(args: &DeidentifyArgs, key: [u8; 32]) -> Options {
    let mut options = Options::new(key);
    options.retain_uids = args.switches.retain_uids;
    options.retain_device_identity = args.switches.retain_device_identity;
    options.retain_institution_identity = args.switches.retain_institution_identity;
    options.retain_patient_characteristics = args.switches.retain_patient_characteristics;
    options.retain_safe_private = args.switches.retain_safe_private;
    options.clean_descriptors = args.switches.clean_descriptors;
    options.clean_graphics = args.switches.clean_graphics;
    options.clean_structured_content = !args.switches.remove_structured_content;
    options.dates = args.dates;
    options.burned_in = args.burned_in;
    options
}

/// Copies among the originals would be read again, and mixed up with them.
fn apart(input: &Path, out: &Path) -> Result<()> {
    let absolute = |path: &Path| fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    let (inside, of) = (absolute(out)?, absolute(input)?);
    if inside.starts_with(&of) || of.starts_with(&inside) {
        bail!("{} and {} lie in one another; name a folder elsewhere", input.display(), out.display());
    }
    Ok(())
}

fn beside(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".key");
    out.with_file_name(name)
}

#[derive(Default)]
struct Tally {
    files: u64,
    studies: BTreeSet<String>,
    texts: u64,
    removed: Removed,
    suspected: u64,
    declared: u64,
    refused: u64,
    foreign: u64,
    loose_texts: u64,
}

impl Tally {
    fn left_out(&self) -> String {
        let reasons = [
            (self.refused, "damaged or refused"),
            (self.foreign, "not DICOM"),
            (self.loose_texts, "texts that belong to no one study"),
        ];
        let said: Vec<String> = reasons
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, why)| format!("{} {why}", output::grouped(*n)))
            .collect();
        if said.is_empty() {
            "no files left out".to_owned()
        } else {
            format!("left out: {}", said.join(", "))
        }
    }
}

/// The studies in a folder and below: none, one with what is known of it, or several.
enum Below {
    None,
    One(String, Box<Known>),
    Several,
}

impl Below {
    fn add(&mut self, other: Self) {
        *self = match (std::mem::replace(self, Self::None), other) {
            (Self::None, other) => other,
            (this, Self::None) => this,
            (Self::One(a, mut known), Self::One(b, more)) if a == b => {
                known.add(&more);
                Self::One(a, known)
            }
            _ => Self::Several,
        };
    }
}

struct Run<'a> {
    with: Deidentifier,
    out: &'a Path,
    single: Option<&'a Path>,
    /// How many copies each instance has, by a hash of its place.
    placed: HashMap<[u8; 16], u32>,
    tally: Tally,
    bar: indicatif::ProgressBar,
}

impl Run<'_> {
    fn folder(&mut self, folder: &Path) -> Result<Below> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
            paths.push(entry?.path());
        }
        // The same order everywhere.
        paths.sort();
        let (mut below, mut texts) = (Below::None, Vec::new());
        for path in paths {
            // Links may lead out of the tree, or around in it.
            let kind = fs::symlink_metadata(&path)?.file_type();
            if kind.is_dir() {
                match self.folder(&path) {
                    Ok(found) => below.add(found),
                    Err(error) => self.refuse(&path, &output::whole_error(&error)),
                }
            } else if !kind.is_file() {
                self.tally.foreign += 1;
            } else if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("txt")) {
                texts.push(path);
            } else {
                below.add(self.dicom(&path)?);
            }
        }
        for path in texts {
            self.text(&path, &below)?;
        }
        Ok(below)
    }

    fn dicom(&mut self, path: &Path) -> Result<Below> {
        self.bar.inc(1);
        let clean = match self.with.file(path) {
            Ok(clean) => clean,
            Err(FileError::NotDicom | FileError::Directory) => {
                self.tally.foreign += 1;
                return Ok(Below::None);
            }
            Err(error) => {
                self.refuse(path, &error.to_string());
                return Ok(Below::None);
            }
        };
        let target = match self.single {
            Some(path) => path.to_owned(),
            None => self.place(&clean),
        };
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        replace(&target, &clean.bytes)?;
        match clean.removed.annotation {
            Annotation::None => {}
            Annotation::Suspected => self.tally.suspected += 1,
            Annotation::Declared => self.tally.declared += 1,
        }
        if clean.removed.annotation != Annotation::None {
            self.bar.suspend(|| {
                eprintln!("look at {}: names may be burned into its pixels", target.display());
            });
        }
        self.tally.files += 1;
        self.tally.removed.add(&clean.removed);
        self.tally.studies.insert(clean.study.clone());
        Ok(Below::One(clean.study, Box::new(clean.known)))
    }

    /// Where a copy goes. Files that claim to be the same instance get numbers: they may differ, and a copy
    /// never replaces another of the same run.
    fn place(&mut self, clean: &CleanFile) -> PathBuf {
        let hash = blake3::hash(format!("{}/{}/{}", clean.study, clean.series, clean.instance).as_bytes());
        let key: [u8; 16] = hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes");
        let number = self.placed.entry(key).or_default();
        *number += 1;
        let ending = if *number == 1 { String::new() } else { format!("-{number}") };
        let name = format!("{}{ending}.dcm", clean.instance);
        self.out.join(&clean.study).join(&clean.series).join(name)
    }

    /// Scrubs a text when one study alone lies beside or below it.
    fn text(&mut self, path: &Path, below: &Below) -> Result<()> {
        let Below::One(study, known) = below else {
            self.tally.loose_texts += 1;
            return Ok(());
        };
        let size = fs::metadata(path)?.len();
        let text = match fs::read(path).map(String::from_utf8) {
            Ok(Ok(text)) if size <= TEXT_MAX => text,
            Ok(Ok(_)) => {
                self.refuse(
                    path,
                    &format!("it is a text of {size} bytes, too long for a report (at most {TEXT_MAX})"),
                );
                return Ok(());
            }
            Ok(Err(_)) => {
                self.refuse(path, "it is not text in UTF-8; convert it");
                return Ok(());
            }
            Err(error) => {
                self.refuse(path, &format!("cannot read it: {error}; check its permissions"));
                return Ok(());
            }
        };
        let (clean, counts) = self.with.text(&text, known);
        let folder = self.out.join(study);
        // The original name may name the patient. The text itself tells copies of several texts apart.
        let name = format!("report-{}.txt", &blake3::hash(clean.as_bytes()).to_hex()[..8]);
        replace(&folder.join(name), clean.as_bytes())?;
        self.tally.texts += 1;
        self.tally.removed.kinds.add(&counts);
        Ok(())
    }

    fn refuse(&mut self, path: &Path, why: &str) {
        self.tally.refused += 1;
        self.bar.suspend(|| eprintln!("left out {}: {why}", path.display()));
    }
}

fn tell(args: &DeidentifyArgs, tally: &Tally) -> Result<()> {
    output::line(&format!(
        "de-identified {} of {} and {} to {}; {}",
        output::count(tally.files, "file"),
        // "studies" is no plural that `count` makes.
        if tally.studies.len() == 1 {
            "1 study".to_owned()
        } else {
            format!("{} studies", tally.studies.len())
        },
        output::count(tally.texts, "report text"),
        args.out.display(),
        tally.left_out()
    ))?;
    output::line(&format!("identifying values, by kind: {}", tally.removed.kinds))?;
    let actions: Vec<String> =
        tally.removed.actions.iter().map(|(action, n)| format!("{action} {}", output::grouped(*n))).collect();
    output::line(&format!("attributes, by action: {}", actions.join(", ")))?;
    for (code, meaning) in &tally.removed.methods {
        output::line(&format!("method: DCM {code} {meaning}"))?;
    }
    if tally.suspected + tally.declared > 0 {
        output::line(&format!(
            "pixels to be looked at: {} with Burned In Annotation, {} of kinds that often have it",
            tally.declared, tally.suspected
        ))?;
    }
    let Some(report) = &args.report else { return Ok(()) };
    let kinds: BTreeMap<&str, u64> = tally.removed.kinds.iter().map(|(kind, n)| (kind.as_str(), n)).collect();
    let methods: Vec<_> = tally
        .removed
        .methods
        .iter()
        .map(|(code, meaning)| json!({"code": code, "meaning": meaning}))
        .collect();
    let page = json!({
        "files": tally.files,
        "studies": tally.studies.len(),
        "texts": tally.texts,
        "kinds": kinds,
        "actions": tally.removed.actions,
        "methods": methods,
        "burned_in": {"declared": tally.declared, "suspected": tally.suspected},
        "left_out": {
            "damaged_or_refused": tally.refused,
            "not_dicom": tally.foreign,
            "loose_texts": tally.loose_texts,
        },
    });
    replace(report, format!("{}\n", serde_json::to_string_pretty(&page)?).as_bytes())?;
    Ok(())
}
