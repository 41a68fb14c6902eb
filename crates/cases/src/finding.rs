//! Findings of two cases side by side.

use diptych_core::{Attributes, Comparison, Condition, Filter, FilterError, FilterValue, Record};
use diptych_radiology::findings::{self, Findings, Observation, Status};

use crate::question::report_of;

/// A finding that one case says is there and the other is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// The finding.
    pub observation: Observation,
    /// What the case asked with says.
    pub query: Status,
    /// What the other says.
    pub found: Status,
}

/// What two cases have in common and where they differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contrast {
    /// Said to be there by both.
    pub common: Vec<Observation>,
    /// Said not to be there by both.
    pub commonly_absent: Vec<Observation>,
    /// Said to be there by one and not to be by the other.
    pub conflicts: Vec<Conflict>,
    /// Findings that the case asked with is certain of.
    certain: usize,
}

impl Contrast {
    /// Compares the findings of a case asked with to those of another. What either is uncertain of, or does
    /// not mention, is neither common nor a conflict.
    pub fn of(query: &Findings, found: &Findings) -> Self {
        let mut contrast = Self::default();
        for (&observation, &asked) in query.iter().filter(|(observation, _)| is_compared(**observation)) {
            contrast.certain += usize::from(asked != Status::Uncertain);
            match (asked, found.get(&observation)) {
                (Status::Present, Some(Status::Present)) => contrast.common.push(observation),
                (Status::Absent, Some(Status::Absent)) => contrast.commonly_absent.push(observation),
                (Status::Present, Some(&there @ Status::Absent))
                | (Status::Absent, Some(&there @ Status::Present)) => {
                    contrast.conflicts.push(Conflict { observation, query: asked, found: there });
                }
                _ => {}
            }
        }
        contrast
    }

    /// From -1, when every finding that the case asked with is certain of is contradicted, to `AGREEING`, when
    /// each is in common. 0 where there is nothing to compare.
    pub(crate) fn balance(&self) -> f64 {
        if self.certain == 0 {
            return 0.0;
        }
        let agreeing = (self.common.len() + self.commonly_absent.len()) as f64;
        (AGREEING * agreeing - self.conflicts.len() as f64) / self.certain as f64
    }
}

/// How much a finding in common lifts, where one in conflict sinks by 1.
const AGREEING: f64 = 0.25;

/// Whether two cases are compared by it. That nothing is found follows from the other findings.
fn is_compared(observation: Observation) -> bool {
    observation != Observation::NoFinding
}

/// What a stored record says: its attributes where they tell, else its report.
pub(crate) fn of_record(record: &Record) -> Findings {
    let told = findings::from_attributes(record.attributes());
    if !told.is_empty() {
        return told;
    }
    report_of(record).map(|report| findings::of_report(&report)).unwrap_or_default()
}

/// The records that agree with at least one certain finding.
pub(crate) fn agreeing(query: &Findings) -> Result<Option<Filter>, FilterError> {
    let certain: Findings = query
        .iter()
        .filter(|(observation, status)| is_compared(**observation) && **status != Status::Uncertain)
        .map(|(observation, status)| (*observation, *status))
        .collect();
    if certain.is_empty() {
        return Ok(None);
    }
    let attributes: Attributes = findings::to_attributes(&certain);
    let any = attributes.into_iter().filter_map(|(attribute, value)| match value {
        diptych_core::AttributeValue::String(text) => Some(Condition::Compare {
            attribute,
            comparison: Comparison::Equal,
            value: FilterValue::Text(text),
        }),
        _ => None,
    });
    Filter::new(Condition::Any(any.collect())).map(Some)
}
