//! Measured figures, printed on demand:
//! `cargo nextest run --release -p diptych-index --run-ignored only --no-capture table`.
//! Rates are of the clock, microseconds of processor time per query.
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

/// Processor seconds of this process so far, which a busy machine distorts less than the clock; 0
/// where there is no `/proc`.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // User and system time in hundredths, the 12th and 13th field after the name in parentheses.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.map(|f| f.parse::<f64>().unwrap() / 100.0).sum()
}

/// Resident bytes of this process; 0 where there is no `/proc`.
fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).map_or(0.0, |pages| pages.parse::<f64>().unwrap() * 4096.0)
}

fn recall(found: &[Vec<Neighbor>], exact: &[Vec<Neighbor>]) -> f64 {
    let hits: usize = found
        .iter()
        .zip(exact)
        .map(|(f, e)| f.iter().filter(|n| e.iter().any(|m| m.id == n.id)).count())
        .sum();
    hits as f64 / exact.iter().map(Vec::len).sum::<usize>() as f64
}

fn search(index: &Index, queries: &[Embedding], ef: Option<usize>) -> (String, Vec<Vec<Neighbor>>) {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let found: Vec<_> = queries.par_iter().map(|q| index.nearest(q, 10, ef).unwrap()).collect();
    let wall = start.elapsed().as_secs_f64();
    let each = (cpu_seconds() - cpu) / queries.len() as f64;
    (format!("{:7.0} /s {:7.0} us", queries.len() as f64 / wall, each * 1e6), found)
}

#[test]
#[ignore = "a measurement, not a check"]
fn table() {
    let set = set();
    let points = numbered(&set.images);
    let index = Index::new(DIM, IndexOptions { expected_points: points.len(), ..always_walk() }).unwrap();
    let resident = resident_bytes();
    let (start, cpu) = (Instant::now(), cpu_seconds());
    index.insert_many(&points).unwrap();
    let (build, build_cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let bytes = (resident_bytes() - resident) / points.len() as f64;
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let aside = index.audit();
    let (audit, audit_cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!("{} x {DIM}, {} threads", points.len(), rayon::current_num_threads());
    println!(
        "build {build:.1} s ({build_cpu:.1} of processor time), of that an audit {audit:.1} s ({audit_cpu:.1})"
    );
    println!("{aside} set aside, {bytes:.0} bytes per vector");
    for (name, queries) in [("text", &set.text_queries), ("image", &set.image_queries)] {
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let exact: Vec<_> = queries.iter().map(|q| index.nearest_exact(q, 10).unwrap()).collect();
        let each = (cpu_seconds() - cpu) / queries.len() as f64;
        let rate = queries.len() as f64 / start.elapsed().as_secs_f64();
        println!("{name:5} scan     {rate:7.0} /s {:7.0} us", each * 1e6);
        for ef in [None, Some(16), Some(32), Some(64), Some(128), Some(256), Some(512), Some(1_024)] {
            let (rate, found) = search(&index, queries, ef);
            let label = ef.map_or("default".to_owned(), |ef| format!("ef {ef}"));
            println!("{name:5} {label:8} {rate}  recall@10 {:.4}", recall(&found, &exact));
        }
    }
    assert_eq!(index.len(), points.len());
}
