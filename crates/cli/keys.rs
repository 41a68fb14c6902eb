//! `diptych keys`.
//!
//! Deliberately absent: what is in the file of keys and how it is kept, which the server owns.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use diptych_server::{KeyRecord, NewKey, create_key, list_keys, revoke_key};
use serde_json::{Value, json};

use crate::args::{CreateKeyArgs, KeysCommand, ListKeysArgs, RevokeKeyArgs};
use crate::output;

const DAY: Duration = Duration::from_secs(86_400);

pub fn run(command: &KeysCommand) -> Result<ExitCode> {
    match command {
        KeysCommand::Create(args) => create(args)?,
        KeysCommand::List(args) => list(args)?,
        KeysCommand::Revoke(args) => revoke(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the key alone to standard output, so that it can go straight to where it is kept.
fn create(args: &CreateKeyArgs) -> Result<()> {
    let new = NewKey {
        role: args.role,
        collections: Some(args.collections.clone()).filter(|names| !names.is_empty()),
        name: args.name.clone(),
        lifetime: args.expires.map(|days| days * DAY),
    };
    let (record, key) = create_key(&args.file.file, new)?;
    output::line(&key)?;
    eprintln!(
        "key '{}' ({}, {}) is in {}; keep it now: it cannot be shown again",
        record.name,
        record.role,
        collections(&record),
        args.file.file.display()
    );
    Ok(())
}

fn list(args: &ListKeysArgs) -> Result<()> {
    let records = list_keys(&args.file.file)?;
    let now = SystemTime::now();
    if args.json {
        let all: Vec<Value> = records.iter().map(|record| as_json(record, now)).collect();
        return output::line(&serde_json::to_string_pretty(&all)?);
    }
    if records.is_empty() {
        return output::line("no keys");
    }
    let width = records.iter().map(|record| record.name.len()).max().unwrap_or_default();
    for record in &records {
        output::line(&format!(
            "{}  {:width$}  {:5}  {}  {}",
            record.id,
            record.name,
            record.role.as_str(),
            state(record, now),
            collections(record)
        ))?;
    }
    Ok(())
}

fn revoke(args: &RevokeKeyArgs) -> Result<()> {
    let record = revoke_key(&args.file.file, &args.key)?;
    output::line(&format!("revoked '{}' ({}); servers notice within a second", record.name, record.id))
}

fn collections(record: &KeyRecord) -> String {
    match &record.collections {
        None => "all collections".to_owned(),
        Some(names) if names.is_empty() => "no collection".to_owned(),
        Some(names) => names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", "),
    }
}

fn state(record: &KeyRecord, now: SystemTime) -> String {
    match (record.revoked_text(), record.expires, record.expires_text()) {
        (Some(since), ..) => format!("revoked {since}"),
        (None, Some(expires), Some(text)) if expires <= now => format!("expired {text}"),
        (None, _, Some(text)) => format!("good until {text}"),
        (None, _, None) => "good".to_owned(),
    }
}

fn as_json(record: &KeyRecord, now: SystemTime) -> Value {
    let good = record.revoked.is_none() && record.expires.is_none_or(|expires| now < expires);
    let names = |names: &Vec<_>| names.iter().map(ToString::to_string).collect::<Vec<String>>();
    json!({
        "id": record.id,
        "name": record.name,
        "role": record.role.as_str(),
        "collections": record.collections.as_ref().map(names),
        "created": record.created_text(),
        "expires": record.expires_text(),
        "revoked": record.revoked_text(),
        "good": good,
    })
}
