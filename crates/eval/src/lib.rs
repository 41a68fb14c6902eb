//! Retrieval metrics and protocols.
//!
//! Owns: recall at k, median rank and label precision over embeddings, each beside its gallery size
//! and the value that chance alone would give. All are exact: every query is scored against the
//! whole gallery. Deliberately absent: models, indexes, files and printing.

mod scores;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;

use diptych_core::Embedding;

/// Retrieval in one direction, over the queries that have a right item in the gallery.
///
/// The rank of a query is 1 plus the number of wrong items that score at least as high as its best
/// right item. Ties count against the model, so an encoder that maps everything to one point ranks
/// last, not first. Other right items never push a query down, as in the usual protocol for images
/// with five captions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DirectionReport {
    /// Share of queries of rank 1, in `[0, 1]`.
    pub recall_at_1: f64,
    /// Share of queries of rank 5 or better.
    pub recall_at_5: f64,
    /// Share of queries of rank 10 or better.
    pub recall_at_10: f64,
    /// Median rank, from 1; the mean of the middle two when their number is even.
    pub median_rank: f64,
    /// Queries counted: those with a right item.
    pub queries: usize,
    /// Items searched.
    pub gallery: usize,
    /// Recall at 1 of a random order; see [`chance_at`].
    pub chance_at_1: f64,
    /// Recall at 5 of a random order.
    pub chance_at_5: f64,
    /// Recall at 10 of a random order.
    pub chance_at_10: f64,
}

/// Retrieval in both directions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// Texts as queries, images as gallery.
    pub text_to_image: DirectionReport,
    /// Images as queries, texts as gallery.
    pub image_to_text: DirectionReport,
}

/// How many of the nearest items share the label of the query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionReport {
    /// Mean share of the nearest `k` with the query's label, in `[0, 1]`.
    pub precision: f64,
    /// The same for `k` items drawn at random: the mean share of the whole gallery.
    pub chance: f64,
    /// Items looked at.
    pub k: usize,
    /// Queries counted: those whose label occurs in the gallery.
    pub queries: usize,
    /// Items searched.
    pub gallery: usize,
}

/// Why nothing can be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvalError {
    /// A side without items.
    Empty {
        /// Which side.
        side: &'static str,
    },
    /// Not one group or label for each embedding.
    Lengths {
        /// Which side.
        side: &'static str,
        /// Embeddings given.
        embeddings: usize,
        /// Groups or labels given.
        groups: usize,
    },
    /// An embedding of another dimension than the first.
    Dimension {
        /// Which side.
        side: &'static str,
        /// Its position there.
        position: usize,
        /// Dimensions of the first embedding.
        expected: usize,
        /// Dimensions found.
        found: usize,
    },
    /// No query has a right item.
    NoPairs {
        /// Queries given.
        queries: usize,
        /// Items searched.
        gallery: usize,
    },
    /// `k` is 0 or more than the gallery has.
    K {
        /// What was asked for.
        k: usize,
        /// Items searched.
        gallery: usize,
    },
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty { side } => write!(f, "there are no {side}; give at least one"),
            Self::Lengths { side, embeddings, groups } => {
                write!(f, "{embeddings} {side} but {groups} groups or labels of them; give one for each")
            }
            Self::Dimension { side, position, expected, found } => write!(
                f,
                "number {position} of the {side} (counted from 0) has {found} dimensions, the first embedding \
                 has {expected}; embed everything with one model"
            ),
            Self::NoPairs { queries, gallery } => write!(
                f,
                "none of the {queries} queries has a right answer among the {gallery} items; check that the \
                 groups or labels of both sides come from the same pairs"
            ),
            Self::K { k, gallery } => {
                write!(f, "k is {k}; choose one from 1 to the size of the gallery, {gallery}")
            }
        }
    }
}

impl std::error::Error for EvalError {}

/// Measures retrieval between images and texts. Items of one group are right answers for each
/// other: give an image and its five captions the same number. Queries whose group does not occur
/// on the other side are left out of the averages and stay in the other direction's gallery.
///
/// Computes `images.len() * texts.len()` inner products in each direction, on all cores.
///
/// # Errors
/// [`EvalError`] when a side is empty, lengths or dimensions differ, or no two groups meet.
pub fn evaluate(
    images: &[Embedding],
    image_groups: &[u32],
    texts: &[Embedding],
    text_groups: &[u32],
) -> Result<Report, EvalError> {
    let images = Side::new("images", images, image_groups)?;
    let texts = Side::new("texts", texts, text_groups)?;
    check_dimensions(&images, &texts)?;
    Ok(Report { text_to_image: direction(&texts, &images)?, image_to_text: direction(&images, &texts)? })
}

