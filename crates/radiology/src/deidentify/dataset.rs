//! De-identifies a data set: every element, in sequences too, by what `action` decides.
//!
//! A data set is taken apart and put together anew, so that no explicit length of before is left and nothing
//! that was not decided about can stay. Deliberately absent: the decisions, and the pixels.

use dicom_core::value::{DataSetSequence, PrimitiveValue, Value};
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use dicom_object::mem::InMemElement;
use dicom_object::{FileDicomObject, InMemDicomObject};

use super::action::{Action, decide, is_safe_creator, is_safe_private};
use super::count::Kind;
use super::{Annotation, BurnedIn, Dates, Deidentifier, DeidentifyError, Known, Removed, date, scrub};
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};

/// Deepest sequence that is entered.
const DEPTH_MAX: usize = 64;
/// The writer of de-identified files: a UID derived from a UUID, as PS3.5 B.2 has it.
const IMPLEMENTATION_UID: &str = "2.25.190146254417025163213286331421160283391";
/// What stands in place of a text.
const DUMMY: &str = "REMOVED";

pub(super) fn deidentify(
    with: &Deidentifier,
    object: &mut FileDicomObject<InMemDicomObject>,
) -> Result<Removed, DeidentifyError> {
    refuse_recordings(object)?;
    if text_of(object, tags::SOP_INSTANCE_UID).is_empty() {
        return Err(DeidentifyError::NoInstance);
    }
    let annotation = check_burned_in(object, with.options.burned_in)?;
    let identity = Deidentifier::identity(object);
    let mut walk = Walk {
        with,
        days: with.shift_days(&identity),
        pseudonym: with.patient(&identity),
        known: Known::of_object(object),
        removed: Removed { annotation, methods: with.options.methods(), ..Removed::default() },
    };
    let old = std::mem::replace(&mut **object, InMemDicomObject::new_empty());
    let mut new = walk.data_set(old, 0)?;
    record_method(&mut new, with);
    **object = new;
    clean_meta(object, with);
    Ok(walk.removed)
}

/// The value of an attribute as text, trimmed; empty when it is absent or none.
pub(super) fn text_of(object: &InMemDicomObject, tag: Tag) -> String {
    let value = object.get(tag).and_then(|element| element.value().to_str().ok());
    value.map(|v| v.trim_matches([' ', '\0']).to_owned()).unwrap_or_default()
}

struct Walk<'a> {
    with: &'a Deidentifier,
    days: i64,
    pseudonym: String,
    known: Known,
    removed: Removed,
}

