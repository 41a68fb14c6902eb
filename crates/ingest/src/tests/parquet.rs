//! Parquet files of other programs: images in them or beside them, and what no attribute can be.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use diptych_core::AttributeValue;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::{keys, read};
use crate::{Layout, Source};

const SCHEMA: &str = "message hub {
    required group image { optional binary bytes; optional binary path (string); }
    required binary caption (string);
    required int64 width;
    repeated double vector;
    required binary mask;
}";

/// Three rows as the Hugging Face hub writes them: a packed image, a path, neither.
fn write(path: &Path) {
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let texts = |texts: &[&str]| texts.iter().map(|&t| ByteArray::from(t)).collect::<Vec<_>>();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&texts(&["JPEG"]), Some(&[1, 0, 0]), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let paths = texts(&["one.jpg", "beside.png"]);
    column.typed::<ByteArrayType>().write_batch(&paths, Some(&[1, 1, 0]), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&texts(&["One.", "Two.", "Three."]), None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&[640, 320, 1], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let (definition, repetition) = ([1, 1, 1, 1], [0, 1, 0, 0]);
    let values = [0.5, 0.25, 1.0, 2.0];
    column.typed::<DoubleType>().write_batch(&values, Some(&definition), Some(&repetition)).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let bytes: Vec<ByteArray> = (0..3).map(|_| ByteArray::from(vec![0xFF, 0xD8])).collect();
    column.typed::<ByteArrayType>().write_batch(&bytes, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn images_are_taken_out_of_the_file_or_from_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("train-0.parquet"));
    fs::write(dir.path().join("beside.png"), "").unwrap();
    let source = Source::open(&dir.path().join("train-0.parquet")).unwrap();
    assert_eq!((source.layout(), source.count_hint()), (Layout::Parquet, Some(3)));
    let (items, errors) = read(&dir.path().join("train-0.parquet"));
    assert_eq!(keys(&items), ["train-0-1", "beside"]);
    assert_eq!(items[0].images[0].load().unwrap(), b"JPEG");
    assert!(items[0].images[0].source().ends_with("train-0.parquet!1!one.jpg"), "{:?}", items[0].images);
    assert_eq!(items[1].image_files().unwrap(), [dir.path().join("beside.png")]);
    assert_eq!(items[0].texts, ["One."]);
    assert_eq!(items[0].attributes, [("width".to_owned(), AttributeValue::Integer(640))].into());
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().starts_with("train-0.parquet row 3: 'image' is no image"), "{}", errors[0]);
    source.items().unwrap().for_each(drop);
    let left_out: Vec<String> = source.notes().left_out().into_iter().map(|(what, _)| what).collect();
    assert_eq!(
        left_out,
        ["mask", "vector"].map(|name| format!("values of column '{name}' that no attribute can have"))
    );
}

#[test]
fn a_folder_of_parquet_files_is_read_in_order() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    for n in [1, 0] {
        write(&dir.path().join(format!("data/train-{n}.parquet")));
    }
    assert_eq!(Source::open(dir.path()).unwrap().layout(), Layout::Parquet);
    assert_eq!(keys(&read(dir.path()).0), ["train-0-1", "train-1-1"]);
}

#[test]
fn damaged_files_are_reported_whatever_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.parquet");
    write(&path);
    fs::write(dir.path().join("beside.png"), "").unwrap();
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    // One byte after the other, in steps that meet data, pages and the footer.
    for at in (4..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        fs::write(&path, &damaged).unwrap();
        let source = Source::open(&path).unwrap();
        match source.items() {
            Ok(items) => refused += usize::from(items.filter(Result::is_err).count() != 1),
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("set.parquet"), "{error}");
            }
        }
    }
    assert!(refused > 10, "{refused}");
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(Source::open(&path).unwrap().items().is_err());
}
