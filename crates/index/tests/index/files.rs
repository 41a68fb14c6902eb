//! An index in a directory: what comes back when it is opened again, and what is noticed when its
//! files are not what was written.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use diptych_core::{Embedding, PointId};
use diptych_index::{Index, IndexError, IndexOptions, Neighbor};

use crate::data::{clip_like, numbered, sealing, uniform, with_duplicates};
use crate::oracle::{self, points_of};

const DIM: usize = 16;
const PAGE: usize = 4096;

fn open(dir: &Path) -> Result<Index, IndexError> {
    Index::open(dir, DIM, sealing(128))
}

/// Everything that is asked of two indexes that should be the same.
fn answers(index: &Index, queries: &[Embedding]) -> Vec<Vec<Neighbor>> {
    let one = |query| {
        [index.nearest(query, 10, None), index.nearest(query, 3, Some(16)), index.nearest_exact(query, 10)]
    };
    queries.iter().flat_map(one).map(|answer| answer.unwrap()).collect()
}

fn files_of(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    // The lock says nothing.
    files.retain(|path| path.file_name().is_some_and(|name| name != "lock"));
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in files_of(from) {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

#[test]
fn what_was_sealed_is_there_again_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let set = clip_like(700, DIM, 20, 1);
    let vectors = with_duplicates(set.images, 0.2, 2);
    let queries = [set.image_queries, set.text_queries].concat();
    let index = open(dir.path()).unwrap();
    for (id, vector) in &numbered(&vectors) {
        index.insert(*id, vector).unwrap();
    }
    for id in (0..700).step_by(7) {
        assert!(index.remove(PointId(id)));
    }
    index.checkpoint(42);
    index.settle().unwrap();
    assert_eq!((index.mark(), index.stats().live, index.stats().sealing), (42, 0, 0));
    let before = (answers(&index, &queries), index.ids(), index.len(), index.stats());
    drop(index);
    for _ in 0..2 {
        let index = open(dir.path()).unwrap();
        assert_eq!((answers(&index, &queries), index.ids(), index.len(), index.stats()), before);
        assert_eq!(index.mark(), 42);
        assert!(index.knows(PointId(1)) && !index.knows(PointId(700)));
        index.check_vectors().unwrap();
    }
}

#[test]
fn what_was_not_sealed_is_gone_until_it_is_inserted_again() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = uniform(300, DIM, 3);
    let points = numbered(&vectors);
    let index = open(dir.path()).unwrap();
    index.insert_many(&points[..100]).unwrap();
    index.checkpoint(7);
    index.settle().unwrap();
    index.insert_many(&points[100..120]).unwrap();
    assert_eq!((index.len(), index.mark()), (120, 7));
    drop(index);

    let index = open(dir.path()).unwrap();
    assert_eq!((index.len(), index.mark()), (100, 7));
    assert!(index.knows(PointId(99)) && !index.knows(PointId(100)));
    // The owner does everything since the mark again, and, to be safe, some of what was before.
    for (id, vector) in &points[50..] {
        index.insert(*id, vector).unwrap();
    }
    index.insert_many(&points[..80]).unwrap();
    index.insert_all(points.iter().map(|(id, e)| Ok::<_, IndexError>((*id, e)))).unwrap();
    index.settle().unwrap();
    assert_eq!(index.len(), 300);
    assert_eq!(index.ids(), points.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    for (id, vector) in &points {
        assert_eq!(index.nearest(vector, 2, None).unwrap()[0].id, *id);
        assert_ne!(index.nearest(vector, 2, None).unwrap()[1].id, *id, "each point is there once");
    }
}

#[test]
fn removals_are_remembered_over_reopening_and_merging() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = uniform(400, DIM, 4);
    let points = numbered(&vectors);
    let index = open(dir.path()).unwrap();
    index.insert_many(&points[..200]).unwrap();
    let removed: Vec<PointId> = (0..200).step_by(11).map(PointId).collect();
    assert!(removed.iter().all(|&id| index.remove(id)));
    // A checkpoint with nothing to seal still writes the removals down.
    index.checkpoint(9);
    index.settle().unwrap();
    drop(index);

    let index = open(dir.path()).unwrap();
    assert_eq!((index.len(), index.mark()), (200 - removed.len(), 9));
    index.insert_many(&points[..200]).unwrap();
    assert_eq!(index.len(), 200 - removed.len(), "a removed id stays removed");
    for chunk in points[200..].chunks(40) {
        index.insert_many(chunk).unwrap();
        index.seal().unwrap();
    }
    drop(index);
    let index = open(dir.path()).unwrap();
    assert_eq!(index.len(), 400 - removed.len());
    assert!(index.ids().iter().all(|id| !removed.contains(id)));
    for id in &removed {
        assert_ne!(index.nearest(&vectors[id.0 as usize], 1, None).unwrap()[0].id, *id);
    }
}