/// Measures how many of the nearest `k` gallery items share the query's label. Among equal scores
/// the earlier item counts as nearer. Queries whose label does not occur in the gallery are left
/// out.
///
/// # Errors
/// [`EvalError`] when a side is empty, lengths or dimensions differ, `k` does not fit the gallery,
/// or no label occurs on both sides.
pub fn label_precision(
    queries: &[Embedding],
    query_labels: &[u32],
    gallery: &[Embedding],
    gallery_labels: &[u32],
    k: usize,
) -> Result<PrecisionReport, EvalError> {
    let queries = Side::new("queries", queries, query_labels)?;
    let gallery = Side::new("gallery items", gallery, gallery_labels)?;
    check_dimensions(&queries, &gallery)?;
    let size = gallery.embeddings.len();
    if k == 0 || k > size {
        return Err(EvalError::K { k, gallery: size });
    }
    let right = gallery.group_sizes();
    let found = scores::map_rows(queries.embeddings, gallery.embeddings, |query, row| {
        let label = queries.groups[query];
        right.contains_key(&label).then(|| {
            let nearest = nearest(row, k);
            nearest.iter().filter(|&&item| gallery.groups[item as usize] == label).count()
        })
    });
    let counted: Vec<usize> = found.iter().copied().flatten().collect();
    if counted.is_empty() {
        return Err(EvalError::NoPairs { queries: queries.embeddings.len(), gallery: size });
    }
    let chance = queries.groups.iter().filter_map(|label| right.get(label)).map(|&p| p as f64 / size as f64);
    Ok(PrecisionReport {
        precision: counted.iter().sum::<usize>() as f64 / (k * counted.len()) as f64,
        chance: chance.sum::<f64>() / counted.len() as f64,
        k,
        queries: counted.len(),
        gallery: size,
    })
}

/// Recall at `k` of a random order when `right` of `gallery` items are right answers:
/// `1 - C(gallery - right, k) / C(gallery, k)`, one minus the hypergeometric probability of drawing
/// `k` wrong items.
pub fn chance_at(k: usize, right: usize, gallery: usize) -> f64 {
    let wrong = gallery.saturating_sub(right);
    if k > wrong {
        return if right == 0 { 0.0 } else { 1.0 };
    }
    1.0 - (0..k).map(|drawn| (wrong - drawn) as f64 / (gallery - drawn) as f64).product::<f64>()
}

/// Embeddings with one group or label each; not empty.
struct Side<'a> {
    name: &'static str,
    embeddings: &'a [Embedding],
    groups: &'a [u32],
}

impl<'a> Side<'a> {
    fn new(name: &'static str, embeddings: &'a [Embedding], groups: &'a [u32]) -> Result<Self, EvalError> {
        if embeddings.len() != groups.len() {
            let (embeddings, groups) = (embeddings.len(), groups.len());
            return Err(EvalError::Lengths { side: name, embeddings, groups });
        }
        if embeddings.is_empty() {
            return Err(EvalError::Empty { side: name });
        }
        Ok(Self { name, embeddings, groups })
    }

    fn group_sizes(&self) -> HashMap<u32, usize> {
        let mut sizes = HashMap::new();
        for &group in self.groups {
            *sizes.entry(group).or_default() += 1;
        }
        sizes
    }
}

fn check_dimensions(a: &Side<'_>, b: &Side<'_>) -> Result<(), EvalError> {
    let expected = a.embeddings[0].dim();
    for side in [a, b] {
        if let Some(position) = side.embeddings.iter().position(|e| e.dim() != expected) {
            let found = side.embeddings[position].dim();
            return Err(EvalError::Dimension { side: side.name, position, expected, found });
        }
    }
    Ok(())
}

fn direction(queries: &Side<'_>, gallery: &Side<'_>) -> Result<DirectionReport, EvalError> {
    let size = gallery.embeddings.len();
    let right = gallery.group_sizes();
    let found = scores::map_rows(queries.embeddings, gallery.embeddings, |query, row| {
        let group = queries.groups[query];
        right.contains_key(&group).then(|| rank(row, gallery.groups, group))
    });
    let mut ranks: Vec<usize> = found.into_iter().flatten().collect();
    if ranks.is_empty() {
        return Err(EvalError::NoPairs { queries: queries.embeddings.len(), gallery: size });
    }
    ranks.sort_unstable();
    let counted = ranks.len() as f64;
    let recall = |k: usize| ranks.partition_point(|&rank| rank <= k) as f64 / counted;
    let chance = |k: usize| {
        let each = queries.groups.iter().filter_map(|group| right.get(group));
        each.map(|&p| chance_at(k, p, size)).sum::<f64>() / counted
    };
    Ok(DirectionReport {
        recall_at_1: recall(1),
        recall_at_5: recall(5),
        recall_at_10: recall(10),
        median_rank: (ranks[(ranks.len() - 1) / 2] + ranks[ranks.len() / 2]) as f64 / 2.0,
        queries: ranks.len(),
        gallery: size,
        chance_at_1: chance(1),
        chance_at_5: chance(5),
        chance_at_10: chance(10),
    })
}

/// See [`DirectionReport`] for the rule. At least one item must be of the group.
fn rank(row: &[f32], groups: &[u32], group: u32) -> usize {
    let right = row.iter().zip(groups).filter(|&(_, &g)| g == group).map(|(&score, _)| score);
    let best = right.fold(f32::NEG_INFINITY, f32::max);
    1 + row.iter().zip(groups).filter(|&(&score, &g)| g != group && score >= best).count()
}

/// Positions of the `k` highest scores, in no particular order; `k` is 1 to the number of scores.
fn nearest(row: &[f32], k: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..row.len() as u32).collect();
    // Embeddings are finite, so `total_cmp` is the order of numbers; sums that start at +0 are
    // never -0, so it separates no equal scores either.
    order.select_nth_unstable_by(k - 1, |&a, &b| {
        row[b as usize].total_cmp(&row[a as usize]).then_with(|| a.cmp(&b))
    });
    order.truncate(k);
    order
}
