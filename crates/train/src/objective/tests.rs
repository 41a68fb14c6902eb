//! Every objective against the equations, against finite differences, and against what must hold of it.

#![allow(clippy::unwrap_used)]

mod measurement;
mod properties;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::reference::{Batch, loss};
use super::*;
use crate::params::normal;

/// Every objective that has a gradient, in more than one setting.
fn objectives() -> Vec<Objective> {
    let simclr = |images, texts, learn_temperature| {
        Objective::SimClr(SimClr { temperature: 0.3, learn_temperature, images, texts })
    };
    let moco = |images, texts, learn_temperature| {
        Objective::Moco(Moco { temperature: 0.2, learn_temperature, images, texts, ..Moco::default() })
    };
    let dcca = |dims| Objective::Dcca(Dcca { dims, image_regularization: 0.1, text_regularization: 0.03 });
    vec![
        Objective::InfoNce(InfoNce { temperature: 0.3, learn_temperature: true }),
        Objective::InfoNce(InfoNce { temperature: 0.5, learn_temperature: false }),
        Objective::Siglip(Siglip { temperature: 0.2, bias: -1.0 }),
        Objective::Convirt(Convirt { temperature: 0.4, ..Convirt::default() }),
        Objective::Convirt(Convirt { lambda: 0.3, temperature: 0.4, learn_temperature: true }),
        Objective::SoftTargets(SoftTargets {
            temperature: 0.3,
            target_temperature: 0.4,
            ..Default::default()
        }),
        Objective::Vse0(Triplet { margin: 0.4 }),
        Objective::VsePlusPlus(Triplet { margin: 0.4 }),
        simclr(true, false, false),
        simclr(true, true, true),
        moco(true, false, false),
        moco(true, true, true),
        Objective::MocoCross(MocoCross { temperature: 0.3, ..MocoCross::default() }),
        dcca(4),
        dcca(2),
        Objective::Distance(Distance { uniformity: 0.0 }),
        Objective::Distance(Distance { uniformity: 0.7 }),
    ]
}

/// n images with `texts_each` positive texts; image a takes the text of image b as neutral for all
/// `duplicates` (a, b), and the other way round.
fn batch(n: usize, texts_each: usize, duplicates: &[(usize, usize)], seed: u64) -> Batch {
    let dim = 4;
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let m = n * texts_each;
    let owner = |j: usize| j / texts_each;
    let relation = (0..n * m)
        .map(|at| match (at / m, owner(at % m)) {
            (i, o) if i == o => Relation::Positive,
            (i, o) if duplicates.contains(&(i, o)) || duplicates.contains(&(o, i)) => Relation::Neutral,
            _ => Relation::Negative,
        })
        .collect();
    let mut rows = |count: usize| -> Vec<f64> {
        // Rounded, so that single precision holds the very same numbers.
        (0..count * dim).map(|_| f64::from(normal(rng))).collect()
    };
    let unit = |rows: Vec<f64>| -> Vec<f64> {
        let length = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
        rows.chunks(dim).flat_map(|row| row.iter().map(|x| f64::from((x / length(row)) as f32))).collect()
    };
    let (images, texts) = (rows(n), rows(m));
    let (second_images, second_texts, key_images, key_texts) = (rows(n), rows(m), rows(n), rows(m));
    let (image_queue, text_queue) = (unit(rows(6)), unit(rows(7)));
    let label_similarity = (0..n * m).map(|_| f64::from(rng.random::<f32>())).collect();
    Batch {
        dim,
        images,
        texts,
        relation,
        second_images,
        second_texts,
        key_images,
        key_texts,
        image_ids: (0..n as u64).collect(),
        text_ids: (0..m as u64).map(|j| 100 + j).collect(),
        image_queue,
        // Some are those of an image of the batch, or of its text, some of neither.
        image_queue_ids: vec![1, 50, 100, 51, 1, 52],
        text_queue,
        text_queue_ids: vec![101, 60, 61, 0, 62, 101, 63],
        label_similarity,
    }
}

/// Batches of every shape that matters.
fn batches() -> Vec<Batch> {
    let mut shared = batch(6, 1, &[(1, 4)], 3);
    // Several images of one text, and an image without a text.
    shared.relation[2 * 6 + 5] = Relation::Positive;
    shared.relation[3 * 6 + 5] = Relation::Positive;
    shared.relation[0] = Relation::Neutral;
    vec![batch(7, 1, &[], 1), batch(5, 2, &[(0, 3), (2, 4)], 2), shared, batch(1, 3, &[], 4)]
}

