//! Tables: CSV, TSV and Parquet, and lines that are one study.

use std::fs;
use std::io::Write as _;

use diptych_core::{AttributeValue, Chunking};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use super::{folder, keys, read, read_lines, read_with};
use crate::{Columns, Item, ItemError, LINE_BYTES_MAX, Layout, Source, SourceOptions};

/// A table beside which `a.png` and `sub/b.png` exist.
fn table(name: &str, content: &[u8]) -> TempDir {
    let dir = folder(&[("a.png", ""), ("sub/b.png", "")]);
    fs::write(dir.path().join(name), content).unwrap();
    dir
}

fn read_csv(content: &[u8]) -> (Vec<Item>, Vec<ItemError>) {
    let dir = table("set.csv", content);
    read(&dir.path().join("set.csv"))
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::String(text.to_owned())
}

#[test]
fn a_table_is_read_by_the_names_of_its_columns() {
    let csv = "\u{FEFF}id,image,caption,age,day,note\r\n\
        1,a.png,\"A \"\"red\"\" bird,\nin two lines\",52,2024-01-31,007\r\n\
        \r\n\
        2,sub/b.png,Second,,,\r\n";
    let (items, errors) = read_csv(csv.as_bytes());
    assert_eq!(errors, []);
    assert_eq!(keys(&items), ["1", "2"]);
    assert_eq!(items[0].texts, ["A \"red\" bird,\nin two lines"]);
    assert_eq!(items[0].attributes["age"], AttributeValue::Integer(52));
    assert_eq!(items[0].attributes["day"], AttributeValue::Time("2024-01-31".parse().unwrap()));
    assert_eq!(items[0].attributes["note"], text("007"));
    assert_eq!(items[0].origin.to_string(), "set.csv line 2");
    assert!(items[1].attributes.is_empty(), "an empty cell is no attribute");
    assert!(items[1].image_files().unwrap()[0].ends_with("sub/b.png"));
}

#[test]
fn the_first_line_says_what_separates_fields() {
    for (separator, name) in [("\t", "tab"), (";", "semicolon"), ("|", "bar"), (",", "comma")] {
        let rows =
            ["id", "text", "age"].join(separator) + "\n" + &["1", "a text", "3"].join(separator) + "\n";
        let dir = table("set.tsv", rows.as_bytes());
        let path = dir.path().join("set.tsv");
        let (items, errors) = read(&path);
        assert_eq!((items.len(), errors.len()), (1, 0), "{name}");
        let mapping = Source::open(&path).unwrap().mapping().unwrap();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            mapping,
            [
                pair("separated by", name),
                pair("id", "key"),
                pair("text", "text"),
                pair("age", "attribute age")
            ]
        );
    }
}

#[test]
fn columns_are_mapped_by_hand() {
    let dir = table("set.csv", b"uid,file,findings,impression,sex\nx,b.png,Clear.,Normal.,F\n");
    let path = dir.path().join("set.csv");
    let error = Source::open(&path).unwrap().items().unwrap_err().to_string();
    assert!(error.contains("--image-column") && error.contains("findings"), "{error}");
    let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
    let options = SourceOptions {
        columns: Columns {
            key: Some("uid".to_owned()),
            images: names(&["file"]),
            texts: names(&["findings", "impression"]),
            attributes: vec![("gender".to_owned(), "sex".to_owned())],
            ..Columns::default()
        },
        image_root: Some(dir.path().join("sub")),
        chunking: Some(Chunking::Sentences),
        ..SourceOptions::default()
    };
    let (items, errors) = read_with(&path, &options);
    assert_eq!(errors, []);
    assert_eq!(items[0].texts, ["Clear.", "Normal."]);
    assert_eq!(items[0].attributes, [("gender".to_owned(), text("F"))].into());
    assert_eq!(items[0].image_files().unwrap(), [dir.path().join("sub/b.png")]);
    assert_eq!(items[0].chunking, Chunking::Sentences);
    // The same mapping of the fields of lines.
    fs::write(
        dir.path().join("set.jsonl"),
        r#"{"uid":5,"file":"b.png","findings":"Clear.","impression":"Normal.","sex":"F"}"#,
    )
    .unwrap();
    let (lines, errors) = read_with(&dir.path().join("set.jsonl"), &options);
    assert_eq!(errors, []);
    assert_eq!((&lines[0].texts, &lines[0].attributes), (&items[0].texts, &items[0].attributes));
    assert_eq!(lines[0].key.as_str(), "5");
}

#[test]
fn neighbouring_rows_of_one_study_are_one_record() {
    let csv = "study,image,report,view,side\n\
        s1,a.png,Clear.,PA,left\n\
        s1,sub/b.png,Clear.,L,left\n\
        s1,missing.png,Clear.,AP,left\n\
        s2,a.png,Effusion.,AP,right\n\
        s1,a.png,Again.,PA,left\n";
    let dir = table("set.csv", csv.as_bytes());
    let columns = Columns { study: Some("study".to_owned()), ..Columns::default() };
    let (items, errors) =
        read_with(&dir.path().join("set.csv"), &SourceOptions { columns, ..SourceOptions::default() });
    assert_eq!(keys(&items), ["s1", "s2"]);
    assert_eq!((items[0].images.len(), &items[0].texts[..]), (2, &["Clear.".to_owned()][..]));
    let views = |views: &[&str]| AttributeValue::List(views.iter().map(|&v| v.to_owned()).collect());
    assert_eq!(items[0].attributes["views"], views(&["PA", "LATERAL"]));
    assert_eq!(items[0].attributes["side"], text("left"));
    assert_eq!(items[0].chunking, Chunking::Sentences);
    let messages: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(messages[0].starts_with("set.csv line 4: image 'missing.png' cannot be read"), "{messages:?}");
    assert!(
        messages[1].ends_with(
            "line 6: the key 's1' is that of line 2 already; keep the lines of one study together"
        )
    );
    // Lines with a case and no key of their own.
    let lines = concat!(
        "{\"case_id\":\"c\",\"image\":\"a.png\",\"report\":\"R\",\"view\":\"PA\",\"n\":1}\n",
        "{\"case_id\":\"c\",\"image\":\"sub/b.png\",\"report\":\"R\",\"view\":\"AP\",\"n\":2}\n",
        "{\"key\":\"k\",\"case_id\":\"c\",\"text\":\"T\",\"view\":\"AP\"}\n"
    );
    let (items, errors) = read_lines(lines.as_bytes());
    assert_eq!(errors, []);
    assert_eq!(keys(&items), ["c", "k"]);
    assert_eq!(items[0].attributes["n"], views(&["1", "2"]), "different values are a list");
    assert_eq!(items[1].attributes["view"], text("AP"), "a record with a key is no study");
}

