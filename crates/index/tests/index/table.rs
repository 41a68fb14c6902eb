//! Measured figures, printed on demand:
//! `cargo nextest run --release -p diptych-index --run-ignored only --no-capture table`.
//! `DIPTYCH_CLIPLIKE=DIR` measures the set in that folder instead of a generated one: raw
//! little-endian `f32` rows of 512 in `base.f32`, `query_text.f32` and `query_image.f32`.

use std::path::Path;
use std::time::Instant;

use diptych_core::Embedding;
use diptych_index::{Index, IndexOptions, Neighbor};
use rayon::prelude::*;

use crate::data::{ClipLike, always_walk, clip_like, numbered};

const DIM: usize = 512;

fn rows(path: &Path) -> Vec<Embedding> {
    let bytes = std::fs::read(path).unwrap();
    let row = |row: &[u8]| {
        let values = row.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        Embedding::new(values.collect::<Vec<_>>()).unwrap()
    };
    bytes.chunks_exact(DIM * 4).map(row).collect()
}

fn set() -> ClipLike {
    match std::env::var_os("DIPTYCH_CLIPLIKE") {
        Some(folder) => ClipLike {
            images: rows(&Path::new(&folder).join("base.f32")),
            image_queries: rows(&Path::new(&folder).join("query_image.f32")),
            text_queries: rows(&Path::new(&folder).join("query_text.f32")),
        },
        None => clip_like(20_000, DIM, 1_000, 1),
    }
}

fn recall(found: &[Vec<Neighbor>], exact: &[Vec<Neighbor>]) -> f64 {
    let hits: usize = found
        .iter()
        .zip(exact)
        .map(|(f, e)| f.iter().filter(|n| e.iter().any(|m| m.id == n.id)).count())
        .sum();
    hits as f64 / exact.iter().map(Vec::len).sum::<usize>() as f64
}

fn search(index: &Index, queries: &[Embedding], ef: Option<usize>) -> (f64, Vec<Vec<Neighbor>>) {
    let start = Instant::now();
    let found = queries.par_iter().map(|q| index.nearest(q, 10, ef).unwrap()).collect();
    (queries.len() as f64 / start.elapsed().as_secs_f64(), found)
}

#[test]
#[ignore = "a measurement, not a check"]
fn table() {
    let set = set();
    let points = numbered(&set.images);
    let index = Index::new(DIM, IndexOptions { expected_points: points.len(), ..always_walk() }).unwrap();
    let start = Instant::now();
    index.insert_many(&points).unwrap();
    let build = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let aside = index.audit();
    let audit = start.elapsed().as_secs_f64();
    println!("{} x {DIM}, {} threads", points.len(), rayon::current_num_threads());
    println!("build {build:.1} s, of that an audit {audit:.1} s; {aside} set aside");
    for (name, queries) in [("text", &set.text_queries), ("image", &set.image_queries)] {
        let start = Instant::now();
        let exact: Vec<_> = queries.iter().map(|q| index.nearest_exact(q, 10).unwrap()).collect();
        println!("{name:5} scan     {:7.0} /s", queries.len() as f64 / start.elapsed().as_secs_f64());
        for ef in [None, Some(16), Some(32), Some(64), Some(128), Some(256), Some(512), Some(1_024)] {
            let (rate, found) = search(&index, queries, ef);
            let label = ef.map_or("default".to_owned(), |ef| format!("ef {ef}"));
            println!("{name:5} {label:8} {rate:7.0} /s  recall@10 {:.4}", recall(&found, &exact));
        }
    }
    assert_eq!(index.len(), points.len());
}
