//! What can be typed of `diptych ingest`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use diptych_core::{Chunking, CollectionName};
use diptych_encoder::Precision;
use diptych_ingest::{Columns, DicomOptions, FramePolicy, Identities, Layout, SourceOptions};
use diptych_radiology::deidentify::{BurnedIn, Dates, Deidentifier, Options, open_key};

use crate::args::MODEL_HELP;
use crate::backup_args::ImportArgs;
use crate::record_args::{WhereArgs, collection};

// What stands below the options.
const HELP: &str = "\
    The layout of SOURCE is recognised by what is there: a folder of images, JSON lines, CSV or TSV, \
    Parquet, WebDataset (.tar, .tar.gz, shards-{000..009}.tar), MIMIC-CXR-JPG, OpenI as XML or CSV, ROCO, \
    a DICOM tree, a folder of vectors as clip-retrieval writes it. --dry-run shows what would be stored. Records that \
    are stored already are left alone, so a run that was broken off is simply run again. docs/ingest.md \
    says what each layout becomes.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct IngestArgs {
    /// A folder, a file or an archive; a pattern such as 'shards-{000..009}.tar'; s3://bucket/key, built
    /// with s3
    pub source: PathBuf,
    /// Show the layout, the mapping and the first N records as they would be stored, or all, and what would
    /// be left out; nothing is stored [default N: 5]
    #[arg(long, value_name = "N|all", num_args = 0..=1, require_equals = true, default_missing_value = "5", value_parser = dry_run)]
    pub dry_run: Option<DryRun>,
    /// Read SOURCE as this layout instead of the one that is recognised
    #[arg(long, value_name = "LAYOUT", value_parser = layout)]
    pub format: Option<Layout>,
    #[command(flatten)]
    pub columns: ColumnArgs,
    #[command(flatten)]
    pub dicom: DicomArgs,
    /// Data directory on this machine (needs --model)
    #[arg(long, env = "DIPTYCH_DATA", value_name = "DIR", conflicts_with = "server")]
    pub data: Option<PathBuf>,
    #[arg(help = MODEL_HELP, long, env = "DIPTYCH_MODEL", value_name = "MODEL_DIR")]
    pub model: Option<PathBuf>,
    /// How the model computes: f32, or int8, which is faster and gives embeddings that differ a little
    #[arg(long, env = "DIPTYCH_PRECISION", default_value_t = Precision::F32, value_name = "f32|int8")]
    pub precision: Precision,
    /// Server to ask instead, such as http://127.0.0.1:7700
    ///
    /// What it asks for comes from the environment: the API key from DIPTYCH_API_KEY, or from the file
    /// that DIPTYCH_API_KEY_FILE names; for https://, DIPTYCH_TLS_CA names the certificate of its
    /// authority, and DIPTYCH_TLS_IDENTITY a file with the client's own certificate and key.
    #[arg(long, value_name = "URL", required_unless_present_any = ["data", "dry_run"])]
    pub server: Option<String>,
    /// Collection to work on
    #[arg(long, default_value = CollectionName::DEFAULT, value_parser = collection, value_name = "NAME")]
    pub collection: CollectionName,
    /// Where to list items that could not be ingested, as JSON lines; written when there are any
    #[arg(long, default_value = "ingest-failures.jsonl", value_name = "FILE")]
    pub report: PathBuf,
    /// Have the index take in what is new at once, not at the next start (with --data)
    #[arg(long, requires = "data")]
    pub index: bool,
    /// Of a folder of vectors: they come from the model of the collection, although the folder does not say so
    #[arg(long)]
    pub trust_vectors: bool,
}

/// Which columns, or fields, are what.
#[derive(Debug, clap::Args)]
pub struct ColumnArgs {
    /// Column, or field, with the keys [default: key, else id]
    #[arg(long, value_name = "COLUMN", conflicts_with = "study_column")]
    pub key_column: Option<String>,
    /// Column with the key of the study of a row: neighbouring rows of one study are one record [default:
    /// case_id where there is no key]
    #[arg(long, value_name = "COLUMN")]
    pub study_column: Option<String>,
    /// Column with image paths, or images; may be repeated [default: image, images, image_path, path ...]
    #[arg(long = "image-column", value_name = "COLUMN")]
    pub image_columns: Vec<String>,
    /// Column with texts; may be repeated [default: text, caption, report, description]
    #[arg(long = "text-column", value_name = "COLUMN")]
    pub text_columns: Vec<String>,
    /// An attribute and the column that it comes from; may be repeated, and then no other column becomes an
    /// attribute [default: every column that is nothing else]
    #[arg(long = "attribute", value_name = "NAME=COLUMN", value_parser = attribute)]
    pub attributes: Vec<(String, String)>,
    /// Folder that image paths are relative to [default: that of the file that names them]
    #[arg(long, value_name = "DIR")]
    pub image_root: Option<PathBuf>,
    /// How texts are divided: context, into as few parts as the model can take, or sentences [default:
    /// sentences for studies, else context]
    #[arg(long, value_name = "context|sentences", value_parser = chunking)]
    pub chunking: Option<Chunking>,
}

