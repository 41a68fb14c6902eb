//! What can be typed to ask about cases: `similar` and `draft`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use diptych_client::{FindingStatus, SimilarTo};
use diptych_core::{AttributeValue, Comparison, Condition, Filter, FilterValue, Key, Number, Time};
use diptych_ingest::{DicomOptions, FramePolicy, Identities, Layout, Source, SourceOptions};
use diptych_radiology::deidentify::{BurnedIn, Deidentifier, Options, open_key};
use diptych_radiology::findings::{Observation, UnknownName};

use crate::args::{PlaceArgs, key};
use crate::ingest_args::key_beside;
use crate::sources;

const SIMILAR_HELP: &str = "\
    A case is compared as a whole: each of its images and each sentence of its report looks for what is \
    nearest to it, and findings order the answer: a case that says the contrary sinks. Cases of the same \
    patient are left out, where the patient is known. Retrieval only, not a diagnostic device.";
const DRAFT_HELP: &str = "\
    Every sentence stands word for word in the report of a similar case, which is named; nothing is \
    generated. What contradicts the report begun, or what more cases say, is left out. Retrieved text, not a \
    diagnosis.";

#[derive(Debug, clap::Args)]
#[command(after_help = SIMILAR_HELP)]
pub struct SimilarArgs {
    #[command(flatten)]
    pub case: CaseArgs,
    /// Only the other cases of the same patient, by date, the latest first
    #[arg(long, conflicts_with = "all_patients")]
    pub priors: bool,
    /// Write a small picture of each case's best image into this folder
    #[arg(long, value_name = "DIR")]
    pub thumbnails: Option<PathBuf>,
    /// Cases wanted, 1 to 1000
    #[arg(short, long, default_value_t = 5)]
    pub k: u32,
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = DRAFT_HELP)]
pub struct DraftArgs {
    #[command(flatten)]
    pub case: CaseArgs,
    /// Similar cases whose reports are read, 1 to 1000
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub cases: u32,
    /// Sentences at the most, 1 to 100
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub sentences: u32,
    /// Share of these cases, by weight, that has to agree on a sentence
    #[arg(long, default_value_t = 0.2, value_parser = crate::args::share, value_name = "0..1")]
    pub min_support: f64,
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A case, and among which others to look.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("case").required(true).multiple(true))]
pub struct CaseArgs {
    /// DICOM files, or the folder of a study: its views, and its structured reports
    #[arg(long = "dicom", group = "case", num_args = 1.., value_name = "FILE")]
    pub dicom: Vec<PathBuf>,
    /// The secret that a DICOM tree was ingested with, by which the other studies of the patient are known and left
    /// out [default: DATA.key beside the data directory, where it is there]
    #[arg(long, requires = "dicom", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Image files: the views of the case
    #[arg(long = "image", group = "case", num_args = 1.., value_name = "FILE")]
    pub images: Vec<PathBuf>,
    /// A file with the report of the case, whole or begun
    #[arg(long, group = "case", conflicts_with = "text", value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// The report, or one sentence, itself: "no pneumothorax"
    #[arg(long, group = "case", value_name = "T")]
    pub text: Option<String>,
    /// A stored case
    #[arg(long, group = "case", value_parser = key, value_name = "STUDY")]
    pub key: Option<Key>,
    /// What is known besides: effusion, no:effusion or maybe:effusion; may be repeated
    #[arg(long = "finding", value_parser = finding, value_name = "[no:|maybe:]FINDING")]
    pub findings: Vec<(Observation, FindingStatus)>,
    /// The patient of the case, whose other cases are left out; that of a stored case is known
    #[arg(long, value_name = "ID")]
    pub patient: Option<String>,
    /// Find cases of the same patient, too
    #[arg(long)]
    pub all_patients: bool,
    /// How much findings count beside images and sentences; 0 for not at all
    #[arg(long, default_value_t = diptych_cases::FINDINGS_WEIGHT, value_name = "W")]
    pub findings_weight: f64,
    #[command(flatten)]
    pub among: AmongArgs,
}

