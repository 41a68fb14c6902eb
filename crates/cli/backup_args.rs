//! What can be typed of `diptych backup`, `restore`, `export` and `import`.

use std::path::PathBuf;

use diptych_columnar::Dtype;
use diptych_core::{CollectionName, Filter};
use diptych_encoder::Precision;

use crate::record_args::{WhereArgs, collection};

// What stands below the options.
const BACKUP_HELP: &str = "\
    The server goes on reading and writing; what it has acknowledged before is in the backup. OUT appears \
    whole or not at all, and nothing in it is changed later: copy it wherever backups are kept. It needs an \
    API key of the role admin that is for all collections. One backup at a time.";
const RESTORE_HELP: &str = "\
    Every file is checked against its digest while it is copied, and the data directory appears when all \
    are good. The backup stays as it is.";
const EXPORT_HELP: &str = "\
    The folder is laid out as clip-retrieval's, and `diptych import` makes the same records of it again. \
    docs/export.md says what its columns mean.";
const IMPORT_HELP: &str = "\
    Vectors are taken as they are, so they must come from the model of the collection. A folder that \
    `diptych export` has written says which model that is; of another one, --trust-vectors says that it \
    is the right one. Records that are stored already are left alone, so a run that was broken off is \
    simply run again.";

#[derive(Debug, clap::Args)]
#[command(after_help = BACKUP_HELP)]
pub struct BackupArgs {
    /// Where to write the backup: a new or empty folder
    pub out: PathBuf,
    #[command(flatten)]
    pub place: WhereArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = RESTORE_HELP)]
pub struct RestoreArgs {
    /// A folder that `diptych backup` has written
    pub backup: PathBuf,
    /// Data directory to make of it: a new or empty folder
    #[arg(long, env = "DIPTYCH_DATA", value_name = "DIR", required_unless_present = "check")]
    pub data: Option<PathBuf>,
    /// Only check that the backup is complete and undamaged; exit code 1 when it is not
    #[arg(long)]
    pub check: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXPORT_HELP)]
pub struct ExportArgs {
    /// Collection to export
    #[arg(value_parser = collection, value_name = "COLLECTION")]
    pub collection: CollectionName,
    /// Where to write it: a new or empty folder
    pub out: PathBuf,
    /// Only records that meet a condition, as for search
    #[arg(long, value_name = "CONDITION")]
    pub filter: Option<Filter>,
    /// Rows of one file; a record is never divided
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..), value_name = "ROWS")]
    pub shard: u64,
    /// How vectors are written: f16, as clip-retrieval does, or f32, which keeps every bit
    #[arg(long, default_value_t = Dtype::F16, value_name = "f16|f32")]
    pub dtype: Dtype,
    #[command(flatten)]
    pub place: WhereArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = IMPORT_HELP)]
pub struct ImportArgs {
    /// A folder that `diptych export` or clip-retrieval has written
    pub source: PathBuf,
    /// Collection to store its records in, created when absent
    #[arg(long, default_value = CollectionName::DEFAULT, value_parser = collection, value_name = "NAME")]
    pub collection: CollectionName,
    /// The vectors come from the model of the collection, although the folder does not say so
    #[arg(long)]
    pub trust_vectors: bool,
    /// Column with the keys of the records, of a folder that was not exported here [default: key, else
    /// image_path]
    #[arg(long, value_name = "COLUMN")]
    pub key_column: Option<String>,
    /// Where to list records that could not be imported, as JSON lines; written when there are any
    #[arg(long, default_value = "import-failures.jsonl", value_name = "FILE")]
    pub report: PathBuf,
    /// The model of a data directory that has no collection yet: a directory, or hf:owner/name. Not needed
    /// for a folder that says its model
    #[arg(long, env = "DIPTYCH_MODEL", value_name = "MODEL_DIR")]
    pub model: Option<PathBuf>,
    /// How that model computes: f32, or int8
    #[arg(long, env = "DIPTYCH_PRECISION", default_value_t = Precision::F32, value_name = "f32|int8")]
    pub precision: Precision,
    #[command(flatten)]
    pub place: WhereArgs,
}
