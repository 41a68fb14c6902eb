//! Where the time of a search and of an ingestion goes. Ratios between neighbours in one run are
//! what counts: the graph against the exact scan of the same points, encoding against decoding.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use diptych_core::{Embedding, Encode, PointId};
use diptych_encoder::DualEncoder;
use diptych_index::{Index, IndexOptions};

const POINTS: u64 = 10_000;
const DIM: usize = 128;

/// A reproducible vector: clusters of points around 64 directions.
fn vector(n: u64) -> Embedding {
    let mut state = n;
    let mut noise = |seed: u64| {
        state = state.wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..DIM as u64).map(|d| noise(d + 1) + noise((n % 64) * 977 + d)).collect();
    Embedding::new(values).unwrap()
}

fn nearest(c: &mut Criterion) {
    let index = Index::new(DIM, IndexOptions::default()).unwrap();
    let points: Vec<_> = (0..POINTS).map(|n| (PointId(n), vector(n))).collect();
    index.insert_many(&points).unwrap();
    let query = vector(POINTS + 1);
    let mut group = c.benchmark_group("nearest 10 of 10,000 x 128");
    group.bench_function("graph", |b| b.iter(|| index.nearest(black_box(&query), 10, None).unwrap()));
    group.bench_function("exact", |b| b.iter(|| index.nearest_exact(black_box(&query), 10).unwrap()));
    group.finish();
}

fn encode(c: &mut Criterion) {
    let model = DualEncoder::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/mini")).unwrap();
    let case = diptych_phantom::case(1, 0);
    let mut pgm = format!("P5 {} {} 255 ", case.image.width(), case.image.height()).into_bytes();
    pgm.extend_from_slice(case.image.as_raw());
    let batch = vec![model.prepare_image(&pgm).unwrap(); 16];
    let texts = vec![model.prepare_text(&case.report).unwrap(); 16];
    let mut group = c.benchmark_group("mini model, 16 at once");
    group.sample_size(20).throughput(Throughput::Elements(16));
    group.bench_function("prepare images", |b| {
        b.iter(|| (0..16).map(|_| model.prepare_image(black_box(&pgm)).unwrap()).collect::<Vec<_>>());
    });
    group.bench_function("encode images", |b| b.iter(|| model.encode_images(black_box(&batch)).unwrap()));
    group.bench_function("encode texts", |b| b.iter(|| model.encode_texts(black_box(&texts)).unwrap()));
    group.finish();
}

criterion_group!(benches, nearest, encode);
criterion_main!(benches);
