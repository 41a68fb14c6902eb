//! Cross-entropy over rows and columns of a matrix of logits, some of which do not take part.
//!
//! Owns: sums of exponentials along either direction, and the contrastive loss with several positives
//! per anchor that InfoNCE, ConVIRT, SimCLR and MoCo share.
//! Deliberately absent: where the logits come from.

use diptych_kernels::{exp, max, multiversion, sum};

use super::views::{Relation, positives};

/// Negatives take part.
pub(super) const NEGATIVES: u8 = Relation::Negative as u8;
/// Positives and negatives take part.
pub(super) const ALL_BUT_NEUTRAL: u8 = Relation::Negative as u8 | Relation::Positive as u8;

/// `sum exp` of the logits that take part, of every row or every column: `exp(top) * sum` with `top` the
/// largest of them.
pub(super) struct Sums {
    pub top: Vec<f32>,
    /// 0 where nothing takes part.
    pub sum: Vec<f32>,
}

impl Sums {
    /// Of each row; logits take part whose relation is in the set `keep`.
    pub fn of_rows(logits: &[f32], relation: &[Relation], columns: usize, keep: u8) -> Self {
        let rows = relation.len() / columns;
        let mut sums = Self { top: vec![0.0; rows], sum: vec![0.0; rows] };
        row_sums(&mut sums.top, &mut sums.sum, &mut vec![0.0; columns], logits, relation, keep);
        sums
    }

    /// Of each column.
    pub fn of_columns(logits: &[f32], relation: &[Relation], columns: usize, keep: u8) -> Self {
        let mut sums = Self { top: vec![f32::NEG_INFINITY; columns], sum: vec![0.0; columns] };
        column_sums(&mut sums.top, &mut sums.sum, logits, relation, keep);
        sums
    }

    /// `ln sum exp` of a row, or column; negative infinity where nothing takes part.
    pub fn log_sum(&self, anchor: usize) -> f64 {
        f64::from(self.top[anchor]) + f64::from(self.sum[anchor]).ln()
    }
}

multiversion! {
    fn row_sums(
        tops: &mut [f32],
        sums: &mut [f32],
        scratch: &mut [f32],
        logits: &[f32],
        relation: &[Relation],
        keep: u8,
    ) {
        let columns = scratch.len();
        for i in 0..tops.len() {
            let (s, r) = (&logits[i * columns..][..columns], &relation[i * columns..][..columns]);
            for j in 0..columns {
                scratch[j] = if r[j] as u8 & keep == 0 { f32::NEG_INFINITY } else { s[j] };
            }
            let top = max(scratch);
            for j in 0..columns {
                scratch[j] = if r[j] as u8 & keep == 0 { 0.0 } else { exp(s[j] - top) };
            }
            tops[i] = top;
            sums[i] = sum(scratch);
        }
    }
}

multiversion! {
    fn column_sums(tops: &mut [f32], sums: &mut [f32], logits: &[f32], relation: &[Relation], keep: u8) {
        let columns = tops.len();
        for (s, r) in logits.chunks_exact(columns).zip(relation.chunks_exact(columns)) {
            for j in 0..columns {
                let s = if r[j] as u8 & keep == 0 { f32::NEG_INFINITY } else { s[j] };
                tops[j] = if s > tops[j] { s } else { tops[j] };
            }
        }
        for (s, r) in logits.chunks_exact(columns).zip(relation.chunks_exact(columns)) {
            for j in 0..columns {
                sums[j] += if r[j] as u8 & keep == 0 { 0.0 } else { exp(s[j] - tops[j]) };
            }
        }
    }
}

/// For every row or column, the `top` of its [`Sums`] and a factor.
pub(super) struct Factors {
    top: Vec<f32>,
    factor: Vec<f32>,
}

impl Factors {
    pub fn new(sums: Sums, factor: Vec<f32>) -> Self {
        Self { top: sums.top, factor }
    }

    /// A direction that adds nothing.
    pub fn none(anchors: usize) -> Self {
        Self { top: vec![0.0; anchors], factor: vec![0.0; anchors] }
    }
}

