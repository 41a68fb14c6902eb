//! How well held-out pairs find each other.
//!
//! Owns: recall at k and label precision in both directions over one gallery, with the values chance
//! would give. Deliberately absent: other protocols and confidence intervals, which the eval crate
//! computes on a finished model.

use diptych_kernels::dot;

use crate::loss::unit_rows;

/// Both directions over one gallery.
#[derive(Debug, Clone, PartialEq)]
pub struct Validation {
    /// Pairs in the gallery.
    pub gallery: usize,
    /// Whole reports as queries, images as answers.
    pub text_to_image: Scores,
    /// Images as queries, whole reports as answers.
    pub image_to_text: Scores,
    /// Expected recall at 10 of a random order: 10 / gallery.
    pub chance_recall_at_10: f64,
    /// Expected precision of a random order; none where labels are unknown.
    pub chance_precision: Option<f64>,
}

/// One direction. All values lie in 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Fraction of queries whose own counterpart comes first.
    pub recall_at_1: f64,
    /// .. is among the first 5.
    pub recall_at_5: f64,
    /// .. is among the first 10.
    pub recall_at_10: f64,
    /// Mean fraction of the first 5 answers that carry exactly the query's set of labels; none where
    /// labels are unknown.
    pub precision_at_5: Option<f64>,
}

/// Scores embeddings, `[n, dim]`, in which row `i` of both sides belongs together. `labels` has one
/// entry per row or none.
pub(crate) fn validate(images: &[f32], texts: &[f32], dim: usize, labels: &[String]) -> Validation {
    let n = images.len() / dim;
    let (_, images) = unit_rows(images, dim);
    let (_, texts) = unit_rows(texts, dim);
    let known = labels.len() == n;
    let chance_precision = known.then(|| {
        let same = |label: &String| labels.iter().filter(|other| *other == label).count();
        labels.iter().map(|label| same(label) as f64).sum::<f64>() / (n * n) as f64
    });
    Validation {
        gallery: n,
        text_to_image: one_way(&texts, &images, dim, labels, known),
        image_to_text: one_way(&images, &texts, dim, labels, known),
        chance_recall_at_10: (10.0 / n as f64).min(1.0),
        chance_precision,
    }
}

fn one_way(queries: &[f32], gallery: &[f32], dim: usize, labels: &[String], known: bool) -> Scores {
    let n = queries.len() / dim;
    let (mut hits, mut precision) = ([0usize; 3], 0f64);
    for (i, query) in queries.chunks_exact(dim).enumerate() {
        let mut ranked: Vec<(f32, usize)> =
            gallery.chunks_exact(dim).enumerate().map(|(j, row)| (dot(query, row), j)).collect();
        // Ties count against the model: the right answer goes behind its equals.
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1 == i).cmp(&(b.1 == i))));
        let rank = ranked.iter().position(|&(_, j)| j == i).unwrap_or(n);
        for (hits, k) in hits.iter_mut().zip([1, 5, 10]) {
            *hits += usize::from(rank < k);
        }
        if known {
            let top = &ranked[..5.min(n)];
            let same = top.iter().filter(|&&(_, j)| labels[j] == labels[i]).count();
            precision += same as f64 / top.len() as f64;
        }
    }
    let fraction = |hits: usize| hits as f64 / n as f64;
    Scores {
        recall_at_1: fraction(hits[0]),
        recall_at_5: fraction(hits[1]),
        recall_at_10: fraction(hits[2]),
        precision_at_5: known.then(|| precision / n as f64),
    }
}

impl std::fmt::Display for Validation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, scores) in [("text->image", &self.text_to_image), ("image->text", &self.image_to_text)] {
            write!(
                f,
                "{name} recall@1/5/10 {:.3} {:.3} {:.3}",
                scores.recall_at_1, scores.recall_at_5, scores.recall_at_10
            )?;
            if let Some(precision) = scores.precision_at_5 {
                write!(f, " label precision@5 {precision:.3}")?;
            }
            f.write_str("; ")?;
        }
        write!(f, "gallery {}, chance recall@10 {:.3}", self.gallery, self.chance_recall_at_10)?;
        if let Some(chance) = self.chance_precision {
            write!(f, " precision {chance:.3}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_follow_their_definitions() {
        // Images along the axes; texts 0 and 1 are swapped, 2 is right, 3 is a tie of all.
        let images = [1., 0., 0., 0., 0., 1., 0., 0., 0., 0., 1., 0., 0., 0., 0., 1.];
        let texts = [0., 1., 0., 0., 1., 0., 0., 0., 0., 0., 1., 0., 1., 1., 1., 1.];
        let labels = ["a", "a", "b", "c"].map(str::to_owned);
        let v = validate(&images, &texts, 4, &labels);
        assert_eq!(v.text_to_image.recall_at_1, 0.25);
        assert_eq!(v.text_to_image.recall_at_5, 1.0);
        // Each query's labels among all four answers: 2, 2, 1 and 1 of 4.
        assert_eq!(v.text_to_image.precision_at_5, Some(6.0 / 16.0));
        assert_eq!(v.chance_precision, Some(6.0 / 16.0));
        assert_eq!(v.chance_recall_at_10, 1.0);
    }
}
