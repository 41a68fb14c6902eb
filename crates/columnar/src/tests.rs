//! Folders written and read back, ours and as others write them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use diptych_core::{AttributeValue, Attributes, Digest, ImagePart, Key, Part, PartRef, Record, TextPart};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::{About, Dtype, ExportOptions, ExportWriter, Folder, FolderOptions, Imported, NpyWriter, Vectors};

const DIM: usize = 4;

fn about() -> About {
    let schema = BTreeMap::from([("age".to_owned(), "integer".to_owned())]);
    About { collection: "cases".into(), model_id: "ab".repeat(32), dimension: DIM, schema, closed: false }
}

fn image(n: u8) -> Part {
    Part::Image(ImagePart {
        source: format!("{n}.png"),
        digest: Digest([n; 32]),
        width: 640,
        height: u32::from(n),
    })
}

fn record(key: &str, images: u8, texts: Vec<TextPart>, age: i64) -> (Record, Vectors) {
    let parts = (1..=images).map(image).chain(texts.into_iter().map(Part::Text)).collect();
    let attributes = Attributes::from([("age".to_owned(), AttributeValue::Integer(age))]);
    let record = Record::new(Key::new(key).unwrap(), parts, attributes).unwrap();
    let vector = |(n, (part, _)): (usize, (PartRef, &Part))| {
        (part, vec![age as f32, n as f32, f32::from(part.chunk.is_some()), 0.25])
    };
    let vectors = record.part_refs().enumerate().map(vector).collect();
    (record, vectors)
}

fn records() -> Vec<(Record, Vectors)> {
    let long =
        TextPart { text: "Zürich. Yes. No.".into(), truncated_tokens: 3, chunk_ends: vec![9, 14, 17] };
    vec![
        record("a/1", 1, vec![TextPart::whole("one", 0)], 1),
        record("images", 3, vec![TextPart::whole("x", 2)], 2),
        record("long", 1, vec![TextPart::whole("first", 0), long, TextPart::whole("last", 0)], 3),
        record("text", 0, vec![TextPart::whole("only words", 0)], 4),
        record("picture", 1, vec![], 5),
    ]
}

fn export(dir: &Path, shard_rows: u64, dtype: Dtype) {
    let mut writer = ExportWriter::create(dir, about(), ExportOptions { dtype, shard_rows }).unwrap();
    for (record, vectors) in records() {
        writer.push(&record, &vectors).unwrap();
    }
    writer.finish().unwrap();
}

fn open(dir: &Path) -> Folder {
    Folder::open(dir, &FolderOptions::default()).unwrap()
}

fn refusal(dir: &Path) -> String {
    Folder::open(dir, &FolderOptions::default()).unwrap_err().to_string()
}

fn all(folder: Folder) -> Vec<Imported> {
    let mut items = folder.into_items();
    std::iter::from_fn(|| items.next_record().unwrap()).collect()
}

#[test]
fn records_come_back_as_they_were() {
    for (shard_rows, dtype) in [(1, Dtype::F32), (3, Dtype::F16), (100, Dtype::F32)] {
        let dir = tempfile::tempdir().unwrap();
        export(dir.path(), shard_rows, dtype);
        let folder = open(dir.path());
        let description = folder.description().unwrap();
        assert_eq!((description.records, description.rows, &description.about), (5, 11, &about()));
        assert_eq!((folder.rows(), folder.dim(), folder.is_own()), (11, DIM, true));
        let shards = std::fs::read_dir(dir.path().join("metadata")).unwrap().count() as u64;
        assert_eq!(shards, description.shards);
        assert_eq!(
            shards,
            match shard_rows {
                1 => 5,
                3 => 3,
                _ => 1,
            }
        );
        let read = all(folder);
        assert_eq!(read.iter().map(|item| item.rows).sum::<u64>(), 11);
        let sorted = |mut vectors: Vectors| {
            vectors.sort_by_key(|(part, _)| *part);
            vectors
        };
        for (item, (record, vectors)) in read.into_iter().zip(records()) {
            let (found, found_vectors) = item.outcome.unwrap();
            assert_eq!(found, record);
            assert_eq!(sorted(found_vectors), sorted(vectors));
        }
    }
}

