//! Search by label: which labels the things nearest to a query have.
//!
//! Owns: precision at several depths for each label, and nDCG by label sets, for things made of several embeddings
//! each (a study with its images, a report with its sentences), each number with its chance, interval and control. This
//! is what the protocols 5x200, 8x200 and studies have in common. A thing is scored by how well each embedding of the
//! query is met: the mean, over these, of the highest cosine with one of the thing's (Khattab and Zaharia, 2020). The
//! highest cosine of all would be 1 for any two reports that share a sentence.
//! Deliberately absent: where labels come from, files, and retrieval of the own partner (see `retrieval`).

#[cfg(test)]
mod tests;

use diptych_core::Embedding;

use crate::bootstrap::{Bootstrap, Interval, dense};
use crate::control::derange;
use crate::labels::{dcg, jaccard};
use crate::pairs::{check_dimensions, check_lengths, check_references};
use crate::scores::{map_rows, nearest};
use crate::{EvalError, Metric};

/// Depth of nDCG.
const NDCG_DEPTH: usize = crate::NDCG_DEPTH;
/// Most shuffles of the control, and pairs of a query and a thing that all of them look at together.
const SHUFFLES: usize = crate::SHUFFLES_MAX;
const SHUFFLED_PAIRS: usize = 100_000_000;
/// Query things that are scored at a time, so that memory stays with the gallery.
const QUERIES_AT_ONCE: usize = 256;

/// Things with labels, each with one or more embeddings.
#[derive(Debug, Clone, Copy)]
pub struct Things<'a> {
    /// Embeddings of all things.
    pub embeddings: &'a [Embedding],
    /// The thing of each embedding, numbered from 0; in ascending order.
    pub owners: &'a [u32],
    /// Per thing, its labels, each a number; for queries those that are asked for.
    pub labels: &'a [Vec<u32>],
    /// Per thing, the set that nDCG compares, sorted; empty sets are alike.
    pub sets: &'a [Vec<u32>],
    /// Per thing, whom it belongs to: intervals resample and the control shuffles whole groups.
    pub groups: &'a [u32],
}

/// How to search.
#[derive(Debug, Clone, Copy)]
pub struct LabelOptions<'a> {
    /// How intervals are drawn. The seed is also that of the control.
    pub bootstrap: Bootstrap,
    /// Depths of precision, in ascending order.
    pub depths: &'a [usize],
    /// Whether things of the query's own group are left out of what it finds.
    pub exclude_group: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelSearch {
    /// Queries counted: those with a label that something else has.
    pub queries: usize,
    /// Things searched, the query's own group included.
    pub gallery: usize,
    /// Groups that the queries come from.
    pub groups: usize,
    /// nDCG at 10 by the Jaccard similarity of label sets; `None` where no query shares a label with anything.
    pub ndcg: Option<Labelled>,
    /// Mean of the labels' precisions, at each depth.
    pub mean: Vec<Labelled>,
    /// Each label that any query has, by its number.
    pub labels: Vec<LabelPrecision>,
}

/// One label.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelPrecision {
    /// Its number.
    pub label: u32,
    /// Queries that have it.
    pub queries: usize,
    /// Things of the gallery that have it.
    pub positives: usize,
    /// Share of the nearest that have it, at each depth. A gallery smaller than a depth is looked at whole.
    pub precision: Vec<Labelled>,
}

/// A number with its control.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Labelled {
    /// What was measured.
    pub metric: Metric,
    /// The mean of the same over shuffles that give each thing's labels to one of another group; `None`
    /// where there is only one group.
    pub shuffled: Option<f64>,
    /// The lowest and the highest shuffle.
    pub range: Option<Interval>,
}

