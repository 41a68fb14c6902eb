//! What is done to an attribute: the actions of PS3.15 Table E.1-1, and how options and doubt decide.
//!
//! A compound action of the table leaves the choice to the type that an information object gives the
//! attribute. That type is not known here, so the choice is the one that is valid for every type and still
//! says nothing: X/Z empties; Z/D, X/D and X/Z/D put in a dummy; X/Z/U* keeps the references, remapped.
//! Attributes outside of the table: private ones go, unless they are on the list of safe ones; so do those
//! that the dictionary does not know, person names and free text of any length, curves, overlays, group
//! lengths and command groups. Their UIDs are remapped, but for those of classes, their dates treated as the table's are. Short
//! texts, codes and numbers that the dictionary knows stay: the edition of the table has judged them.
//! Deliberately absent: doing it (`dataset`).

use dicom_core::dictionary::{DataDictionary as _, DataDictionaryEntry as _};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

use super::attributes::{
    DATES, DESCRIPTORS, DEVICE, GRAPHICS, INSTITUTION, PATIENT, Row, STRUCTURED, UIDS, row,
};
use super::{Dates, Options};

/// The action of the Basic Profile, as the table has it: D a dummy, Z empty (or a dummy), X removed, U
/// another UID; the others leave a choice.
// The letters are the standard's.
#[allow(clippy::upper_case_acronyms)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Profile {
    D,
    Z,
    X,
    U,
    ZD,
    XZ,
    XD,
    XZD,
    XZU,
}

/// What is done. Sequences that are kept or cleaned are entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Remove,
    Empty,
    Dummy,
    Keep,
    Clean,
    Uid,
}

/// Decides about an attribute that is not private. `known` is whether the dictionary has it.
pub(super) fn decide(tag: Tag, vr: VR, known: bool, options: &Options) -> Action {
    let Tag(group, element) = tag;
    let curve_or_overlay = matches!(group & 0xFF00, 0x5000 | 0x6000);
    if element == 0 || group <= 7 || curve_or_overlay {
        return Action::Remove;
    }
    // Bytes of an unknown kind cannot be looked into.
    let blind = vr == VR::UN;
    match row(u32::from(group) << 16 | u32::from(element)) {
        Some(row) => match by_table(row, vr, options) {
            Action::Keep | Action::Clean | Action::Uid if blind => Action::Remove,
            action => action,
        },
        None if !known || blind => Action::Remove,
        None => by_vr(tag, vr, options),
    }
}

fn by_table(&(_, profile, keep, clean): &Row, vr: VR, options: &Options) -> Action {
    if keep & kept(options) != 0 || (clean & DATES != 0 && options.dates == Dates::Keep) {
        return Action::Keep;
    }
    if clean & cleaned(options) != 0 {
        return Action::Clean;
    }
    match profile {
        Profile::X => Action::Remove,
        Profile::Z | Profile::XZ => Action::Empty,
        Profile::U => Action::Uid,
        // A list of references: what is in it has rules of its own.
        Profile::XZU if vr == VR::SQ => Action::Keep,
        Profile::XZU => Action::Uid,
        Profile::D | Profile::ZD | Profile::XD | Profile::XZD => Action::Dummy,
    }
}

fn by_vr(tag: Tag, vr: VR, options: &Options) -> Action {
    const TEXT_VALUE: Tag = Tag(0x0040, 0xA160);
    match vr {
        VR::LT | VR::ST | VR::UT | VR::UC if options.clean_descriptors => Action::Clean,
        VR::UT if tag == TEXT_VALUE && options.clean_structured_content => Action::Clean,
        VR::PN | VR::LT | VR::ST | VR::UT | VR::UC | VR::UR => Action::Remove,
        VR::DA | VR::DT | VR::TM => match options.dates {
            Dates::Keep => Action::Keep,
            Dates::Shift => Action::Clean,
            Dates::Remove => Action::Remove,
        },
        VR::UI if !options.retain_uids && !is_class(tag) => Action::Uid,
        _ => Action::Keep,
    }
}

/// Whether a UID says of what kind something is, by its name: private classes are nobody's either.
fn is_class(tag: Tag) -> bool {
    let name = StandardDataDictionary.by_tag(tag).map_or("", |entry| entry.alias());
    ["Class", "Syntax", "Scheme", "Context", "Mapping", "Template"].iter().any(|word| name.contains(word))
}

fn kept(options: &Options) -> u16 {
    mask([
        (options.retain_uids, UIDS),
        (options.retain_device_identity, DEVICE),
        (options.retain_institution_identity, INSTITUTION),
        (options.retain_patient_characteristics, PATIENT),
    ])
}

fn cleaned(options: &Options) -> u16 {
    mask([
        (options.dates == Dates::Shift, DATES),
        (options.clean_descriptors, DESCRIPTORS),
        (options.clean_structured_content, STRUCTURED),
        (options.clean_graphics, GRAPHICS),
        (options.retain_device_identity, DEVICE),
        (options.retain_patient_characteristics, PATIENT),
    ])
}

fn mask<const N: usize>(switches: [(bool, u16); N]) -> u16 {
    switches.into_iter().filter(|(on, _)| *on).fold(0, |mask, (_, bit)| mask | bit)
}