/// A batch in single precision.
struct Single {
    dim: usize,
    rows: [Vec<f32>; 9],
    of: Batch,
}

impl Single {
    fn new(b: &Batch) -> Self {
        let single = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
        let rows = [
            &b.images,
            &b.texts,
            &b.second_images,
            &b.second_texts,
            &b.key_images,
            &b.key_texts,
            &b.image_queue,
            &b.text_queue,
            &b.label_similarity,
        ];
        Self { dim: b.dim, rows: rows.map(|values| single(values)), of: b.clone() }
    }

    fn views(&self) -> Views<'_> {
        let [
            images,
            texts,
            second_images,
            second_texts,
            key_images,
            key_texts,
            image_queue,
            text_queue,
            label_similarity,
        ] = &self.rows;
        Views {
            second_images,
            second_texts,
            key_images,
            key_texts,
            image_ids: &self.of.image_ids,
            text_ids: &self.of.text_ids,
            image_queue: Queued { rows: image_queue, ids: &self.of.image_queue_ids },
            text_queue: Queued { rows: text_queue, ids: &self.of.text_queue_ids },
            label_similarity,
            ..Views::pairs(self.dim, images, texts, &self.of.relation)
        }
    }
}

fn start(objective: &Objective) -> Vec<f32> {
    objective.scalars().iter().map(|s| s.start).collect()
}

fn evaluate(objective: &Objective, b: &Batch) -> Gradients {
    objective.evaluate(&Single::new(b).views(), &start(objective)).unwrap()
}

fn value(objective: &Objective, b: &Batch) -> f64 {
    f64::from(evaluate(objective, b).loss)
}

#[test]
fn losses_are_the_equations() {
    for objective in objectives() {
        let scalars: Vec<f64> = start(&objective).iter().map(|&s| f64::from(s)).collect();
        for b in batches() {
            let (found, expected) = (value(&objective, &b), loss(&objective, &b, &scalars));
            let tolerance = 1e-5 * expected.abs().max(1.0);
            assert!((found - expected).abs() < tolerance, "{objective:?}: {found} instead of {expected}");
        }
    }
}

/// Mutable access to one kind of row.
type Field = fn(&mut Batch) -> &mut Vec<f64>;

#[test]
fn gradients_match_finite_differences_of_the_equations() {
    let step = 1e-5;
    let close = |slope: f64, found: f32| (slope - f64::from(found)).abs() < 1e-5 * slope.abs().max(1.0);
    for objective in objectives() {
        let start: Vec<f64> = start(&objective).iter().map(|&s| f64::from(s)).collect();
        for (which, b) in batches().into_iter().enumerate() {
            let found = evaluate(&objective, &b);
            let fields: [(&str, Field, &[f32]); 4] = [
                ("image", |b| &mut b.images, &found.images),
                ("text", |b| &mut b.texts, &found.texts),
                ("second image", |b| &mut b.second_images, &found.second_images),
                ("second text", |b| &mut b.second_texts, &found.second_texts),
            ];
            for (name, field, gradient) in fields {
                assert_eq!(gradient.len(), field(&mut b.clone()).len());
                for (at, &found) in gradient.iter().enumerate() {
                    let moved = |by: f64| {
                        let mut b = b.clone();
                        field(&mut b)[at] += by;
                        loss(&objective, &b, &start)
                    };
                    let slope = (moved(step) - moved(-step)) / (2.0 * step);
                    assert!(
                        close(slope, found),
                        "{objective:?}, batch {which}, {name} value {at}: {found}, not {slope}"
                    );
                }
            }
            for (at, &found) in found.scalars.iter().enumerate() {
                let moved = |by: f64| {
                    let mut scalars = start.clone();
                    scalars[at] += by;
                    loss(&objective, &b, &scalars)
                };
                let slope = (moved(step) - moved(-step)) / (2.0 * step);
                assert!(
                    close(slope, found),
                    "{objective:?}, batch {which}, scalar {at}: {found}, not {slope}"
                );
            }
        }
    }
}

