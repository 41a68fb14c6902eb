//! What can be typed about API keys.

use std::path::PathBuf;

use clap::Subcommand;
use diptych_core::CollectionName;
use diptych_server::Role;

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key and print it; it is shown this once, and the file keeps only its hash
    Create(CreateKeyArgs),
    /// Show the keys of a file: names, roles, collections, and whether they are good
    List(ListKeysArgs),
    /// Take a key back; a running server notices within a second
    Revoke(RevokeKeyArgs),
}

#[derive(Debug, clap::Args)]
pub struct KeyFileArgs {
    /// File of API keys, as given to `diptych serve --keys`
    #[arg(long, env = "DIPTYCH_KEYS", value_name = "FILE")]
    pub file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct CreateKeyArgs {
    #[command(flatten)]
    pub file: KeyFileArgs,
    /// What the key may do: read; write, also store and delete records; admin, also all else
    #[arg(long, value_name = "read|write|admin")]
    pub role: Role,
    /// Collection that the key is for; may be repeated [default: all]
    #[arg(long = "collection", value_parser = super::collection, value_name = "NAME")]
    pub collections: Vec<CollectionName>,
    /// What to call the key in lists, logs and messages [default: its id]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Days that the key is good for [default: forever]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36_500), value_name = "DAYS")]
    pub expires: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub struct ListKeysArgs {
    #[command(flatten)]
    pub file: KeyFileArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct RevokeKeyArgs {
    #[command(flatten)]
    pub file: KeyFileArgs,
    /// The key's name or id
    #[arg(value_name = "NAME|ID")]
    pub key: String,
}