/// Searches a gallery for each query. Among equal scores the thing with fewer of the query's labels counts as
/// nearer, so that ties never flatter a model.
///
/// # Errors
/// [`EvalError`] when a side is empty, lengths or dimensions differ, a thing has no embedding, or no query has
/// a label that something in the gallery has.
pub fn label_search(
    queries: &Things<'_>,
    gallery: &Things<'_>,
    labels: usize,
    options: &LabelOptions<'_>,
) -> Result<LabelSearch, EvalError> {
    queries.check("queries", labels)?;
    gallery.check("gallery", labels)?;
    check_dimensions(&[("gallery", gallery.embeddings), ("queries", queries.embeddings)])?;
    let found = rank(queries, gallery, options);
    let (groups, group_count) = dense(queries.groups.iter().copied());
    let own: Vec<u32> = (0u32..).take(gallery.labels.len()).collect();
    let tally = Tally { queries, gallery, labels, options, groups: &groups, group_count };
    let real = tally.count(&found, &own);
    let wanted = |label: usize| real.labels[label].iter().any(|cell| cell.queries > 0);
    let kept: Vec<usize> = (0..labels).filter(|&label| wanted(label)).collect();
    if kept.is_empty() {
        return Err(EvalError::NoPairs { queries: queries.labels.len(), gallery: gallery.labels.len() });
    }
    let values = real.values(&kept, &vec![1; group_count]);
    let intervals = options.bootstrap.intervals(group_count, values.len(), |times| real.values(&kept, times));
    let wanted = (SHUFFLED_PAIRS / found.len() / own.len()).clamp(1, SHUFFLES);
    let shuffles: Vec<Vec<f64>> = (0..wanted as u64)
        .map(|n| derange(gallery.groups, options.bootstrap.seed.wrapping_add(n)))
        .filter(|shuffled| shuffled.kept < gallery.groups.len())
        .map(|shuffled| tally.count(&found, &shuffled.partners).values(&kept, &vec![1; group_count]))
        .collect();
    let chances = real.chances(&kept);
    let labelled = |n: usize| {
        let each = || shuffles.iter().map(|values| values[n]).filter(|value| !value.is_nan());
        let count = each().count();
        let (low, high) = (each().fold(f64::INFINITY, f64::min), each().fold(f64::NEG_INFINITY, f64::max));
        Labelled {
            metric: Metric { value: values[n], chance: chances[n], interval: intervals[n] },
            shuffled: (count > 0).then(|| each().sum::<f64>() / count as f64),
            range: (count > 1).then_some(Interval { low, high }),
        }
    };
    let depths = options.depths.len();
    let rows = kept.iter().enumerate().map(|(row, &label)| LabelPrecision {
        label: u32::try_from(label).expect("labels have 32-bit numbers"),
        queries: real.labels[label].iter().map(|cell| cell.queries as usize).sum(),
        positives: tally.positives(label),
        precision: (0..depths).map(|depth| labelled(1 + depths * (1 + row) + depth)).collect(),
    });
    Ok(LabelSearch {
        queries: real.counted,
        gallery: gallery.labels.len(),
        groups: group_count,
        ndcg: (!values[0].is_nan()).then(|| labelled(0)),
        labels: rows.collect(),
        mean: (0..depths).map(|depth| labelled(1 + depth)).collect(),
    })
}

impl Things<'_> {
    fn check(&self, side: &'static str, labels: usize) -> Result<(), EvalError> {
        let things = self.labels.len();
        if things == 0 || self.embeddings.is_empty() {
            return Err(EvalError::Empty { side });
        }
        check_lengths(side, self.embeddings.len(), "owners", self.owners.len())?;
        check_lengths(side, things, "label sets", self.sets.len())?;
        check_lengths(side, things, "groups", self.groups.len())?;
        check_references(side, self.owners, things)?;
        for labels_of_one in self.labels {
            check_references(side, labels_of_one, labels)?;
        }
        // Ascending and without a gap: every thing has an embedding.
        let mut next = 0;
        for &owner in self.owners {
            if owner == next {
                next += 1;
            } else if owner + 1 != next {
                break;
            }
        }
        check_lengths(side, things, "things with embeddings in ascending order", next as usize)
    }
}

