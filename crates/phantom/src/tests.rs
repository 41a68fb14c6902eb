//! What a user may rely on: cases never change, findings are visible where their labels say, and
//! labels are varied enough to be told apart.

use std::collections::{BTreeMap, BTreeSet};

use image::GrayImage;

use crate::*;

/// Every finding that frontal pictures can show.
fn frontal_findings() -> Vec<Finding> {
    let mut all = Vec::new();
    for amount in [Amount::Small, Amount::Moderate, Amount::Large] {
        all.extend(
            [Sides::Left, Sides::Right, Sides::Both].map(|s| Finding::Effusion { side: Some(s), amount }),
        );
    }
    all.extend(
        [Severity::Mild, Severity::Moderate, Severity::Severe]
            .map(|severity| Finding::Cardiomegaly { severity }),
    );
    all.extend([Line::Endotracheal, Line::Nasogastric].map(Finding::Line));
    for side in Side::ALL {
        all.extend([Size::Small, Size::Large].map(|size| Finding::Pneumothorax { side, size }));
        all.extend(
            [Line::CentralVenous(side), Line::Pacemaker(side), Line::ChestTube(side)].map(Finding::Line),
        );
        for zone in Zone::ALL {
            all.push(Finding::Fracture { side, zone });
            all.extend([Density::Mild, Density::Dense].map(|density| Finding::Consolidation {
                side: Some(side),
                zone,
                density,
            }));
            all.extend([Size::Small, Size::Large].map(|size| Finding::Nodule {
                side: Some(side),
                zone,
                size,
            }));
        }
    }
    all
}

/// Every finding that lateral pictures can show.
fn lateral_findings() -> Vec<Finding> {
    let mut all: Vec<Finding> = [Amount::Small, Amount::Moderate, Amount::Large]
        .map(|amount| Finding::Effusion { side: None, amount })
        .to_vec();
    for zone in Zone::ALL {
        all.extend([Density::Mild, Density::Dense].map(|density| Finding::Consolidation {
            side: None,
            zone,
            density,
        }));
        all.extend([Size::Small, Size::Large].map(|size| Finding::Nodule { side: None, zone, size }));
    }
    all
}

fn anatomies(lateral: bool) -> impl Iterator<Item = Anatomy> {
    (0..)
        .map(|i| scene(21, i).0)
        .filter(move |a| (a.view() == View::Lateral) == lateral && a.traits().is_empty())
}

/// Differences in grey levels after adding a finding, at 64 pixels.
fn difference(anatomy: &Anatomy, finding: Finding) -> Vec<f32> {
    let without = render(anatomy, &[], 64);
    let with = render(anatomy, &[Sign::typical(finding)], 64);
    with.as_raw().iter().zip(without.as_raw()).map(|(a, b)| f32::from(*a) - f32::from(*b)).collect()
}

fn total(difference: &[f32]) -> f32 {
    difference.iter().map(|d| d.abs()).sum()
}

/// Mean over the squares of 4 x 4 pixels of a 64-pixel picture.
fn squares(values: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; 256];
    for (i, v) in values.iter().enumerate() {
        out[i / 256 * 16 + i % 64 / 4] += v / 16.0;
    }
    out
}

#[test]
fn a_case_is_the_same_every_time_and_different_from_others() {
    assert_eq!(case(7, 3), case(7, 3));
    assert_ne!(case(7, 3).image, case(7, 4).image);
    assert_ne!(case(7, 3).image, case(8, 3).image);
    let small = case_sized(7, 3, 64);
    let large = case(7, 3);
    assert_eq!((small.image.dimensions(), large.image.dimensions()), ((64, 64), (256, 256)));
    assert_eq!(Case { image: GrayImage::new(1, 1), ..small }, Case { image: GrayImage::new(1, 1), ..large });
}

/// Reports are stored, trained on and quoted: a change must be seen and wanted.
#[test]
fn known_cases_keep_their_words() {
    let said: Vec<String> = [0, 1, 20, 123_456].map(|i| case_sized(1, i, 16).report).to_vec();
    assert_eq!(
        said,
        [
            "FINDINGS: AP chest, portable. Scoliotic spine, convex right. A small amount of left pleural fluid. Large nodule in the left upper zone. No pneumothorax on either side. No focal consolidation. IMPRESSION: Small left pleural effusion. Left upper nodule, large.",
            "FINDINGS: Supine AP view. No discrete nodule. Small effusion layers at the left base. Hazy airspace opacity in the left mid zone. IMPRESSION: Left pleural effusion, small. Faint left mid infiltrate.",
            "FINDINGS: PA view. Cardiomediastinal silhouette is normal. No airspace disease. IMPRESSION: Normal study.",
            "FINDINGS: Bedside AP film. Central venous catheter from the right. Small effusions at both bases. No pneumothorax on either side. No acute fracture is seen. IMPRESSION: Right central line. Small effusions on both sides.",
        ]
    );
    assert_eq!(case_sized(1, 123_456, 16).key, "phantom-123456");
}

#[test]
fn every_finding_is_visible_at_64_pixels() {
    let frontal = frontal_findings().into_iter().map(|f| (f, false));
    let lateral = lateral_findings().into_iter().map(|f| (f, true));
    for (finding, is_lateral) in frontal.chain(lateral) {
        for anatomy in anatomies(is_lateral).take(6) {
            let strongest =
                squares(&difference(&anatomy, finding)).into_iter().fold(0.0, |m: f32, v| m.max(v.abs()));
            assert!(strongest > 10.0, "{}: {strongest} grey levels in the strongest square", finding.label());
        }
    }
}