#[test]
fn rows_pair_images_with_texts_as_clip_retrieval_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    export(dir.path(), 100, Dtype::F16);
    let mut table = crate::Table::open(&dir.path().join("metadata/metadata_0.parquet")).unwrap();
    let mut images = crate::NpyReader::open(&dir.path().join("img_emb/img_emb_0.npy")).unwrap();
    let mut texts = crate::NpyReader::open(&dir.path().join("text_emb/text_emb_0.npy")).unwrap();
    assert_eq!(images.dtype(), Dtype::F16);
    let mut rows = Vec::new();
    while let Some(row) = table.next_row().unwrap() {
        let (image, text) = (images.next_row().unwrap().unwrap(), texts.next_row().unwrap().unwrap());
        let of = |column: &str| row.text(column).unwrap().to_owned();
        rows.push((of("key"), of("image_path"), of("caption"), image == [0.0; DIM], text == [0.0; DIM]));
    }
    let row = |key: &str, image: &str, text: &str| {
        (key.to_owned(), image.to_owned(), text.to_owned(), image.is_empty(), text.is_empty())
    };
    assert_eq!(
        rows,
        [
            row("a/1", "1.png", "one"),
            row("images", "1.png", "x"),
            row("images", "2.png", ""),
            row("images", "3.png", ""),
            row("long", "1.png", "first"),
            row("long", "", "Zürich. "),
            row("long", "", "Yes. "),
            row("long", "", "No."),
            row("long", "", "last"),
            row("text", "", "only words"),
            row("picture", "1.png", ""),
        ]
    );
}

#[test]
fn an_export_of_nothing_is_a_folder_of_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = ExportOptions { dtype: Dtype::F16, shard_rows: 10 };
    ExportWriter::create(dir.path(), about(), options).unwrap().finish().unwrap();
    assert!(all(open(dir.path())).is_empty());
}

#[test]
fn damage_is_named_before_a_row_is_read() {
    let broken = |spoil: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        export(dir.path(), 3, Dtype::F32);
        spoil(dir.path());
        refusal(dir.path())
    };
    let cut = |path: &Path, by: u64| {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() - by).unwrap();
    };
    let flip = |path: &Path| {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    for (error, says) in [
        (
            broken(&|d| flip(&d.join("text_emb/text_emb_1.npy"))),
            "text_emb_1.npy: it is not what was exported",
        ),
        (broken(&|d| cut(&d.join("img_emb/img_emb_1.npy"), 1)), "img_emb_1.npy: it has"),
        (
            broken(&|d| cut(&d.join("metadata/metadata_0.parquet"), 9)),
            "metadata_0.parquet: it cannot be read",
        ),
        (
            broken(&|d| std::fs::remove_file(d.join("text_emb/text_emb_2.npy")).unwrap()),
            "text_emb_2.npy: it is missing",
        ),
        (
            broken(&|d| {
                for path in
                    ["img_emb/img_emb_2.npy", "text_emb/text_emb_2.npy", "metadata/metadata_2.parquet"]
                {
                    std::fs::remove_file(d.join(path)).unwrap();
                }
            }),
            "some are missing",
        ),
        (broken(&|d| std::fs::remove_dir_all(d.join("metadata")).unwrap()), "no folder 'metadata'"),
        (broken(&|d| std::fs::write(d.join("diptych.json"), "{}").unwrap()), "diptych.json: it is damaged"),
        (
            broken(&|d| {
                let from = d.join("img_emb/img_emb_1.npy");
                std::fs::copy(d.join("img_emb/img_emb_0.npy"), from).unwrap();
            }),
            "rows, and",
        ),
    ] {
        assert!(error.contains(says), "{error}");
    }
}