/// Which cases may be found.
#[derive(Debug, clap::Args)]
pub struct AmongArgs {
    /// Only cases with this view: PA, AP, LATERAL
    #[arg(long, value_name = "VIEW")]
    pub view: Option<String>,
    /// Only cases of this modality: CR, DX, CT
    #[arg(long, value_name = "MODALITY")]
    pub modality: Option<String>,
    /// Only cases of this part of the body: chest
    #[arg(long, value_name = "PART")]
    pub body_part: Option<String>,
    /// Only cases of patients of this age in years: 40..60, 40.. or ..60
    #[arg(long, value_parser = ages, value_name = "FROM..TO")]
    pub age: Option<Ages>,
    /// Only cases of this sex: F, M or O
    #[arg(long, value_name = "SEX")]
    pub sex: Option<String>,
    /// Only cases of this day or later: 2024-01-31
    #[arg(long, value_parser = day, value_name = "DATE")]
    pub since: Option<Time>,
    /// Only cases of before this day: 2024-12-31
    #[arg(long, value_parser = day, value_name = "DATE")]
    pub until: Option<Time>,
    /// Only cases with this finding: effusion, or without it: no:effusion; may be repeated
    #[arg(long = "with", value_parser = finding, value_name = "[no:|maybe:]FINDING")]
    pub with: Vec<(Observation, FindingStatus)>,
    /// Only cases that meet a condition, as in `diptych search --help`
    #[arg(long, value_name = "CONDITION")]
    pub filter: Option<Filter>,
}

/// Years from and to, both included.
pub type Ages = (Option<i64>, Option<i64>);

impl CaseArgs {
    /// What is asked; reads the files. `data` is the data directory, if there is one here.
    pub fn search(&self, data: Option<&Path>) -> Result<SimilarTo> {
        let mut search = SimilarTo::new().findings_weight(self.findings_weight);
        let mut report = self.report_text()?;
        if !self.dicom.is_empty() {
            search = self.with_dicom(search, data, &mut report)?;
        }
        for path in &self.images {
            let bytes = sources::read_image(path).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
            search = search.and_image(bytes);
        }
        if let Some(report) = report {
            search = search.and_report(report);
        }
        if let Some(key) = &self.key {
            search = search.and_key(key);
        }
        for (observation, status) in &self.findings {
            search = search.finding(observation.as_str(), *status);
        }
        if let Some(patient) = &self.patient {
            search = search.patient(patient);
        }
        if self.all_patients {
            search = search.all_patients();
        }
        Ok(match self.among.filter()? {
            Some(filter) => search.filter(filter),
            None => search,
        })
    }

    /// Adds what DICOM files show and say, without what identifies the patient.
    fn with_dicom(
        &self,
        search: SimilarTo,
        data: Option<&Path>,
        report: &mut Option<String>,
    ) -> Result<SimilarTo> {
        let file = self.key_file.clone().or_else(|| data.map(key_beside).filter(|file| file.exists()));
        let key = match &file {
            Some(file) => open_key(file)?.key,
            None => {
                eprintln!(
                    "note: without --key-file the other studies of this patient are not known, and not left out"
                );
                [0; 32]
            }
        };
        let with = Deidentifier::new(Options { burned_in: BurnedIn::Accept, ..Options::new(key) });
        let dicom =
            DicomOptions { identities: Identities::Removed(Arc::new(with)), frames: FramePolicy::default() };
        let options = SourceOptions { layout: Some(Layout::Dicom), dicom, ..SourceOptions::default() };
        let mut search = search;
        for path in &self.dicom {
            for item in Source::open_with(path, &options)?.items()? {
                let item = item?;
                for image in &item.images {
                    let bytes = image.load().map_err(|reason| anyhow!("{}: {reason}", path.display()))?;
                    search = search.and_image(bytes);
                }
                if report.is_none() && !item.texts.is_empty() {
                    *report = Some(item.texts.join("\n"));
                }
                if let (Some(AttributeValue::String(patient)), true) =
                    (item.attributes.get(diptych_cases::PATIENT_ID), file.is_some())
                {
                    search = search.patient(patient);
                }
            }
        }
        Ok(search)
    }

    fn report_text(&self) -> Result<Option<String>> {
        let Some(path) = &self.report else { return Ok(self.text.clone()) };
        let text = std::fs::read(path).map_err(|e| anyhow::anyhow!("cannot read {}: {e}", path.display()))?;
        match String::from_utf8(text) {
            Ok(text) if text.trim().is_empty() => {
                bail!("{} is empty; write the report into it", path.display())
            }
            Ok(text) => Ok(Some(text)),
            Err(_) => bail!("{} is not UTF-8; save the report in that encoding", path.display()),
        }
    }
}

