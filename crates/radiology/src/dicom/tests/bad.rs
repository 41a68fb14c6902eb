//! What must be refused: each by its own error, none by a panic or a large allocation.

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

use super::super::*;
use super::made::{DEFLATED, EXPLICIT, IMPLICIT, JPEG, Maker, RLE, deflate, rle, with_meta};

fn image() -> Maker {
    let mut maker = Maker::grey(2, 2, 8, 8, false);
    maker.put(tags::PIXEL_DATA, VR::OB, vec![1, 2, 3, 4]);
    maker
}

fn refused(maker: &Maker) -> DicomError {
    maker.read().frame(0).unwrap_err()
}

#[test]
fn what_is_not_dicom_is_said_to_be_so() {
    let mut elsewhere = vec![0_u8; 128];
    elsewhere.extend(b"MCID and more");
    for bytes in [
        Vec::new(),
        b"hello".to_vec(),
        vec![0; 4096],
        elsewhere,
        b"\x08\0\x05\0junk in no order at all".to_vec(),
    ] {
        assert!(matches!(DicomFile::read(bytes), Err(DicomError::NotDicom { .. })));
    }
}

#[test]
fn a_length_beyond_the_file_is_refused_before_it_is_believed() {
    let mut data = image().data_set();
    Maker::grey(1, 1, 8, 8, false).element(&mut data, Tag(0x7FE1, 0x0010), VR::OB, 0xFFFF_FFF0);
    let error = DicomFile::read(with_meta(EXPLICIT, &data)).unwrap_err();
    assert!(matches!(error, DicomError::Truncated { declared: 0xFFFF_FFF0, .. }), "{error}");
    let whole = image().file();
    for end in [whole.len() - 1, whole.len() - 3, 140] {
        let error = DicomFile::read(whole[..end].to_vec()).unwrap_err();
        assert!(matches!(error, DicomError::Truncated { .. }), "{end}: {error}");
    }
}

#[test]
fn ten_thousand_nested_sequences_are_refused() {
    let sequence = |out: &mut Vec<u8>| {
        out.extend([8, 0, 0x40, 0x11]);
        out.extend(u32::MAX.to_le_bytes());
        out.extend([0xFE, 0xFF, 0, 0xE0]);
        out.extend(u32::MAX.to_le_bytes());
    };
    let mut data = Vec::new();
    (0..10_000).for_each(|_| sequence(&mut data));
    let error = DicomFile::read(with_meta(IMPLICIT, &data)).unwrap_err();
    assert!(matches!(error, DicomError::TooDeep { limit: 64, .. }), "{error}");
}

#[test]
fn more_elements_than_are_sensible_are_refused() {
    let data: Vec<u8> = [8, 0, 1, 0, 0, 0, 0, 0].repeat(1_000_001);
    let error = DicomFile::read(with_meta(IMPLICIT, &data)).unwrap_err();
    assert!(matches!(error, DicomError::TooManyElements { .. }), "{error}");
}

#[test]
fn a_deflate_bomb_is_refused_by_its_growth() {
    let bomb = deflate(&vec![0; 64 << 20]);
    let error = DicomFile::read(with_meta(DEFLATED, &bomb)).unwrap_err();
    assert!(matches!(error, DicomError::DeflateBomb { .. }), "{error}");
}

