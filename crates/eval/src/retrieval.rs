//! Retrieval in both directions, with the control beside it.
//!
//! The rank of a query is 1 plus the number of wrong items that score at least as high as its best
//! right item. Ties count against the model, so an encoder that maps everything to one point ranks
//! last, not first. Other right items never push a query down, as in the usual protocol for images
//! with five captions.

use std::collections::BTreeMap;

use crate::bootstrap::{Bootstrap, Interval, dense};
use crate::chance::median_rank_chance;
use crate::control::{Control, derange, shuffles};
use crate::labels::{self, LabelReport, LabelRow, Labelled};
use crate::pairs::{Pairs, Relation, Side};
use crate::scores::{map_rows, nearest};
use crate::{EvalError, LABEL_DEPTHS, Metric, average_precision_chance, chance_at, reciprocal_rank_chance};

/// Ranks up to which recall is reported one by one, in galleries that have as many items.
pub const CURVE_DEPTH: usize = 50;
/// Ranks at which recall is a metric of its own.
const RECALL_DEPTHS: [usize; 3] = [1, 5, 10];
/// Recall at three depths, reciprocal rank, average precision.
const VALUES: usize = RECALL_DEPTHS.len() + 2;

/// How to evaluate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How intervals are drawn. The seed is also that of the control.
    pub bootstrap: Bootstrap,
    /// Nearest items kept of each query.
    pub answers: usize,
    /// Whether to measure shuffled pairs too.
    pub control: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { bootstrap: Bootstrap::default(), answers: 5, control: true }
    }
}

/// Retrieval in both directions.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Texts as queries, images as gallery.
    pub text_to_image: Direction,
    /// Images as queries, texts as gallery.
    pub image_to_text: Direction,
    /// The same with shuffled pairs. `None` where there is only one cluster, or it was not asked for.
    pub control: Option<Box<Control>>,
}

/// Retrieval in one direction, over the queries that have a right item in the gallery.
#[derive(Debug, Clone, PartialEq)]
pub struct Direction {
    /// Queries counted: those with a right item.
    pub queries: usize,
    /// Items searched; equal texts are one.
    pub gallery: usize,
    /// Clusters that the queries come from: what intervals resample.
    pub clusters: usize,
    /// Share of queries of rank 1, in `[0, 1]`.
    pub recall_at_1: Metric,
    /// Share of queries of rank 5 or better.
    pub recall_at_5: Metric,
    /// Share of queries of rank 10 or better.
    pub recall_at_10: Metric,
    /// Mean reciprocal rank.
    pub mrr: Metric,
    /// Mean average precision over all right items of each query.
    pub mean_average_precision: Metric,
    /// Median rank, from 1; the mean of the middle two when their number is even.
    pub median_rank: Metric,
    /// What labels say; `None` without labels.
    pub labels: Option<LabelReport>,
    /// Recall at 1, 2, ... up to [`CURVE_DEPTH`] or the gallery.
    pub recall_curve: Vec<f64>,
    /// The same of a random order.
    pub chance_curve: Vec<f64>,
    /// Each query counted.
    pub outcomes: Vec<Outcome>,
}

/// What became of one query.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Its position among the queries' embeddings.
    pub query: u32,
    /// The rank of its best right item, from 1.
    pub rank: u32,
    /// Right items in the gallery.
    pub right: u32,
    /// Average precision over all of them.
    pub average_precision: f64,
    /// The nearest items, nearest first.
    pub answers: Vec<Answer>,
}

/// One of the nearest items.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// Its position in the gallery.
    pub item: u32,
    /// Cosine with the query.
    pub score: f32,
    /// Whether it is a right answer.
    pub right: bool,
}

