//! What must hold of every objective, whatever its equation: order, neutral pairs, degenerate batches.

#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn a_model_that_knows_nothing_loses_the_logarithm_of_the_choices() {
    let mut b = batch(8, 1, &[], 5);
    for rows in [&mut b.images, &mut b.texts, &mut b.second_images, &mut b.key_images, &mut b.key_texts] {
        rows.fill(1.0);
    }
    b.image_queue.fill(0.5);
    b.text_queue.fill(0.5);
    b.image_queue_ids = vec![900; 6];
    b.text_queue_ids = vec![900; 7];
    let cases = [
        (Objective::InfoNce(InfoNce::default()), 8f64.ln()),
        (Objective::Convirt(Convirt::default()), 8f64.ln()),
        (Objective::SoftTargets(SoftTargets::default()), 8f64.ln()),
        (Objective::SimClr(SimClr::default()), 15f64.ln()),
        (Objective::Moco(Moco::default()), 7f64.ln()),
        (Objective::MocoCross(MocoCross::default()), (15f64.ln() + 14f64.ln()) / 2.0),
        (Objective::Vse0(Triplet::default()), 14.0 * 0.2),
        (Objective::VsePlusPlus(Triplet::default()), 2.0 * 0.2),
        (Objective::Distance(Distance { uniformity: 1.0 }), 0.0),
    ];
    for (objective, expected) in cases {
        let found = value(&objective, &b);
        assert!((found - expected).abs() < 1e-5, "{objective:?}: {found} instead of {expected}");
    }
    let fresh = Siglip { temperature: 0.1, bias: 0.0 };
    // Cosine 1 at t = 10: the positives are answered well, each of the 7 negatives costs 10.
    let found = value(&Objective::Siglip(fresh), &b);
    assert!((found - (70.0 + 8.0 * (-10f64).exp().ln_1p())).abs() < 1e-4, "{found}");
}

/// The batch with images and texts in another order.
fn permuted(b: &Batch, images: &[usize], texts: &[usize]) -> Batch {
    let rows = |of: &[f64], order: &[usize]| -> Vec<f64> {
        order.iter().flat_map(|&i| reference::row(of, i, b.dim)).copied().collect()
    };
    let cells = || images.iter().flat_map(|&i| texts.iter().map(move |&j| i * b.m() + j));
    Batch {
        images: rows(&b.images, images),
        second_images: rows(&b.second_images, images),
        key_images: rows(&b.key_images, images),
        image_ids: images.iter().map(|&i| b.image_ids[i]).collect(),
        texts: rows(&b.texts, texts),
        second_texts: rows(&b.second_texts, texts),
        key_texts: rows(&b.key_texts, texts),
        text_ids: texts.iter().map(|&j| b.text_ids[j]).collect(),
        relation: cells().map(|at| b.relation[at]).collect(),
        label_similarity: cells().map(|at| b.label_similarity[at]).collect(),
        ..b.clone()
    }
}

#[test]
fn the_order_of_a_batch_does_not_matter() {
    let b = batch(5, 2, &[(0, 3)], 6);
    let (images, texts) = ([3, 0, 4, 1, 2], [9, 2, 5, 0, 7, 1, 3, 8, 6, 4]);
    let other = permuted(&b, &images, &texts);
    for objective in objectives() {
        let (before, after) = (evaluate(&objective, &b), evaluate(&objective, &other));
        assert!((before.loss - after.loss).abs() < 1e-5, "{objective:?}");
        let same = |before: &[f32], after: &[f32], order: &[usize]| {
            order
                .iter()
                .zip(after.chunks(4))
                .all(|(&i, after)| before[i * 4..][..4].iter().zip(after).all(|(b, a)| (b - a).abs() < 1e-5))
        };
        assert!(same(&before.images, &after.images, &images), "{objective:?}");
        assert!(same(&before.texts, &after.texts, &texts), "{objective:?}");
        assert!(same(&before.second_images, &after.second_images, &images), "{objective:?}");
        assert!(same(&before.second_texts, &after.second_texts, &texts), "{objective:?}");
    }
}

