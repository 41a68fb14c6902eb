//! Studies: records with images and a report, and the findings by which they are alike.
//!
//! Findings are the attributes `finding.*` where a record has any, else what rules read from its report. A study of which
//! nothing is said is left out: nobody could say what is like it.

use std::collections::HashMap;

use anyhow::Result;
use diptych_core::{Attributes, Embedding, Encode};
use diptych_encoder::DualEncoder;
use diptych_ingest::ItemImage;
use diptych_radiology::findings::{Findings, Observation, Status, from_attributes, of_report};
use diptych_radiology::report::Report;

use super::Side;
use crate::args::EvalArgs;
use crate::embed::{embed_item_images, embed_texts};
use crate::output::grouped;
use crate::pairs::{self, Numbers};

/// Labels: every observation, and whether anything is abnormal.
pub const LABELS: usize = Observation::ALL.len() + 1;
/// The attribute that names the patient where no other is asked for and every record has it.
const PATIENT: &str = "patient_id";

/// The names of the labels.
pub fn names() -> Vec<String> {
    let named = Observation::ALL.iter().map(|observation| match observation {
        Observation::NoFinding => "normal".to_owned(),
        other => other.as_str().to_owned(),
    });
    named.chain(["abnormal".to_owned()]).collect()
}

/// Studies with something said of them.
pub struct Studies {
    studies: Vec<Study>,
    left_out: usize,
    grouped_by: Option<String>,
}

#[derive(Default)]
struct Study {
    images: Vec<ItemImage>,
    sentences: Vec<String>,
    texts: Vec<String>,
    attributes: Attributes,
    group: u32,
    labels: Vec<u32>,
    set: Vec<u32>,
}

impl Studies {
    pub fn read(args: &EvalArgs) -> Result<Self> {
        let items = pairs::read(&args.pairs)?;
        let all_have = items.iter().all(|item| item.attributes.contains_key(PATIENT));
        let usual = all_have.then(|| PATIENT.to_owned());
        let grouped_by = args.measure.group_by.clone().or(usual);
        let of_items = pairs::groups(&items, grouped_by.as_deref())?;
        let studies_of = pairs::groups(&items, args.study_by.as_deref())?;
        let mut studies: Vec<Study> = Vec::new();
        for ((item, study), group) in items.into_iter().zip(studies_of).zip(of_items) {
            if study as usize == studies.len() {
                studies.push(Study { group, ..Study::default() });
            }
            let study = &mut studies[study as usize];
            study.images.extend(item.images);
            for text in item.texts {
                if !study.texts.contains(&text) {
                    study.texts.push(text);
                }
            }
            for (name, value) in item.attributes {
                study.attributes.entry(name).or_insert(value);
            }
        }
        let read = studies.len();
        let studies: Vec<Study> = studies.into_iter().filter_map(Study::understood).collect();
        Ok(Self { left_out: read - studies.len(), studies, grouped_by })
    }

    /// Studies by their images.
    pub fn by_images(&self, encoder: &DualEncoder) -> Result<Side> {
        let images: Vec<&ItemImage> = self.studies.iter().flat_map(|study| &study.images).collect();
        let mut embeddings = embed_item_images(encoder, &images)?.into_iter();
        Ok(self.side(|study| embeddings.by_ref().take(study.images.len()).collect()))
    }

    /// Studies by the sentences of their reports.
    pub fn by_reports(&self, encoder: &DualEncoder) -> Result<Side> {
        // Reports repeat their sentences; each is embedded once.
        let mut numbers = Numbers::default();
        let mut distinct: Vec<String> = Vec::new();
        let mut of_study: Vec<Vec<u32>> = Vec::new();
        for study in &self.studies {
            let each = study.sentences.iter().map(|sentence| {
                let number = numbers.of(sentence.clone());
                if number as usize == distinct.len() {
                    distinct.push(sentence.clone());
                }
                number
            });
            of_study.push(each.collect());
        }
        let embeddings = embed_texts(encoder as &dyn Encode, &distinct)?;
        let mut of_study = of_study.into_iter();
        Ok(self.side(|_| {
            let numbers = of_study.next().unwrap_or_default();
            numbers.into_iter().map(|number| embeddings[number as usize].clone()).collect()
        }))
    }

