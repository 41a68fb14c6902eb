//! What can be typed. The one place where defaults of the command line live, those of `serve` aside,
//! which are in `config`.

mod keys;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use diptych_core::{CollectionName, Facet, Filter, Fusion, Key, Target};
use diptych_encoder::Precision;
use diptych_eval::Bootstrap;
use diptych_train::tune;

use crate::backup_args::{BackupArgs, ExportArgs, ImportArgs, RestoreArgs};
use crate::case_args::{DraftArgs, SimilarArgs};
use crate::completions::{CompletionsArgs, ManArgs};
use crate::config::{ConfigCommand, ServeArgs};
use crate::dicom::DicomCommand;
use crate::health::HealthArgs;
use crate::ingest_args::IngestArgs;
use crate::operation::OperationCommand;
use crate::record_args::{CollectionCommand, RecordCommand};
pub use keys::{CreateKeyArgs, KeysCommand, ListKeysArgs, RevokeKeyArgs};

/// What may stand for a model.
pub const MODEL_HELP: &str =
    "Model directory, or hf:owner/name[@revision] from the Hugging Face cache or, built with hub, the hub";

// What stands below the options: the long form of a description would blow up their list.
const TRAIN_HELP: &str = "\
    A recipe says everything that decides the result: the pairs, the towers, the objective, the \
    schedule and the seed. What is written is a model directory that every other command takes with \
    --model. A run that was stopped, however it was, goes on with --resume.";
const TUNE_HELP: &str = "\
    The model itself stays as it is: a small layer is trained on top of each of its towers, and what \
    is written is a new model directory. Some pairs are held out; training ends when those are found \
    no better, the best step is kept, and a model that is no better than before is not written.";
const EVAL_HELP: &str = "\
    Beside every number stand its 95 % interval, what a random order would give, and what the same \
    model gives when the pairs are shuffled. docs/evaluation.md says what each number means.";
const SEARCH_HELP: &str = "\
    A term with - in front is looked away from. An argument that ends like an image file, or begins \
    with ./, ../ or /, is one; everything else is words. The second number of a hit is its relevance, \
    the probability that it is a match, learned from the collection's own pairs of images and texts; \
    a collection with too few shows none. With --words or --hybrid there is a third number, the BM25 \
    score, and under a hit stands the sentence that has the words; the order is that of both together.";
const RELEVANCE_HELP: &str = "\
    Parts of stored records are searched for the other parts of their records, with their own record \
    among the answers and once more without it. Half of these questions fit a curve from the cosine \
    to the share of matches; the error is the mean distance of promise and truth on the others.";
const FINDINGS_HELP: &str = "\
    Rules over a list of phrases, written for English reports of chest radiographs: they say what a \
    report says, not what a picture shows, and are no diagnosis. docs/radiology.md has them all.";
const CLASSIFY_HELP: &str = "\
    Each label becomes one embedding, the mean of those of its prompts, and each image is compared \
    with all of them. With --truth, prints how well that works instead of what it says.";