#[test]
fn pixels_that_cannot_be_are_refused_by_the_attribute() {
    let tag_of = |maker: &Maker| match refused(maker) {
        DicomError::Invalid { tag, .. } | DicomError::Missing { tag, .. } => tag,
        other => panic!("{other}"),
    };
    for bits in [0, 13] {
        assert_eq!(tag_of(image().word(tags::BITS_ALLOCATED, bits)), tags::BITS_ALLOCATED);
    }
    assert_eq!(tag_of(image().word(tags::BITS_STORED, 9)), tags::BITS_STORED);
    assert_eq!(tag_of(image().word(tags::HIGH_BIT, 3)), tags::HIGH_BIT);
    assert_eq!(tag_of(image().word(tags::ROWS, 0)), tags::ROWS);
    assert_eq!(tag_of(image().put(tags::COLUMNS, VR::US, Vec::new())), tags::COLUMNS);
    assert_eq!(tag_of(image().word(tags::ROWS, 3)), tags::PIXEL_DATA);
    assert_eq!(tag_of(image().text(tags::RESCALE_SLOPE, VR::DS, "NaN")), tags::RESCALE_SLOPE);
    assert_eq!(tag_of(image().text(tags::RESCALE_SLOPE, VR::DS, "0")), tags::RESCALE_SLOPE);
    let mut windowed = image();
    windowed.text(tags::WINDOW_CENTER, VR::DS, "4");
    assert_eq!(tag_of(windowed.text(tags::WINDOW_WIDTH, VR::DS, "0")), tags::WINDOW_WIDTH);
    assert_eq!(tag_of(windowed.text(tags::WINDOW_WIDTH, VR::DS, "wide")), tags::WINDOW_WIDTH);
    let mut vast = image();
    vast.word(tags::ROWS, 8000).word(tags::COLUMNS, 8000).text(tags::NUMBER_OF_FRAMES, VR::IS, "2147483647");
    assert_eq!(tag_of(&vast), tags::NUMBER_OF_FRAMES);
    vast.word(tags::ROWS, 65_535).word(tags::COLUMNS, 65_535);
    assert!(matches!(refused(&vast), DicomError::TooManyPixels { .. }));
    let odd = refused(image().text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "HSV"));
    assert!(odd.is_unsupported() && odd.to_string().contains("HSV"), "{odd}");
}

#[test]
fn missing_frames_and_fragments_are_told() {
    assert!(matches!(image().read().frame(1), Err(DicomError::NoSuchFrame { frame: 1, frames: 1 })));
    let mut none = Maker::grey(2, 2, 8, 8, false);
    assert!(matches!(refused(&none), DicomError::NoPixelData));
    none.syntax(RLE).fragments = Some(vec![Vec::new()]);
    assert!(matches!(refused(&none), DicomError::MissingFragment { .. }));
    none.text(tags::NUMBER_OF_FRAMES, VR::IS, "3").fragments =
        Some(vec![Vec::new(), rle(&[vec![1; 4]]), rle(&[vec![1; 4]])]);
    assert!(matches!(refused(&none), DicomError::MissingFragment { .. }));
    none.text(tags::NUMBER_OF_FRAMES, VR::IS, "1").fragments = Some(vec![Vec::new(), rle(&[vec![1; 3]])]);
    assert!(matches!(refused(&none), DicomError::Codec { codec: "RLE", .. }));
    none.syntax(JPEG).fragments = Some(vec![Vec::new(), vec![0xFF, 0xD8, 0xFF, 0xD9]]);
    assert!(matches!(refused(&none), DicomError::Codec { codec: "JPEG", .. }));
}

#[test]
fn an_unknown_transfer_syntax_is_refused_by_name_and_its_header_is_read() {
    let mut maker = Maker::grey(2, 2, 8, 8, false);
    maker.syntax("1.2.840.10008.1.2.4.201").fragments = Some(vec![Vec::new(), vec![0; 8]]);
    let error = refused(&maker);
    assert!(error.is_unsupported(), "{error}");
    assert!(
        error.to_string().contains("1.2.840.10008.1.2.4.201")
            && error.to_string().contains("High-Throughput"),
        "{error}"
    );
    assert_eq!(maker.read().header().image.as_ref().unwrap().rows, Some(2));
    maker.syntax("1.2.3.4.5");
    assert!(refused(&maker).to_string().contains("not a registered"));
}

#[test]
fn an_odd_character_set_is_refused_where_text_needs_it() {
    let mut maker = image();
    maker.text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "MARTIAN 7").text(tags::PATIENT_NAME, VR::PN, "plain");
    assert!(maker.read().frame(0).is_ok());
    maker.put(tags::PATIENT_NAME, VR::PN, b"Zo\xeb ".to_vec());
    let error = DicomFile::read(maker.file()).unwrap_err();
    assert!(matches!(error, DicomError::Invalid { tag: tags::SPECIFIC_CHARACTER_SET, .. }), "{error}");
    assert!(!error.to_string().contains("Zo"), "{error}");
}