impl Direction {
    /// Every metric by the name that tables and files give it, those of labels last.
    pub fn metrics(&self) -> Vec<(String, Metric)> {
        let mut metrics = vec![
            ("recall@1".to_owned(), self.recall_at_1),
            ("recall@5".to_owned(), self.recall_at_5),
            ("recall@10".to_owned(), self.recall_at_10),
            ("mrr".to_owned(), self.mrr),
            ("map".to_owned(), self.mean_average_precision),
            ("median_rank".to_owned(), self.median_rank),
        ];
        if let Some(labels) = &self.labels {
            metrics.push((format!("ndcg@{}", labels::NDCG_DEPTH), labels.ndcg));
            let depths = LABEL_DEPTHS.iter();
            let named = |name: &str, k: &usize, metric: &Metric| (format!("{name}@{k}"), *metric);
            metrics.extend(depths.clone().zip(&labels.exact).map(|(k, m)| named("label_precision", k, m)));
            metrics.extend(depths.zip(&labels.any).map(|(k, m)| named("any_label_precision", k, m)));
        }
        metrics
    }

    /// The same metrics in the same order, to be changed.
    pub(crate) fn metrics_mut(&mut self) -> Vec<&mut Metric> {
        let mut metrics = vec![
            &mut self.recall_at_1,
            &mut self.recall_at_5,
            &mut self.recall_at_10,
            &mut self.mrr,
            &mut self.mean_average_precision,
            &mut self.median_rank,
        ];
        if let Some(labels) = &mut self.labels {
            metrics.push(&mut labels.ndcg);
            metrics.extend(labels.exact.iter_mut().chain(&mut labels.any));
        }
        metrics
    }
}

/// Measures retrieval between images and texts, and again with shuffled pairs if asked to. Queries without a right
/// item are left out of the averages and stay in the other direction's gallery.
///
/// Computes twice `images * texts` inner products, on all cores.
///
/// # Errors
/// [`EvalError::NoPairs`] when no image meets a text.
pub fn evaluate(pairs: &Pairs<'_>, options: &Options) -> Result<Report, EvalError> {
    let (images, texts, clusters) = (&pairs.images, &pairs.texts, &pairs.clusters);
    let mut both = vec![views(pairs, options, |record| record)];
    let unpaired =
        Options { bootstrap: Bootstrap { resamples: 0, ..options.bootstrap }, answers: 0, ..*options };
    let shuffles =
        if options.control { shuffles(images.embeddings.len(), texts.embeddings.len()) } else { 0 };
    for shuffle in 0..shuffles as u64 {
        let shuffled = derange(clusters, options.bootstrap.seed.wrapping_add(shuffle));
        if shuffled.kept < clusters.len() {
            both.push(views(pairs, &unpaired, |record| shuffled.partners[record as usize]));
        }
    }
    let (to_images, to_texts): (Vec<View<'_>>, Vec<View<'_>>) = both.into_iter().unzip();
    let mut to_images = directions(texts, images, None, &to_images, clusters).into_iter();
    let mut to_texts =
        directions(images, texts, pairs.distinct_texts.as_deref(), &to_texts, clusters).into_iter();
    let mut paired = || Some([to_images.next()?, to_texts.next()?]);
    let [text_to_image, image_to_text] = paired().expect("the first view is of the pairs as they are");
    // Records of one side only may leave no pair when they are shuffled; such a shuffle says nothing.
    let (to_images, to_texts): (Vec<Direction>, Vec<Direction>) = std::iter::from_fn(paired)
        .filter_map(|[to_images, to_texts]| Some((to_images.ok()?, to_texts.ok()?)))
        .unzip();
    let control = Control::of(to_images, to_texts).map(Box::new);
    Ok(Report { text_to_image: text_to_image?, image_to_text: image_to_text?, control })
}

/// What is right in one direction.
struct View<'a> {
    relation: Relation,
    labels: Option<Labelled<'a>>,
    options: Options,
}

/// Text to image and image to text when the images of a record belong to the record that `owner`
/// gives.
fn views<'a>(pairs: &'a Pairs<'_>, options: &Options, owner: impl Fn(u32) -> u32) -> (View<'a>, View<'a>) {
    let options = *options;
    let (to_images, to_texts) = pairs.relations(&owner);
    let labelled = |turned: bool| {
        let (sets, of_records) = pairs.labels.as_ref()?;
        let images = pairs.images.records.iter().map(|&record| of_records[owner(record) as usize]).collect();
        let texts = pairs.texts.records.iter().map(|&record| of_records[record as usize]).collect();
        let (queries, items) = if turned { (images, texts) } else { (texts, images) };
        Some(Labelled::new(sets, queries, items))
    };
    (
        View { relation: to_images, labels: labelled(false), options },
        View { relation: to_texts, labels: labelled(true), options },
    )
}