/// A folder as clip-retrieval writes it, with columns of img2dataset.
fn clip_retrieval(dir: &Path, keys: &[&str], captions: &[Option<&str>]) {
    for side in ["img_emb", "text_emb", "metadata"] {
        std::fs::create_dir(dir.join(side)).unwrap();
    }
    for side in ["img_emb", "text_emb"] {
        let mut writer =
            NpyWriter::create(&dir.join(side).join(format!("{side}_0000.npy")), DIM, Dtype::F16).unwrap();
        keys.iter().enumerate().for_each(|(n, _)| writer.push(&[n as f32, 1.0, 0.0, 0.0]).unwrap());
        writer.finish().unwrap();
    }
    let schema = "message schema {
        optional binary image_path (string); optional binary caption (string); optional binary url (string);
        optional double similarity; optional int64 original_width; optional binary exif;
        required int64 __index_level_0__; }";
    let file = std::fs::File::create(dir.join("metadata/metadata_0000.parquet")).unwrap();
    let mut writer =
        SerializedFileWriter::new(file, Arc::new(parse_message_type(schema).unwrap()), Arc::default())
            .unwrap();
    let mut group = writer.next_row_group().unwrap();
    let all = vec![1i16; keys.len()];
    let texts = |values: &[Option<&str>]| -> (Vec<ByteArray>, Vec<i16>) {
        let there = values.iter().map(|value| i16::from(value.is_some())).collect();
        (values.iter().flatten().map(|value| ByteArray::from(*value)).collect(), there)
    };
    let some: Vec<Option<&str>> = keys.iter().copied().map(Some).collect();
    for values in [&some[..], captions, &some[..]] {
        let (values, there) = texts(values);
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&there), None).unwrap();
        column.close().unwrap();
    }
    let mut column = group.next_column().unwrap().unwrap();
    let similarity: Vec<f64> = (0..keys.len()).map(|n| if n == 0 { f64::NAN } else { 0.5 }).collect();
    column.typed::<DoubleType>().write_batch(&similarity, Some(&all), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&vec![640; keys.len()], Some(&all), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let (values, there) = texts(&some);
    column.typed::<ByteArrayType>().write_batch(&values, Some(&there), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&vec![0; keys.len()], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn rows_of_clip_retrieval_become_records() {
    let dir = tempfile::tempdir().unwrap();
    clip_retrieval(dir.path(), &["x/0.jpg", "x/1.jpg", ""], &[Some("a dog"), None, Some("nameless")]);
    let folder = open(dir.path());
    assert_eq!((folder.description(), folder.is_own(), folder.rows(), folder.dim()), (None, false, 3, DIM));
    let mut items = folder.into_items();
    let mut next = || items.next_record().unwrap().unwrap();
    let (first, vectors) = next().outcome.unwrap();
    assert_eq!(first.key().as_str(), "x/0.jpg");
    assert_eq!(first.parts().len(), 2);
    assert_eq!(
        vectors,
        [
            ("image:0".parse().unwrap(), vec![0.0, 1.0, 0.0, 0.0]),
            ("text:0".parse().unwrap(), vec![0.0, 1.0, 0.0, 0.0])
        ]
    );
    let names: Vec<&str> = first.attributes().keys().map(String::as_str).collect();
    assert_eq!(names, ["original_width", "url"], "no number is no value, and bytes are no attribute");
    let (second, vectors) = next().outcome.unwrap();
    assert_eq!((second.parts().len(), vectors.len()), (1, 1));
    assert_eq!(second.attributes()["similarity"], AttributeValue::Float(0.5));
    let third = next();
    assert!(third.outcome.unwrap_err().contains("the key is empty"), "a row without a key");
    assert!(third.origin.ends_with("metadata_0000.parquet, row 2"), "{}", third.origin);
    assert_eq!(items.next_record().unwrap(), None);
    assert_eq!(items.left_out().iter().collect::<Vec<_>>(), ["exif"]);
    assert_eq!(items.without_text(), 1);

    let by_url = FolderOptions { key_column: Some("url".into()) };
    let (record, _) = all(Folder::open(dir.path(), &by_url).unwrap())[0].outcome.clone().unwrap();
    assert!(!record.attributes().contains_key("url"));
    let absent = FolderOptions { key_column: Some("id".into()) };
    let error = Folder::open(dir.path(), &absent).unwrap_err().to_string();
    assert!(error.contains("no column 'id'") && error.contains("image_path, caption, url"), "{error}");
}
