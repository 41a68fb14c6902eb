//! Tests that need to look behind the public face: exact bytes, damage planted into the database, a
//! write that fails half-way. What users see is tested in `tests/it`.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;

use diptych_core::{
    AttributeSchema, AttributeType, AttributeValue, Attributes, CollectionName, Digest, Embedding, ImagePart,
    Key, Modality, ModelId, Part, PartRef, PointId, Record, TextPart, Time,
};

use crate::commit::Writer;
use crate::db::{Access, Batch, Db};
use crate::directory::AckMark;
use crate::requests::Requests;
use crate::rows;
use crate::schema::{self, FORMAT_VERSION, Family, Marks};
use crate::{
    Collection, Mutation, Once, Outcome, PutMode, Remembered, Stats, Store, StoreError, StoreOptions,
};

fn key(name: &str) -> Key {
    Key::new(name).expect("valid key")
}

const IMAGE: PartRef = PartRef::whole(Modality::Image, 0);
const TEXT: PartRef = PartRef::whole(Modality::Text, 0);

fn record(name: &str) -> Record {
    let text = Part::Text(TextPart::whole("no effusion", 300));
    let image = Part::Image(ImagePart {
        source: "a.png".to_owned(),
        digest: Digest([1; 32]),
        width: 1,
        height: 65_535,
    });
    let attributes = Attributes::from([
        ("b".to_owned(), AttributeValue::Bool(true)),
        ("f".to_owned(), AttributeValue::Float(-0.5)),
        ("i".to_owned(), AttributeValue::Integer(-3)),
        ("l".to_owned(), AttributeValue::List(vec!["x".to_owned()])),
        ("s".to_owned(), AttributeValue::String("y".to_owned())),
    ]);
    Record::new(key(name), vec![text, image], attributes).expect("valid record")
}

