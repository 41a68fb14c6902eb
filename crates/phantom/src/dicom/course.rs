//! Patients and the course of their findings: which study belongs to whom, when it was made, and what its
//! pictures show.
//!
//! Deliberately absent: pixels, words and names.

use crate::anatomy::{Anatomy, Sex, View};
use crate::draw::{Draw, Purpose};
use crate::finding::{self, Amount, Density, Finding, Severity, Sign, Size};

/// Most studies of one patient.
const STUDIES_MAX: usize = 4;
/// 1 January 2015, in days since 1 January 1970.
const FIRST_DAY: i64 = 16_436;

/// Which study of which patient, of all studies of a set in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) patient: u64,
    /// 0 for the patient's first study.
    pub(super) number: usize,
}

/// The studies of a set: patients follow one another, each with one to four studies.
pub(super) fn places(seed: u64, studies: u64) -> Vec<Place> {
    let mut places = Vec::new();
    let mut patient = 0;
    while (places.len() as u64) < studies {
        let of_patient = Draw::new(seed, patient, Purpose::Patient).below(STUDIES_MAX) + 1;
        let left = (studies - places.len() as u64).min(of_patient as u64) as usize;
        places.extend((0..left).map(|number| Place { patient, number }));
        patient += 1;
    }
    places
}

/// One picture of a study.
pub(super) struct Shot {
    pub(super) anatomy: Anatomy,
    pub(super) signs: Vec<Sign>,
}

/// A study before it has names and words.
pub(super) struct Course {
    pub(super) sex: Sex,
    pub(super) age: u32,
    /// Days since 1 January 1970.
    pub(super) day: i64,
    /// Seconds since midnight.
    pub(super) second: u32,
    /// The day of the study before, if there was one.
    pub(super) prior: Option<i64>,
    /// What every picture of the study is about.
    pub(super) signs: Vec<Sign>,
    /// What the study before showed and this one does not.
    pub(super) resolved: Vec<Finding>,
    /// Frontal first.
    pub(super) shots: Vec<Shot>,
}

pub(super) fn course(seed: u64, place: Place) -> Course {
    let mut draw = Draw::new(seed, place.patient, Purpose::Course);
    let patient = Anatomy::draw(&mut Draw::new(seed, place.patient, Purpose::Patient));
    let mut day = FIRST_DAY + draw.below(1500) as i64;
    let mut signs = finding::draw(&mut draw, View::Ap);
    let (mut prior, mut resolved) = (None, Vec::new());
    for _ in 0..place.number {
        let next = evolve(&mut draw, &signs);
        resolved = signs.iter().filter(|s| is_gone(s, &next)).map(|s| s.finding).collect();
        signs = next;
        prior = Some(day);
        day += 1 + draw.below(400) as i64;
    }
    // What follows belongs to this study alone, and may draw as much as it likes.
    let mut draw = Draw::new(seed, place.patient << 8 | place.number as u64, Purpose::Study);
    let second = 7 * 3600 + draw.below(12 * 3600) as u32;
    let shots = shots(&mut draw, &patient, &signs);
    let years = (day - FIRST_DAY) / 365;
    Course { sex: patient.sex, age: patient.age + years as u32, day, second, prior, signs, resolved, shots }
}

fn is_gone(sign: &Sign, next: &[Sign]) -> bool {
    next.iter().all(|n| n.finding.kind() != sign.finding.kind())
}

/// What is there at the next study: some findings are gone, some have changed, some are new.
fn evolve(draw: &mut Draw, signs: &[Sign]) -> Vec<Sign> {
    let mut next: Vec<Sign> = Vec::new();
    for sign in signs {
        let fate = draw.unit();
        let changed = Sign { finding: changed(draw, sign.finding), shape: sign.shape };
        // Bones heal, but not out of sight.
        let stays = matches!(sign.finding, Finding::Fracture { .. }) || fate >= 0.25;
        let wanted = if fate < 0.6 { changed } else { *sign };
        let fits = |s: &Sign| next.iter().all(|n| finding::compatible(&n.finding, &s.finding));
        if stays && fits(&wanted) {
            next.push(wanted);
        }
    }
    if draw.chance(0.35) {
        for sign in finding::draw(draw, View::Ap) {
            let room = next.len() < 3;
            if room && next.iter().all(|n| finding::compatible(&n.finding, &sign.finding)) {
                next.push(sign);
                break;
            }
        }
    }
    next
}