impl Walk<'_> {
    fn data_set(
        &mut self,
        object: InMemDicomObject,
        depth: usize,
    ) -> Result<InMemDicomObject, DeidentifyError> {
        let creators: Vec<(Tag, String)> = object
            .iter()
            .filter(|e| e.header().tag.0 % 2 == 1 && (0x10..=0xFF).contains(&e.header().tag.1))
            .map(|e| (e.header().tag, e.value().to_str().map(|v| v.into_owned()).unwrap_or_default()))
            .collect();
        let mut kept = Vec::new();
        for element in object {
            let tag = element.header().tag;
            if tag.0 % 2 == 1 {
                if self.keeps_private(&element, &creators) {
                    kept.push(element);
                } else {
                    self.count("removed", &element, Some(Kind::Private));
                }
                continue;
            }
            kept.extend(self.element(element, depth)?);
        }
        Ok(InMemDicomObject::from_element_iter(kept))
    }

    fn element(
        &mut self,
        element: InMemElement,
        depth: usize,
    ) -> Result<Option<InMemElement>, DeidentifyError> {
        let (tag, vr) = (element.header().tag, element.header().vr());
        // A sequence may be declared as something else; what it holds decides.
        let vr = if matches!(element.value(), Value::Sequence(_)) { VR::SQ } else { vr };
        let known = StandardDataDictionary.by_tag(tag).is_some();
        let action = decide(tag, vr, known, &self.with.options);
        Ok(match action {
            Action::Remove => {
                self.count("removed", &element, None);
                None
            }
            Action::Empty | Action::Dummy if matches!(tag, tags::PATIENT_ID | tags::PATIENT_NAME) => {
                self.count("replaced", &element, None);
                Some(text_element(tag, vr, &self.pseudonym))
            }
            Action::Empty => {
                self.count("emptied", &element, None);
                Some(empty(tag, vr))
            }
            Action::Dummy => {
                self.count("replaced", &element, None);
                Some(self.dummy(element, vr))
            }
            Action::Uid => self.uids(element, vr),
            Action::Keep | Action::Clean if vr == VR::SQ => Some(self.sequence(element, depth)?),
            Action::Keep => Some(self.keep(element, vr)),
            Action::Clean => Some(self.clean(element, vr)),
        })
    }

    fn sequence(&mut self, element: InMemElement, depth: usize) -> Result<InMemElement, DeidentifyError> {
        let tag = element.header().tag;
        if depth >= DEPTH_MAX {
            return Err(DeidentifyError::Depth { limit: DEPTH_MAX, tag: tag.to_string() });
        }
        let items = element.into_value().into_items().unwrap_or_default();
        let items: Result<Vec<_>, _> = items.into_iter().map(|item| self.data_set(item, depth + 1)).collect();
        Ok(DataElement::new(tag, VR::SQ, Value::from(DataSetSequence::from(items?))))
    }

    fn uids(&mut self, element: InMemElement, vr: VR) -> Option<InMemElement> {
        let tag = element.header().tag;
        let Ok(values) = element.value().to_multi_str() else {
            self.count("removed", &element, None);
            return None;
        };
        let new: Vec<String> = values.iter().map(|uid| self.with.uid(uid)).collect();
        if new.iter().zip(values.iter()).any(|(new, old)| new != old.trim_matches([' ', '\0'])) {
            self.count("remapped", &element, Some(Kind::Uid));
        }
        Some(text_element(tag, vr, &new.join("\\")))
    }

    /// A kept value may still hold what is known of the patient.
    fn keep(&mut self, element: InMemElement, vr: VR) -> InMemElement {
        let tag = element.header().tag;
        if vr == VR::AS && tag == tags::PATIENT_AGE {
            return self.age(element);
        }
        if vr == VR::UI && !joined(&element).is_some_and(|uids| uids.split('\\').all(is_uid_form)) {
            // Whatever it is, it is no UID.
            self.count("emptied", &element, None);
            return empty(tag, vr);
        }
        if !matches!(vr, VR::LO | VR::SH | VR::AE | VR::UC | VR::UT | VR::LT | VR::ST) {
            return element;
        }
        let Some(text) = joined(&element) else { return element };
        match scrub::known_alone(&text, &self.known) {
            Some(clean) => {
                self.count("cleaned", &element, Some(Kind::Name));
                text_element(tag, vr, &clean)
            }
            None => element,
        }
    }

    fn clean(&mut self, element: InMemElement, vr: VR) -> InMemElement {
        let tag = element.header().tag;
        let text = joined(&element).unwrap_or_default();
        match vr {
            VR::TM => element,
            VR::DA | VR::DT if text.trim().is_empty() => element,
            VR::DA | VR::DT => {
                let moved = if vr == VR::DA {
                    date::shift_da(&text, self.days)
                } else {
                    date::shift_dt(&text, self.days)
                };
                self.count(if moved.is_some() { "shifted" } else { "emptied" }, &element, Some(Kind::Date));
                moved.map_or_else(|| empty(tag, vr), |date| text_element(tag, vr, &date))
            }
            VR::LO | VR::SH | VR::LT | VR::ST | VR::UT | VR::UC | VR::AE => {
                let (clean, counts) = scrub::text(&text, &self.known);
                if counts.total() > 0 {
                    *self.removed.actions.entry("cleaned").or_default() += 1;
                    self.removed.kinds.add(&counts);
                    return text_element(tag, vr, &clean);
                }
                element
            }
            VR::CS | VR::AS | VR::IS | VR::DS => element,
            _ => {
                self.count("emptied", &element, None);
                empty(tag, vr)
            }
        }
    }

    /// Ages over 89 are told apart from no others (45 CFR 164.514(b)).
    fn age(&mut self, element: InMemElement) -> InMemElement {
        let text = joined(&element).unwrap_or_default();
        let years = text.trim().strip_suffix('Y').and_then(|y| y.parse::<u32>().ok());
        if years.is_some_and(|y| y > 89) {
            self.count("replaced", &element, Some(Kind::Age));
            return text_element(tags::PATIENT_AGE, VR::AS, "090Y");
        }
        element
    }

    fn dummy(&self, element: InMemElement, vr: VR) -> InMemElement {
        let tag = element.header().tag;
        let text = match vr {
            VR::DA => "19000101",
            VR::TM => "000000",
            VR::DT => "19000101000000",
            VR::AS => "000Y",
            VR::DS | VR::IS => "0",
            VR::UI => return text_element(tag, vr, &self.with.uid("removed")),
            VR::PN | VR::LO | VR::SH | VR::LT | VR::ST | VR::UT | VR::UC | VR::UR | VR::AE | VR::CS => DUMMY,
            VR::SQ => {
                let item = InMemDicomObject::new_empty();
                return DataElement::new(tag, vr, Value::from(DataSetSequence::from(vec![item])));
            }
            VR::US => return DataElement::new(tag, vr, PrimitiveValue::from(0u16)),
            VR::SS => return DataElement::new(tag, vr, PrimitiveValue::from(0i16)),
            VR::UL => return DataElement::new(tag, vr, PrimitiveValue::from(0u32)),
            VR::SL => return DataElement::new(tag, vr, PrimitiveValue::from(0i32)),
            VR::FL => return DataElement::new(tag, vr, PrimitiveValue::from(0f32)),
            VR::FD => return DataElement::new(tag, vr, PrimitiveValue::from(0f64)),
            _ => return DataElement::new(tag, vr, PrimitiveValue::from(vec![0u8, 0])),
        };
        text_element(tag, vr, text)
    }

    fn keeps_private(&self, element: &InMemElement, creators: &[(Tag, String)]) -> bool {
        let tag = element.header().tag;
        if !self.with.options.retain_safe_private || element.header().vr() == VR::SQ {
            return false;
        }
        if (0x10..=0xFF).contains(&tag.1) {
            return creators.iter().any(|(t, creator)| *t == tag && is_safe_creator(creator));
        }
        let block = Tag(tag.0, tag.1 >> 8);
        creators.iter().any(|(t, creator)| *t == block && is_safe_private(creator, tag))
    }

    /// Counts an element with a value, the values in its sequences one by one.
    fn count(&mut self, action: &'static str, element: &InMemElement, kind: Option<Kind>) {
        let mut stack = vec![element];
        let mut values = 0;
        while let Some(element) = stack.pop() {
            match element.value() {
                Value::Sequence(items) => stack.extend(items.items().iter().flat_map(|item| item.iter())),
                Value::Primitive(PrimitiveValue::Empty) => {}
                _ => {
                    values += 1;
                    let header = element.header();
                    self.removed.kinds.one(kind.unwrap_or_else(|| kind_of(header.tag, header.vr())));
                }
            }
        }
        if values > 0 {
            *self.removed.actions.entry(action).or_default() += 1;
        }
    }
}

