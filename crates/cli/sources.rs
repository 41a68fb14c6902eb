//! From the items of a source to the records of an engine, and other files: reads them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use diptych_core::Chunking;
use diptych_core::limits::IMAGE_BYTES_MAX;
use diptych_engine::{BulkItem, NewImage, NewRecord};
use diptych_ingest::{Item, Source};

/// All items of a source, each read when a worker gets to it, and their number where it is known.
pub fn bulk_items(path: &Path) -> Result<(impl Iterator<Item = BulkItem> + Send, Option<u64>)> {
    let source = Source::open(path)?;
    let count = source.count_hint();
    let items = source.items()?.map(|item| match item {
        Ok(item) => BulkItem { origin: item.origin.to_string(), load: Box::new(move || load(item)) },
        Err(error) => {
            let reason = error.reason;
            BulkItem { origin: error.origin.to_string(), load: Box::new(move || Err(reason)) }
        }
    });
    Ok((items, count))
}

/// Reads the files of an item. The error is the reason in words.
pub fn load(item: Item) -> Result<NewRecord, String> {
    let images = item
        .images
        .iter()
        .map(|path| {
            let bytes = read_image(path).map_err(|e| format!("{}: {e}", path.display()))?;
            let source = path.canonicalize().unwrap_or_else(|_| path.clone());
            Ok(NewImage { bytes, source: source.to_string_lossy().into_owned() })
        })
        .collect::<Result<_, String>>()?;
    Ok(NewRecord {
        key: item.key,
        images,
        texts: item.texts,
        chunking: Chunking::Context,
        attributes: item.attributes,
    })
}

/// Reads an image file, one byte over the bound at the most: enough for the encoder to refuse it.
pub fn read_image(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|e| format!("cannot be opened: {e}; check the path"))?;
    let metadata = file.metadata().map_err(|e| format!("cannot be read: {e}"))?;
    if !metadata.is_file() {
        return Err("is not a regular file; name image files".to_owned());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0).min(IMAGE_BYTES_MAX + 1));
    file.take(IMAGE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("cannot be read: {e}"))?;
    Ok(bytes)
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