/// What becomes of DICOM.
#[derive(Debug, clap::Args)]
pub struct DicomArgs {
    /// Of a DICOM tree: secret of the hashes that patients and studies are named by, made when it is not there;
    /// the same key gives the same names in later runs [default: DATA.key beside the data directory]
    #[arg(long, value_name = "FILE", conflicts_with = "keep_identities")]
    pub key_file: Option<PathBuf>,
    /// Of a DICOM tree: store it with the patients' numbers, dates and reports as they are
    #[arg(long)]
    pub keep_identities: bool,
    /// Of a DICOM tree: pictures with names burned into their pixels: refuse them, or take them by flag or accept
    #[arg(long, default_value_t = BurnedIn::Refuse, value_name = "POLICY")]
    pub burned_in: BurnedIn,
    /// Of a DICOM tree: dates are moved (shift), kept (keep) or left out (remove)
    #[arg(long, default_value_t = Dates::Shift, value_name = "shift|keep|remove")]
    pub dates: Dates,
    /// Of a DICOM tree: the frames that are taken of an image with several: first, middle, all:N at most, or
    /// every:N
    #[arg(long, default_value = "middle", value_parser = frames, value_name = "first|middle|all:N|every:N")]
    pub frames: FramePolicy,
}

/// How many records a dry run shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryRun {
    First(NonZeroUsize),
    All,
}

impl IngestArgs {
    /// How the source is to be read.
    pub fn source_options(&self) -> SourceOptions {
        let ColumnArgs { key_column, study_column, image_columns, text_columns, .. } = &self.columns;
        SourceOptions {
            layout: self.format,
            columns: Columns {
                key: key_column.clone(),
                study: study_column.clone(),
                images: image_columns.clone(),
                texts: text_columns.clone(),
                attributes: self.columns.attributes.clone(),
            },
            image_root: self.columns.image_root.clone(),
            chunking: self.columns.chunking,
            // Known when the source is: no other layout needs a key.
            dicom: DicomOptions::default(),
        }
    }

    /// What becomes of the identities in a DICOM tree. Opens the key, or makes one, but not for a dry run.
    pub fn dicom_options(&self) -> Result<DicomOptions> {
        let frames = self.dicom.frames;
        if self.dicom.keep_identities {
            return Ok(DicomOptions { identities: Identities::Kept, frames });
        }
        let file = self.dicom.key_file.clone().or_else(|| self.data.as_deref().map(key_beside));
        let key = match (file, self.dry_run) {
            (Some(file), None) => {
                let key = open_key(&file)?;
                if key.created {
                    eprintln!(
                        "note: made the key {}: later runs need it, and who has it can link records to patients",
                        file.display()
                    );
                }
                key.key
            }
            (Some(file), Some(_)) if file.exists() => open_key(&file)?.key,
            (_, Some(_)) => {
                eprintln!("note: there is no key yet, so the names of patients and studies will be others");
                [0; 32]
            }
            (None, None) => bail!(
                "a DICOM tree names patients; say by --key-file with which secret their names are replaced, or \
                 --keep-identities to store them as they are"
            ),
        };
        let mut options = Options::new(key);
        options.burned_in = self.dicom.burned_in;
        options.dates = self.dicom.dates;
        Ok(DicomOptions { identities: Identities::Removed(Arc::new(Deidentifier::new(options))), frames })
    }

    /// The same as an import of vectors.
    pub fn import(&self) -> ImportArgs {
        ImportArgs {
            source: self.source.clone(),
            collection: self.collection.clone(),
            trust_vectors: self.trust_vectors,
            key_column: self.columns.key_column.clone(),
            report: self.report.clone(),
            model: self.model.clone(),
            precision: self.precision,
            place: WhereArgs { data: self.data.clone(), server: self.server.clone() },
        }
    }
}

fn layout(name: &str) -> Result<Layout, String> {
    name.parse()
}

fn dry_run(text: &str) -> Result<DryRun, String> {
    match text {
        "all" => Ok(DryRun::All),
        _ => {
            text.parse().map(DryRun::First).map_err(|_| "give a number of records above 0, or all".to_owned())
        }
    }
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, column) = text.split_once('=').unwrap_or((text, text));
    match name.trim().is_empty() || column.is_empty() {
        true => Err("write NAME=COLUMN, or only the name where both are the same".to_owned()),
        false => Ok((name.trim().to_owned(), column.to_owned())),
    }
}

/// The file of the secret of a data directory: beside it, so that no backup of the data holds it.
pub fn key_beside(data: &Path) -> PathBuf {
    let mut name = data.file_name().unwrap_or_default().to_owned();
    name.push(".key");
    data.with_file_name(name)
}

fn frames(text: &str) -> Result<FramePolicy, String> {
    let number = |digits: &str| {
        let number = digits.parse().ok().filter(|&n: &u32| n > 0);
        number.ok_or_else(|| "give a number of frames above 0".to_owned())
    };
    match text.split_once(':') {
        None if text == "first" => Ok(FramePolicy::First),
        None if text == "middle" => Ok(FramePolicy::Middle),
        Some(("all", max)) => Ok(FramePolicy::All { max: number(max)? }),
        Some(("every", step)) => number(step).map(FramePolicy::Every),
        _ => Err("write first, middle, all:N or every:N".to_owned()),
    }
}

fn chunking(name: &str) -> Result<Chunking, String> {
    match name {
        "context" => Ok(Chunking::Context),
        "sentences" => Ok(Chunking::Sentences),
        _ => Err("write context or sentences".to_owned()),
    }
}
