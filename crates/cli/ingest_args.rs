//! What can be typed of `diptych ingest`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use diptych_core::{Chunking, CollectionName};
use diptych_encoder::Precision;
use diptych_ingest::{Columns, Layout, SourceOptions};

use crate::args::MODEL_HELP;
use crate::backup_args::ImportArgs;
use crate::record_args::{WhereArgs, collection};

// What stands below the options.
const HELP: &str = "\
    The layout of SOURCE is recognised by what is there: a folder of images, JSON lines, CSV or TSV, \
    Parquet, WebDataset (.tar, .tar.gz, shards-{000..009}.tar), MIMIC-CXR-JPG, OpenI as XML or CSV, ROCO, \
    a folder of vectors as clip-retrieval writes it. --dry-run shows what would be stored. Records that \
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
        }
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

fn chunking(name: &str) -> Result<Chunking, String> {
    match name {
        "context" => Ok(Chunking::Context),
        "sentences" => Ok(Chunking::Sentences),
        _ => Err("write context or sentences".to_owned()),
    }
}
