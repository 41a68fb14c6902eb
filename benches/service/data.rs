//! What is searched: records with clustered vectors, texts of a small vocabulary, and attributes.

use std::path::Path;

use anyhow::Result;
use diptych_core::{
    AttributeSchema, AttributeValue, Attributes, CollectionName, Digest, Embedding, Encode, ImagePart, Key,
    Part, PartRef, Record, TextPart,
};
use diptych_store::{Mutation, NewCollection, PutMode, Store, StoreOptions};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const WORDS: [&str; 40] = [
    "large",
    "small",
    "left",
    "right",
    "upper",
    "lower",
    "pleural",
    "effusion",
    "pneumothorax",
    "nodule",
    "mass",
    "fracture",
    "rib",
    "lung",
    "heart",
    "mediastinum",
    "line",
    "tube",
    "normal",
    "clear",
    "opacity",
    "edema",
    "mild",
    "severe",
    "moderate",
    "apical",
    "basal",
    "lobe",
    "zone",
    "view",
    "supine",
    "upright",
    "stable",
    "new",
    "since",
    "prior",
    "no",
    "evidence",
    "of",
    "acute",
];
/// Records written at once.
const BATCH: u64 = 500;

/// A reproducible text of six to twelve words.
pub fn text(n: u64) -> String {
    let mut random = ChaCha8Rng::seed_from_u64(n);
    let length = random.random_range(6..=12);
    let words: Vec<&str> = (0..length).map(|_| WORDS[random.random_range(0..WORDS.len())]).collect();
    words.join(" ")
}

/// A short text that no other number gives.
pub fn question(n: u64) -> String {
    let words = WORDS.len() as u64;
    let (first, rest) = (n % words, n / words);
    format!("{} {:x}", WORDS[usize::try_from(first).expect("below the number of words")], rest)
}

/// A reproducible vector, near one of 64 directions.
pub fn vector(dim: usize, n: u64) -> Embedding {
    let mut near = ChaCha8Rng::seed_from_u64(n % 64);
    let mut own = ChaCha8Rng::seed_from_u64(!n);
    let values: Vec<f32> =
        (0..dim).map(|_| near.random_range(-1.0..1.0f32) + own.random_range(-1.0..1.0f32)).collect();
    Embedding::new(values).expect("not all components are zero")
}

/// A store with so many records.
pub fn fill(dir: &Path, encoder: &dyn Encode, records: u64) -> Result<Store> {
    let store = Store::open(&dir.join("data"), &StoreOptions::default())?;
    let dim = encoder.dim();
    let (collection, _) = store.add_collection(NewCollection {
        name: CollectionName::default(),
        model_id: encoder.model_id(),
        dim: u32::try_from(dim)?,
        created: None,
        schema: AttributeSchema::default(),
    })?;
    for from in (0..records).step_by(usize::try_from(BATCH)?) {
        let batch = (from..records.min(from + BATCH)).map(|n| put(dim, n)).collect::<Result<Vec<_>>>()?;
        store.write(collection.id, batch)?;
    }
    Ok(store)
}

fn put(dim: usize, n: u64) -> Result<Mutation> {
    let digest = distinct(n);
    let image = ImagePart { source: format!("{n}.png"), digest, width: 224, height: 224 };
    let parts = vec![Part::Image(image), Part::Text(TextPart::whole(text(n), 0))];
    let attributes = Attributes::from([
        ("group".to_owned(), AttributeValue::String(format!("g{}", n % 1000))),
        ("tenth".to_owned(), AttributeValue::Bool(n.is_multiple_of(10))),
        ("view".to_owned(), AttributeValue::String(["PA", "AP", "LATERAL"][(n % 3) as usize].to_owned())),
        ("age".to_owned(), AttributeValue::Integer((n % 90) as i64)),
    ]);
    let record = Record::new(Key::new(format!("record-{n:07}"))?, parts, attributes)?;
    let vectors = record.part_refs().map(|(part, _)| (part, of_part(dim, n, part))).collect();
    Ok(Mutation::Put { record, vectors, thumbnails: Vec::new(), digest, mode: PutMode::Upsert })
}

fn of_part(dim: usize, n: u64, part: PartRef) -> Embedding {
    vector(dim, n + (part.modality as u64) * 64 * 1_000_000_007)
}

/// Differs from record to record, in the place of a digest of content.
fn distinct(n: u64) -> Digest {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    Digest(bytes)
}
