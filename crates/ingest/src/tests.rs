//! What a user's folders and files become, read through the public interface from real files.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use diptych_core::{AttributeValue, Chunking};
use tempfile::TempDir;

mod archives;
mod damage;
mod dicom;
mod layouts;
mod parquet;
#[cfg(feature = "s3")]
mod store;
mod tables;

use crate::{Item, ItemError, LINE_BYTES_MAX, Source, SourceError, SourceOptions};

fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

fn read(path: &Path) -> (Vec<Item>, Vec<ItemError>) {
    read_with(path, &SourceOptions::default())
}

fn read_with(path: &Path, options: &SourceOptions) -> (Vec<Item>, Vec<ItemError>) {
    let (mut items, mut errors) = (Vec::new(), Vec::new());
    for result in Source::open_with(path, options).unwrap().items().unwrap() {
        match result {
            Ok(item) => items.push(item),
            Err(error) => errors.push(error),
        }
    }
    (items, errors)
}

/// Reads lines beside which `a.png` and `sub/b.png` exist.
fn read_lines(lines: &[u8]) -> (Vec<Item>, Vec<ItemError>) {
    let dir = folder(&[("a.png", ""), ("sub/b.png", "")]);
    fs::write(dir.path().join("set.jsonl"), lines).unwrap();
    read(&dir.path().join("set.jsonl"))
}

fn one(line: &str) -> Item {
    let (mut items, errors) = read_lines(line.as_bytes());
    assert_eq!((items.len(), &errors[..]), (1, &[][..]), "{line}");
    items.remove(0)
}

fn refused(line: &str) -> String {
    let (items, errors) = read_lines(line.as_bytes());
    assert_eq!((items.len(), errors.len()), (0, 1), "{line}");
    errors[0].to_string()
}

fn keys(items: &[Item]) -> Vec<&str> {
    items.iter().map(|item| item.key.as_str()).collect()
}

#[test]
fn a_folder_is_read_in_order_with_the_texts_beside_its_images() {
    let dir = folder(&[
        ("b.PNG", ""),
        ("a.jpg", ""),
        ("a.txt", "\u{FEFF} A red bird.\r\n"),
        ("deep/er/c.tiff", ""),
        ("deep/er/c.txt", " \n"),
        ("notes.txt", "not beside an image"),
        ("readme.md", ""),
    ]);
    let (items, errors) = read(dir.path());
    assert_eq!(errors, []);
    assert_eq!(keys(&items), ["a", "b", "deep/er/c"]);
    assert_eq!(items[0].texts, ["A red bird."]);
    assert_eq!(items[1].texts, [""; 0]);
    assert_eq!(items[2].texts, [""; 0], "a blank text file says nothing");
    assert_eq!(items[2].image_files().unwrap(), [dir.path().join("deep/er/c.tiff")]);
    assert_eq!(Source::open(dir.path()).unwrap().count_hint(), Some(3));
}