impl AmongArgs {
    /// All conditions together, if there are any.
    fn filter(&self) -> Result<Option<Filter>> {
        let equals = |attribute: &str, value: FilterValue| Condition::Compare {
            attribute: attribute.to_owned(),
            comparison: Comparison::Equal,
            value,
        };
        let compare = |attribute: &str, comparison, value| Condition::Compare {
            attribute: attribute.to_owned(),
            comparison,
            value,
        };
        let mut all: Vec<Condition> = Vec::new();
        all.extend(
            self.view
                .iter()
                .map(|view| Condition::Has { attribute: "views".to_owned(), text: view.to_uppercase() }),
        );
        all.extend(self.modality.iter().map(|of| equals("modality", FilterValue::Text(of.to_uppercase()))));
        all.extend(self.body_part.iter().map(|of| equals("body_part", FilterValue::Text(of.to_lowercase()))));
        all.extend(self.sex.iter().map(|of| equals("sex", FilterValue::Text(of.to_uppercase()))));
        if let Some((from, to)) = self.age {
            let years = |years| FilterValue::Number(Number::Integer(years));
            all.extend(from.map(|from| compare("age", Comparison::GreaterOrEqual, years(from))));
            all.extend(to.map(|to| compare("age", Comparison::LessOrEqual, years(to))));
        }
        let dates = [(self.since, Comparison::GreaterOrEqual), (self.until, Comparison::Less)];
        for (date, comparison) in dates {
            all.extend(
                date.map(|date| compare(diptych_cases::STUDY_DATE, comparison, FilterValue::Time(date))),
            );
        }
        all.extend(self.with.iter().map(|(observation, status)| {
            equals(&format!("finding.{}", observation.as_str()), FilterValue::Text(status.to_string()))
        }));
        all.extend(self.filter.iter().map(|filter| filter.condition().clone()));
        if all.is_empty() {
            return Ok(None);
        }
        Ok(Some(Filter::new(Condition::All(all))?))
    }
}

fn finding(said: &str) -> Result<(Observation, FindingStatus), String> {
    let (status, name) = match said.split_once(':') {
        None => (FindingStatus::Present, said),
        Some(("no", name)) => (FindingStatus::Absent, name),
        Some(("maybe", name)) => (FindingStatus::Uncertain, name),
        Some(_) => return Err("write effusion, no:effusion or maybe:effusion".to_owned()),
    };
    let observation: Observation = name.parse().map_err(|e: UnknownName| e.to_string())?;
    Ok((observation, status))
}

fn ages(ages: &str) -> Result<Ages, String> {
    let how = "write 40..60, 40.. or ..60";
    let (from, to) = ages.split_once("..").ok_or(how)?;
    let year = |year: &str| match year.trim() {
        "" => Ok(None),
        year => year.parse::<i64>().map(Some).map_err(|e| format!("{e}; {how}")),
    };
    match (year(from)?, year(to)?) {
        (None, None) => Err(how.to_owned()),
        ages => Ok(ages),
    }
}

fn day(day: &str) -> Result<Time, String> {
    let whole = if day.contains('T') { day.to_owned() } else { format!("{day}T00:00:00Z") };
    whole.parse().map_err(|e| format!("{e}; write a day such as 2024-01-31"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn conditions_are_written_in_words() {
        assert_eq!(ages("40..60"), Ok((Some(40), Some(60))));
        assert_eq!(ages("..60"), Ok((None, Some(60))));
        assert!(ages("..").is_err() && ages("40").is_err() && ages("a..b").is_err());
        assert_eq!(finding("no:effusion").unwrap(), (Observation::Effusion, FindingStatus::Absent));
        assert!(finding("not:effusion").is_err());
        assert!(finding("headache").unwrap_err().contains("effusion, "), "the known ones are named");
        assert!(day("2024-01-31").is_ok() && day("31.1.2024").is_err());
    }

    #[test]
    fn all_conditions_must_be_met() {
        let among = AmongArgs {
            view: Some("pa".into()),
            modality: None,
            body_part: Some("CHEST".into()),
            age: Some((Some(40), None)),
            sex: Some("f".into()),
            since: Some(day("2024-01-31").unwrap()),
            until: None,
            with: vec![finding("no:effusion").unwrap()],
            filter: Some("ward = \"7\" or ward = \"8\"".parse().unwrap()),
        };
        let written = among.filter().unwrap().unwrap().to_string();
        assert_eq!(
            written,
            "views has \"PA\" and body_part = \"chest\" and sex = \"F\" and age >= 40 and study_date >= \
             time(\"2024-01-31T00:00:00Z\") and finding.effusion = \"absent\" and (ward = \"7\" or ward = \"8\")"
        );
    }
}
