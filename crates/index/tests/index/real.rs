//! Real vectors: CLIP embeddings of radiology images and their captions, where they are at hand.

use std::path::{Path, PathBuf};

use diptych_core::Embedding;
use diptych_index::{Index, Plan, Search};

use crate::data::{numbered, sealing};
use crate::oracle::{assert_all_find_themselves, points_of, recall};

const DIM: usize = 512;

/// The folder of the vectors, beside the repository; it is not part of it.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/roco-embeddings")
}

/// A two-dimensional array of little-endian `f32` in the format of NumPy, version 1.
fn rows(path: &Path) -> Vec<Embedding> {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(bytes[..8], *b"\x93NUMPY\x01\x00", "{}", path.display());
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..start]).unwrap();
    assert!(header.contains("'<f4'") && header.contains("False") && header.contains(", 512)"), "{header}");
    let row = |row: &[u8]| {
        let values = row.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Embedding::new(values.collect::<Vec<_>>()).unwrap()
    };
    bytes[start..].chunks_exact(4 * DIM).map(row).collect()
}

#[test]
fn images_and_captions_find_each_other_as_a_scan_does() {
    let (images, texts) = (folder().join("image.npy"), folder().join("text.npy"));
    if !images.exists() || !texts.exists() {
        eprintln!("SKIPPED: no image.npy and text.npy in {}", folder().display());
        return;
    }
    let (images, texts) = (rows(&images), rows(&texts));
    assert_eq!((images.len(), texts.len()), (700, 700));
    for (base, queries) in [(&images, &texts), (&texts, &images), (&images, &images)] {
        let index = Index::new(DIM, sealing(100)).unwrap();
        for chunk in numbered(base).chunks(70) {
            index.insert_many(chunk).unwrap();
        }
        index.seal().unwrap();
        assert_eq!(index.stats().live, 0);
        assert_eq!(index.search(&queries[0], &Search::nearest(10)).unwrap().plan, Plan::Walk);
        let points = points_of(base);
        let share = recall(&index, &points, queries, &Search::nearest(10));
        assert!(share == 1.0, "{share}");
        assert_all_find_themselves(&index, &points);
    }
}
