//! From the items of a source to the records of an engine, and other files: reads them.

use std::path::Path;

use anyhow::{Context, Result, bail};
use diptych_engine::{BulkItem, NewImage, NewRecord};
use diptych_ingest::{Item, ItemError, Items, Layout, Source};

pub use diptych_ingest::read_image;

/// Items of archives that are read before a worker wants them: enough to hide the disk, few enough to hold.
const READ_AHEAD: usize = 8;

/// All items of a source, each read when a worker gets to it, and their number where it is known.
pub fn bulk_items(source: &Source) -> Result<(impl Iterator<Item = BulkItem> + Send + use<>, Option<u64>)> {
    let count = source.count_hint();
    let items: Box<dyn Iterator<Item = Result<Item, ItemError>> + Send> = match source.layout() {
        // What has to be unpacked in order is unpacked by a thread of its own.
        Layout::WebDataset | Layout::Parquet => Box::new(read_ahead(source.items()?)),
        _ => Box::new(source.items()?),
    };
    let items = items.map(|item| match item {
        Ok(item) => BulkItem { origin: item.origin.to_string(), load: Box::new(move || load(item)) },
        Err(error) => {
            let reason = error.reason;
            BulkItem { origin: error.origin.to_string(), load: Box::new(move || Err(reason)) }
        }
    });
    Ok((items, count))
}

/// Reads a little ahead on another thread, which ends when nobody takes what it reads.
fn read_ahead(items: Items) -> impl Iterator<Item = Result<Item, ItemError>> + Send {
    let (send, ready) = std::sync::mpsc::sync_channel(READ_AHEAD);
    std::thread::spawn(move || {
        for item in items {
            if send.send(item).is_err() {
                return;
            }
        }
    });
    ready.into_iter()
}

/// Reads the images of an item. The error is the reason in words.
pub fn load(item: Item) -> Result<NewRecord, String> {
    let images = item
        .images
        .iter()
        .map(|image| Ok(NewImage { bytes: image.load()?, source: image.source() }))
        .collect::<Result<_, String>>()?;
    Ok(NewRecord {
        key: item.key,
        images,
        texts: item.texts,
        chunking: item.chunking,
        attributes: item.attributes,
    })
}

/// Reads a file of texts, one per line, none of them empty.
pub fn read_lines(path: &Path) -> Result<Vec<String>> {
    let bytes =
        std::fs::read(path).with_context(|| format!("cannot read the texts in {}", path.display()))?;
    let text = match str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|&&b| b == b'\n').count();
            bail!("{} line {line} is not UTF-8; save the file in that encoding", path.display());
        }
    };
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if let Some(n) = lines.iter().position(|line| line.trim().is_empty()) {
        bail!("{} line {} is empty; give one text per line", path.display(), n + 1);
    }
    Ok(lines)
}