/// Measures one direction under each view, from the same scores. `distinct` has the items that are
/// retrieved, where these are not all; labels are looked at of all.
fn directions(
    queries: &Side<'_>,
    gallery: &Side<'_>,
    distinct: Option<&[u32]>,
    views: &[View<'_>],
    clusters: &[u32],
) -> Vec<Result<Direction, EvalError>> {
    let mut rows = map_rows(queries.embeddings, gallery.embeddings, |query, scores| {
        let reduced: Option<Vec<f32>> =
            distinct.map(|items| items.iter().map(|&item| scores[item as usize]).collect());
        let each = views.iter().map(|view| {
            let labels = view.labels.as_ref().and_then(|labels| labels.row(query, scores));
            let retrieved = reduced.as_deref().unwrap_or(scores);
            let mut outcome = outcome(query, retrieved, &view.relation, view.options.answers);
            if let (Some(items), Some(outcome)) = (distinct, &mut outcome) {
                outcome.answers.iter_mut().for_each(|answer| answer.item = items[answer.item as usize]);
            }
            (outcome, labels)
        });
        each.collect::<Vec<_>>()
    });
    let cluster_of = |query: usize| clusters[queries.records[query] as usize];
    let size = distinct.map_or(gallery.embeddings.len(), <[u32]>::len);
    let each = views.iter().rev().map(|view| {
        let bootstrap = &view.options.bootstrap;
        let mut outcomes = Vec::with_capacity(rows.len());
        let mut label_rows: Vec<(u32, LabelRow)> = Vec::new();
        for (query, row) in rows.iter_mut().enumerate() {
            let (outcome, labels) = row.pop().expect("each row has an entry for each view");
            outcomes.extend(outcome);
            label_rows.extend(labels.map(|row| (cluster_of(query), row)));
        }
        if outcomes.is_empty() {
            return Err(EvalError::NoPairs { queries: queries.embeddings.len(), gallery: size });
        }
        let (clusters, count) = dense(outcomes.iter().map(|o| cluster_of(o.query as usize)));
        let labels = labels::report(&label_rows, bootstrap);
        Ok(summarise(outcomes, &clusters, count, labels, size, bootstrap))
    });
    let mut each: Vec<_> = each.collect();
    each.reverse();
    each
}

/// Averages over the queries; `clusters` has the cluster of each, numbered from 0.
fn summarise(
    outcomes: Vec<Outcome>,
    clusters: &[u32],
    cluster_count: usize,
    labels: Option<LabelReport>,
    gallery: usize,
    bootstrap: &Bootstrap,
) -> Direction {
    let counted = outcomes.len() as f64;
    let values: Vec<(u32, [f64; VALUES])> =
        clusters.iter().zip(&outcomes).map(|(&cluster, outcome)| (cluster, values(outcome))).collect();
    let intervals = bootstrap.means(cluster_count, &values);
    let mut by_right: BTreeMap<usize, usize> = BTreeMap::new();
    outcomes.iter().for_each(|o| *by_right.entry(o.right as usize).or_default() += 1);
    let by_right: Vec<(usize, usize)> = by_right.into_iter().collect();
    let chance = |of: &dyn Fn(usize) -> f64| {
        by_right.iter().map(|&(right, queries)| of(right) * queries as f64).sum::<f64>() / counted
    };
    let metric = |n: usize, chance: f64| Metric {
        value: values.iter().map(|v| v.1[n]).sum::<f64>() / counted,
        chance,
        interval: intervals[n],
    };
    let recall = |n: usize| metric(n, chance(&|right| chance_at(RECALL_DEPTHS[n], right, gallery)));
    let mut ranks: Vec<u32> = outcomes.iter().map(|o| o.rank).collect();
    ranks.sort_unstable();
    let depths = 1..=CURVE_DEPTH.min(gallery);
    let within = |k: usize| ranks.partition_point(|&rank| rank as usize <= k) as f64 / counted;
    Direction {
        queries: outcomes.len(),
        gallery,
        clusters: cluster_count,
        recall_at_1: recall(0),
        recall_at_5: recall(1),
        recall_at_10: recall(2),
        mrr: metric(3, chance(&|right| reciprocal_rank_chance(right, gallery))),
        mean_average_precision: metric(4, chance(&|right| average_precision_chance(right, gallery))),
        median_rank: Metric {
            value: f64::from(ranks[(ranks.len() - 1) / 2] + ranks[ranks.len() / 2]) / 2.0,
            chance: median_rank_chance(&by_right, gallery),
            interval: median_interval(&outcomes, clusters, cluster_count, bootstrap),
        },
        labels,
        recall_curve: depths.clone().map(within).collect(),
        chance_curve: depths.map(|k| chance(&|right| chance_at(k, right, gallery))).collect(),
        outcomes,
    }
}

fn values(outcome: &Outcome) -> [f64; VALUES] {
    let [first, second, third] = RECALL_DEPTHS.map(|k| f64::from(u8::from(outcome.rank as usize <= k)));
    [first, second, third, 1.0 / f64::from(outcome.rank), outcome.average_precision]
}

fn median_interval(
    outcomes: &[Outcome],
    clusters: &[u32],
    cluster_count: usize,
    bootstrap: &Bootstrap,
) -> Option<Interval> {
    let mut ranked: Vec<(u32, u32)> =
        outcomes.iter().zip(clusters).map(|(o, &cluster)| (o.rank, cluster)).collect();
    ranked.sort_unstable();
    bootstrap.intervals(cluster_count, 1, |times| {
        let drawn = |cluster: u32| u64::from(times[cluster as usize]);
        let total: u64 = ranked.iter().map(|&(_, cluster)| drawn(cluster)).sum();
        // The middle two, counted from 1; the same one when the number is odd.
        let (low, high) = (total.div_ceil(2), total / 2 + 1);
        let (mut passed, mut middle) = (0, 0.0);
        for &(rank, cluster) in &ranked {
            let before = passed;
            passed += drawn(cluster);
            middle +=
                [low, high].iter().filter(|&&m| before < m && m <= passed).count() as f64 * f64::from(rank);
        }
        vec![middle / 2.0]
    })[0]
}

/// What became of a query; `None` when it has no right item.
fn outcome(query: usize, scores: &[f32], relation: &Relation, answers: usize) -> Option<Outcome> {
    let mut right: Vec<u32> = relation.right(query).collect();
    if right.is_empty() {
        return None;
    }
    right.sort_unstable();
    let mut found: Vec<f32> = right.iter().map(|&item| scores[item as usize]).collect();
    found.sort_unstable_by(|a, b| b.total_cmp(a));
    let wrong = wrong_before(&found, scores);
    let precision = |(hit, wrong): (usize, &usize)| hit as f64 / (hit + wrong) as f64;
    let precisions: f64 = (1..).zip(&wrong).map(precision).sum();
    let answers = if answers == 0 {
        Vec::new()
    } else {
        let is_right = |item: u32| right.binary_search(&item).is_ok();
        nearest(scores, answers.min(scores.len()), |item| f32::from(u8::from(is_right(item))))
            .into_iter()
            .map(|item| Answer { item, score: scores[item as usize], right: is_right(item) })
            .collect()
    };
    let number = |n: usize| u32::try_from(n).expect("items have 32-bit numbers");
    Some(Outcome {
        query: number(query),
        rank: number(1 + wrong[0]),
        right: number(right.len()),
        average_precision: precisions / right.len() as f64,
        answers,
    })
}

/// For each score of a right item, highest first, the number of wrong items that score at least as
/// high.
fn wrong_before(right: &[f32], scores: &[f32]) -> Vec<usize> {
    let lowest = right[right.len() - 1];
    let mut counts = vec![0; right.len()];
    for &score in scores.iter().filter(|&&score| score >= lowest) {
        counts[right.partition_point(|&r| r > score)] += 1;
    }
    let mut all = 0;
    for (n, count) in counts.iter_mut().enumerate() {
        all += *count;
        *count = all - right.partition_point(|&r| r >= right[n]);
    }
    counts
}