/// Replaces each logit s that takes part by `exp(s - top) * factor` of its row and the same of its
/// column, added; all others by 0. In place, for a matrix of this size costs more to come by than to
/// fill.
pub(super) fn weigh(logits: &mut [f32], relation: &[Relation], keep: u8, rows: &Factors, columns: &Factors) {
    weigh_each(logits, relation, keep, &rows.top, &rows.factor, &columns.top, &columns.factor);
}

multiversion! {
    fn weigh_each(
        logits: &mut [f32],
        relation: &[Relation],
        keep: u8,
        row_tops: &[f32],
        row_factors: &[f32],
        tops: &[f32],
        factors: &[f32],
    ) {
        let columns = tops.len();
        for i in 0..row_tops.len() {
            let (s, r) = (&mut logits[i * columns..][..columns], &relation[i * columns..][..columns]);
            let (row_top, row_factor) = (row_tops[i], row_factors[i]);
            for j in 0..columns {
                let both = exp(s[j] - row_top) * row_factor + exp(s[j] - tops[j]) * factors[j];
                s[j] = if r[j] as u8 & keep == 0 { 0.0 } else { both };
            }
        }
    }
}

/// The contrastive loss of logits `[rows, columns]`, which are replaced by their gradient.
///
/// An anchor a (a row, then a column) with positives P and negatives N loses
/// `mean over p in P of -ln(exp s_ap / (exp s_ap + sum over j in N of exp s_aj))`: the other positives
/// are left out. A direction is the mean over anchors that have a positive; the loss is
/// `by_row * rows + by_column * columns`. Without negatives an anchor loses nothing.
pub(super) fn contrast(
    logits: &mut [f32],
    relation: &[Relation],
    columns: usize,
    (by_row, by_column): (f64, f64),
) -> f64 {
    let positives = positives(relation, columns);
    let mut pulls = vec![0f64; positives.len()];
    let mut loss = 0.0;
    let (mut of_rows, mut of_columns) = (Factors::none(logits.len() / columns), Factors::none(columns));
    if by_row != 0.0 {
        let negatives = Sums::of_rows(logits, relation, columns, NEGATIVES);
        let pairs: Vec<_> = positives.iter().map(|&(i, j)| (i, logits[i * columns + j])).collect();
        let (direction, pushes) = direction(&pairs, &negatives, by_row, &mut pulls);
        loss += direction;
        of_rows = Factors::new(negatives, pushes);
    }
    if by_column != 0.0 {
        let negatives = Sums::of_columns(logits, relation, columns, NEGATIVES);
        let pairs: Vec<_> = positives.iter().map(|&(i, j)| (j, logits[i * columns + j])).collect();
        let (direction, pushes) = direction(&pairs, &negatives, by_column, &mut pulls);
        loss += direction;
        of_columns = Factors::new(negatives, pushes);
    }
    weigh(logits, relation, NEGATIVES, &of_rows, &of_columns);
    for (&(i, j), pull) in positives.iter().zip(pulls) {
        logits[i * columns + j] = pull as f32;
    }
    loss
}

/// One direction of [`contrast`], from the anchor and the logit of every positive pair: the loss, the
/// factor that turns each anchor's `exp(s - top)` into gradients of its negatives, and, added to `pulls`,
/// the gradient of every positive.
///
/// With L the `ln sum exp` of the negatives a pair loses `softplus(L - s_ap)`.
fn direction(pairs: &[(usize, f32)], negatives: &Sums, weight: f64, pulls: &mut [f64]) -> (f64, Vec<f32>) {
    let mut positives_of = vec![0usize; negatives.sum.len()];
    pairs.iter().for_each(|&(anchor, _)| positives_of[anchor] += 1);
    let anchors = positives_of.iter().filter(|&&count| count > 0).count();
    let mut pushes = vec![0f64; negatives.sum.len()];
    let mut loss = 0.0;
    for (&(anchor, logit), pull) in pairs.iter().zip(pulls) {
        if negatives.sum[anchor] == 0.0 {
            continue;
        }
        let weight = weight / (anchors * positives_of[anchor]) as f64;
        let gap = negatives.log_sum(anchor) - f64::from(logit);
        loss += weight * softplus(gap);
        let miss = weight / (1.0 + (-gap).exp());
        *pull -= miss;
        pushes[anchor] += miss / f64::from(negatives.sum[anchor]);
    }
    (loss, pushes.into_iter().map(|p| p as f32).collect())
}

/// `ln(1 + e^x)`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}