/// Private attributes that PS3.15 Table E.3.10-1 calls safe: creator, group, last byte of the element.
static SAFE_PRIVATE: &[(&str, u16, u8)] = &[
    ("ELSCINT1", 0x00E1, 0x21),
    ("ELSCINT1", 0x01E1, 0x26),
    ("ELSCINT1", 0x01E1, 0x50),
    ("ELSCINT1", 0x01F1, 0x01),
    ("ELSCINT1", 0x01F1, 0x07),
    ("ELSCINT1", 0x01F1, 0x26),
    ("ELSCINT1", 0x01F1, 0x27),
    ("GEMS_ACQU_01", 0x0019, 0x23),
    ("GEMS_ACQU_01", 0x0019, 0x24),
    ("GEMS_ACQU_01", 0x0019, 0x27),
    ("GEMS_ACQU_01", 0x0019, 0x9E),
    ("GEMS_HELIOS_01", 0x0045, 0x01),
    ("GEMS_HELIOS_01", 0x0045, 0x02),
    ("GEMS_PARM_01", 0x0043, 0x27),
    ("GEMS_PARM_01", 0x0043, 0x39),
    ("GEMS_PARM_01", 0x0043, 0x6F),
    ("GEMS_SERS_01", 0x0025, 0x07),
    ("PHILIPS IMAGING DD 001", 0x2001, 0x03),
    ("PHILIPS IMAGING DD 001", 0x2001, 0x04),
    ("PHILIPS PET PRIVATE GROUP", 0x7053, 0x00),
    ("PHILIPS PET PRIVATE GROUP", 0x7053, 0x09),
    ("SIEMENS MR HEADER", 0x0019, 0x0C),
    ("SIEMENS MR HEADER", 0x0019, 0x0D),
    ("SIEMENS MR HEADER", 0x0019, 0x0E),
    ("SIEMENS MR HEADER", 0x0019, 0x27),
];

/// Whether a private attribute is known to be safe.
pub(super) fn is_safe_private(creator: &str, tag: Tag) -> bool {
    let creator = creator.trim();
    let byte = (tag.1 & 0xFF) as u8;
    SAFE_PRIVATE.iter().any(|(c, group, b)| c.eq_ignore_ascii_case(creator) && *group == tag.0 && *b == byte)
}

/// Whether a private creator has safe attributes.
pub(super) fn is_safe_creator(creator: &str) -> bool {
    SAFE_PRIVATE.iter().any(|(c, ..)| c.eq_ignore_ascii_case(creator.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Options)) -> Options {
        let mut options = Options::new([7; 32]);
        change(&mut options);
        options
    }

    #[test]
    fn the_basic_profile_decides_and_options_override() {
        let basic = Options::new([7; 32]);
        let patient_name = |options: &Options| decide(Tag(0x0010, 0x0010), VR::PN, true, options);
        assert_eq!(patient_name(&basic), Action::Empty);
        let sop = |options: &Options| decide(Tag(0x0008, 0x0018), VR::UI, true, options);
        assert_eq!((sop(&basic), sop(&with(|o| o.retain_uids = true))), (Action::Uid, Action::Keep));
        let study_date = |options: &Options| decide(Tag(0x0008, 0x0020), VR::DA, true, options);
        assert_eq!(study_date(&basic), Action::Clean);
        assert_eq!(study_date(&with(|o| o.dates = Dates::Keep)), Action::Keep);
        assert_eq!(study_date(&with(|o| o.dates = Dates::Remove)), Action::Empty);
        let description = |options: &Options| decide(Tag(0x0008, 0x1030), VR::LO, true, options);
        assert_eq!(description(&basic), Action::Remove);
        assert_eq!(description(&with(|o| o.clean_descriptors = true)), Action::Clean);
        let age = |options: &Options| decide(Tag(0x0010, 0x1010), VR::AS, true, options);
        assert_eq!(age(&basic), Action::Remove);
        assert_eq!(age(&with(|o| o.retain_patient_characteristics = true)), Action::Keep);
    }

    #[test]
    fn what_the_table_does_not_name_is_decided_by_its_kind() {
        let basic = Options::new([7; 32]);
        let rows = Tag(0x0028, 0x0010);
        assert_eq!(decide(rows, VR::US, true, &basic), Action::Keep);
        assert_eq!(decide(rows, VR::UN, true, &basic), Action::Remove, "not looked into");
        assert_eq!(decide(Tag(0x0028, 0x7FFE), VR::US, false, &basic), Action::Remove, "unknown");
        for tag in [Tag(0x6002, 0x0010), Tag(0x5000, 0x0005), Tag(0x0008, 0x0000), Tag(0x0002, 0x0016)] {
            assert_eq!(decide(tag, VR::US, true, &basic), Action::Remove, "{tag}");
        }
        assert_eq!(decide(Tag(0x0008, 0x0016), VR::UI, true, &basic), Action::Keep, "of a class");
        assert_eq!(decide(Tag(0x0040, 0xE011), VR::UI, true, &basic), Action::Uid, "of something else");
        assert_eq!(decide(Tag(0x0028, 0x1055), VR::UT, true, &basic), Action::Remove, "free text");
    }

    #[test]
    fn private_attributes_are_safe_by_creator_and_byte_alone() {
        assert!(is_safe_private("SIEMENS MR HEADER ", Tag(0x0019, 0x100C)));
        assert!(is_safe_private("Philips PET Private Group", Tag(0x7053, 0x1000)));
        assert!(!is_safe_private("SIEMENS MR HEADER", Tag(0x0019, 0x1008)));
        assert!(!is_safe_private("SIEMENS CSA HEADER", Tag(0x0019, 0x100C)));
    }
}