#[test]
fn a_mark_is_reached_only_with_what_came_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let points = numbered(&uniform(90, DIM, 5));
    let index = open(dir.path()).unwrap();
    assert_eq!(index.mark(), 0);
    for (mark, chunk) in (1..).zip(points.chunks(30)) {
        index.insert_many(chunk).unwrap();
        index.checkpoint(mark);
    }
    index.flush().unwrap();
    assert_eq!((index.mark(), index.stats().live, index.stats().sealing), (3, 0, 0));
    index.checkpoint(2);
    index.settle().unwrap();
    assert_eq!(index.mark(), 3, "marks do not go back");
    drop(index);
    let index = open(dir.path()).unwrap();
    assert_eq!((index.mark(), index.len()), (3, 90));
}

/// A directory with two segments, removals, and everything a file of an index can hold.
fn written(dir: &Path) -> (Vec<Embedding>, Vec<Vec<Neighbor>>) {
    let set = clip_like(400, DIM, 8, 6);
    let points = numbered(&with_duplicates(set.images, 0.1, 7));
    let index = open(dir).unwrap();
    index.insert_many(&points[..300]).unwrap();
    index.insert_many(&points[300..]).unwrap();
    for id in (0..400).step_by(9) {
        index.remove(PointId(id));
    }
    index.checkpoint(5);
    index.settle().unwrap();
    assert_eq!(index.stats().segments.len(), 2);
    let queries = [set.image_queries, set.text_queries].concat();
    let answers = answers(&index, &queries);
    (queries, answers)
}

fn flip(path: &Path, at: u64, bits: u8) {
    let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    byte[0] ^= bits;
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&byte).unwrap();
}

/// A damaged directory is refused, or its vectors are; and what it answers meanwhile is right.
fn assert_noticed(dir: &Path, queries: &[Embedding], right: &[Vec<Neighbor>], what: &str) {
    let index = match open(dir) {
        Err(IndexError::Damaged { .. }) => return,
        Err(other) => panic!("{what}: {other}"),
        Ok(index) => index,
    };
    let checked = index.check_vectors();
    assert!(matches!(checked, Err(IndexError::Damaged { .. })), "{what} goes unnoticed");
    for (query, right) in queries.iter().zip(right.chunks(3)) {
        let found = [
            index.nearest(query, 10, None),
            index.nearest(query, 3, Some(16)),
            index.nearest_exact(query, 10),
        ];
        for (found, right) in found.into_iter().zip(right) {
            match found {
                Ok(found) => assert_eq!(&found, right, "{what}"),
                Err(error) => assert!(matches!(error, IndexError::Damaged { .. }), "{what}: {error}"),
            }
        }
        assert!(index.nearest_exact(query, 10).is_err(), "{what}: a scan reads every vector");
    }
}

#[test]
fn damage_to_any_byte_is_noticed_and_never_a_wrong_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (queries, right) = written(dir.path());
    for path in files_of(dir.path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let len = fs::metadata(&path).unwrap().len();
        let header = (0..PAGE as u64).step_by(3).chain(0..544).chain(PAGE as u64 - 8..PAGE as u64);
        for at in header.chain((PAGE as u64..len).step_by(211)) {
            let bits = 1 << (at % 8);
            flip(&path, at, bits);
            assert_noticed(dir.path(), &queries, &right, &format!("byte {at} of {name}"));
            flip(&path, at, bits);
        }
    }
    assert_eq!(answers(&open(dir.path()).unwrap(), &queries), right, "whole again");
}

#[test]
fn files_cut_short_or_missing_or_too_long_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (queries, right) = written(dir.path());
    for path in files_of(dir.path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let whole = fs::read(&path).unwrap();
        let n = whole.len();
        for len in [0, 1, 8, PAGE - 1, PAGE, PAGE + 1, n / 2, n - PAGE, n - 1] {
            fs::write(&path, &whole[..len]).unwrap();
            assert_noticed(dir.path(), &queries, &right, &format!("{name} cut to {len} bytes"));
        }
        fs::write(&path, [whole.as_slice(), &[0; PAGE]].concat()).unwrap();
        assert_noticed(dir.path(), &queries, &right, &format!("{name} with a page too many"));
        if name != "manifest" {
            fs::remove_file(&path).unwrap();
            assert_noticed(dir.path(), &queries, &right, &format!("{name} missing"));
        }
        fs::write(&path, &whole).unwrap();
    }
    assert_eq!(answers(&open(dir.path()).unwrap(), &queries), right, "whole again");
    fs::remove_file(dir.path().join("manifest")).unwrap();
    let index = open(dir.path()).unwrap();
    assert_eq!((index.len(), index.mark()), (0, 0), "without a manifest nothing is known, nor claimed");
}