#[test]
fn every_known_extension_is_an_image() {
    let names = [
        "a.jpg", "b.jpeg", "c.png", "d.webp", "e.gif", "f.tif", "g.tiff", "h.bmp", "i.pgm", "j.ppm", "k.PnM",
    ];
    let dir = folder(&names.map(|name| (name, "")));
    fs::write(dir.path().join("l.svg"), "").unwrap();
    assert_eq!(keys(&read(dir.path()).0), ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"]);
}

#[test]
fn images_that_share_a_stem_keep_their_extension() {
    // Without the rule for 'a.jpg.png' it would take the key that 'a.jpg' now has.
    let dir = folder(&[("a.jpg", ""), ("a.png", ""), ("a.jpg.png", ""), ("a.txt", "both"), ("b.jpg", "")]);
    let (items, errors) = read(dir.path());
    assert_eq!(errors, []);
    assert_eq!(keys(&items), ["a.jpg", "a.jpg.png", "a.png", "b"]);
    assert_eq!(
        (&items[0].texts[..], &items[2].texts[..]),
        (&["both".to_owned()][..], &["both".to_owned()][..])
    );
}

#[test]
fn unreadable_texts_beside_an_image_are_errors_of_that_image() {
    let dir = folder(&[("a.jpg", ""), ("b.jpg", ""), ("c.jpg", ""), ("c.txt", "fine"), ("d.jpg", "")]);
    fs::write(dir.path().join("a.txt"), b"caf\xE9").unwrap();
    fs::write(dir.path().join("b.txt"), "x".repeat(64 * 1024 + 1)).unwrap();
    fs::create_dir(dir.path().join("d.txt")).unwrap();
    let (items, errors) = read(dir.path());
    assert_eq!(keys(&items), ["c"]);
    let reasons: Vec<_> = errors.iter().map(|e| e.reason.as_str()).collect();
    assert!(reasons[0].contains("a.txt, is not UTF-8 from byte 3"), "{reasons:?}");
    assert!(reasons[1].contains("65537 bytes, more than 65536"), "{reasons:?}");
    assert!(reasons[2].contains("d.txt, is not a regular file"), "{reasons:?}");
    assert!(errors[0].to_string().starts_with(&dir.path().join("a.jpg").display().to_string()));
}

#[cfg(unix)]
#[test]
fn links_pipes_and_directories_named_like_images_are_reported_and_skipped() {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    let outside = folder(&[("secret.jpg", ""), ("secret.txt", "")]);
    let dir = folder(&[("in/real.jpg", ""), ("z.png/inner.jpg", ""), ("e.jpg", "")]);
    let at = |name: &str| dir.path().join(name);
    symlink(outside.path().join("secret.jpg"), at("a.jpg")).unwrap();
    symlink(outside.path(), at("b")).unwrap();
    symlink("in/real.jpg", at("c.jpg")).unwrap();
    symlink("nowhere", at("d.jpg")).unwrap();
    symlink(outside.path().join("secret.txt"), at("e.txt")).unwrap();
    symlink("nowhere", at("ignored.md")).unwrap();
    symlink("..", at("in/loop")).unwrap();
    let _socket = UnixListener::bind(at("s.jpg")).unwrap();

    let (items, errors) = read(dir.path());
    assert_eq!(keys(&items), ["c", "in/real"]);
    let reports: Vec<(String, &str)> = errors
        .iter()
        .map(|e| (e.origin.to_string().rsplit('/').next().unwrap().to_owned(), e.reason.as_str()))
        .collect();
    let expected = [
        ("a.jpg", "leaves the folder"),
        ("b", "leaves the folder"),
        ("d.jpg", "leads nowhere"),
        ("e.jpg", "the text beside it, e.txt, is a link that leaves the folder"),
        ("s.jpg", "not a regular file"),
        ("z.png", "is a directory with the name of an image"),
    ];
    assert_eq!(reports.len(), expected.len(), "{reports:?}");
    for ((name, reason), (wanted, part)) in reports.iter().zip(expected) {
        assert!(name == wanted && reason.contains(part), "{name}: {reason}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_cannot_be_keys_are_errors() {
    use std::os::unix::ffi::OsStrExt as _;

    let dir = folder(&[("a\u{202E}gpj.png", ""), ("b\x1B[31m.png", ""), ("fine.png", "")]);
    fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"\xFF.png")), "").unwrap();
    let (items, errors) = read(dir.path());
    assert_eq!(keys(&items), ["fine"]);
    assert_eq!(errors.len(), 3);
    assert!(errors[0].reason.contains("U+202E"));
    assert!(!errors[1].to_string().contains('\x1B'), "reports must not drive the terminal");
    assert!(errors[2].reason.contains("not UTF-8"));
}