/// Cross-modal retrieval: text finds images, images find text.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a data directory over gRPC
    Serve(ServeArgs),
    /// Ingest a folder of images, JSON lines, a table, archives, or a radiology collection as it is
    Ingest(Box<IngestArgs>),
    /// Find images or texts by a text, an image or a stored record
    Search(Box<SearchArgs>),
    /// Find cases like a case: its images, the sentences of its report and its findings together
    Similar(Box<SimilarArgs>),
    /// Draft a report of sentences on which the reports of similar cases agree
    Draft(Box<DraftArgs>),
    /// Build, seal and merge the indexes of a data directory that no server has open, or check them
    Index(IndexArgs),
    /// Write the embeddings of images and texts to a safetensors file
    Embed(EmbedArgs),
    /// Look at DICOM files, and de-identify them
    #[command(subcommand)]
    Dicom(DicomCommand),
    /// Generate synthetic chest radiographs with reports and labels
    Phantom(PhantomArgs),
    /// Train a dual encoder on pairs, from scratch or on pre-trained towers, as a recipe says
    Train(TrainArgs),
    /// Fit a light adapter on top of a model from your own pairs
    Tune(TuneArgs),
    /// Measure how well a model finds images by texts and texts by images, on pairs
    Eval(EvalArgs),
    /// Show the sections of a report and the findings in it, present, absent or uncertain
    Findings(FindingsArgs),
    /// Classify images by labels in words, or measure how well a model does so
    Classify(ClassifyArgs),
    /// Learn what the scores of a collection mean, and show how far that can be trusted
    Relevance(RelevanceArgs),
    /// Show what a server holds and how much of the true answer its searches find
    Stats(StatsArgs),
    /// Check that store and index agree; exit code 1 when they do not
    Verify(VerifyArgs),
    /// Copy everything that a running server, or a data directory, holds into a folder
    Backup(BackupArgs),
    /// Make a data directory of a backup, or check one
    Restore(RestoreArgs),
    /// Write a collection's records and vectors as Parquet and .npy, in clip-retrieval's layout
    Export(ExportArgs),
    /// Store records with their vectors from a folder in clip-retrieval's layout; nothing is encoded
    Import(ImportArgs),
    /// Make, list and revoke the API keys of a server
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Create, list, describe and delete collections, and build their indexes again
    #[command(subcommand)]
    Collection(CollectionCommand),
    /// Read, count, update and delete records
    #[command(subcommand)]
    Record(RecordCommand),
    /// Look at operations of a server, wait for them and cancel them
    #[command(subcommand)]
    Operation(OperationCommand),
    /// Look at models
    #[command(subcommand)]
    Model(ModelCommand),
    /// Check a file of settings for serve, or print the settings that count
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask a server for its health; exit code 0 when it serves, 1 when not or when it cannot be reached
    Health(HealthArgs),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// Write manual pages
    Man(ManArgs),
}

#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Load a model and print its family, towers, sizes, preprocessing, tokenizer and id
    Inspect(InspectArgs),
}

#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    #[arg(help = MODEL_HELP, value_name = "MODEL_DIR")]
    pub model: PathBuf,
    /// How the model computes: f32, or int8, which is faster and gives embeddings that differ a little
    #[arg(long, env = "DIPTYCH_PRECISION", default_value_t = Precision::F32, value_name = "f32|int8")]
    pub precision: Precision,
}

/// A model and how it computes.
#[derive(Debug, clap::Args)]
pub struct ModelArgs {
    #[arg(help = MODEL_HELP, long = "model", env = "DIPTYCH_MODEL", value_name = "MODEL_DIR")]
    pub dir: PathBuf,
    /// How the model computes: f32, or int8, which is faster and gives embeddings that differ a little
    #[arg(long, env = "DIPTYCH_PRECISION", default_value_t = Precision::F32, value_name = "f32|int8")]
    pub precision: Precision,
}

/// Where a command works: on a data directory of this machine, or through a server.
#[derive(Debug, clap::Args)]
pub struct PlaceArgs {
    /// Data directory on this machine (needs --model)
    #[arg(long, env = "DIPTYCH_DATA", value_name = "DIR", conflicts_with = "server", requires = "model")]
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
    #[arg(long, value_name = "URL", required_unless_present = "data")]
    pub server: Option<String>,
    /// Collection to work on
    #[arg(long, default_value = CollectionName::DEFAULT, value_parser = collection, value_name = "NAME")]
    pub collection: CollectionName,
}

#[derive(Debug, clap::Args)]
pub struct IndexArgs {
    /// Data directory; no server may have it open
    #[arg(long, env = "DIPTYCH_DATA", value_name = "DIR")]
    pub data: PathBuf,
    /// Collection to work on [default: all]
    #[arg(long, value_parser = collection, value_name = "NAME")]
    pub collection: Option<CollectionName>,
    /// Read every file and check it against its checksums; what is damaged is built again, and the
    /// exit code is 1
    #[arg(long)]
    pub check: bool,
    /// Throw the files away and build the indexes again from the store
    #[arg(long)]
    pub rebuild: bool,
    /// Teach the index of images about queries: a file with one text per line (needs --model)
    #[arg(long, requires = "model", value_name = "FILE")]
    pub queries: Option<PathBuf>,
    #[arg(help = MODEL_HELP, long, env = "DIPTYCH_MODEL", value_name = "MODEL_DIR")]
    pub model: Option<PathBuf>,
    /// How the model computes: f32, or int8, which is faster and gives embeddings that differ a little
    #[arg(long, env = "DIPTYCH_PRECISION", default_value_t = Precision::F32, value_name = "f32|int8")]
    pub precision: Precision,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("query").required(true).multiple(true), after_help = SEARCH_HELP)]