#[test]
fn bad_rows_are_reported_and_the_next_one_is_fine() {
    let long = "x".repeat(10 << 20);
    let cases: [(&[u8], &str); 9] = [
        (b"1,a.png", "2 fields, and the first line names 3"),
        (b"1,a.png,t,extra", "4 fields, and the first line names 3"),
        (b"1,a.png,caf\xE9", "column 3 is not UTF-8"),
        (b"1,a.png,a\0b", "NUL bytes"),
        (b"1,../../etc/passwd,t", "leads outside"),
        (b"1,file:///etc/passwd,t", "is a URL"),
        (b"1,http://169.254.169.254/x.png,t", "is a URL"),
        (b",a.png,t", "its key is empty"),
        (b"1,,", "neither image nor text"),
    ];
    let around = |row: &[u8]| [b"id,image,text\nfirst,,t\n", row, b"\nlast,,t\n"].concat();
    for (row, reason) in cases {
        let (items, errors) = read_csv(&around(row));
        assert_eq!(keys(&items), ["first", "last"], "{reason}");
        assert_eq!(errors.len(), 1, "{reason}: {errors:?}");
        assert!(errors[0].to_string().starts_with("set.csv line 3: "), "{}", errors[0]);
        assert!(errors[0].reason.contains(reason), "{reason}: {}", errors[0]);
    }
    let (items, errors) = read_csv(&around(format!("1,,{long}").as_bytes()));
    assert_eq!((keys(&items), errors.len()), (vec!["first", "last"], 1));
    assert!(errors[0].reason.contains(&format!("longer than {LINE_BYTES_MAX} bytes")));
    // A quote that is never closed takes what follows, up to the bound and no further.
    let mut open = b"id,image,text\nfirst,,t\n1,,\"".to_vec();
    open.extend("row,,t\n".repeat(1_300_000).bytes());
    open.extend(b"last,,t\n");
    let (items, errors) = read_csv(&open);
    assert_eq!(items.last().unwrap().key.as_str(), "last");
    assert!(errors[0].reason.contains("a quote that is not closed"), "{}", errors[0]);
}

#[cfg(unix)]
#[test]
fn a_pipe_named_by_a_row_is_not_opened() {
    let dir = table("set.csv", b"id,image\n1,pipe.png\n2,a.png\n");
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("pipe.png")).unwrap();
    let (items, errors) = read(&dir.path().join("set.csv"));
    assert_eq!(keys(&items), ["2"]);
    assert!(errors[0].reason.contains("not a regular file"), "{}", errors[0]);
}

#[test]
fn tables_that_cannot_be_used_say_why() {
    for (content, reason) in [
        (&b""[..], "it is empty"),
        (b"id,id,text\n", "two columns are named 'id'"),
        (b"i\xFFd,text\n", "its first line: column 1 is not UTF-8"),
        (b"width,height\n1,2\n", "none of its columns is known"),
        (b"i\0d\0\n", "NUL bytes"),
    ] {
        let dir = table("set.csv", content);
        let error = Source::open(&dir.path().join("set.csv")).unwrap().items().unwrap_err().to_string();
        assert!(error.contains("set.csv") && error.contains(reason), "{error}");
    }
}

#[test]
fn packed_tables_are_unpacked_and_cut_ones_reported() {
    let mut rows = "id,text\n".to_owned();
    (0..5000).for_each(|n| rows += &format!("{n},text {n}\n"));
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(rows.as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    let dir = table("set.csv.gz", &packed);
    let (items, errors) = read(&dir.path().join("set.csv.gz"));
    assert_eq!((items.len(), errors.len()), (5000, 0));
    let dir = table("cut.csv.gz", &packed[..packed.len() / 2]);
    let (items, errors) = read(&dir.path().join("cut.csv.gz"));
    assert!(!items.is_empty() && items.len() < 5000);
    assert!(errors.last().unwrap().reason.contains("the gzip stream ends early"), "{errors:?}");
}

#[test]
fn a_folder_with_one_table_of_images_is_that_table() {
    let dir = table("metadata.csv", b"file_name,caption,split\na.png,A bird.,train\n");
    let source = Source::open(dir.path()).unwrap();
    assert_eq!((source.layout(), source.path()), (Layout::Csv, &*dir.path().join("metadata.csv")));
    let (items, _) = read(dir.path());
    assert_eq!((keys(&items), items[0].texts.len()), (vec!["a"], 1));
    // A table that names no images, beside images, is nobody's list.
    let dir = table("licences.csv", b"id,description\n1,free\n");
    assert_eq!(Source::open(dir.path()).unwrap().layout(), Layout::Folder);
}