fn joined(element: &InMemElement) -> Option<String> {
    element.value().to_multi_str().ok().map(|values| values.join("\\"))
}

fn is_uid_form(uid: &str) -> bool {
    uid.trim_matches([' ', '\0']).bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

fn text_element(tag: Tag, vr: VR, text: &str) -> InMemElement {
    let values: Vec<String> = match vr {
        VR::LT | VR::ST | VR::UT | VR::UR => vec![text.to_owned()],
        _ => text.split('\\').map(str::to_owned).collect(),
    };
    DataElement::new(tag, vr, PrimitiveValue::Strs(values.into()))
}

fn empty(tag: Tag, vr: VR) -> InMemElement {
    if vr == VR::SQ {
        return DataElement::new(tag, vr, Value::from(DataSetSequence::empty()));
    }
    DataElement::new(tag, vr, PrimitiveValue::Empty)
}

/// What kind of identifier an attribute is, by its value representation and the words of its name.
fn kind_of(tag: Tag, vr: VR) -> Kind {
    let name = StandardDataDictionary.by_tag(tag).map_or("", |entry| entry.alias());
    let names = |words: &[&str]| words.iter().any(|word| name.contains(word));
    match vr {
        _ if tag.0 % 2 == 1 => Kind::Private,
        _ if matches!(tag.0 & 0xFF00, 0x5000 | 0x6000) || tag.0 == 0x0070 => Kind::Graphic,
        VR::PN => Kind::Name,
        VR::UI => Kind::Uid,
        VR::DA | VR::DT => Kind::Date,
        VR::TM => Kind::Time,
        VR::AS => Kind::Age,
        _ if names(&["Telephone", "Telecom"]) => Kind::Contact,
        _ if names(&["Address", "Residence", "Location", "Region"]) => Kind::Address,
        _ if names(&["Institution", "Department", "Organization", "ClinicalTrialSite"]) => Kind::Institution,
        _ if names(&[
            "Device", "Station", "Serial", "Detector", "Cassette", "Plate", "Gantry", "Machine",
        ]) =>
        {
            Kind::Device
        }
        _ if names(&["ID", "Identifi", "Number", "Barcode"]) => Kind::Identifier,
        VR::LO | VR::SH | VR::LT | VR::ST | VR::UT | VR::UC => Kind::Text,
        _ => Kind::Other,
    }
}

fn refuse_recordings(object: &FileDicomObject<InMemDicomObject>) -> Result<(), DeidentifyError> {
    let syntax = object.meta().transfer_syntax().trim_end_matches([' ', '\0']);
    let class = text_of(object, tags::SOP_CLASS_UID);
    let last = |uid: &str, root: &str| uid.strip_prefix(root).and_then(|rest| rest.parse::<u32>().ok());
    // MPEG2, MPEG-4 AVC/H.264 and HEVC/H.265.
    if last(syntax, "1.2.840.10008.1.2.4.").is_some_and(|n| (100..=108).contains(&n))
        || class
            .strip_prefix("1.2.840.10008.5.1.4.1.1.77.1.")
            .is_some_and(|n| ["1.1", "2.1", "4.1"].contains(&n))
    {
        return Err(DeidentifyError::Recording { what: "a video" });
    }
    if class.starts_with("1.2.840.10008.5.1.4.1.1.9.4.") {
        return Err(DeidentifyError::Recording { what: "a sound recording" });
    }
    Ok(())
}

fn check_burned_in(object: &InMemDicomObject, policy: BurnedIn) -> Result<Annotation, DeidentifyError> {
    let annotation = match text_of(object, tags::BURNED_IN_ANNOTATION).to_ascii_uppercase().as_str() {
        "YES" => Annotation::Declared,
        "NO" => Annotation::None,
        _ if is_suspect(object) => Annotation::Suspected,
        _ => Annotation::None,
    };
    match (policy, annotation) {
        (BurnedIn::Refuse | BurnedIn::RefuseSuspected, Annotation::Declared) => {
            Err(DeidentifyError::BurnedIn { declared: true })
        }
        (BurnedIn::RefuseSuspected, Annotation::Suspected) => {
            Err(DeidentifyError::BurnedIn { declared: false })
        }
        (BurnedIn::Accept, _) => Ok(Annotation::None),
        _ => Ok(annotation),
    }
}

fn is_suspect(object: &InMemDicomObject) -> bool {
    if object.get(tags::PIXEL_DATA).is_none() {
        return false;
    }
    let modality = text_of(object, tags::MODALITY);
    let conversion = text_of(object, tags::CONVERSION_TYPE);
    // Secondary capture, single frame or multi-frame.
    text_of(object, tags::SOP_CLASS_UID).starts_with("1.2.840.10008.5.1.4.1.1.7")
        || ["DV", "DI", "DF", "SI", "SD", "WSD"].contains(&conversion.as_str())
        || ["US", "IVUS", "OT", "SC", "ES", "XC", "GM", "HC", "DOC"].contains(&modality.as_str())
}

/// (0012,0062), (0012,0063), (0012,0064) and (0028,0303).
fn record_method(object: &mut InMemDicomObject, with: &Deidentifier) {
    let options = &with.options;
    object.put(text_element(tags::PATIENT_IDENTITY_REMOVED, VR::CS, "YES"));
    let names: Vec<&str> = options.methods().into_iter().map(|(code, _)| code).collect();
    let method = format!("DICOM PS3.15 Annex E\\DCM {}", names.join(" "));
    // LO holds 64 characters; the codes are whole in the sequence.
    let method: Vec<String> = method.split('\\').map(|m| m.chars().take(64).collect()).collect();
    object.put(text_element(tags::DEIDENTIFICATION_METHOD, VR::LO, &method.join("\\")));
    let codes: Vec<InMemDicomObject> = options
        .methods()
        .into_iter()
        .map(|(code, meaning)| {
            InMemDicomObject::from_element_iter([
                text_element(tags::CODE_VALUE, VR::SH, code),
                text_element(tags::CODING_SCHEME_DESIGNATOR, VR::SH, "DCM"),
                text_element(tags::CODE_MEANING, VR::LO, meaning),
            ])
        })
        .collect();
    let codes = Value::from(DataSetSequence::from(codes));
    object.put(DataElement::new(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE, VR::SQ, codes));
    let dates = match options.dates {
        Dates::Keep => "UNMODIFIED",
        Dates::Shift => "MODIFIED",
        Dates::Remove => "REMOVED",
    };
    object.put(text_element(tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED, VR::CS, dates));
}

fn clean_meta(object: &mut FileDicomObject<InMemDicomObject>, with: &Deidentifier) {
    object.update_meta(|meta| {
        meta.media_storage_sop_instance_uid = with.uid(&meta.media_storage_sop_instance_uid);
        if !is_uid_form(&meta.media_storage_sop_class_uid) {
            meta.media_storage_sop_class_uid.clear();
        }
        meta.implementation_class_uid = IMPLEMENTATION_UID.to_owned();
        meta.implementation_version_name = None;
        meta.source_application_entity_title = None;
        meta.sending_application_entity_title = None;
        meta.receiving_application_entity_title = None;
        meta.private_information_creator_uid = None;
        meta.private_information = None;
    });
}