#[test]
fn a_directory_with_a_lines_file_is_that_file() {
    let dir = folder(&[("cases.jsonl", r#"{"text":"a"}"#), ("captions.jsonl", ""), ("x.png", "")]);
    assert_eq!(Source::open(dir.path()).unwrap().path(), dir.path().join("cases.jsonl"));
    fs::remove_file(dir.path().join("cases.jsonl")).unwrap();
    assert_eq!(Source::open(dir.path()).unwrap().path(), dir.path().join("captions.jsonl"));
    fs::remove_file(dir.path().join("captions.jsonl")).unwrap();
    fs::create_dir(dir.path().join("cases.jsonl")).unwrap();
    assert_eq!(keys(&read(dir.path()).0), ["x"]);
}

#[test]
fn what_is_no_source_is_refused_at_once() {
    let dir = folder(&[("photo.jpg", ""), ("table.xlsx", "")]);
    let open = |name: &str| Source::open(&dir.path().join(name)).unwrap_err();
    assert!(matches!(open("missing"), SourceError::Io { .. }));
    assert!(matches!(open("photo.jpg"), SourceError::NotASource { .. }));
    assert!(open("table.xlsx").to_string().contains("a JSON lines file named *.jsonl"));
    #[cfg(unix)]
    {
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("pipe.jsonl")).unwrap();
        assert!(matches!(open("pipe.jsonl"), SourceError::NotRegular { .. }));
    }
}

#[test]
fn all_names_for_images_and_texts_are_read() {
    let item = one(r#"{"key":"k","report":"5","captions":["3","4"],"text":"1","texts":["2"],
            "image":"a.png","images":["sub/b.png"]}"#
        .replace('\n', " ")
        .as_str());
    assert_eq!(item.texts, ["1", "2", "3", "4", "5"]);
    let names: Vec<_> =
        item.images.iter().map(|i| i.path().unwrap().file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["a.png", "b.png"]);
    assert_eq!(item.origin.to_string(), "set.jsonl line 1");
    assert_eq!(one(r#"{"caption":"c"}"#).texts, ["c"]);
}

#[test]
fn the_key_falls_back_to_id_then_image_then_line() {
    assert_eq!(one(r#"{"key":"k","id":"i","text":"t"}"#).key.as_str(), "k");
    assert_eq!(
        one(r#"{"key":"k","id":"i","text":"t"}"#).attributes["id"],
        AttributeValue::String("i".to_owned())
    );
    assert_eq!(one(r#"{"key":null,"id":17,"text":"t"}"#).key.as_str(), "17");
    assert!(one(r#"{"id":17,"text":"t"}"#).attributes.is_empty());
    assert_eq!(one(r#"{"image":["./sub/../sub/b.png","a.png"]}"#).key.as_str(), "sub/b");
    assert_eq!(one("\n \r\n{\"text\":\"t\"}").key.as_str(), "line-3");
}

#[test]
fn other_scalar_fields_become_typed_attributes() {
    let item = one(
        r#"{"text":"t","attributes":{"view":"PA","none":null,"labels":["x","y"]},"age":52,"dose":1.5,"ok":true,"empty":null,"tags":[],"whole":2.0}"#,
    );
    let named: Vec<(&str, &AttributeValue)> = item.attributes.iter().map(|(n, v)| (n.as_str(), v)).collect();
    assert_eq!(
        named,
        [
            ("age", &AttributeValue::Integer(52)),
            ("dose", &AttributeValue::Float(1.5)),
            ("labels", &AttributeValue::List(vec!["x".to_owned(), "y".to_owned()])),
            ("ok", &AttributeValue::Bool(true)),
            ("tags", &AttributeValue::List(vec![])),
            ("view", &AttributeValue::String("PA".to_owned())),
            ("whole", &AttributeValue::Float(2.0)),
        ]
    );
}

#[test]
fn bad_lines_name_the_field_and_the_remedy() {
    let cases = [
        (r#"{"text":"t","meta":{"x":1}}"#, "'meta' is an object"),
        (r#"{"text":"t","attributes":{"x":{}}}"#, "'attributes.x' is an object"),
        (r#"{"text":"t","attributes":["x"]}"#, "'attributes' is a list"),
        (r#"{"text":"t","view":"PA","attributes":{"view":"AP"}}"#, "'view' is a field and also in"),
        (r#"{"text":"t","tags":["x",1]}"#, "entry 1 of 'tags' (counted from 0) is a number"),
        (
            r#"{"text":"t","uid":18446744073709551615}"#,
            "'uid' is 18446744073709551615, beyond 64 signed bits",
        ),
        (r#"{"text":5}"#, "'text' is a number; give a string or a list of strings"),
        (r#"{"images":["a.png",null]}"#, "entry 1 of 'images' (counted from 0) is null"),
        (r#"{"captions":["x"," "]}"#, "entry 1 of 'captions' (counted from 0) is blank"),
        (r#"{"image":"","text":"t"}"#, "an image path is empty"),
        (r#"{"key":1.5,"text":"t"}"#, "'key' is a number; write it as a string"),
        (r#"{"key":"  ","text":"t"}"#, "the key is empty"),
        (r#"{"key":"a\u0000","text":"t"}"#, "U+0000"),
        (r#"{"key":"k"}"#, "neither image nor text"),
        (r#"{"key":"k","report":" ","image":[],"text":null}"#, "neither image nor text"),
        (r#"{"text":"a","text":"b"}"#, "'text' occurs twice"),
        (r#"{"text":"a""#, "not a JSON object: EOF while parsing an object at column 11"),
        (r#"["a.png"]"#, "not a JSON object: invalid type: sequence"),
        (r#"{"text":"a"} {"text":"b"}"#, "trailing characters at column 14"),
        (r#"{"image":"../a.png"}"#, "image '../a.png' leads outside the folder of this file"),
        (r#"{"image":"sub/../../a.png"}"#, "leads outside"),
        (r#"{"image":"https://example.org/a.png"}"#, "is a URL; download it"),
        (r#"{"image":"missing.png"}"#, "image 'missing.png' cannot be read"),
        (r#"{"image":"sub"}"#, "image 'sub' is not a regular file"),
        (r#"{"image":"."}"#, "is not a regular file"),
    ];
    for (line, part) in cases {
        let message = refused(line);
        assert!(message.starts_with("set.jsonl line 1: "), "{message}");
        assert!(message.contains(part), "{line}: {message}");
    }
}

#[test]
fn bad_lines_do_not_end_the_stream() {
    let mut lines = b"\xEF\xBB\xBF{\"text\":\"first\"}\r\n\xFF\xFE\n".to_vec();
    lines.extend(format!("{{\"text\":\"{}\"}}\n", "x".repeat(LINE_BYTES_MAX)).bytes());
    lines.extend(format!("\"{}\"\n", "x".repeat(10_000)).bytes());
    lines.extend(b"\n{\"text\":\"last, without a line break\"}");
    let (items, errors) = read_lines(&lines);
    assert_eq!(keys(&items), ["line-1", "line-6"]);
    let messages: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert!(messages[0].starts_with("set.jsonl line 2: the line is not UTF-8 from byte 0"));
    assert!(messages[1].starts_with("set.jsonl line 3: the line is longer than 8388608 bytes"));
    assert!(messages[2].starts_with("set.jsonl line 4: not a JSON object"));
    assert!(messages[2].len() < 500, "a report line stays short whatever the input");
}

#[test]
fn a_line_of_exactly_the_bound_is_read() {
    let frame = r#"{"text":""}"#.len();
    let line = |bytes: usize| format!("{{\"text\":\"{}\"}}\n", "x".repeat(bytes - frame));
    let (items, errors) = read_lines((line(LINE_BYTES_MAX) + &line(LINE_BYTES_MAX + 1)).as_bytes());
    assert_eq!((items.len(), errors.len()), (1, 1));
}

#[test]
fn a_repeated_key_names_the_first_line() {
    let lines = concat!(
        "{\"key\":\"a\",\"text\":5}\n", // refused, so it does not own its key
        "{\"key\":\"a\",\"text\":\"x\"}\n{\"image\":\"a.png\"}\n{\"key\":\"b\",\"text\":\"y\"}\n"
    );
    let (items, errors) = read_lines(lines.as_bytes());
    assert_eq!(keys(&items), ["a", "b"]);
    assert!(errors[1].to_string().starts_with("set.jsonl line 3: the key 'a' is that of line 2 already"));
}

#[test]
fn absolute_paths_are_allowed() {
    let elsewhere = folder(&[("far.png", "")]);
    let far = elsewhere.path().join("far.png");
    let item = one(&format!("{{\"key\":\"k\",\"image\":{:?}}}", far.to_str().unwrap()));
    assert_eq!(item.image_files().unwrap(), [far]);
}

#[test]
fn the_items_own_their_file_and_can_go_to_another_thread() {
    let dir = folder(&[]);
    let path = dir.path().join("many.jsonl");
    let mut file = fs::File::create(&path).unwrap();
    for n in 0..10_000 {
        writeln!(file, "{{\"key\":\"{n}\",\"text\":\"text {n}\"}}\n").unwrap();
    }
    let source = Source::open(&path).unwrap();
    assert_eq!(source.count_hint(), Some(10_000), "blank lines do not count");
    let items = source.items().unwrap();
    drop(source);
    assert_eq!(std::thread::spawn(move || items.filter(Result::is_ok).count()).join().unwrap(), 10_000);
}

/// The developer evaluation data, when the checkout has it.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is absent, so real data was not read", path.display());
    None
}

#[test]
fn real_photos_with_captions_are_read_completely() {
    for (split, images) in [("train", 700), ("val", 100)] {
        let Some(path) = shared(&format!("flickr8k-1000/{split}")) else { return };
        let (items, errors) = read(&path);
        assert_eq!(errors, []);
        assert_eq!(items.len(), images);
        assert!(items.iter().all(|i| i.texts.len() == 5 && i.images.len() == 1 && i.attributes.is_empty()));
        assert!(
            items.iter().all(|i| i.key.as_str().starts_with("images/") && !i.key.as_str().ends_with(".jpg"))
        );
        assert_eq!(Source::open(&path).unwrap().count_hint(), Some(images as u64));
        // The same pictures once more, as a plain folder.
        let (items, errors) = read(&path.join("images"));
        assert_eq!((items.len(), errors.len()), (images, 0));
    }
}

#[test]
fn real_radiographs_with_notes_are_read_completely() {
    let Some(path) = shared("covid-chestxray") else { return };
    let (items, errors) = read(&path);
    assert_eq!(errors, []);
    assert_eq!(items.len(), 268, "the lines of a case are one study");
    assert_eq!(items.iter().map(|i| i.images.len()).sum::<usize>(), 325);
    assert!(items.iter().all(|i| i.texts.len() == 1 && i.chunking == Chunking::Sentences));
    assert_eq!(items[0].key.as_str(), "p0004-c1");
    assert_eq!(items[0].attributes["age"], AttributeValue::Integer(52));
    assert_eq!(items[0].attributes["views"], AttributeValue::List(vec!["PA".to_owned()]));
    assert_eq!(items[0].attributes["finding.opacity"], AttributeValue::String("present".to_owned()));
    assert!(!items[0].attributes.contains_key("licence"), "null is absent");
    let duplicates = items.iter().filter(|i| i.attributes.contains_key("duplicate_image_of")).count();
    assert!((1..=5).contains(&duplicates));
}