#[test]
fn a_text_that_is_neutral_to_all_is_not_there() {
    let with = {
        let mut b = batch(5, 2, &[], 7);
        for i in 0..5 {
            b.relation[i * 10 + 9] = Relation::Neutral;
        }
        b
    };
    let within = |objective: &Objective| match objective {
        // Within a modality a text without an image is a stranger like any other.
        Objective::SimClr(o) => o.texts,
        Objective::Moco(o) => o.texts,
        Objective::Distance(o) => o.uniformity > 0.0,
        _ => false,
    };
    let images: Vec<usize> = (0..5).collect();
    let without = permuted(&with, &images, &(0..9).collect::<Vec<_>>());
    for objective in objectives().into_iter().filter(|o| !within(o)) {
        let (with, without) = (evaluate(&objective, &with), evaluate(&objective, &without));
        assert!((with.loss - without.loss).abs() < 1e-6, "{objective:?}");
        assert!(with.texts[36..].iter().all(|d| *d == 0.0), "{objective:?}");
        assert!(with.images.iter().zip(&without.images).all(|(a, b)| (a - b).abs() < 1e-6), "{objective:?}");
        assert!(with.texts.iter().zip(&without.texts).all(|(a, b)| (a - b).abs() < 1e-6), "{objective:?}");
    }
}

#[test]
fn rows_of_a_queue_that_show_the_query_are_no_negatives() {
    // One image with id 2 and its text with id 102, before queues of nothing else.
    let without = permuted(&without_queues(batch(4, 1, &[], 8)), &[2], &[2]);
    let with = permuted(&batch(4, 1, &[], 8), &[2], &[2]);
    let within = Objective::Moco(Moco { texts: true, ..Moco::default() });
    let across = Objective::MocoCross(MocoCross::default());
    let own = Batch { image_queue_ids: vec![2; 6], text_queue_ids: vec![102; 7], ..with.clone() };
    assert_eq!(evaluate(&within, &own), evaluate(&within, &without));
    assert_eq!(evaluate(&across, &own), evaluate(&across, &without));
    // The partner's id counts across modalities alone.
    let partner = Batch { image_queue_ids: vec![102; 6], text_queue_ids: vec![2; 7], ..with };
    assert_eq!(evaluate(&across, &partner), evaluate(&across, &without));
    assert!(value(&within, &partner) > value(&within, &without) + 0.1);
}

fn without_queues(b: Batch) -> Batch {
    let none = (Vec::new(), Vec::new());
    let ((image_queue, image_queue_ids), (text_queue, text_queue_ids)) = (none.clone(), none);
    Batch { image_queue, image_queue_ids, text_queue, text_queue_ids, ..b }
}

#[test]
fn a_batch_without_negatives_teaches_nothing_by_contrast() {
    let b = without_queues(batch(1, 1, &[], 9));
    for objective in objectives() {
        let found = evaluate(&objective, &b);
        let finite = found.images.iter().chain(&found.texts).chain(&found.scalars).all(|d| d.is_finite());
        assert!(found.loss.is_finite() && finite, "{objective:?}");
        let pulls = matches!(objective, Objective::Siglip(_) | Objective::Distance(_));
        assert!(pulls || found.loss.abs() < 1e-6, "{objective:?}: {}", found.loss);
        assert!(pulls || found.images.iter().chain(&found.texts).all(|d| d.abs() < 1e-6), "{objective:?}");
    }
}

#[test]
fn a_batch_without_positives_is_finite() {
    let mut b = batch(4, 1, &[], 9);
    for relation in [Relation::Neutral, Relation::Negative] {
        b.relation.fill(relation);
        for objective in objectives() {
            let found = evaluate(&objective, &b);
            let finite = found.images.iter().chain(&found.texts).chain(&found.scalars).all(|d| d.is_finite());
            assert!(found.loss.is_finite() && finite, "{objective:?} on {relation:?}");
        }
    }
}

#[test]
fn a_row_without_direction_shows_as_not_a_number() {
    for row in 0..3 {
        let mut b = batch(4, 1, &[], 10);
        b.images[row * 4..][..4].fill(0.0);
        for objective in objectives() {
            let found = evaluate(&objective, &b);
            let shows = found.loss.is_nan() || found.images.iter().chain(&found.texts).any(|d| d.is_nan());
            // Deep CCA does not look at directions: a row of zeros is as good as any.
            assert!(shows != matches!(objective, Objective::Dcca(_)), "{objective:?}");
        }
    }
}

#[test]
fn sharp_temperatures_do_not_overflow() {
    let mut b = batch(6, 1, &[], 12);
    // Every image is the opposite of its text and equals another one's.
    for i in 0..6 {
        let text = reference::row(&b.texts, i, 4).to_vec();
        b.images[i * 4..][..4].iter_mut().zip(&text).for_each(|(x, t)| *x = -t);
    }
    let objective = Objective::InfoNce(InfoNce { temperature: 0.01, learn_temperature: true });
    let found = objective.evaluate(&Single::new(&b).views(), &[LOGIT_SCALE_MAX]).unwrap();
    let expected = loss(&objective, &b, &[100f64.ln()]);
    assert!((f64::from(found.loss) - expected).abs() < 1e-4 * expected, "{} {expected}", found.loss);
    assert!(found.images.iter().all(|d| d.is_finite()) && expected > 100.0);
}
