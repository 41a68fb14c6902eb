//! Triplets of an anchor, its partner and a stranger that shall be a margin less similar.

use diptych_kernels::multiversion;
use serde::{Deserialize, Serialize};

use super::rows::{Similarity, Unit};
use super::views::{Gradients, Relation, Views};
use super::{Bound, Needs, Scalar};

/// The triplet loss of visual-semantic embeddings (Kiros et al. 2014; VSE++, Faghri et al. 2018). A
/// positive pair (i, p) loses
///
/// `sum_j [alpha - s_ip + s_ij]_+ + sum_k [alpha - s_ip + s_kp]_+`
///
/// over the negative texts j of the image and the negative images k of the text; with `vse++`, the
/// largest term stands for each sum. The loss is the mean over positive pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Triplet {
    /// alpha.
    pub margin: f32,
}

impl Default for Triplet {
    fn default() -> Self {
        Self { margin: 0.2 }
    }
}

impl Triplet {
    pub(super) fn bounds(&self) -> Vec<Bound> {
        vec![Bound::new("margin", self.margin, "above 0 to 2", self.margin > 0.0 && self.margin <= 2.0)]
    }

    pub(super) fn scalars(&self) -> Vec<Scalar> {
        Vec::new()
    }

    pub(super) fn needs(&self) -> Needs {
        Needs::default()
    }

    pub(super) fn sum_over_negatives(&self, views: &Views<'_>) -> Gradients {
        self.evaluate(views, all_negatives)
    }

    pub(super) fn hardest_negative(&self, views: &Views<'_>) -> Gradients {
        self.evaluate(views, hardest)
    }

    fn evaluate(&self, views: &Views<'_>, mine: impl Fn(&mut Mining<'_>, f32) -> f64) -> Gradients {
        let images = Unit::new(views.images, views.dim);
        let texts = Unit::new(views.texts, views.dim);
        let mut similarity = Similarity::new(&images, &texts, 1.0);
        let positives = views.positives();
        let mut d = vec![0f32; similarity.logits.len()];
        let (cosines, relation) = (similarity.logits.as_slice(), views.relation);
        let mut mining = Mining { d: &mut d, cosines, relation, positives: &positives, columns: views.m() };
        let pairs = positives.len().max(1) as f64;
        let loss = mine(&mut mining, self.margin) / pairs;
        let mut out = Gradients::zeros(views, 0);
        similarity.logits = d;
        (out.images, out.texts, _) = similarity.backward();
        let weight = (1.0 / pairs) as f32;
        out.images.iter_mut().chain(&mut out.texts).for_each(|x| *x *= weight);
        out.loss = loss as f32;
        out
    }
}

/// A matrix of cosines whose triplets are looked for.
struct Mining<'a> {
    /// Gradient of the sum of all hinges.
    d: &'a mut [f32],
    cosines: &'a [f32],
    relation: &'a [Relation],
    positives: &'a [(usize, usize)],
    columns: usize,
}

/// Every negative counts. Positives are taken in rounds with at most one for every row, and one for
/// every column, so that a round is one pass over the matrix.
fn all_negatives(mining: &mut Mining<'_>, margin: f32) -> f64 {
    let columns = mining.columns;
    let rows = mining.cosines.len() / columns;
    let by_row = rounds(mining, rows, margin, |(i, _)| i);
    let by_column = rounds(mining, columns, margin, |(_, j)| j);
    let mut loss = 0.0;
    for round in &by_row {
        let mut counts = vec![0f32; rows];
        row_hinges(mining.d, &mut counts, &mut loss, mining.cosines, mining.relation, &round.base);
        round.pull(mining.d, &counts);
    }
    for round in &by_column {
        let mut counts = vec![0f32; columns];
        let mut sums = vec![0f32; columns];
        column_hinges(mining.d, &mut counts, &mut sums, mining.cosines, mining.relation, &round.base);
        round.pull(mining.d, &counts);
        loss += sums.iter().map(|&s| f64::from(s)).sum::<f64>();
    }
    loss
}