/// The nearest things of each query, nearest first, deep enough for every measure.
fn rank(queries: &Things<'_>, gallery: &Things<'_>, options: &LabelOptions<'_>) -> Vec<Vec<u32>> {
    let deepest = options.depths.iter().copied().max().unwrap_or(1).max(NDCG_DEPTH);
    let mut found = Vec::with_capacity(queries.labels.len());
    let mut from = 0;
    for first in (0..queries.labels.len()).step_by(QUERIES_AT_ONCE) {
        let last = (first + QUERIES_AT_ONCE).min(queries.labels.len());
        let to = from + queries.owners[from..].partition_point(|&owner| (owner as usize) < last);
        // One row per embedding, with the best of each thing in the gallery.
        let rows = map_rows(&queries.embeddings[from..to], gallery.embeddings, |_, scores| {
            let mut best = vec![f32::NEG_INFINITY; gallery.labels.len()];
            for (score, &owner) in scores.iter().zip(gallery.owners) {
                let best = &mut best[owner as usize];
                *best = best.max(*score);
            }
            best
        });
        let mut of_query: Vec<Option<Vec<f32>>> = vec![None; last - first];
        for (row, &owner) in rows.into_iter().zip(&queries.owners[from..to]) {
            match &mut of_query[owner as usize - first] {
                // Every thing of the gallery is met by as many embeddings: sums order as means do.
                Some(met) => met.iter_mut().zip(row).for_each(|(met, score)| *met += score),
                empty => *empty = Some(row),
            }
        }
        for (query, scores) in (first..).zip(of_query) {
            let scores = scores.expect("every thing has an embedding, as was checked");
            found.push(nearest_others(query, scores, queries, gallery, options, deepest));
        }
        from = to;
    }
    found
}

fn nearest_others(
    query: usize,
    mut scores: Vec<f32>,
    queries: &Things<'_>,
    gallery: &Things<'_>,
    options: &LabelOptions<'_>,
    deepest: usize,
) -> Vec<u32> {
    let mut left = scores.len();
    if options.exclude_group {
        for (score, group) in scores.iter_mut().zip(gallery.groups) {
            if *group == queries.groups[query] {
                *score = f32::NEG_INFINITY;
                left -= 1;
            }
        }
    }
    if left == 0 {
        return Vec::new();
    }
    let asked = &queries.labels[query];
    let merit = |item: u32| {
        let labels = &gallery.labels[item as usize];
        asked.iter().filter(|label| labels.contains(label)).count() as f32
    };
    nearest(&scores, deepest.min(left), merit)
}

/// What is counted, and of what.
struct Tally<'a> {
    queries: &'a Things<'a>,
    gallery: &'a Things<'a>,
    labels: usize,
    options: &'a LabelOptions<'a>,
    groups: &'a [u32],
    group_count: usize,
}

/// Sums over the queries of one group that have one label.
#[derive(Debug, Clone, Default)]
struct Cell {
    queries: u32,
    precision: Vec<f64>,
    chance: f64,
}

/// Everything that was counted.
struct Count {
    depths: usize,
    /// Per label and group.
    labels: Vec<Vec<Cell>>,
    /// Per group: queries, nDCG, its chance.
    ndcg: Vec<[f64; 3]>,
    counted: usize,
}

