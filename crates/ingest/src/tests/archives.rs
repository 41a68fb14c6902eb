//! Archives: what a tar becomes, and what of one is refused.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use diptych_core::AttributeValue;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::{keys, read};
use crate::{Item, ItemError, Layout, Source};

/// A member: name, kind, content. A link points to `target`.
pub(super) fn member(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut header = header(name.as_bytes(), kind, content.len() as u64);
    header.extend(content);
    header.resize(header.len().div_ceil(512) * 512, 0);
    header
}

pub(super) fn header(name: &[u8], kind: u8, size: u64) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name);
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = kind;
    header[157..163].copy_from_slice(b"target");
    header[257..265].copy_from_slice(b"ustar\x0000");
    checksum(&mut header);
    header
}

fn checksum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|&b| u64::from(b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

pub(super) fn file(name: &str, content: &[u8]) -> Vec<u8> {
    member(name, b'0', content)
}

pub(super) fn tar(members: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = members.concat();
    tar.extend([0; 1024]);
    tar
}

fn read_tar(bytes: &[u8]) -> (Vec<Item>, Vec<ItemError>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.tar");
    fs::write(&path, bytes).unwrap();
    read(&path)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn three_samples() -> Vec<u8> {
    tar(&[
        member("set/", b'5', b""),
        file("set/a.jpg", b"JPEG a"),
        file("set/a.txt", b"A red bird.\n"),
        file(
            "set/a.json",
            br#"{"caption":"A red bird.","width":640,"meta":{"source":"web"},"key":"set/a","url":null}"#,
        ),
        file("set/b.cls", b"7"),
        file("set/b.left.png", b"PNG left"),
        file("set/b.right.png", b"PNG right"),
        file("set/b.npy", b"vectors"),
        file("./c.txt", b"Only a text."),
        file("README", b"no sample"),
    ])
}

fn check_samples(items: &[Item]) {
    assert_eq!(keys(items), ["set/a", "set/b", "c"]);
    assert_eq!(items[0].texts, ["A red bird."], "the same caption twice is one text");
    assert_eq!(items[0].images[0].load().unwrap(), b"JPEG a");
    assert!(items[0].images[0].source().ends_with("!set/a.jpg"), "{}", items[0].images[0].source());
    assert_eq!(items[0].attributes["width"], AttributeValue::Integer(640));
    assert_eq!(items[0].attributes["meta.source"], AttributeValue::String("web".to_owned()));
    assert_eq!(items[0].attributes.len(), 2);
    let images: Vec<_> = items[1].images.iter().map(|image| image.load().unwrap()).collect();
    assert_eq!(images, [&b"PNG left"[..], b"PNG right"]);
    assert_eq!(items[1].attributes["cls"], AttributeValue::Integer(7));
    assert!(items[0].image_files().unwrap_err().contains("unpack the archive"));
    assert_eq!(items[2].texts, ["Only a text."]);
}

#[test]
fn members_of_one_name_are_one_record_packed_or_not() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in [("set.tar", three_samples()), ("set.tar.gz", gzip(&three_samples()))] {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let (items, errors) = read(&path);
        assert_eq!(errors, []);
        check_samples(&items);
        let source = Source::open(&path).unwrap();
        assert_eq!(source.layout(), Layout::WebDataset);
        source.items().unwrap().for_each(drop);
        let left_out = [("members named .", 1), ("members named .npy", 1)];
        assert_eq!(source.notes().left_out(), left_out.map(|(what, n)| (what.to_owned(), n)));
    }
    // The same archive under a name that says nothing.
    let path = dir.path().join("anything");
    fs::write(&path, three_samples()).unwrap();
    check_samples(&read(&path).0);
}

#[test]
fn shards_are_read_in_order_by_pattern_or_by_folder() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..3 {
        let one = tar(&[file(&format!("{n}.txt"), b"text")]);
        fs::write(dir.path().join(format!("{n:03}.tar")), one).unwrap();
    }
    let (items, errors) = read(&dir.path().join("{000..002}.tar"));
    assert_eq!((keys(&items), errors), (vec!["0", "1", "2"], vec![]));
    assert_eq!(keys(&read(dir.path()).0), ["0", "1", "2"]);
    let (items, errors) = read(&dir.path().join("{001..003}.tar"));
    assert_eq!(keys(&items), ["1", "2"]);
    assert!(errors[0].to_string().contains("003.tar: cannot be opened"), "{}", errors[0]);
    for wrong in ["{000-002}.tar", "{2..1}.tar", "{0..99999999}.tar"] {
        let error = Source::open(&dir.path().join(wrong)).unwrap_err().to_string();
        assert!(error.contains("range") || error.contains("at most 100000"), "{error}");
    }
}