pub struct SearchArgs {
    /// What to look for: words, image files, key:NAME for a stored record; joined by + and -, each with
    /// a weight in front if it is not 1: "2:golden retriever" + ./pool.jpg - fruit
    #[arg(group = "query", value_name = "TERM")]
    pub terms: Vec<String>,
    /// Search by words, taken as they are
    #[arg(long, group = "query", value_name = "T")]
    pub text: Option<String>,
    /// Search by an image file
    #[arg(long, group = "query", value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Search by a stored record
    #[arg(long, group = "query", value_parser = key, value_name = "KEY")]
    pub key: Option<Key>,
    /// Look for words in texts, too, or only for them
    ///
    /// Case, accents and English endings do not count. Each word adds to the score of a text; a "phrase in
    /// double quotes" must be there word for word, +word must be there, -word must not be. What must or must
    /// not be there holds for every hit.
    #[arg(long, group = "query", allow_hyphen_values = true, value_name = "WORDS")]
    pub words: Option<String>,
    /// Look for the words of the texts searched by, too, those with - in front aside
    #[arg(long, conflicts_with = "words")]
    pub hybrid: bool,
    /// How the order by words and the order by meaning become one: rrf by ranks, rrf:K with another
    /// constant than 60, or weighted:SHARE by scores, of which words count the share
    #[arg(long, default_value = "rrf", value_parser = fusion, value_name = "rrf|weighted:0.3")]
    pub fusion: Fusion,
    /// What to find: image, text or both
    #[arg(long, default_value = "both", value_parser = target, value_name = "image|text|both")]
    pub target: Target,
    /// Only hits that are a match with at least this probability, such as 0.5
    #[arg(long, value_parser = share, value_name = "0..1")]
    pub min_relevance: Option<f64>,
    /// Leave out records with the same value of this attribute as a record searched by: with --key,
    /// the other studies of a patient
    #[arg(long, value_name = "ATTRIBUTE")]
    pub exclude_same: Option<String>,
    /// Show only the best of the records with the same value of this attribute
    #[arg(long, value_name = "ATTRIBUTE")]
    pub group_by: Option<String>,
    /// Show only the best of records whose parts have at least this cosine, such as 0.98
    #[arg(long, value_parser = share, value_name = "0..1")]
    pub collapse: Option<f64>,
    /// How much a hit has to differ from those before it
    #[arg(long, value_parser = share, value_name = "0..1")]
    pub diversity: Option<f64>,
    /// The page behind the one that gave this token, of the same search
    #[arg(long, value_name = "TOKEN")]
    pub page_token: Option<String>,
    /// Count the values of an attribute, over all records that could be found; with a number, that many
    /// values: labels:20; may be repeated
    #[arg(long = "facet", value_parser = crate::facets::parse, value_name = "ATTRIBUTE[:N]")]
    pub facets: Vec<Facet>,
    /// Write a small picture of each hit into this folder
    #[arg(long, value_name = "DIR")]
    pub thumbnails: Option<PathBuf>,
    /// Hits wanted, 1 to 1000
    #[arg(short, long, default_value_t = 10)]
    pub k: u64,
    /// Candidate list of the graph search, 1 to 4096; of no use to a scan, which is exact
    #[arg(long)]
    pub ef: Option<u64>,
    /// Instead of --ef: the share of the true neighbours to be found, such as 0.95 (with --server)
    #[arg(long, requires = "server", conflicts_with = "ef", value_name = "0..1")]
    pub recall: Option<f64>,
    /// Only records that meet a condition: 'view = "PA" and age >= 40 and not labels has "normal"'
    ///
    /// Conditions: =, !=, <, <=, >, >= with a "text", a number, time("2024-01-31"), true or false; in
    /// ("PA", "AP"); starts_with "text"; has "text" for an attribute that is a list of texts; exists NAME. They are joined by and, or, not
    /// and parentheses. A record without the attribute meets no condition but !=. Names with other
    /// characters than letters, digits, '_', '-' and '.' stand in `backquotes`.
    #[arg(long, value_name = "CONDITION")]
    pub filter: Option<Filter>,
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = RELEVANCE_HELP)]
pub struct RelevanceArgs {
    /// Data directory; no server may have it open
    #[arg(long, env = "DIPTYCH_DATA", value_name = "DIR")]
    pub data: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Collection to work on
    #[arg(long, default_value = CollectionName::DEFAULT, value_parser = collection, value_name = "NAME")]
    pub collection: CollectionName,
    /// Where to draw the reliability diagrams
    #[arg(long, value_name = "FILE.svg")]
    pub svg: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("inputs").required(true).multiple(true))]
