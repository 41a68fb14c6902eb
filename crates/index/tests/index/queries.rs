//! Learning from queries: what it gains, what it must not cost, and that it stays.

use diptych_core::Embedding;
use diptych_index::{Index, Search};

use crate::data::{clip_like, numbered, sealing};
use crate::oracle::{Points, points_of, recall};

const N: usize = 6_000;
const DIM: usize = 48;
/// Little enough that there is something to gain.
const EF: usize = 12;
/// What texts must gain at that effort.
const GAIN: f64 = 0.04;
/// Links a row has at most under these options: 3 M, and a third as many for queries.
const WIDTH: usize = 48 + 16;

struct Lesson {
    images: Vec<Embedding>,
    points: Points,
    image_queries: Vec<Embedding>,
    /// Asked, and never taught.
    text_queries: Vec<Embedding>,
    /// Taught, and never asked.
    teaching: Vec<Embedding>,
}

fn lesson(n: usize, teaching: usize, seed: u64) -> Lesson {
    let set = clip_like(n, DIM, 200 + teaching, seed);
    Lesson {
        points: points_of(&set.images),
        images: set.images,
        image_queries: set.image_queries[..200].to_vec(),
        text_queries: set.text_queries[..200].to_vec(),
        teaching: set.text_queries[200..].to_vec(),
    }
}

impl Lesson {
    fn index(&self) -> Index {
        let index = Index::new(DIM, sealing(1_000)).unwrap();
        index.insert_many(&numbered(&self.images)).unwrap();
        index
    }

    /// Recall of text queries and of image queries, at little effort.
    fn recalls(&self, index: &Index) -> (f64, f64) {
        let at =
            |queries| recall(index, &self.points, queries, &Search { k: 10, ef: Some(EF), filter: None });
        (at(&self.text_queries), at(&self.image_queries))
    }
}

#[test]
fn texts_gain_and_images_do_not_lose() {
    let lesson = lesson(N, 3_000, 1);
    let index = lesson.index();
    let (text, image) = lesson.recalls(&index);
    let links = index.stats().added_links;
    index.learn_queries(&lesson.teaching).unwrap();
    let (text_after, image_after) = lesson.recalls(&index);
    eprintln!("text {text:.4} -> {text_after:.4}, image {image:.4} -> {image_after:.4}");
    eprintln!("links added for queries: {links} -> {}", index.stats().added_links);
    assert!(text_after >= text + GAIN, "text queries: {text} before, {text_after} after");
    assert!(image_after >= image - 0.01, "image queries: {image} before, {image_after} after");
    assert!(index.stats().added_links > links);
    crate::oracle::assert_all_find_themselves(&index, &lesson.points);
}

#[test]
fn noted_queries_are_taught_when_the_index_settles() {
    let lesson = lesson(4_000, 2_500, 2);
    let index = lesson.index();
    let (text, image) = lesson.recalls(&index);
    let links = index.stats().added_links;
    for query in &lesson.teaching {
        index.note_query(query).unwrap();
    }
    index.settle().unwrap();
    let (text_after, image_after) = lesson.recalls(&index);
    eprintln!("text {text:.4} -> {text_after:.4}, image {image:.4} -> {image_after:.4}");
    assert!(index.stats().added_links > links);
    assert!(text_after >= text + GAIN, "text queries: {text} before, {text_after} after");
    assert!(image_after >= image - 0.01, "image queries: {image} before, {image_after} after");
    let taught = index.stats();
    index.settle().unwrap();
    assert_eq!(index.stats(), taught, "nothing new, nothing to do");
}

#[test]
fn links_stay_bounded_however_much_is_taught() {
    let lesson = lesson(3_000, 3_000, 3);
    let index = lesson.index();
    for part in lesson.teaching.chunks(1_000) {
        index.learn_queries(part).unwrap();
        let stats = index.stats();
        assert!(stats.added_links <= stats.links && stats.links <= 3_000 * WIDTH, "{stats:?}");
    }
    let before = index.stats();
    index.learn_queries(&lesson.teaching).unwrap();
    let after = index.stats();
    assert_eq!((after.segments, after.hot_bytes), (before.segments, before.hot_bytes));
    assert!(after.links <= 3_000 * WIDTH);
}

#[test]
fn what_was_learnt_outlasts_reopening_and_merging() {
    let lesson = lesson(10_800, 1_500, 4);
    let dir = tempfile::tempdir().unwrap();
    let open = || Index::open(dir.path(), DIM, sealing(250)).unwrap();
    let points = numbered(&lesson.images);
    let index = open();
    index.insert_many(&points[..2_500]).unwrap();
    let links = index.stats().added_links;
    index.learn_queries(&lesson.teaching).unwrap();
    let learnt = index.stats();
    assert!(learnt.added_links > links);
    drop(index);

    let index = open();
    assert_eq!(index.stats(), learnt);
    for chunk in points[2_500..3_000].chunks(240) {
        index.insert_many(chunk).unwrap();
        index.seal().unwrap();
    }
    // The large segment is joined by enough of its own size to be merged with all of them.
    let before_merge = index.stats();
    for chunk in points[3_000..].chunks(2_600) {
        index.insert_many(chunk).unwrap();
    }
    index.seal().unwrap();
    let merged = index.stats();
    assert!(merged.segments.len() < before_merge.segments.len() + 3, "{merged:?}");
    assert!(merged.segments.iter().any(|&points| points > 5_000), "{merged:?}");
    assert!(merged.added_links * 2 > learnt.added_links, "{learnt:?}, then {merged:?}");
}