fn put(name: &str) -> Mutation {
    let vector = Embedding::new(vec![0.6, 0.8]).expect("valid vector");
    let vectors = vec![(IMAGE, vector.clone()), (TEXT, vector)];
    Mutation::Put {
        record: record(name),
        vectors,
        thumbnails: Vec::new(),
        digest: Digest([2; 32]),
        mode: PutMode::Upsert,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// These strings are format version 1. A change that breaks this test breaks every directory in the
/// field: give the format a new version instead.
#[test]
fn the_bytes_of_format_version_1_stay_as_they_are() {
    assert_eq!(FORMAT_VERSION, 1);
    let points = [(TEXT, PointId(300)), (IMAGE, PointId(301))];
    let ones = "01".repeat(32);
    let twos = "02".repeat(32);
    let row = rows::encode_record(&record("k"), Digest([2; 32]), 5, &points);
    let expected = [
        "0105",                             // row format, seq
        &twos,                              // digest
        "02010b6e6f206566667573696f6eac02", // two parts: text, 300 tokens too long
        "0005612e706e67",                   // image and its source
        &ones,                              // digest of the image
        "01ffff03",                         // width, height
        "02ac02ad02",                       // two points: 300, 301
        "05",                               // five attributes
        "01620401",                         // b: true
        "016603000000000000e0bf",           // f: -0.5
        "01690205",                         // i: -3, zigzag
        "016c01010178",                     // l: one string
        "0173000179",                       // s: a string
    ];
    assert_eq!(hex(&row), expected.concat());
    let stored = rows::decode_record(&row, key("k")).expect("reads back");
    assert_eq!((stored.record, stored.seq, stored.points), (record("k"), 5, points.to_vec()));
    assert_eq!(rows::decode_digest(&row, &key("k")), Ok(Digest([2; 32])));

    assert_eq!(hex(&rows::encode_owner(&key("k"), TEXT)), "01016b0100");
    let entry = rows::encode_entry(7, &key("k"), &points[..1], &points[1..]);
    assert_eq!(hex(&entry), "0107016b010100ac02010000ad02");
    let stats = Stats { records: 1, image_points: 2, text_points: 128, truncated_texts: 0 };
    assert_eq!(hex(&rows::encode_stats(&stats)), "010102800100");
    let collection = collection(AttributeSchema::default(), None);
    let row = rows::encode_collection(&collection);
    assert_eq!(hex(&row), format!("0101{ones}8004"));
    assert_eq!(rows::decode_collection(b"default", &row), Ok(collection));

    assert_eq!(hex(&schema::record_key(1, "ab")), "000000016162");
    assert_eq!(hex(&schema::point_key(1, PointId(258))), "000000010000000000000102");
    assert_eq!(hex(&schema::vector_key(1, Modality::Text, PointId(2))), "00000001010000000000000002");
    assert_eq!(hex(&schema::journal_key(258)), "0000000000000102");
    assert_eq!(hex(&schema::stats_key(2)), "73746174732f00000002");
    let marks = Marks { batch: 1, seq: 2, next_point: 3 };
    assert_eq!(hex(&marks.encode()), "000000000000000100000000000000020000000000000003");
    let vector = Embedding::new(vec![0.0, -1.0]).expect("valid vector");
    assert_eq!(hex(&schema::encode_vector(&vector)), "00000000000080bf");
    assert_eq!(
        Family::ALL.map(Family::name),
        ["meta", "collections", "records", "points", "vectors", "thumbnails", "journal"]
    );
}

fn collection(schema: AttributeSchema, created: Option<Time>) -> Collection {
    let (name, model_id) = (CollectionName::default(), ModelId(Digest([1; 32])));
    Collection { id: 1, name, model_id, dim: 512, created, schema: Arc::new(schema) }
}

/// As above, for what came later: times, schemas, deleted collections and remembered requests.
#[test]
fn the_bytes_of_later_rows_stay_as_they_are() {
    let ones = "01".repeat(32);
    let time = Time::new(1, 500).expect("valid time");
    let types = [("a", AttributeType::Time), ("b", AttributeType::List)];
    let types = types.into_iter().map(|(name, of)| (name.to_owned(), of)).collect();
    let schema = AttributeSchema::new(types, false).expect("valid schema");
    let described = collection(schema, Some(time));
    let row = rows::encode_collection(&described);
    // Format, id, model, dimensions; created at 1 s and 500 ns; two types; closed.
    assert_eq!(hex(&row), format!("0201{ones}8004{}{}{}", "0102f403", "02016105016201", "00"));
    assert_eq!(rows::decode_collection(b"default", &row), Ok(described));

    let attributes = Attributes::from([("t".to_owned(), AttributeValue::Time(time))]);
    let timed = Record::new(key("k"), vec![Part::Text(TextPart::whole("x", 0))], attributes).expect("valid");
    let row = rows::encode_record(&timed, Digest([1; 32]), 5, &[(TEXT, PointId(3))]);
    assert_eq!(hex(&row), format!("0305{ones}01010178000103{}", "0101740502f403"));
    assert_eq!(rows::decode_record(&row, key("k")).map(|stored| stored.record), Ok(timed));

    let fingerprint = Digest([1; 32]);
    let remembered = Remembered { fingerprint, outcome: Outcome::Deleted, seq: Some(2), note: vec![9] };
    let name = (1, "r".to_owned());
    let row = rows::encode_request(&name, &remembered);
    assert_eq!(hex(&row), format!("01010172{ones}0301020109"));
    assert_eq!(rows::decode_request(&row, 0), Ok((name, remembered)));
    assert_eq!(hex(&schema::request_key(258)), "726571756573742f0000000000000102");
    assert_eq!(hex(&schema::encode_next_collection(258)), "0200000102");
    assert_eq!(schema::decode_next_collection(&[2, 0, 0, 1, 2]), Ok(258));
    assert!(schema::decode_next_collection(&[1, 0, 0, 1, 2]).is_err());
}

/// A record with a text of two chunks, and its points.
fn chunked(name: &str) -> (Record, [(PartRef, PointId); 3]) {
    let long = TextPart { chunk_ends: vec![3, 5], ..TextPart::whole("ab cd", 1) };
    let parts = vec![Part::Text(TextPart::whole("x", 0)), Part::Text(long)];
    let record = Record::new(key(name), parts, Attributes::new()).expect("valid record");
    let points = [(TEXT, 7), (PartRef::chunk(1, 0), 8), (PartRef::chunk(1, 1), 9)];
    (record, points.map(|(part, point)| (part, PointId(point))))
}

/// As above, for the rows that speak of chunks.
#[test]
fn the_bytes_of_rows_with_chunks_stay_as_they_are() {
    let (record, points) = chunked("k");
    let twos = "02".repeat(32);
    let row = rows::encode_record(&record, Digest([2; 32]), 5, &points);
    let expected = [
        "0205",                   // row format, seq
        &twos,                    // digest
        "0201017800",             // two parts: a text in one piece
        "0205616220636401020305", // a text, 1 token too long, two chunks that end at 3 and 5
        "03070809",               // three points
        "00",                     // no attributes
    ];
    assert_eq!(hex(&row), expected.concat());
    let stored = rows::decode_record(&row, key("k")).expect("reads back");
    assert_eq!((stored.record, stored.seq, stored.points), (record, 5, points.to_vec()));
    assert_eq!(rows::decode_digest(&row, &key("k")), Ok(Digest([2; 32])));

    let owner = rows::encode_owner(&key("k"), points[2].0);
    assert_eq!(hex(&owner), "02016b010101");
    assert_eq!(rows::decode_owner(&owner, PointId(9)), Ok((key("k"), points[2].0)));
    let entry = rows::encode_entry(7, &key("k"), &points[1..], &[(IMAGE, PointId(1))]);
    assert_eq!(hex(&entry), "0207016b02010101000801010101090100000001");
    let read = rows::decode_entry(&schema::journal_key(5), &entry).expect("reads back");
    assert_eq!((read.added, read.removed), (points[1..].to_vec(), vec![(IMAGE, PointId(1))]));
}

#[test]
fn chunks_that_are_not_their_text_are_corrupt() {
    let (record, points) = chunked("k");
    let row = rows::encode_record(&record, Digest([2; 32]), 5, &points);
    for end in 0..row.len() {
        assert!(rows::decode_record(&row[..end], key("k")).is_err());
    }
    let ends = row.len() - 8..row.len() - 5;
    assert_eq!(row[ends.clone()], [2, 3, 5], "two ends: 3 and 5");
    for wrong in [[2, 3, 4], [2, 5, 5], [2, 3, 6], [2, 5, 3]] {
        let mut damaged = row.clone();
        damaged[ends.clone()].copy_from_slice(&wrong);
        let result = rows::decode_record(&damaged, key("k"));
        assert!(matches!(result, Err(StoreError::Corrupt { .. })), "{wrong:?}: {result:?}");
    }
    // A point less than pieces.
    let short = rows::encode_record(&record, Digest([2; 32]), 5, &points[..2]);
    assert!(matches!(rows::decode_record(&short, key("k")), Err(StoreError::Corrupt { .. })));
}

#[test]
fn rows_that_are_cut_stretched_or_foreign_are_corrupt() {
    let row =
        rows::encode_record(&record("k"), Digest([2; 32]), 5, &[(TEXT, PointId(1)), (IMAGE, PointId(2))]);
    let corrupt = |bytes: &[u8]| {
        let result = rows::decode_record(bytes, key("k"));
        assert!(matches!(result, Err(StoreError::Corrupt { .. })), "{result:?}");
    };
    for end in 0..row.len() {
        corrupt(&row[..end]);
    }
    corrupt(&[row.as_slice(), &[0]].concat());
    corrupt(&[&[9], &row[1..]].concat());
    // One point less than parts.
    let short = rows::encode_record(&record("k"), Digest([2; 32]), 5, &[(TEXT, PointId(1))]);
    corrupt(&short);
}

#[test]
fn vectors_are_checked_when_they_come_back() {
    let decode = |values: &[f32], dim| {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        schema::decode_vector(&bytes, dim, PointId(1))
    };
    assert!(decode(&[0.6, 0.8], 2).is_ok());
    for (values, dim) in
        [([0.6, 0.8], 3), ([0.6, 0.7], 2), ([f32::NAN, 0.8], 2), ([f32::INFINITY, 0.0], 2), ([0.0, 0.0], 2)]
    {
        let result = decode(&values, dim);
        assert!(matches!(result, Err(StoreError::Corrupt { .. })), "{values:?}: {result:?}");
    }
}

#[test]
fn a_prefix_ends_before_the_next_one() {
    assert_eq!(schema::after_prefix(&[0, 1]), Some(vec![0, 2]));
    assert_eq!(schema::after_prefix(&[0, 0xff]), Some(vec![1]));
    assert_eq!(schema::after_prefix(&[0xff, 0xff]), None);
}

/// A closed store with the records a and b; a has the points 0 (text) and 1 (image).
fn two_records(dir: &Path) {
    let store = Store::open(dir, &StoreOptions::default()).expect("opens");
    let name = CollectionName::default();
    let id = store.create_collection(&name, ModelId(Digest([7; 32])), 2).expect("creates").id;
    assert_eq!(id, 1);
    store.write(id, vec![put("a"), put("b")]).expect("writes");
    assert!(store.check().is_clean());
}

/// Changes the database behind the store's back.
fn plant(dir: &Path, damage: Damage) {
    let db = Db::open(&dir.join("rocksdb"), Access::Existing, 1 << 20).expect("opens");
    let mut batch = db.batch();
    damage(&mut batch);
    db.write(batch).expect("writes");
    db.flush().expect("flushes");
}

/// Something done to the database.
type Damage = fn(&mut Batch<'_>);

#[test]
fn the_audit_finds_whatever_disagrees() {
    let damages: [(Damage, &str); 14] = [
        (
            |b| b.put(Family::Thumbnails, schema::point_key(1, PointId(9)), b"jpeg"),
            "the small picture of point 9 has no record",
        ),
        (
            |b| b.put(Family::Thumbnails, schema::point_key(1, PointId(0)), b"jpeg"),
            "the small picture of point 0 belongs to 'a' text:0, which is no image",
        ),
        (
            |b| b.delete(Family::Vectors, schema::vector_key(1, Modality::Image, PointId(1))),
            "has 3 vectors for 4 parts",
        ),
        (
            |b| b.delete(Family::Points, schema::point_key(1, PointId(1))),
            "point 1 of 'a' image:0 leads nowhere",
        ),
        (
            |b| b.put(Family::Points, schema::point_key(1, PointId(1)), rows::encode_owner(&key("b"), IMAGE)),
            "point 1 belongs to 'a' image:0, but leads to 'b' image:0",
        ),
        (
            |b| {
                b.put(
                    Family::Vectors,
                    schema::vector_key(1, Modality::Image, PointId(9)),
                    [0, 0, 0, 0, 0, 0, 128, 63],
                )
            },
            "the image vector of point 9 has no record",
        ),
        (
            |b| b.put(Family::Vectors, schema::vector_key(1, Modality::Image, PointId(1)), [0; 8]),
            "has norm 0.000000 instead of 1",
        ),
        (
            |b| b.put(Family::Vectors, schema::vector_key(1, Modality::Image, PointId(1)), [0; 4]),
            "has 4 bytes",
        ),
        (
            |b| b.put(Family::Meta, schema::stats_key(1), rows::encode_stats(&Stats::default())),
            "the counters of 'default' say",
        ),
        (|b| b.delete(Family::Journal, schema::journal_key(1)), "the journal goes on with 2 instead of 1"),
        (|b| b.delete(Family::Records, schema::record_key(1, "b")), "has 4 points for 2 parts"),
        (
            |b| {
                let row = rows::encode_record(
                    &record("c"),
                    Digest([2; 32]),
                    1,
                    &[(TEXT, PointId(1)), (IMAGE, PointId(2))],
                );
                b.put(Family::Records, schema::record_key(5, "c"), row);
            },
            "record 'c' is in collection 5, which does not exist",
        ),
        (
            |b| b.put(Family::Meta, schema::MARKS_KEY, Marks { batch: 9, seq: 1, next_point: 3 }.encode()),
            "point 3 was never given out ('b' image:0)",
        ),
        (|b| b.put(Family::Records, schema::record_key(1, "a"), [1, 2, 3]), "record 'a' cannot be read"),
    ];
    for (damage, says) in damages {
        let dir = tempfile::tempdir().expect("temporary directory");
        two_records(dir.path());
        plant(dir.path(), damage);
        let store = Store::open(dir.path(), &StoreOptions::default()).expect("opens");
        let report = store.check();
        assert!(!report.is_clean(), "{says}");
        assert!(report.to_string().contains(says), "wanted '{says}' in:\n{report}");
    }
}

#[test]
fn a_database_of_another_version_is_refused_whatever_the_stamp_says() {
    let dir = tempfile::tempdir().expect("temporary directory");
    two_records(dir.path());
    plant(dir.path(), |b| b.put(Family::Meta, schema::VERSION_KEY, 2u32.to_be_bytes()));
    let error = Store::open(dir.path(), &StoreOptions::default()).map(|_| ()).expect_err("refuses");
    assert_eq!(error, StoreError::Version { dir: dir.path().to_owned(), found: 2, supported: 1 });
}

/// `/dev/full` refuses every byte, as a full disk does.
#[test]
#[cfg(target_os = "linux")]
fn a_failed_write_stops_writing_until_a_restart_but_not_reading() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let db = Db::open(dir.path(), Access::Create, 1 << 20).expect("opens");
    let full = OpenOptions::new().write(true).open("/dev/full").expect("exists on Linux");
    let writer = Writer::new(Marks::default(), AckMark::in_file(full), Requests::default());
    let error = writer.write(&db, 1, vec![put("a")], Once::Never).expect_err("the disk is full");
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(error.to_string().contains("free space on the data disk, then restart"), "{error}");
    assert_eq!(writer.last_seq(), 0, "nothing was acknowledged");
    // Whether 'a' reached the disk is unknown, so its numbers must not be given out again.
    assert_eq!(writer.write(&db, 1, vec![put("b")], Once::Never), Err(error));
    assert_eq!(db.get(Family::Records, &schema::record_key(1, "b")), Ok(None));
    let untouched = writer.write(&db, 1, vec![Mutation::Delete { key: key("nothing") }], Once::Never);
    assert_eq!(untouched.map(|applied| applied[0].outcome), Ok(Outcome::NotFound), "this writes nothing");
}