pub struct EmbedArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Image files; rows of the tensor image_embeds, in this order
    #[arg(long, num_args = 1.., group = "inputs", value_name = "FILE")]
    pub images: Vec<PathBuf>,
    /// A file with one text per line; rows of the tensor text_embeds, in this order
    #[arg(long, group = "inputs", value_name = "FILE")]
    pub texts: Option<PathBuf>,
    /// Safetensors file to write: image_embeds [n, d], text_embeds [m, d], f32, L2-normalised
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// What phantoms are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PhantomFormat {
    Png,
    Dicom,
}

#[derive(Debug, clap::Args)]
pub struct PhantomArgs {
    /// Cases to generate; of an archive, studies
    #[arg(long, value_name = "N")]
    pub cases: u64,
    /// Seed; the same seed gives the same cases
    #[arg(long, default_value_t = 1, value_name = "S")]
    pub seed: u64,
    /// Directory to write: images/*.png and cases.jsonl; with --format dicom archive/, cases.jsonl and
    /// canaries.jsonl
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// png: one picture and report each. dicom: a hospital's archive, with several studies a patient,
    /// several views a study, several transfer syntaxes, reports as DICOM and as text, names and numbers
    #[arg(long, default_value = "png", value_name = "png|dicom")]
    pub format: PhantomFormat,
    /// With --format dicom: identifying strings that occur nowhere else, to be looked for behind a
    /// de-identification [default: 3 a study]
    #[arg(long, value_name = "N")]
    pub canaries: Option<u64>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = TRAIN_HELP)]
pub struct TrainArgs {
    /// The recipe. data/recipes has one for each method, with comments; start with mini.toml (from
    /// scratch) or heads.toml (on pre-trained towers)
    #[arg(value_name = "RECIPE.toml")]
    pub recipe: PathBuf,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = TUNE_HELP)]
pub struct TuneArgs {
    #[arg(help = MODEL_HELP, long, env = "DIPTYCH_MODEL", value_name = "MODEL_DIR")]
    pub model: PathBuf,
    /// Pairs to learn from: a folder of images with same-named .txt files beside them, or a .jsonl file
    #[arg(long, value_name = "PAIRS")]
    pub pairs: PathBuf,
    /// Other pairs to hold out, in place of a share of the pairs
    #[arg(long, value_name = "PAIRS")]
    pub validation: Option<PathBuf>,
    /// Share of the pairs that is held out
    #[arg(long, default_value_t = tune::Settings::default().validation_share, value_name = "0..1")]
    pub validation_share: f64,
    /// Attribute whose equal values are held out together, such as patient_id: no patient is on both sides
    #[arg(long, value_name = "ATTRIBUTE")]
    pub group_by: Option<String>,
    /// Width of the adapter's hidden layer
    #[arg(long, default_value_t = tune::Settings::default().hidden, value_name = "N")]
    pub hidden: usize,
    /// Passes over the pairs at most; a run without progress ends earlier
    #[arg(long, default_value_t = tune::Settings::default().epochs, value_name = "N")]
    pub epochs: f64,
    /// Images per step; fewer where there are not twice as many
    #[arg(long, default_value_t = tune::Settings::default().batch_size, value_name = "N")]
    pub batch_size: usize,
    /// Peak learning rate
    #[arg(long, default_value_t = tune::Settings::default().learning_rate, value_name = "RATE")]
    pub learning_rate: f32,
    /// Seed of the adapter's weights and the order of pairs
    #[arg(long, default_value_t = tune::Settings::default().seed, value_name = "S")]
    pub seed: u64,
    /// Write the model even if it finds the held-out pairs no better than before
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub run: RunArgs,
}

