//! Search by label on things small enough to work out by hand, and on random ones.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::random::Random;
use crate::tests::{at, random_embeddings};

const PLAIN: LabelOptions<'_> =
    LabelOptions { bootstrap: Bootstrap { resamples: 0, seed: 1 }, depths: &[1, 2], exclude_group: true };

fn things<'a>(
    embeddings: &'a [Embedding],
    owners: &'a [u32],
    labels: &'a [Vec<u32>],
    groups: &'a [u32],
) -> Things<'a> {
    Things { embeddings, owners, labels, sets: labels, groups }
}

#[test]
fn precision_is_that_worked_out_by_hand() {
    // Study 0 has two images: study 1 meets the first, study 2 the second, and study 3 both half way.
    let embeddings = [at(0.0), at(80.0), at(10.0), at(75.0), at(40.0)];
    let owners = [0, 0, 1, 2, 3];
    let labels = [vec![0], vec![1], vec![0, 1], vec![0]];
    let groups = [0, 1, 2, 3];
    let all = things(&embeddings, &owners, &labels, &groups);
    let found = label_search(&all, &all, 2, &PLAIN).unwrap();
    assert_eq!((found.queries, found.gallery, found.groups), (4, 4, 4));
    let [zero, one] = &found.labels[..] else { panic!("two labels") };
    assert_eq!((zero.queries, zero.positives, one.queries, one.positives), (3, 3, 2, 2));
    let values = |row: &LabelPrecision| row.precision.iter().map(|p| p.metric.value).collect::<Vec<_>>();
    // Study 0 finds 3 (40 and 40 degrees), then 1 (10 and 70); study 2 finds 0, then 3; study 3 finds 1, then 2.
    assert_eq!(values(zero), [2.0 / 3.0, (0.5 + 1.0 + 0.5) / 3.0]);
    // Study 1 finds 0 (10), then 3 (30); study 2 finds no label 1.
    assert_eq!(values(one), [0.0, 0.0]);
    // Of the three others, two have label 0 for each that asks for it.
    assert!((zero.precision[0].metric.chance - 2.0 / 3.0).abs() < 1e-12);
    assert!((one.precision[0].metric.chance - 1.0 / 3.0).abs() < 1e-12);
    assert!((found.mean[0].metric.value - 1.0 / 3.0).abs() < 1e-12);
    assert!(found.ndcg.is_some());
}

#[test]
fn the_own_group_is_left_out_where_that_is_asked() {
    let embeddings = [at(0.0), at(1.0), at(50.0), at(60.0)];
    let owners = [0, 1, 2, 3];
    let labels = [vec![0], vec![0], vec![1], vec![0]];
    let all = things(&embeddings, &owners, &labels, &[0, 0, 1, 2]);
    let found = label_search(&all, &all, 2, &PLAIN).unwrap();
    // Studies 0 and 1 are of one patient and find study 2 first; study 3 finds 2 too.
    assert_eq!(found.labels[0].precision[0].metric.value, 0.0);
    assert_eq!(found.labels.len(), 1, "nothing else has label 1");
    let open = LabelOptions { exclude_group: false, ..PLAIN };
    let found = label_search(&all, &all, 2, &open).unwrap();
    assert_eq!(found.labels[0].precision[0].metric.value, 1.0, "each finds itself");
}

#[test]
fn ties_do_not_flatter_and_random_embeddings_are_at_chance() {
    let same = vec![at(10.0); 40];
    let owners: Vec<u32> = (0..40).collect();
    let labels: Vec<Vec<u32>> = (0..40).map(|n| vec![n % 4]).collect();
    let all = things(&same, &owners, &labels, &owners);
    let tied = label_search(&all, &all, 4, &PLAIN).unwrap();
    assert!(tied.mean.iter().all(|depth| depth.metric.value == 0.0), "{tied:?}");
    let mut random = Random::new(3, 0);
    let (mut value, mut shuffled, mut chance) = (0.0, 0.0, 0.0);
    for run in 0..60 {
        let embeddings = random_embeddings(120, 12, run);
        let owners: Vec<u32> = (0..120).collect();
        let labels: Vec<Vec<u32>> = (0..120).map(|_| vec![random.below(3) as u32]).collect();
        let all = things(&embeddings, &owners, &labels, &owners);
        let found = label_search(&all, &all, 3, &LabelOptions { depths: &[5], ..PLAIN }).unwrap();
        value += found.mean[0].metric.value / 60.0;
        shuffled += found.mean[0].shuffled.unwrap() / 60.0;
        chance += found.mean[0].metric.chance / 60.0;
        let ndcg = found.ndcg.unwrap();
        assert!((ndcg.shuffled.unwrap() - ndcg.metric.chance).abs() < 0.05);
    }
    assert!((value - chance).abs() < 0.01 && (shuffled - chance).abs() < 0.01, "{value} {shuffled} {chance}");
}

#[test]
fn intervals_hold_the_value_and_perfect_search_is_one() {
    let mut embeddings = Vec::new();
    let mut labels = Vec::new();
    for n in 0..30u32 {
        embeddings.push(at(f32::from(n as u8 % 3) * 40.0 + n as f32 * 0.1));
        labels.push(vec![n % 3]);
    }
    let owners: Vec<u32> = (0..30).collect();
    let all = things(&embeddings, &owners, &labels, &owners);
    let options = LabelOptions { bootstrap: Bootstrap { resamples: 200, seed: 1 }, ..PLAIN };
    let found = label_search(&all, &all, 3, &options).unwrap();
    for depth in &found.mean {
        let interval = depth.metric.interval.unwrap();
        assert_eq!((depth.metric.value, interval.low, interval.high), (1.0, 1.0, 1.0));
        assert!(depth.shuffled.unwrap() < 0.5);
    }
    assert_eq!(found.ndcg.unwrap().metric.value, 1.0);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let embeddings = [at(0.0), at(1.0)];
    let search = |owners: &[u32], labels: &[Vec<u32>], groups: &[u32]| {
        let all = things(&embeddings, owners, labels, groups);
        label_search(&all, &all, 2, &PLAIN).map(|found| found.queries)
    };
    assert_eq!(search(&[0, 1], &[vec![0], vec![0]], &[0, 1]), Ok(2));
    assert!(matches!(search(&[0, 0], &[vec![0], vec![0]], &[0, 1]), Err(EvalError::Lengths { .. })));
    assert!(matches!(search(&[1, 0], &[vec![0], vec![0]], &[0, 1]), Err(EvalError::Lengths { .. })));
    assert!(matches!(search(&[0, 1], &[vec![7], vec![0]], &[0, 1]), Err(EvalError::Reference { .. })));
    assert_eq!(
        search(&[0, 1], &[vec![0], vec![1]], &[0, 1]),
        Err(EvalError::NoPairs { queries: 2, gallery: 2 })
    );
    let empty = things(&[], &[], &[], &[]);
    assert_eq!(label_search(&empty, &empty, 1, &PLAIN), Err(EvalError::Empty { side: "queries" }));
}