/// At most one positive for every anchor.
struct Round {
    /// `margin - s` of that positive; negative infinity where there is none.
    base: Vec<f32>,
    /// Anchor of each positive, and where it lies in the matrix.
    members: Vec<(usize, usize)>,
}

impl Round {
    /// Each positive is drawn once for each of its triplets with a loss.
    fn pull(&self, d: &mut [f32], counts: &[f32]) {
        for &(anchor, at) in &self.members {
            d[at] -= counts[anchor];
        }
    }
}

fn rounds(
    mining: &Mining<'_>,
    anchors: usize,
    margin: f32,
    anchor: impl Fn((usize, usize)) -> usize,
) -> Vec<Round> {
    let mut rounds: Vec<Round> = Vec::new();
    let mut seen = vec![0usize; anchors];
    for &(i, j) in mining.positives {
        let anchor = anchor((i, j));
        if seen[anchor] == rounds.len() {
            rounds.push(Round { base: vec![f32::NEG_INFINITY; anchors], members: Vec::new() });
        }
        let at = i * mining.columns + j;
        let round = &mut rounds[seen[anchor]];
        round.base[anchor] = margin - mining.cosines[at];
        round.members.push((anchor, at));
        seen[anchor] += 1;
    }
    rounds
}

multiversion! {
    fn row_hinges(
        d: &mut [f32],
        counts: &mut [f32],
        loss: &mut f64,
        cosines: &[f32],
        relation: &[Relation],
        base: &[f32],
    ) {
        let columns = cosines.len() / base.len();
        let mut hinges = vec![0f32; columns];
        let mut active = vec![0f32; columns];
        for i in 0..base.len() {
            let row = i * columns..(i + 1) * columns;
            let (d, s, r) = (&mut d[row.clone()], &cosines[row.clone()], &relation[row]);
            for j in 0..columns {
                let x = if r[j] == Relation::Negative { s[j] + base[i] } else { f32::NEG_INFINITY };
                // In this order, NaN counts as a loss and shows.
                hinges[j] = if x <= 0.0 { 0.0 } else { x };
                active[j] = if x <= 0.0 { 0.0 } else { 1.0 };
                d[j] += active[j];
            }
            *loss += f64::from(diptych_kernels::sum(&hinges));
            counts[i] = diptych_kernels::sum(&active);
        }
    }
}

multiversion! {
    fn column_hinges(
        d: &mut [f32],
        counts: &mut [f32],
        sums: &mut [f32],
        cosines: &[f32],
        relation: &[Relation],
        base: &[f32],
    ) {
        let columns = base.len();
        for (i, d) in d.chunks_exact_mut(columns).enumerate() {
            let (s, r) = (&cosines[i * columns..][..columns], &relation[i * columns..][..columns]);
            for j in 0..columns {
                let x = if r[j] == Relation::Negative { s[j] + base[j] } else { f32::NEG_INFINITY };
                let active = if x <= 0.0 { 0.0 } else { 1.0 };
                sums[j] += if x <= 0.0 { 0.0 } else { x };
                counts[j] += active;
                d[j] += active;
            }
        }
    }
}

/// Only the negative nearest to each anchor counts, the first of several equally near.
fn hardest(mining: &mut Mining<'_>, margin: f32) -> f64 {
    let columns = mining.columns;
    let rows = mining.cosines.len() / columns;
    let mut of_row = vec![None; rows];
    let mut of_column = vec![None; columns];
    for (at, (&s, r)) in mining.cosines.iter().zip(mining.relation).enumerate() {
        if *r != Relation::Negative {
            continue;
        }
        for best in [&mut of_row[at / columns], &mut of_column[at % columns]] {
            if best.is_none_or(|(_, top)| s > top) {
                *best = Some((at, s));
            }
        }
    }
    let mut loss = 0.0;
    for &(i, p) in mining.positives {
        let positive = i * columns + p;
        for (at, s) in [of_row[i], of_column[p]].into_iter().flatten() {
            let hinge = margin - mining.cosines[positive] + s;
            // NaN is not at most zero: it shows in the loss.
            if hinge <= 0.0 {
                continue;
            }
            loss += f64::from(hinge);
            mining.d[at] += 1.0;
            mining.d[positive] -= 1.0;
        }
    }
    loss
}
