//! Pairs and attributes as `eval` and `classify` judge by them: whole files, or an error.
//!
//! Owns: reading a source to its end, which records belong together, and the values of an attribute.
//! Deliberately absent: embedding and measuring.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use diptych_core::AttributeValue;
use diptych_ingest::{DicomOptions, Identities, Item, Layout, Source};
use diptych_radiology::deidentify::{BurnedIn, Deidentifier, Options};

/// Reads every item of a source. An evaluation leaves nothing out, so one bad line is an error.
pub fn read(path: &Path) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for item in open(path)?.items()? {
        match item {
            Ok(item) => items.push(item),
            Err(error) => bail!("{error}; correct the file, an evaluation leaves nothing out"),
        }
    }
    if items.is_empty() {
        bail!("{} has no pairs; give one JSON object per line", path.display());
    }
    Ok(items)
}

/// The files of an item's images.
pub fn image_files(item: &Item) -> Result<Vec<PathBuf>> {
    item.image_files().map_err(|reason| anyhow!("{}: {reason}", item.origin))
}

/// A source. Of a DICOM tree nothing that identifies patients is wanted, and no later run has to give the same names.
fn open(path: &Path) -> Result<Source> {
    let mut source = Source::open(path)?;
    if source.layout() == Layout::Dicom {
        let options = Options { burned_in: BurnedIn::Accept, ..Options::new([0; 32]) };
        let with = Arc::new(Deidentifier::new(options));
        source.set_dicom(DicomOptions { identities: Identities::Removed(with), ..DicomOptions::default() });
    }
    Ok(source)
}

/// Per item, the number of its group: its own, or that of all items with the same value of an
/// attribute.
pub fn groups(items: &[Item], attribute: Option<&str>) -> Result<Vec<u32>> {
    let Some(attribute) = attribute else { return Ok((0u32..).take(items.len()).collect()) };
    let mut numbers = Numbers::default();
    items.iter().map(|item| Ok(numbers.of(values(item, attribute)?))).collect()
}

/// The values of an attribute that must be there: the entries of a list, or the one value in words.
pub fn values(item: &Item, attribute: &str) -> Result<Vec<String>> {
    match item.attributes.get(attribute) {
        Some(AttributeValue::List(values)) => Ok(values.clone()),
        Some(AttributeValue::String(value)) => Ok(vec![value.clone()]),
        Some(AttributeValue::Integer(value)) => Ok(vec![value.to_string()]),
        Some(AttributeValue::Float(value)) => Ok(vec![value.to_string()]),
        Some(AttributeValue::Bool(value)) => Ok(vec![value.to_string()]),
        Some(AttributeValue::Time(value)) => Ok(vec![value.to_string()]),
        None => {
            let there: Vec<&str> = item.attributes.keys().map(String::as_str).collect();
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            bail!(
                "{}: has no attribute '{attribute}' (it has {there}); give every line one or name another",
                item.origin
            )
        }
    }
}

/// Numbers from 0 for values in order of their appearance.
#[derive(Debug)]
pub struct Numbers<T>(HashMap<T, u32>);

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Hash + Eq> Numbers<T> {
    /// The number of a value: that of an equal one before, or the next.
    pub fn of(&mut self, value: T) -> u32 {
        let next = u32::try_from(self.0.len()).expect("no more values than lines of a file in memory");
        *self.0.entry(value).or_insert(next)
    }

    /// How many different values there were.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