#[test]
fn files_in_each_others_place_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (queries, right) = written(dir.path());
    let files = files_of(dir.path());
    let of_kind = |kind: &str| -> Vec<&PathBuf> {
        files.iter().filter(|f| f.file_name().unwrap().to_str().unwrap().starts_with(kind)).collect()
    };
    let (points, links) = (of_kind("points-"), of_kind("links-"));
    for (a, b) in [(points[0], points[1]), (links[0], links[1]), (points[0], links[0])] {
        let (in_a, in_b) = (fs::read(a).unwrap(), fs::read(b).unwrap());
        fs::write(a, &in_b).unwrap();
        fs::write(b, &in_a).unwrap();
        assert_noticed(dir.path(), &queries, &right, &format!("{} and {}", a.display(), b.display()));
        fs::write(a, &in_a).unwrap();
        fs::write(b, &in_b).unwrap();
    }
}

#[test]
fn an_empty_directory_is_an_empty_index_and_another_dimension_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b");
    assert!(open(&deep).unwrap().is_empty(), "created when absent");
    let index = open(&deep).unwrap();
    index.insert(PointId(1), &uniform(1, DIM, 8)[0]).unwrap();
    index.seal().unwrap();
    drop(index);
    let refused = Index::open(&deep, DIM + 1, sealing(128)).err();
    assert_eq!(refused, Some(IndexError::WrongDimension { expected: DIM + 1, found: DIM }));
    assert_eq!(open(&deep).unwrap().ids(), [PointId(1)], "a refusal deletes nothing");
    Index::discard(&deep).unwrap();
    Index::discard(&deep).unwrap();
    assert!(!deep.exists());
    assert!(Index::open(&deep, DIM + 1, sealing(128)).unwrap().is_empty());
}

#[test]
fn after_discarding_the_same_points_give_the_same_answers() {
    let dir = tempfile::tempdir().unwrap();
    let set = clip_like(600, DIM, 20, 9);
    let (points, queries) = (numbered(&set.images), [set.image_queries, set.text_queries].concat());
    let build = || {
        let index = open(dir.path()).unwrap();
        points.chunks(200).for_each(|chunk| index.insert_many(chunk).unwrap());
        index.seal().unwrap();
        let wide = |query| index.nearest(query, 10, Some(600)).unwrap();
        (queries.iter().map(wide).collect::<Vec<_>>(), index.ids())
    };
    let first = build();
    Index::discard(dir.path()).unwrap();
    assert_eq!(build(), first);
}

#[test]
fn leftovers_of_a_crash_are_tidied_and_other_files_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let (queries, right) = written(dir.path());
    let whole = files_of(dir.path());
    let some_points = whole.iter().find(|f| f.to_str().unwrap().contains("points-")).unwrap();
    fs::copy(some_points, dir.path().join("points-00000777")).unwrap();
    for name in ["points-00000778", "links-00000779", "manifest.new", "notes of the owner"] {
        fs::write(dir.path().join(name), b"half a file").unwrap();
    }
    let index = open(dir.path()).unwrap();
    assert_eq!(answers(&index, &queries), right);
    drop(index);
    let mut expected = [whole, vec![dir.path().join("notes of the owner")]].concat();
    expected.sort();
    assert_eq!(files_of(dir.path()), expected);
}