#[test]
fn with_one_text_each_info_nce_is_that_of_clip() {
    let b = batch(7, 1, &[], 11);
    let cosine =
        |i, j| reference::cosine(reference::row(&b.images, i, b.dim), reference::row(&b.texts, j, b.dim));
    let logit = |i: usize, j: usize| cosine(i, j) / 0.3;
    let all = 0..7;
    let to_text = |i| all.clone().map(|j| logit(i, j).exp()).sum::<f64>().ln() - logit(i, i);
    let to_image = |j| all.clone().map(|i| logit(i, j).exp()).sum::<f64>().ln() - logit(j, j);
    let expected = all.clone().map(|i| to_text(i) + to_image(i)).sum::<f64>() / 14.0;
    let found = value(&Objective::InfoNce(InfoNce { temperature: 0.3, learn_temperature: true }), &b);
    assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
}

#[test]
fn recipes_name_objectives_and_misspelt_options_are_refused() {
    #[derive(Debug, Deserialize)]
    struct Recipe {
        objective: Vec<Term>,
        #[serde(default)]
        weighting: Weighting,
    }
    let kinds = objectives().into_iter().map(|o| o.kind()).chain(["cca"]);
    for kind in kinds {
        let text = format!("[[objective]]\nkind = \"{kind}\"\nweight = 2.5");
        let recipe: Recipe = toml::from_str(&text).unwrap();
        let term = &recipe.objective[0];
        assert_eq!((term.objective.kind(), term.weight), (kind, 2.5));
        assert_eq!(recipe.weighting, Weighting::Fixed);
        assert_eq!(term.objective.validate(), Ok(()));
        let again: Term = toml::from_str(&toml::to_string(term).unwrap()).unwrap();
        assert_eq!(&again, term);
        assert!(toml::from_str::<Recipe>(&format!("{text}\nmargn = 0.1")).is_err(), "{kind}");
    }
    let recipe: Recipe =
        toml::from_str("weighting = \"uncertainty\"\n[[objective]]\nkind = \"vse++\"\nmargin = 0.3").unwrap();
    assert_eq!(recipe.weighting, Weighting::Uncertainty);
    assert_eq!(recipe.objective[0].objective, Objective::VsePlusPlus(Triplet { margin: 0.3 }));
    assert_eq!(recipe.objective[0].weight, 1.0);
}

#[test]
fn options_and_batches_that_do_not_fit_are_refused() {
    let wrong = [
        Objective::InfoNce(InfoNce { temperature: 0.0, ..Default::default() }),
        Objective::Convirt(Convirt { lambda: 1.5, ..Default::default() }),
        Objective::Siglip(Siglip { bias: f32::NAN, ..Default::default() }),
        Objective::Vse0(Triplet { margin: 0.0 }),
        Objective::SimClr(SimClr { images: false, ..Default::default() }),
        Objective::Moco(Moco { momentum: 1.0, ..Default::default() }),
        Objective::MocoCross(MocoCross { queue: 0, ..Default::default() }),
        Objective::Cca(CcaOptions { dims: 0, ..Default::default() }),
        Objective::Dcca(Dcca { image_regularization: -1.0, ..Default::default() }),
    ];
    for objective in wrong {
        assert!(matches!(objective.validate(), Err(ObjectiveError::Option { .. })), "{objective:?}");
    }
    let single = Single::new(&batch(3, 1, &[], 1));
    let views = single.views();
    let info_nce = Objective::InfoNce(InfoNce::default());
    let shape = |views: Views<'_>, objective: &Objective| {
        matches!(objective.evaluate(&views, &start(objective)), Err(ObjectiveError::Shape { .. }))
    };
    assert!(shape(Views { relation: &views.relation[1..], ..views }, &info_nce));
    assert!(shape(Views { texts: &views.texts[1..], ..views }, &info_nce));
    assert!(shape(Views { second_images: &[], ..views }, &Objective::SimClr(SimClr::default())));
    assert!(shape(Views { image_ids: &[], ..views }, &Objective::Moco(Moco::default())));
    assert!(shape(Views { label_similarity: &[], ..views }, &Objective::SoftTargets(SoftTargets::default())));
    let empty = Views { images: &[], ..views };
    assert_eq!(info_nce.evaluate(&empty, &[1.0]), Err(ObjectiveError::Empty));
    assert_eq!(info_nce.evaluate(&views, &[]), Err(ObjectiveError::Scalars { expected: 1, found: 0 }));
    let cca = Objective::Cca(CcaOptions::default());
    assert_eq!(cca.evaluate(&views, &[]), Err(ObjectiveError::ClosedForm));
}