#[test]
fn a_key_of_two_shards_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.tar", "b.tar"] {
        fs::write(dir.path().join(name), tar(&[file("0.txt", b"text")])).unwrap();
    }
    let (items, errors) = read(dir.path());
    assert_eq!((items.len(), errors.len()), (1, 1));
    assert_eq!(
        errors[0].to_string(),
        "b.tar member 0: the key '0' is that of item 1 already; give every item its own key"
    );
}

#[test]
fn hostile_members_are_refused_one_by_one_and_the_next_is_fine() {
    let mut sparse = header(b"sparse.jpg", b'S', 0);
    checksum(&mut sparse);
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("../up.jpg", file("../up.jpg", b"x"), "leads out of the archive"),
        ("a/../../up.txt", file("a/../../up.txt", b"x"), "leads out of the archive"),
        ("/etc/passwd.txt", file("/etc/passwd.txt", b"x"), "an absolute path"),
        ("link.jpg", member("link.jpg", b'2', b""), "a symbolic link"),
        ("hard.jpg", member("hard.jpg", b'1', b""), "a hard link"),
        ("device.jpg", member("device.jpg", b'3', b""), "a device"),
        ("pipe.png", member("pipe.png", b'6', b""), "a pipe"),
        ("sparse.jpg", sparse, "a sparse file"),
        ("odd.txt", member("odd.txt", b'Z', b"abc"), "of a kind that is not known"),
    ];
    for (name, hostile, reason) in cases {
        let bytes = tar(&[file("first.txt", b"one"), hostile, file("last.txt", b"two")]);
        let (items, errors) = read_tar(&bytes);
        assert_eq!(keys(&items), ["first", "last"], "{name}");
        assert_eq!(errors.len(), 1, "{name}: {errors:?}");
        assert!(errors[0].reason.contains(reason), "{name}: {}", errors[0]);
    }
    // Half of a sample would be another sample.
    let link = member("a.jpg", b'2', b"");
    let (items, errors) = read_tar(&tar(&[file("a.txt", b"text"), link, file("b.txt", b"text")]));
    assert_eq!(keys(&items), ["b"]);
    assert!(errors[0].to_string().contains("set.tar member a: member a.jpg is refused"), "{}", errors[0]);
}