/// The files of the new state are all written, but the manifest still names the old ones.
#[test]
fn a_crash_before_the_manifest_is_renamed_leaves_the_old_state() {
    let dir = tempfile::tempdir().unwrap();
    let (old, crashed) = (dir.path().join("old"), dir.path().join("crashed"));
    let (queries, right) = written(&old);
    copy(&old, &crashed);
    let new = uniform(200, DIM, 10);
    let index = open(&old).unwrap();
    let more = (1_000..).map(PointId).zip(&new);
    index.insert_all(more.map(|(id, e)| Ok::<_, IndexError>((id, e)))).unwrap();
    index.checkpoint(6);
    index.settle().unwrap();
    assert_eq!(index.len(), 355 + 200);
    drop(index);
    let kept = files_of(&crashed);
    for file in files_of(&old) {
        let name = file.file_name().unwrap();
        if name == "manifest" {
            fs::copy(&file, crashed.join("manifest.new")).unwrap();
        } else {
            fs::copy(&file, crashed.join(name)).unwrap();
        }
    }
    assert!(files_of(&crashed).len() > kept.len());
    let index = open(&crashed).unwrap();
    assert_eq!((index.mark(), index.len()), (5, 355));
    assert_eq!(answers(&index, &queries), right);
    assert_eq!(files_of(&crashed), kept);
    // And it goes on from there, over the numbers that were used before the crash.
    let more = (1_000..).map(PointId).zip(&new);
    index.insert_all(more.map(|(id, e)| Ok::<_, IndexError>((id, e)))).unwrap();
    drop(index);
    let index = open(&crashed).unwrap();
    assert_eq!(index.len(), 555);
    let expected = oracle::exact(&points_of(&new), &new[5], 1, None)[0].score;
    assert!(index.nearest(&new[5], 1, None).unwrap()[0].score >= expected - 1e-6);
}

#[test]
fn an_index_may_be_opened_with_other_options_than_it_was_built_with() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = uniform(900, DIM, 11);
    let all = points_of(&vectors);
    let points = numbered(&vectors);
    for (part, max_connections) in points.chunks(300).zip([8, 32, 2]) {
        let options = IndexOptions { max_connections, ..sealing(64) };
        let index = Index::open(dir.path(), DIM, options).unwrap();
        part.chunks(60).for_each(|chunk| {
            index.insert_many(chunk).unwrap();
            index.seal().unwrap();
        });
    }
    let index = Index::open(dir.path(), DIM, sealing(64)).unwrap();
    assert_eq!(index.len(), 900);
    oracle::assert_all_find_themselves(&index, &all);
}

/// Files are not written over while an index reads them.
#[test]
fn a_search_goes_on_while_segments_are_replaced_under_it() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = uniform(600, DIM, 12);
    let points = numbered(&vectors);
    let index = open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        let searcher = scope.spawn(|| {
            let mut found = 0;
            for round in 0..3_000 {
                let answer = index.nearest(&vectors[round % 600], 5, None).unwrap();
                assert!(answer.windows(2).all(|w| w[0].score >= w[1].score && w[0].id != w[1].id));
                found += answer.len();
            }
            found
        });
        for chunk in points.chunks(50) {
            index.insert_many(chunk).unwrap();
            index.seal().unwrap();
        }
        assert!(searcher.join().unwrap() <= 15_000);
    });
    index.check_vectors().unwrap();
    oracle::assert_all_find_themselves(&index, &points_of(&vectors));
}

#[test]
fn an_index_that_is_open_is_not_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), 4, IndexOptions::default()).unwrap();
    let error = Index::open(dir.path(), 4, IndexOptions::default()).unwrap_err();
    assert!(matches!(error, IndexError::InUse { .. }), "{error}");
    drop(index);
    Index::open(dir.path(), 4, IndexOptions::default()).unwrap();
}

/// What cannot be written is kept, searchable, until it can.
#[test]
fn a_disk_that_refuses_is_reported_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = uniform(150, DIM, 13);
    let (points, all) = (numbered(&vectors), points_of(&vectors));
    let index = open(dir.path()).unwrap();
    index.insert_many(&points[..50]).unwrap();
    // A directory in the way of the next file, whoever tries to write it.
    for (in_the_way, mark, known) in [("points-00000000", 3, 50), ("manifest.new", 4, 100)] {
        fs::create_dir(dir.path().join(in_the_way)).unwrap();
        index.checkpoint(mark);
        for _ in 0..2 {
            let refused = index.settle();
            assert!(matches!(refused, Err(IndexError::Io { .. })), "{in_the_way}: {refused:?}");
            assert_eq!(index.mark(), if mark == 3 { 0 } else { 3 }, "nothing is claimed that is not on disk");
        }
        assert_eq!(index.len(), known);
        assert_eq!(index.nearest(&vectors[7], 1, None).unwrap()[0].id, PointId(7));
        fs::remove_dir(dir.path().join(in_the_way)).unwrap();
        index.settle().unwrap();
        assert_eq!(index.mark(), mark);
        index.insert_many(&points[known..known + 50]).unwrap();
    }
    index.checkpoint(5);
    index.settle().unwrap();
    drop(index);
    let index = open(dir.path()).unwrap();
    assert_eq!((index.len(), index.mark()), (150, 5));
    oracle::assert_all_find_themselves(&index, &all);
}
