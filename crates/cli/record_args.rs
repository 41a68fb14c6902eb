//! What can be typed of `diptych collection` and `diptych record`.

use std::path::PathBuf;

use clap::Subcommand;
use diptych_core::{AttributeType, AttributeValue, CollectionName, Facet, Filter, Key, RequestId, Time};
use diptych_encoder::Precision;

/// Where a command works that needs no model: on a data directory of this machine, or through a server.
#[derive(Debug, clap::Args)]
pub struct WhereArgs {
    /// Data directory on this machine; no server may have it open
    #[arg(long, env = "DIPTYCH_DATA", value_name = "DIR", conflicts_with = "server")]
    pub data: Option<PathBuf>,
    /// Server to ask instead, such as http://127.0.0.1:7700
    #[arg(long, value_name = "URL", required_unless_present = "data")]
    pub server: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum CollectionCommand {
    /// Create a collection, with types for its records' attributes if there are to be any
    Create(CreateArgs),
    /// List collections
    List(ListCollectionsArgs),
    /// Show a collection's schema, model and counts
    Describe(DescribeArgs),
    /// Delete a collection with all its records and indexes
    Delete(DeleteCollectionArgs),
    /// Build the indexes of a collection again from its vectors; searches go on meanwhile
    RebuildIndex(RebuildIndexArgs),
}

#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Its name: letters, digits, '_' and '-'
    #[arg(value_parser = collection, value_name = "NAME")]
    pub name: CollectionName,
    /// An attribute and its type: string, list, integer, float, bool or time; may be repeated
    #[arg(long = "attribute", value_parser = attribute_type, value_name = "NAME:TYPE")]
    pub attributes: Vec<(String, AttributeType)>,
    /// Refuse records with attributes that are not named here
    #[arg(long)]
    pub closed: bool,
    /// The model of a data directory that has no collection yet: a directory, or hf:owner/name
    #[arg(long, env = "DIPTYCH_MODEL", value_name = "MODEL_DIR")]
    pub model: Option<PathBuf>,
    /// How that model computes: f32, or int8
    #[arg(long, env = "DIPTYCH_PRECISION", default_value_t = Precision::F32, value_name = "f32|int8")]
    pub precision: Precision,
    #[command(flatten)]
    pub place: WhereArgs,
}