/// Where a run goes, and what becomes of one that is there.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Model directory to write, created when absent; the log of the run and its curves go there too
    #[arg(long, value_name = "OUT")]
    pub out: PathBuf,
    /// Continue the run in OUT from its last checkpoint, if there is one; it ends as if it had never been
    /// stopped
    #[arg(long)]
    pub resume: bool,
    /// Discard the run and the model in OUT and start from the first step
    #[arg(long, conflicts_with = "resume")]
    pub restart: bool,
    /// Where to keep what frozen towers make of the data; runs over the same data may share it [default:
    /// OUT/features]
    #[arg(long, env = "DIPTYCH_FEATURES", value_name = "DIR")]
    pub features: Option<PathBuf>,
}

/// How measures are made sure of.
#[derive(Debug, clap::Args)]
pub struct MeasureArgs {
    /// Attribute whose equal values belong together, such as a patient: intervals resample and the
    /// control shuffles whole groups [default: each line is a group]
    #[arg(long, value_name = "ATTRIBUTE")]
    pub group_by: Option<String>,
    /// Resamples for the 95 % intervals; 0 for none
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(..=100_000), value_name = "N")]
    pub bootstrap: u32,
    /// Seed of the resamples and of the shuffled pairs
    #[arg(long, default_value_t = 1, value_name = "S")]
    pub seed: u64,
}

impl MeasureArgs {
    /// How intervals are drawn.
    pub fn bootstrap(&self) -> Bootstrap {
        Bootstrap { resamples: self.bootstrap as usize, seed: self.seed }
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = EVAL_HELP)]
pub struct EvalArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Pairs, one JSON object per line, as for ingest; with --protocol, what that protocol reads
    #[arg(long, value_name = "FILE")]
    pub pairs: PathBuf,
    /// A published protocol, or ours for studies, instead of pairs
    #[arg(long, value_enum, conflicts_with = "labels")]
    pub protocol: Option<Protocol>,
    /// Folder that the paths of images in the files of 5x200, 8x200 and rocov2 start from [default: that of
    /// the files]
    #[arg(long, requires = "protocol", value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// Attribute whose equal values make records one study, with --protocol study [default: each record is one]
    #[arg(long, requires = "protocol", value_name = "ATTRIBUTE")]
    pub study_by: Option<String>,
    /// Attribute with the labels of each record, for nDCG and label precision [default: labels, where
    /// every record has them]
    #[arg(long, value_name = "ATTRIBUTE")]
    pub labels: Option<String>,
    /// Count only the own record as right, even where others have the same text word for word
    #[arg(long)]
    pub duplicates_wrong: bool,
    #[command(flatten)]
    pub measure: MeasureArgs,
    /// Write a page with plots and examples, complete in one file
    #[arg(long, value_name = "OUT.html")]
    pub report: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Protocols of evaluation beside pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// chexpert_5x200.csv of GLoRIA: reports of the same of five categories for images, and images for reports
    #[value(name = "5x200")]
    FiveBy200,
    /// The folder CheXpert 8x200 of ConVIRT: images of the same of eight categories for texts, and for images
    #[value(name = "8x200")]
    EightBy200,
    /// Studies, one JSON object per line: studies of other patients with the same findings
    Study,
    /// Captions of ROCOv2, ID and Caption as CSV beside its images: the image of a caption and back
    Rocov2,
}

