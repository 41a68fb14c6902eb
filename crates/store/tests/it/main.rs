//! The store as its users see it, on real directories. Owns the records that the tests share; what is
//! expected of them is in the modules. Bytes on disk are tested beside `schema`.

#![allow(clippy::unwrap_used)]

mod checkpoint;
mod collections;
mod crash;
mod damage;
mod model;
mod opening;
mod records;
mod requests;
mod writers;

use std::path::Path;

use diptych_core::{
    AttributeValue, Attributes, CollectionName, Digest, Embedding, ImagePart, Key, Modality, ModelId, Part,
    PartRef, Record, TextPart,
};
use diptych_store::{Collection, Mutation, PutMode, Store, StoreOptions};

/// Dimensions of the vectors in these tests.
pub(crate) const DIM: u32 = 8;

pub(crate) fn open(dir: &Path) -> Store {
    Store::open(dir, &StoreOptions::default()).unwrap()
}

pub(crate) fn model_id() -> ModelId {
    ModelId(Digest([7; 32]))
}

/// The default collection.
pub(crate) fn collection(store: &Store) -> Collection {
    store.create_collection(&CollectionName::default(), model_id(), DIM).unwrap()
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

/// A unit vector that depends on its name only.
pub(crate) fn vector(name: &str) -> Embedding {
    let mut state =
        name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let values: Vec<f32> = (0..DIM)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect();
    Embedding::new(values).unwrap()
}

/// What a record holds, by name and version; the second text of each is longer than the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) version: u8,
    pub(crate) images: u32,
    pub(crate) texts: u32,
}

pub(crate) fn content(version: u8) -> Content {
    Content { version, images: 1, texts: 1 }
}

impl Content {
    pub(crate) fn digest(self) -> Digest {
        Digest([self.version, self.images as u8, self.texts as u8].repeat(11)[..32].try_into().unwrap())
    }

    pub(crate) fn record(self, name: &str) -> Record {
        let images = (0..self.images).map(|i| {
            Part::Image(ImagePart {
                source: format!("{name}/{i}.png"),
                digest: self.digest(),
                width: 640 + i,
                height: 480,
            })
        });
        let texts = (0..self.texts).map(|i| {
            Part::Text(TextPart::whole(format!("{name} in version {}, text {i}", self.version), i * 5))
        });
        let attributes = Attributes::from([
            ("version".to_owned(), AttributeValue::Integer(i64::from(self.version))),
            ("labels".to_owned(), AttributeValue::List(vec!["a".to_owned(), "b".to_owned()])),
        ]);
        Record::new(key(name), images.chain(texts).collect(), attributes).unwrap()
    }

    pub(crate) fn vector(self, name: &str, part: PartRef) -> Embedding {
        vector(&format!("{name} {} {part}", self.version))
    }

    pub(crate) fn put(self, name: &str, mode: PutMode) -> Mutation {
        let record = self.record(name);
        let vectors = record.part_refs().map(|(part, _)| (part, self.vector(name, part))).collect();
        Mutation::Put { record, vectors, thumbnails: Vec::new(), digest: self.digest(), mode }
    }

    pub(crate) fn upsert(self, name: &str) -> Mutation {
        self.put(name, PutMode::Upsert)
    }
}

pub(crate) fn delete(name: &str) -> Mutation {
    Mutation::Delete { key: key(name) }
}

pub(crate) fn image(ordinal: u32) -> PartRef {
    PartRef::whole(Modality::Image, ordinal)
}

pub(crate) fn text(ordinal: u32) -> PartRef {
    PartRef::whole(Modality::Text, ordinal)
}

/// Asserts that the record under `name` is exactly `content`, vectors included.
pub(crate) fn assert_stored(store: &Store, collection: u32, name: &str, content: Content) {
    let stored = store.get(collection, &key(name)).unwrap().unwrap_or_else(|| panic!("'{name}' is missing"));
    assert_eq!(stored.record, content.record(name));
    assert_eq!(stored.digest, content.digest());
    let vectors = store.record_vectors(collection, &key(name)).unwrap().unwrap();
    assert_eq!(vectors.len(), stored.points.len());
    for (vector, (part, point)) in vectors.iter().zip(stored.points) {
        assert_eq!((vector.part, vector.point), (part, point));
        assert_eq!(vector.embedding, content.vector(name, part));
    }
}

pub(crate) fn assert_clean(store: &Store) {
    let report = store.check();
    assert!(report.is_clean(), "{report}");
}

/// Copies a directory with all it contains: of an open store, exactly what a killed process leaves.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