#[derive(Debug, clap::Args)]
pub struct ListCollectionsArgs {
    #[command(flatten)]
    pub place: WhereArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct DescribeArgs {
    /// The collection
    #[arg(default_value = CollectionName::DEFAULT, value_parser = collection, value_name = "NAME")]
    pub name: CollectionName,
    #[command(flatten)]
    pub place: WhereArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct DeleteCollectionArgs {
    /// The collection
    #[arg(value_parser = collection, value_name = "NAME")]
    pub name: CollectionName,
    #[command(flatten)]
    pub place: WhereArgs,
}

#[derive(Debug, clap::Args)]
pub struct RebuildIndexArgs {
    /// The collection
    #[arg(default_value = CollectionName::DEFAULT, value_parser = collection, value_name = "NAME")]
    pub name: CollectionName,
    /// Do not wait for the end; print the operation's name, for `diptych operation`
    #[arg(long, conflicts_with = "data")]
    pub detach: bool,
    #[command(flatten)]
    pub place: WhereArgs,
}

/// Records of one collection.
#[derive(Debug, clap::Args)]
pub struct RecordsArgs {
    #[command(flatten)]
    pub place: WhereArgs,
    /// Collection to work on
    #[arg(long, default_value = CollectionName::DEFAULT, value_parser = collection, value_name = "NAME")]
    pub collection: CollectionName,
}

#[derive(Debug, Subcommand)]
pub enum RecordCommand {
    /// Print a record as JSON
    Get(GetArgs),
    /// Print records as JSON lines, in the order of their keys
    List(ListArgs),
    /// Count records
    Count(CountArgs),
    /// Change attributes of a record; it is not encoded again
    Update(UpdateArgs),
    /// Delete records by their keys, or those that meet a condition
    Delete(DeleteArgs),
}

#[derive(Debug, clap::Args)]
pub struct GetArgs {
    /// The record's key
    #[arg(value_parser = key)]
    pub key: Key,
    /// What to print of it, separated by commas: key, parts, attributes, attributes.NAME, seq [default: all]
    #[arg(long, value_delimiter = ',', value_name = "FIELDS")]
    pub fields: Vec<String>,
    #[command(flatten)]
    pub records: RecordsArgs,
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only records that meet a condition, as for search
    #[arg(long, value_name = "CONDITION")]
    pub filter: Option<Filter>,
    /// Most records to print
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub limit: u64,
    /// What to print of each, separated by commas: key, parts, attributes, attributes.NAME, seq [default: all]
    #[arg(long, value_delimiter = ',', value_name = "FIELDS")]
    pub fields: Vec<String>,
    #[command(flatten)]
    pub records: RecordsArgs,
}

#[derive(Debug, clap::Args)]
pub struct CountArgs {
    /// Only records that meet a condition, as for search
    #[arg(long, value_name = "CONDITION")]
    pub filter: Option<Filter>,
    /// Also count the values of an attribute, as for search; may be repeated
    #[arg(long = "facet", value_parser = crate::facets::parse, value_name = "ATTRIBUTE[:N]")]
    pub facets: Vec<Facet>,
    #[command(flatten)]
    pub records: RecordsArgs,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub struct UpdateArgs {
    /// The record's key
    #[arg(value_parser = key)]
    pub key: Key,
    /// An attribute and its value: a number, true, false, ["a", "list"], time("2024-01-31"), else a text;
    /// may be repeated
    #[arg(long = "set", group = "change", value_parser = assignment, value_name = "NAME=VALUE")]
    pub set: Vec<(String, AttributeValue)>,
    /// An attribute to delete; may be repeated
    #[arg(long, group = "change", value_name = "NAME")]
    pub unset: Vec<String>,
    /// Delete all attributes that are not set here
    #[arg(long, group = "change", conflicts_with = "unset")]
    pub replace: bool,
    /// Done once, however often it is repeated with the same id
    #[arg(long, value_parser = request_id, value_name = "ID")]
    pub request_id: Option<RequestId>,
    #[command(flatten)]
    pub records: RecordsArgs,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub struct DeleteArgs {
    /// Keys of records
    #[arg(group = "which", value_parser = key)]
    pub keys: Vec<Key>,
    /// Records that meet a condition, as for search
    #[arg(long, group = "which", value_name = "CONDITION")]
    pub filter: Option<Filter>,
    /// Only say how many records meet the condition
    #[arg(long, conflicts_with = "keys")]
    pub dry_run: bool,
    /// Done once, however often it is repeated with the same id; takes up a deletion that was broken off
    #[arg(long, value_parser = request_id, conflicts_with = "keys", value_name = "ID")]
    pub request_id: Option<RequestId>,
    #[command(flatten)]
    pub records: RecordsArgs,
}

pub fn collection(name: &str) -> Result<CollectionName, String> {
    CollectionName::new(name).map_err(|e| e.to_string())
}

fn key(key: &str) -> Result<Key, String> {
    Key::new(key).map_err(|e| e.to_string())
}

fn request_id(id: &str) -> Result<RequestId, String> {
    RequestId::new(id).map_err(|e| e.to_string())
}

fn attribute_type(text: &str) -> Result<(String, AttributeType), String> {
    let (name, of) = text.rsplit_once(':').ok_or("write a name and a type, such as age:integer")?;
    Ok((name.to_owned(), of.parse()?))
}

fn assignment(text: &str) -> Result<(String, AttributeValue), String> {
    let (name, value) = text.split_once('=').ok_or("write a name and a value, such as age=41")?;
    if name.trim().is_empty() {
        return Err("the name is empty; write a name and a value, such as age=41".to_owned());
    }
    Ok((name.to_owned(), value_of(value)?))
}

fn value_of(text: &str) -> Result<AttributeValue, String> {
    use serde_json::Value;
    if let Some(written) = text.strip_prefix("time(").and_then(|rest| rest.strip_suffix(')')) {
        let time: Time = written.trim_matches(['"', '\'']).parse().map_err(|e| format!("{e}"))?;
        return Ok(AttributeValue::Time(time));
    }
    match serde_json::from_str(text) {
        Ok(Value::Bool(v)) => Ok(AttributeValue::Bool(v)),
        Ok(Value::Number(v)) => match (v.as_i64(), v.as_f64()) {
            (Some(whole), _) => Ok(AttributeValue::Integer(whole)),
            // A whole number that does not fit comes as a float, without its last digits.
            (None, Some(float)) if text.contains(['.', 'e', 'E']) => Ok(AttributeValue::Float(float)),
            _ => Err(format!("{text} does not fit 64 signed bits; write it in quotes, as a text")),
        },
        Ok(Value::String(v)) => Ok(AttributeValue::String(v)),
        Ok(Value::Array(items)) => {
            let texts = items.into_iter().map(|item| match item {
                Value::String(text) => Ok(text),
                _ => Err("a list holds texts only, in quotes".to_owned()),
            });
            texts.collect::<Result<_, _>>().map(AttributeValue::List)
        }
        Ok(Value::Null) => Err("null is no value; use --unset to delete an attribute".to_owned()),
        Ok(Value::Object(_)) => Err("an attribute holds no object; use several attributes".to_owned()),
        Err(_) => Ok(AttributeValue::String(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_are_read_as_people_write_them() {
        use AttributeValue::{Bool, Float, Integer, List, String, Time};
        let text = |s: &str| String(s.to_owned());
        for (written, value) in [
            ("41", Integer(41)),
            ("0.5", Float(0.5)),
            ("true", Bool(true)),
            ("PA", text("PA")),
            ("\"41\"", text("41")),
            ("", text("")),
            ("a=b", text("a=b")),
            (r#"["a","b"]"#, List(vec!["a".into(), "b".into()])),
            (r#"time("2024-01-31")"#, Time("2024-01-31".parse().unwrap())),
        ] {
            assert_eq!(assignment(&format!("name={written}")), Ok(("name".to_owned(), value)), "{written}");
        }
        for wrong in ["name", "=3", "a=null", "a=[1]", "a={}", "a=time(noon)", "a=99999999999999999999"] {
            assert!(assignment(wrong).is_err(), "{wrong}");
        }
        assert_eq!(attribute_type("a:b:time"), Ok(("a:b".to_owned(), AttributeType::Time)));
        assert!(attribute_type("a:date").unwrap_err().contains("string, list"));
    }
}