impl Tally<'_> {
    fn positives(&self, label: usize) -> usize {
        self.gallery.labels.iter().filter(|labels| labels.iter().any(|&l| l as usize == label)).count()
    }

    /// Counts what was found when each thing of the gallery has the labels of the thing that `owner` says.
    fn count(&self, found: &[Vec<u32>], owner: &[u32]) -> Count {
        let depths = self.options.depths.len();
        let empty = Cell { precision: vec![0.0; depths], ..Cell::default() };
        let mut count = Count {
            depths,
            labels: vec![vec![empty; self.group_count]; self.labels],
            ndcg: vec![[0.0; 3]; self.group_count],
            counted: 0,
        };
        let labels_of = |item: u32| &self.gallery.labels[owner[item as usize] as usize];
        let members = self.members();
        let totals: Vec<usize> = (0..self.labels).map(|label| self.positives(label)).collect();
        for (query, nearest) in found.iter().enumerate() {
            let group = self.groups[query] as usize;
            let left_out = self.left_out(query, &members);
            let left = self.gallery.labels.len() - left_out.len();
            let mut used = false;
            for &label in &self.queries.labels[query] {
                let own = left_out.iter().filter(|&&item| labels_of(item).contains(&label)).count();
                let positives = totals[label as usize] - own;
                if positives == 0 || nearest.is_empty() {
                    continue;
                }
                used = true;
                let cell = &mut count.labels[label as usize][group];
                cell.queries += 1;
                cell.chance += positives as f64 / left as f64;
                for (sum, &depth) in cell.precision.iter_mut().zip(self.options.depths) {
                    let nearest = &nearest[..depth.min(nearest.len())];
                    let right = nearest.iter().filter(|&&item| labels_of(item).contains(&label)).count();
                    *sum += right as f64 / nearest.len() as f64;
                }
            }
            count.counted += usize::from(used);
            if let Some([value, chance]) = self.ndcg(query, nearest, left_out, owner) {
                let sums = &mut count.ndcg[group];
                *sums = [sums[0] + 1.0, sums[1] + value, sums[2] + chance];
            }
        }
        count
    }

    /// nDCG of a query and its chance; `None` when nothing shares a label with it.
    fn ndcg(&self, query: usize, nearest: &[u32], left_out: &[u32], owner: &[u32]) -> Option<[f64; 2]> {
        let gain =
            |item: u32| jaccard(&self.queries.sets[query], &self.gallery.sets[owner[item as usize] as usize]);
        let mut gains: Vec<f64> =
            (0u32..).take(owner.len()).filter(|item| !left_out.contains(item)).map(gain).collect();
        let depth = NDCG_DEPTH.min(gains.len());
        let mean = gains.iter().sum::<f64>() / gains.len().max(1) as f64;
        gains.sort_unstable_by(|a, b| b.total_cmp(a));
        let ideal = dcg(gains.into_iter().take(depth));
        if ideal == 0.0 || nearest.is_empty() {
            return None;
        }
        let value = dcg(nearest.iter().take(depth).map(|&item| gain(item)));
        Some([value / ideal, mean * dcg((0..depth).map(|_| 1.0)) / ideal])
    }

    /// Things of the gallery by group.
    fn members(&self) -> std::collections::HashMap<u32, Vec<u32>> {
        let mut members: std::collections::HashMap<u32, Vec<u32>> = std::collections::HashMap::new();
        if self.options.exclude_group {
            for (item, &group) in (0u32..).zip(self.gallery.groups) {
                members.entry(group).or_default().push(item);
            }
        }
        members
    }

    /// What a query does not search.
    fn left_out<'b>(&self, query: usize, members: &'b std::collections::HashMap<u32, Vec<u32>>) -> &'b [u32] {
        members.get(&self.queries.groups[query]).map_or(&[], Vec::as_slice)
    }
}

impl Count {
    /// nDCG, the labels' mean precisions, and each label's, when each group is there so many times; NaN for what
    /// that leaves undefined.
    fn values(&self, kept: &[usize], times: &[u32]) -> Vec<f64> {
        let weighed = |of: &dyn Fn(usize) -> [f64; 2]| {
            let sums =
                times.iter().enumerate().map(|(group, &times)| of(group).map(|v| v * f64::from(times)));
            let [count, sum] = sums.fold([0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
            sum / count
        };
        let mut values = vec![weighed(&|group| [self.ndcg[group][0], self.ndcg[group][1]])];
        let rows: Vec<f64> = kept
            .iter()
            .flat_map(|&label| (0..self.depths).map(move |depth| (label, depth)))
            .map(|(label, depth)| {
                weighed(&|group| {
                    let cell = &self.labels[label][group];
                    [f64::from(cell.queries), cell.precision[depth]]
                })
            })
            .collect();
        values.extend((0..self.depths).map(|depth| mean(rows.iter().skip(depth).step_by(self.depths))));
        values.extend(rows);
        values
    }

    /// What chance gives, in the same order.
    fn chances(&self, kept: &[usize]) -> Vec<f64> {
        let (queries, sum) =
            self.ndcg.iter().fold((0.0, 0.0), |(n, sum), group| (n + group[0], sum + group[2]));
        let rows: Vec<f64> = kept
            .iter()
            .map(|&label| {
                let cells = &self.labels[label];
                let queries: u32 = cells.iter().map(|cell| cell.queries).sum();
                cells.iter().map(|cell| cell.chance).sum::<f64>() / f64::from(queries)
            })
            .collect();
        let mut chances = vec![sum / queries];
        chances.extend(std::iter::repeat_n(mean(rows.iter()), self.depths));
        chances.extend(rows.iter().flat_map(|&chance| std::iter::repeat_n(chance, self.depths)));
        chances
    }
}

/// The mean of the numbers that are no NaN.
fn mean<'a>(values: impl Iterator<Item = &'a f64>) -> f64 {
    let (sum, count) =
        values.filter(|value| !value.is_nan()).fold((0.0, 0u32), |(sum, n), v| (sum + v, n + 1));
    sum / f64::from(count)
}