fn changed(draw: &mut Draw, finding: Finding) -> Finding {
    let size = draw.pick(&[Size::Small, Size::Large]);
    match finding {
        Finding::Effusion { side, .. } => {
            Finding::Effusion { side, amount: draw.pick(&[Amount::Small, Amount::Moderate, Amount::Large]) }
        }
        Finding::Cardiomegaly { .. } => Finding::Cardiomegaly {
            severity: draw.pick(&[Severity::Mild, Severity::Moderate, Severity::Severe]),
        },
        Finding::Consolidation { side, zone, .. } => {
            Finding::Consolidation { side, zone, density: draw.pick(&[Density::Mild, Density::Dense]) }
        }
        Finding::Pneumothorax { side, .. } => Finding::Pneumothorax { side, size },
        Finding::Nodule { side, zone, .. } => Finding::Nodule { side, zone, size },
        Finding::Line(_) | Finding::Fracture { .. } => finding,
    }
}

/// An upright PA with a lateral, an upright PA, or an AP in bed.
fn shots(draw: &mut Draw, patient: &Anatomy, signs: &[Sign]) -> Vec<Shot> {
    let views: &[View] = match draw.unit() {
        u if u < 0.5 => &[View::Pa, View::Lateral],
        u if u < 0.65 => &[View::Pa],
        _ => &[View::Ap],
    };
    let of_day = Anatomy::draw(draw);
    views.iter().map(|&view| shot(draw, patient, &of_day, view, signs)).collect()
}

/// The patient's body, with the breath, the stance and the exposure of this day and picture.
fn shot(draw: &mut Draw, patient: &Anatomy, of_day: &Anatomy, view: View, signs: &[Sign]) -> Shot {
    let now = Anatomy::draw(draw);
    let frontal = view != View::Lateral;
    let anatomy = Anatomy {
        view,
        inflation: of_day.inflation,
        rotation: if frontal { of_day.rotation } else { 0.0 },
        scoliosis: if frontal { patient.scoliosis } else { 0.0 },
        elevation: if frontal { patient.elevation } else { [0.0; 2] },
        offset: now.offset,
        zoom: now.zoom,
        tilt: now.tilt,
        exposure: now.exposure,
        contrast: now.contrast,
        noise: now.noise,
        grain: now.grain,
        bubble: now.bubble,
        ..patient.clone()
    };
    let signs = if frontal { signs.to_vec() } else { signs.iter().filter_map(from_the_side).collect() };
    Shot { anatomy, signs }
}

/// What a lateral picture shows of a finding.
fn from_the_side(sign: &Sign) -> Option<Sign> {
    let finding = match sign.finding {
        Finding::Effusion { amount, .. } => Finding::Effusion { side: None, amount },
        Finding::Consolidation { zone, density, .. } => Finding::Consolidation { side: None, zone, density },
        Finding::Nodule { zone, size, .. } => Finding::Nodule { side: None, zone, size },
        Finding::Cardiomegaly { .. } => sign.finding,
        Finding::Pneumothorax { .. } | Finding::Line(_) | Finding::Fracture { .. } => return None,
    };
    Some(Sign { finding, shape: sign.shape })
}

/// Year, month and day of a day since 1 January 1970 (Howard Hinnant's `civil_from_days`).
pub(super) fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted - era * 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patients_have_several_dated_studies_whose_findings_hold_together() {
        let places = places(3, 400);
        assert_eq!(places.len(), 400);
        assert!(
            places.iter().any(|p| p.number == 3) && places.iter().filter(|p| p.number == 0).count() > 120
        );
        let (mut kept, mut gone, mut lateral) = (0, 0, 0);
        for pair in places.windows(2).filter(|pair| pair[1].number > 0) {
            let (before, after) = (course(3, pair[0]), course(3, pair[1]));
            assert_eq!((after.prior, after.sex), (Some(before.day), before.sex));
            assert!(after.day > before.day && after.age >= before.age);
            for sign in &before.signs {
                let still = !is_gone(sign, &after.signs);
                kept += usize::from(still);
                gone += usize::from(!still);
                assert_eq!(after.resolved.contains(&sign.finding), !still);
            }
        }
        assert!(kept > 2 * gone && gone > 20, "{kept} stay, {gone} go");
        for place in &places {
            for shot in course(3, *place).shots.iter().filter(|s| s.anatomy.view == View::Lateral) {
                lateral += 1;
                let unsided = |f: &Finding| !matches!(f, Finding::Effusion { side: Some(_), .. });
                assert!(shot.signs.iter().all(|s| unsided(&s.finding)));
            }
        }
        assert!(lateral > 150, "{lateral}");
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(FIRST_DAY), (2015, 1, 1));
        assert_eq!(civil(FIRST_DAY + 58), (2015, 2, 28));
        assert_eq!(civil(18_321), (2020, 2, 29));
    }
}