#[test]
fn a_finding_changes_the_side_it_is_on() {
    for finding in frontal_findings() {
        let label = finding.label();
        // The left of the patient is the right half of the picture. Lines cross the midline, and air
        // or fluid that pushes the heart changes both sides.
        let pushes = matches!(
            finding,
            Finding::Line(_)
                | Finding::Effusion { amount: Amount::Large, .. }
                | Finding::Pneumothorax { size: Size::Large, .. }
        );
        let left = label.contains(".left");
        if pushes || !(left || label.contains(".right")) {
            continue;
        }
        for anatomy in anatomies(false).take(4) {
            let d = difference(&anatomy, finding);
            let on = |half: usize| {
                d.iter().enumerate().filter(|(i, _)| i % 64 / 32 == half).map(|(_, v)| v.abs()).sum::<f32>()
            };
            let (own, other) = if left { (on(1), on(0)) } else { (on(0), on(1)) };
            assert!(own > 20.0 * other, "{label}: {own} on its side, {other} on the other");
        }
    }
}

#[test]
fn fluid_and_opacities_are_brighter_and_air_is_darker() {
    let anatomy = anatomies(false).next().expect("one is frontal");
    for finding in frontal_findings() {
        let sum: f32 = difference(&anatomy, finding).iter().sum();
        match finding {
            Finding::Pneumothorax { size: Size::Small, .. } => {
                assert!(sum < 0.0, "{}: {sum}", finding.label())
            }
            Finding::Pneumothorax { .. } | Finding::Fracture { .. } => {}
            _ => assert!(sum > 0.0, "{}: {sum}", finding.label()),
        }
    }
}

#[test]
fn a_higher_degree_changes_more() {
    for anatomy in anatomies(false).take(4) {
        let change = |finding| total(&difference(&anatomy, finding));
        let side = Some(Sides::Left);
        let fluid = [Amount::Small, Amount::Moderate, Amount::Large]
            .map(|amount| change(Finding::Effusion { side, amount }));
        let heart = [Severity::Mild, Severity::Moderate, Severity::Severe]
            .map(|severity| change(Finding::Cardiomegaly { severity }));
        for [low, mid, high] in [fluid, heart] {
            assert!(mid > 1.25 * low && high > 1.25 * mid, "{low} {mid} {high}");
        }
        let side = Some(Side::Right);
        for zone in Zone::ALL {
            let nodule = [Size::Small, Size::Large].map(|size| change(Finding::Nodule { side, zone, size }));
            let patch = [Density::Mild, Density::Dense]
                .map(|density| change(Finding::Consolidation { side, zone, density }));
            for [low, high] in [nodule, patch] {
                assert!(high > 1.4 * low, "{zone:?}: {low} {high}");
            }
        }
    }
}

#[test]
fn zones_lie_above_each_other() {
    let anatomy = anatomies(false).next().expect("one is frontal");
    let height = |zone| {
        let d = difference(&anatomy, Finding::Nodule { side: Some(Side::Left), zone, size: Size::Small });
        d.iter().enumerate().map(|(i, v)| (i / 64) as f32 * v.abs()).sum::<f32>() / total(&d)
    };
    let [upper, mid, lower] = Zone::ALL.map(height);
    assert!(upper + 8.0 < mid && mid + 8.0 < lower, "{upper} {mid} {lower}");
}

/// Training renders small pictures directly; users scale large ones down.
#[test]
fn a_small_picture_is_a_large_one_scaled_down() {
    for index in 0..12 {
        let (small, large) = (case_sized(3, index, 64).image, case(3, index).image);
        let mut off = 0.0;
        for (x, y, pixel) in small.enumerate_pixels() {
            let sum: u32 =
                (0..16).map(|i| u32::from(large.get_pixel(4 * x + i % 4, 4 * y + i / 4).0[0])).sum();
            off += (sum as f32 / 16.0 - f32::from(pixel.0[0])).abs() / 4096.0;
        }
        assert!(off < 2.5, "case {index} differs by {off} grey levels on average");
    }
}

#[test]
fn labels_are_varied_and_all_occur() {
    const CASES: u64 = 30_000;
    let mut sets: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    for index in 0..CASES {
        let findings: Vec<Finding> = scene(11, index).1.iter().map(|s| s.finding).collect();
        assert!(findings.len() <= 3);
        *sets.entry(finding::labels(&findings)).or_default() += 1;
    }
    let share = |n: u64| n as f64 / CASES as f64;
    let none = share(sets[&vec!["none".to_owned()]]);
    assert!((0.09..0.11).contains(&none), "{none} are normal");
    let chance: f64 = sets.values().map(|&n| share(n) * share(n)).sum();
    assert!(chance < 0.02, "two cases share all labels with probability {chance}");
    let seen: BTreeSet<&str> = sets.keys().flatten().map(String::as_str).collect();
    for finding in frontal_findings().into_iter().chain(lateral_findings()) {
        assert!(seen.contains(finding.label().as_str()), "{} never occurs", finding.label());
    }
    assert_eq!(seen.len(), frontal_findings().len() + lateral_findings().len() + 1);
    println!("{} label sets, chance of equal sets {chance:.4}", sets.len());
}

#[test]
fn views_sexes_and_traits_all_occur() {
    let mut seen = BTreeSet::new();
    for index in 0..2000 {
        let anatomy = scene(13, index).0;
        seen.insert(anatomy.view().as_str().to_owned());
        seen.insert(anatomy.sex().as_str().to_owned());
        seen.extend(anatomy.traits().into_iter().map(Trait::label));
        assert!((20..=90).contains(&anatomy.age()));
    }
    assert_eq!(seen.len(), 3 + 2 + 10, "{seen:?}");
}

#[test]
#[should_panic(expected = "outside 16..=2048")]
fn absurd_sizes_are_refused() {
    let _ = case_sized(1, 1, 1_000_000);
}