#[derive(Debug, clap::Args)]
#[command(after_help = FINDINGS_HELP)]
#[command(group = clap::ArgGroup::new("input").required(true))]
pub struct FindingsArgs {
    /// A file with one report; - reads standard input
    #[arg(group = "input", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A report, a sentence or a query
    #[arg(long, group = "input", value_name = "TEXT")]
    pub text: Option<String>,
    /// Measure on labelled texts: lines such as {"text": "No effusion.", "absent": ["effusion"]}, with "present",
    /// "absent" and "uncertain"
    #[arg(long, group = "input", value_name = "LABELS.jsonl")]
    pub labels: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Prompts that stand for a label when no file gives its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PromptSet {
    /// What photographs are called: "a photo of a {}." and others
    Photos,
    /// A finding that is there or not: "{}.", "There is {}." against "No {}.", "There is no {}."
    Radiology,
}

#[derive(Debug, clap::Args)]
#[command(after_help = CLASSIFY_HELP)]
#[command(group = clap::ArgGroup::new("classes").required(true))]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct ClassifyArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Labels, separated by commas
    #[arg(long, group = "classes", value_delimiter = ',', value_name = "A,B,...")]
    pub labels: Vec<String>,
    /// A file of labels: one per line, or, named .json, with prompts of their own (docs/evaluation.md)
    #[arg(long, group = "classes", value_name = "FILE")]
    pub labels_file: Option<PathBuf>,
    /// Prompts to make of a label that has none of its own
    #[arg(long, value_enum, default_value_t = PromptSet::Photos)]
    pub prompts: PromptSet,
    /// A prompt with {} in place of the label; may be repeated; replaces the set of prompts
    #[arg(long = "template", value_name = "'a photo of a {}.'")]
    pub templates: Vec<String>,
    /// A prompt that denies the label, such as 'No {}.'; may be repeated; with --template
    #[arg(long = "negative-template", requires = "templates", value_name = "'No {}.'")]
    pub negative_templates: Vec<String>,
    /// Image files
    #[arg(long, num_args = 1.., group = "what", value_name = "FILE")]
    pub images: Vec<PathBuf>,
    /// Images of records, one JSON object per line, as for ingest
    #[arg(long, group = "what", conflicts_with = "images", value_name = "FILE.jsonl")]
    pub pairs: Option<PathBuf>,
    /// Attribute of these records with what is true of them: one label or a list
    ///
    /// A label is true where the attribute has it, or continues it after a dot: "effusion" is true of
    /// "effusion.left.large".
    #[arg(long, requires = "pairs", value_name = "ATTRIBUTE")]
    pub truth: Option<String>,
    /// Labels to print of each image, the likeliest first
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..), value_name = "K")]
    pub top: u32,
    #[command(flatten)]
    pub measure: MeasureArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct StatsArgs {
    /// Server to ask, such as http://127.0.0.1:7700
    ///
    /// The API key and certificates come from the environment, as `diptych search --help` says.
    #[arg(long, value_name = "URL")]
    pub server: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Data directory
    #[arg(long, env = "DIPTYCH_DATA", value_name = "DIR")]
    pub data: PathBuf,
}

fn collection(name: &str) -> Result<CollectionName, String> {
    CollectionName::new(name).map_err(|e| e.to_string())
}

pub fn key(key: &str) -> Result<Key, String> {
    Key::new(key).map_err(|e| e.to_string())
}

fn target(target: &str) -> Result<Target, String> {
    match target {
        "both" => Ok(Target::Both),
        one => one.parse().map(Target::Only).map_err(|_| "use image, text or both".to_owned()),
    }
}

pub fn share(share: &str) -> Result<f64, String> {
    let value: f64 = share.parse().map_err(|e| format!("{e}; write a share such as 0.01"))?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("use a share from 0 to 1".to_owned()) }
}

fn fusion(fusion: &str) -> Result<Fusion, String> {
    let how = "use rrf, rrf:60 or weighted:0.3";
    let number = |number: &str| number.parse::<f32>().map_err(|e| format!("{e}; {how}"));
    match fusion.split_once(':') {
        None if fusion == "rrf" => Ok(Fusion::default()),
        Some(("rrf", k)) => Ok(Fusion::Rrf { k: number(k)? }),
        Some(("weighted", lexical)) => Ok(Fusion::Weighted { lexical: number(lexical)? }),
        _ => Err(how.to_owned()),
    }
}
