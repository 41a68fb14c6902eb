//! Trees of files, and structured reports.

use std::fs;

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

use super::super::*;
use super::made::Maker;

fn instance(study: &str, series: &str, uid: &str, number: &str) -> Vec<u8> {
    let mut maker = Maker::grey(1, 2, 8, 8, false);
    maker
        .text(tags::STUDY_INSTANCE_UID, VR::UI, study)
        .text(tags::SERIES_INSTANCE_UID, VR::UI, series)
        .text(tags::SERIES_NUMBER, VR::IS, series.rsplit('.').next().unwrap())
        .text(tags::SOP_INSTANCE_UID, VR::UI, uid)
        .text(tags::INSTANCE_NUMBER, VR::IS, number)
        .put(tags::PIXEL_DATA, VR::OB, vec![1, 2]);
    maker.file()
}

#[test]
fn a_tree_is_read_by_content_whatever_the_names() {
    let root = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    put("a/IM10.txt", &instance("1.9", "1.9.2", "1.9.2.10", "10"));
    put("b/noext", &instance("1.9", "1.9.2", "1.9.2.2", "2"));
    put("c/x.jpg", &instance("1.9", "1.9.1", "1.9.1.1", "1"));
    put("c/copy", &instance("1.9", "1.9.1", "1.9.1.1", "1"));
    put("d/other.dcm", &instance("1.10", "1.10.1", "1.10.1.1", "1"));
    put("d/cut.dcm", &instance("1.10", "1.10.1", "1.10.1.2", "2")[..250]);
    put("README", b"not dicom at all");
    let mut contents = Maker::grey(1, 1, 8, 8, false);
    put("DICOMDIR", &contents.text(tags::SOP_CLASS_UID, VR::UI, "1.2.840.10008.1.3.10").file());
    #[cfg(unix)]
    std::os::unix::fs::symlink("/", root.path().join("elsewhere")).unwrap();

    let found = scan(root.path()).unwrap();
    let studies: Vec<&str> = found.studies.iter().map(|study| study.uid.as_str()).collect();
    assert_eq!(studies, ["1.10", "1.9"]);
    let series: Vec<(&str, Vec<Option<i32>>)> = found.studies[1]
        .series
        .iter()
        .map(|series| {
            (series.uid.as_str(), series.instances.iter().map(|instance| instance.number).collect())
        })
        .collect();
    assert_eq!(series, [("1.9.1", vec![Some(1)]), ("1.9.2", vec![Some(2), Some(10)])]);
    assert_eq!((found.not_dicom, found.directories, found.duplicates), (1, 1, 1));
    assert_eq!(found.special, u64::from(cfg!(unix)));
    assert_eq!(found.problems.len(), 1);
    assert!(found.problems[0].path.ends_with("d/cut.dcm"), "{:?}", found.problems);
}

#[test]
fn reading_a_header_stops_before_the_pixels() {
    let mut maker = Maker::grey(1, 1, 8, 8, false);
    let whole = maker.put(tags::PIXEL_DATA, VR::OB, vec![1, 2]).file();
    let file = tempfile::NamedTempFile::new().unwrap();
    // Cut within the pixels: what is before them is there.
    fs::write(file.path(), &whole[..whole.len() - 1]).unwrap();
    assert_eq!(read_header(file.path()).unwrap().image.unwrap().rows, Some(1));
    assert!(DicomFile::open(file.path()).is_err());
    // A header longer than the first look.
    let mut maker = Maker::grey(1, 1, 8, 8, false);
    maker.put(tags::ICC_PROFILE, VR::OB, vec![0; 200_000]).put(tags::PIXEL_DATA, VR::OB, vec![1, 2]);
    fs::write(file.path(), maker.file()).unwrap();
    assert_eq!(read_header(file.path()).unwrap(), *maker.read().header());
}

#[test]
fn a_structured_report_is_text_with_headings() {
    let code = |meaning: &str| {
        InMemDicomObject::from_element_iter([DataElement::new(tags::CODE_MEANING, VR::LO, meaning)])
    };
    let sequence = |tag, items: Vec<InMemDicomObject>| {
        DataElement::new(tag, VR::SQ, dicom_core::value::DataSetSequence::from(items))
    };
    let item = |kind: &str, concept: &str, rest: Vec<_>| {
        let mut item = InMemDicomObject::from_element_iter([
            DataElement::new(tags::VALUE_TYPE, VR::CS, kind),
            sequence(tags::CONCEPT_NAME_CODE_SEQUENCE, vec![code(concept)]),
        ]);
        rest.into_iter().for_each(|element| drop(item.put(element)));
        item
    };
    let text = |words: &str| vec![DataElement::new(tags::TEXT_VALUE, VR::UT, words)];
    let mut unit = code("millimetre");
    unit.put(DataElement::new(tags::CODE_VALUE, VR::SH, "mm"));
    let measured = InMemDicomObject::from_element_iter([
        DataElement::new(tags::NUMERIC_VALUE, VR::DS, "12"),
        sequence(tags::MEASUREMENT_UNITS_CODE_SEQUENCE, vec![unit]),
    ]);
    let findings = vec![
        item("TEXT", "Finding", text("Clear lungs.")),
        item("NUM", "Diameter", vec![sequence(tags::MEASURED_VALUE_SEQUENCE, vec![measured])]),
        item("CODE", "Side", vec![sequence(tags::CONCEPT_CODE_SEQUENCE, vec![code("Left")])]),
    ];
    let content = vec![
        item("CONTAINER", "Findings", vec![sequence(tags::CONTENT_SEQUENCE, findings)]),
        item("PNAME", "Observer", vec![DataElement::new(tags::PERSON_NAME, VR::PN, "Doe^J")]),
        item("TEXT", "Conclusion", text("Normal.")),
    ];
    let object = InMemDicomObject::from_element_iter([
        DataElement::new(tags::SOP_CLASS_UID, VR::UI, PrimitiveValue::from(uids::BASIC_TEXT_SR_STORAGE)),
        DataElement::new(tags::SOP_INSTANCE_UID, VR::UI, PrimitiveValue::from("1.2.5")),
        sequence(tags::CONTENT_SEQUENCE, content),
    ]);
    let mut bytes = Vec::new();
    let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    object.with_meta(meta).unwrap().write_all(&mut bytes).unwrap();
    let file = DicomFile::read(bytes).unwrap();
    let expected = "FINDINGS:\nClear lungs.\nDIAMETER: 12 mm\nSIDE: Left\nIMPRESSION: Normal.";
    assert_eq!(file.sr_text().unwrap().as_deref(), Some(expected));
    assert!(matches!(file.frame(0), Err(DicomError::NoPixelData)));
    assert_eq!(Maker::grey(1, 1, 8, 8, false).read().sr_text().unwrap(), None);
}
