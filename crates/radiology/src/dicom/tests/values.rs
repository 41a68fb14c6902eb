//! From stored values to brightness, and what a header understands.

use dicom_core::VR;
use dicom_dictionary_std::tags;

use super::super::*;
use super::made::Maker;

fn grey(values: &[u16]) -> Maker {
    let mut maker = Maker::grey(1, values.len() as u16, 16, 16, false);
    maker.put(tags::PIXEL_DATA, VR::OW, values.iter().flat_map(|value| value.to_le_bytes()).collect());
    maker
}

fn shown(maker: &Maker) -> Vec<u8> {
    maker.read().frame(0).unwrap().into_luma8().into_raw()
}

#[test]
fn without_a_window_the_smallest_value_is_black() {
    let mut maker = grey(&[100, 200, 300]);
    assert_eq!(shown(&maker), [0, 128, 255]);
    maker.text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1");
    assert_eq!(shown(&maker), [255, 127, 0]);
    // Filling does not count, and is as dark as the darkest.
    let mut maker = grey(&[0, 100, 200, 300]);
    maker.word(tags::PIXEL_PADDING_VALUE, 0);
    assert_eq!(shown(&maker), [0, 0, 128, 255]);
    assert_eq!(shown(&grey(&[7, 7])), [0, 0]);
}

#[test]
fn windows_have_the_shapes_of_the_standard() {
    let mut maker = grey(&[0, 1000, 1050, 1100, 2000]);
    maker.text(tags::RESCALE_SLOPE, VR::DS, "2").text(tags::RESCALE_INTERCEPT, VR::DS, "-1000");
    maker.text(tags::WINDOW_CENTER, VR::DS, "1100\\40").text(tags::WINDOW_WIDTH, VR::DS, "200\\400");
    // (1000 - 1099.5) / 199 + 0.5 = 0, then 0.5025, and 1.005 clamped.
    assert_eq!(shown(&maker), [0, 0, 128, 255, 255]);
    maker.text(tags::VOILUT_FUNCTION, VR::CS, "LINEAR_EXACT");
    assert_eq!(shown(&maker), [0, 0, 128, 255, 255]);
    maker.text(tags::VOILUT_FUNCTION, VR::CS, "SIGMOID");
    // 1 / (1 + e^2) = 0.1192 of 255.
    assert_eq!(shown(&maker), [0, 30, 128, 225, 255]);
    let file = maker.read();
    let statistics = file.statistics(&file.raw_frame(0).unwrap(), 0).unwrap();
    assert_eq!((statistics.min, statistics.max), (-1000.0, 3000.0));
}

#[test]
fn headers_are_normalised() {
    let mut maker = grey(&[1]);
    maker
        .text(tags::PATIENT_AGE, VR::AS, "063Y")
        .text(tags::PATIENT_SEX, VR::CS, "F")
        .text(tags::STUDY_DATE, VR::DA, "20240131")
        .text(tags::STUDY_TIME, VR::TM, "083015.5")
        .text(tags::MODALITY, VR::CS, "DX")
        .text(tags::VIEW_POSITION, VR::CS, "LL")
        .text(tags::BODY_PART_EXAMINED, VR::CS, "CHEST")
        .text(tags::PATIENT_BIRTH_DATE, VR::DA, "19600201")
        .text(tags::BURNED_IN_ANNOTATION, VR::CS, "YES");
    let file = maker.read();
    let header = file.header();
    assert_eq!((header.age, header.sex.as_deref(), header.view), (Some(63), Some("F"), Some(View::Lateral)));
    assert_eq!(header.study_date.unwrap().to_string(), "2024-01-31T08:30:15Z");
    assert_eq!((header.body_part.as_deref(), header.burned_in), (Some("chest"), Some(true)));
    // The day before the birthday; an age that is written goes before one that is computed.
    maker.text(tags::PATIENT_AGE, VR::AS, "");
    assert_eq!(maker.read().header().age, Some(63));
    maker.text(tags::STUDY_DATE, VR::DA, "20240201");
    assert_eq!(maker.read().header().age, Some(64));
}