#[test]
fn what_is_too_large_is_refused_and_the_next_sample_is_fine() {
    let long = vec![b'x'; 64 * 1024 + 1];
    let (items, errors) = read_tar(&tar(&[file("a.txt", &long), file("b.txt", b"fine")]));
    assert_eq!(keys(&items), ["b"]);
    assert!(errors[0].reason.contains("65537 bytes, more than 65536"), "{}", errors[0]);
    // A size of 8 EiB with nothing behind it.
    let mut huge = header(b"a.jpg", b'0', 0);
    huge[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
    checksum(&mut huge);
    let (items, errors) = read_tar(&[file("first.txt", b"fine"), huge].concat());
    assert_eq!(keys(&items), ["first"]);
    assert!(errors.iter().any(|e| e.reason.contains("cut off")), "{errors:?}");
    // A long name without an end.
    let name = member("././@LongLink", b'L', &vec![b'n'; 70_000]);
    let (items, errors) = read_tar(&tar(&[name, file("b.txt", b"fine")]));
    assert_eq!(keys(&items), ["b"]);
    assert!(errors[0].reason.contains("extended header has 70000 bytes"), "{}", errors[0]);
    // As many images as a sample may not have.
    let image = vec![0; 30 << 20];
    let images: Vec<Vec<u8>> = (0..3).map(|n| file(&format!("a.{n}.png"), &image)).collect();
    let (items, errors) = read_tar(&tar(&[images.concat(), file("b.txt", b"fine")]));
    assert_eq!(keys(&items), ["b"]);
    assert!(errors[0].reason.contains("one too many"), "{}", errors[0]);
}

#[test]
fn long_names_are_read_as_gnu_and_pax_write_them() {
    let long = format!("{}/a.txt", "d".repeat(150));
    let gnu = [member("././@LongLink", b'L', format!("{long}\0").as_bytes()), file("cut", b"gnu")].concat();
    let pax_record = |key: &str, value: &str| {
        let base = key.len() + value.len() + 3;
        let length = (base..).find(|n| n - n.to_string().len() == base).unwrap();
        format!("{length} {key}={value}\n")
    };
    let records = pax_record("mtime", "1.5") + &pax_record("path", "é/b.txt");
    let pax = [member("PaxHeaders/b", b'x', records.as_bytes()), file("cut", b"pax")].concat();
    let mut split = header(b"c.txt", b'0', 3);
    split[345..351].copy_from_slice(b"prefix");
    checksum(&mut split);
    split.extend(b"pre");
    split.resize(1024, 0);
    let (items, errors) = read_tar(&tar(&[gnu, pax, split]));
    assert_eq!(errors, []);
    assert_eq!(keys(&items), [long.trim_end_matches(".txt"), "é/b", "prefix/c"]);
    // What an extended header says counts as much as what a header says.
    let up = member("PaxHeaders/b", b'x', pax_record("path", "../up.txt").as_bytes());
    let (items, errors) = read_tar(&tar(&[up, file("fine.txt", b"x")]));
    assert_eq!(items.len(), 0);
    assert!(errors[0].reason.contains("leads out of the archive"), "{}", errors[0]);
}

#[test]
fn what_is_cut_off_is_reported_and_what_stands_before_it_is_kept() {
    let whole = three_samples();
    let second = whole.windows(9).position(|w| w == b"set/b.cls").unwrap();
    for (cut, kept) in [(second + 100, 0), (second, 0), (second + 512 + 3, 1), (whole.len() - 1024, 2)] {
        let (items, errors) = read_tar(&whole[..cut]);
        assert_eq!(items.len(), kept, "cut at {cut}: {errors:?}");
        assert!(errors.iter().any(|e| e.reason.contains("cut off")), "cut at {cut}: {errors:?}");
    }
    let packed = gzip(&whole);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.tar.gz");
    fs::write(&path, &packed[..packed.len() - 20]).unwrap();
    let (_, errors) = read(&path);
    assert!(errors.iter().any(|e| e.reason.contains("the gzip stream ends early")), "{errors:?}");
}

#[test]
fn behind_damage_reading_goes_on_at_the_next_header() {
    let junk = vec![0xA5; 1024];
    let bytes = tar(&[
        file("a.txt", b"before"),
        junk,
        file("lost.txt", b"named by the header that was found"),
        file("z.txt", b"behind"),
    ]);
    let (items, errors) = read_tar(&bytes);
    assert_eq!(keys(&items), ["z"], "what stands before the damage may lack something");
    assert_eq!(errors.len(), 2);
    assert!(errors[0].reason.contains("may lack members"), "{}", errors[0]);
    assert!(errors[1].reason.contains("no tar header at byte 1024"), "{}", errors[1]);
}

#[test]
fn bad_members_name_what_is_wrong() {
    for (name, content, reason) in [
        ("a.json", &b"{"[..], "is not a JSON object"),
        ("a.json", b"[1]", "is not a JSON object"),
        ("a.json", br#"{"a":{"b":{"c":{"d":{"e":{"f":1}}}}}}"#, "too deep for attributes"),
        ("a.txt", b"caf\xE9", "is not UTF-8 from byte 3"),
        ("a.cls", b"3", "neither image nor text"),
    ] {
        let (items, errors) = read_tar(&tar(&[file(name, content), file("b.txt", b"fine")]));
        assert_eq!(keys(&items), ["b"], "{name}");
        assert!(errors[0].reason.contains(reason), "{name}: {}", errors[0]);
    }
}

#[test]
fn a_zip_is_no_source_and_says_what_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.zip");
    fs::write(&path, b"PK\x03\x04").unwrap();
    let error = Source::open(&path).unwrap_err().to_string();
    assert!(error.contains("*.tar.gz"), "{error}");
    assert!(Source::open(Path::new("file:///etc/passwd")).unwrap_err().to_string().contains("only s3://"));
    let local = Source::open(Path::new("http://169.254.169.254/latest/meta-data")).unwrap_err();
    assert!(local.to_string().contains("only s3://"));
}