    /// Those studies that have embeddings of one kind.
    fn side(&self, mut embeddings: impl FnMut(&Study) -> Vec<Embedding>) -> Side {
        let mut side = Side::default();
        for study in &self.studies {
            let own = embeddings(study);
            if own.is_empty() {
                continue;
            }
            let owner = u32::try_from(side.labels.len()).expect("studies have 32-bit numbers");
            side.owners.extend(std::iter::repeat_n(owner, own.len()));
            side.embeddings.extend(own);
            side.labels.push(study.labels.clone());
            side.sets.push(study.set.clone());
            side.groups.push(study.group);
        }
        side
    }

    pub fn describe(&self, name: &str) -> String {
        let count = |of: &dyn Fn(&Study) -> usize| grouped(self.studies.iter().map(of).sum::<usize>() as u64);
        let groups = self.studies.iter().map(|s| (s.group, ())).collect::<HashMap<_, _>>().len();
        let by = self.grouped_by.as_ref().map_or(String::new(), |attribute| format!(" by '{attribute}'"));
        format!(
            "{name}: {} studies of {} groups{by}, {} images, {} sentences",
            grouped(self.studies.len() as u64),
            grouped(groups as u64),
            count(&|study| study.images.len()),
            count(&|study| study.sentences.len()),
        )
    }

    pub fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            "what is alike is what reports say, read by rules (docs/radiology.md); this measures retrieval, not \
             diagnosis"
                .to_owned(),
        ];
        if self.left_out > 0 {
            let n = grouped(self.left_out as u64);
            notes.push(format!("{n} studies are left out, as nothing is said of any finding in them"));
        }
        if self.grouped_by.is_none() {
            notes.push(
                "no attribute names the patient, so studies of one patient count as those of others; give --group-by"
                    .to_owned(),
            );
        }
        notes
    }
}

impl Study {
    /// With its sentences and labels; `None` where nothing is said.
    fn understood(mut self) -> Option<Self> {
        let reports: Vec<Report> = self.texts.iter().map(|text| Report::parse(text)).collect();
        let mut findings = from_attributes(&self.attributes);
        if findings.is_empty() {
            findings = of_texts(&reports);
        }
        for (report, text) in reports.iter().zip(&self.texts) {
            let before = self.sentences.len();
            self.sentences.extend(report.sentences().map(|(_, sentence)| sentence.to_owned()));
            if self.sentences.len() == before {
                self.sentences.push(text.clone());
            }
        }
        let number = |observation: Observation| {
            let place = Observation::ALL.iter().position(|&other| other == observation);
            place.and_then(|place| u32::try_from(place).ok())
        };
        let present = |wanted: &dyn Fn(Observation) -> bool| -> Vec<u32> {
            let there = findings.iter().filter(|(o, s)| **s == Status::Present && wanted(**o));
            there.filter_map(|(observation, _)| number(*observation)).collect()
        };
        self.labels = present(&|_| true);
        let abnormal = present(&Observation::is_abnormal);
        if !abnormal.is_empty() {
            self.labels.push(u32::try_from(LABELS - 1).expect("there are few labels"));
        }
        // Normal studies are alike; devices do not make them differ.
        self.set = if abnormal.is_empty() { present(&|o| o == Observation::NoFinding) } else { abnormal };
        self.set.sort_unstable();
        (!self.labels.is_empty()).then_some(self)
    }
}

/// The findings of several texts of one study: the first that says something of an observation counts.
fn of_texts(reports: &[Report]) -> Findings {
    let mut findings = Findings::new();
    for report in reports {
        for (observation, status) in of_report(report) {
            findings.entry(observation).or_insert(status);
        }
    }
    findings
}
