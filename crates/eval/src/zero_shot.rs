//! Classification by prompts: scores and accuracy.
//!
//! Deliberately absent: how prompts become classes and scores probabilities (see `zero_shot` of the core), and measures of single labels (see `binary`).

use diptych_core::Embedding;

use crate::bootstrap::{Bootstrap, dense};
use crate::pairs::{check_dimensions, check_lengths, check_references};
use crate::scores::map_rows;
use crate::{EvalError, Metric};

/// Accuracy over images that have one class each.
#[derive(Debug, Clone, PartialEq)]
pub struct Accuracy {
    /// Share of images whose own class scores highest; chance is one over the number of classes. Ties
    /// count against the model.
    pub top_1: Metric,
    /// Share of images whose own class is among the five highest.
    pub top_5: Metric,
    /// Share of the most frequent class: what always naming it would reach.
    pub majority_1: f64,
    /// Share of the five most frequent classes.
    pub majority_5: f64,
    /// Images counted.
    pub images: usize,
    /// Clusters they come from: what intervals resample.
    pub clusters: usize,
    /// Each class, in the order given.
    pub classes: Vec<ClassCount>,
}

/// The images of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassCount {
    /// How many there are.
    pub images: usize,
    /// How many of them were given this class.
    pub right: usize,
}

/// The cosine of every image with every class: one row per image.
///
/// # Errors
/// [`EvalError`] when a side is empty or dimensions differ.
pub fn class_scores(images: &[Embedding], classes: &[Embedding]) -> Result<Vec<Vec<f32>>, EvalError> {
    for (side, embeddings) in [("images", images), ("classes", classes)] {
        if embeddings.is_empty() {
            return Err(EvalError::Empty { side });
        }
    }
    check_dimensions(&[("classes", classes), ("images", images)])?;
    Ok(map_rows(images, classes, |_, row| row.to_vec()))
}

/// Measures accuracy: `scores` has one row per image with one score per class, `truth` the class of
/// each image, `clusters` says which images are not independent of one another.
///
/// # Errors
/// [`EvalError`] when there are no images or classes, lengths differ, a class is not there or a score
/// is not finite.
pub fn classify(
    scores: &[Vec<f32>],
    truth: &[u32],
    clusters: &[u32],
    bootstrap: &Bootstrap,
) -> Result<Accuracy, EvalError> {
    let Some(classes) = scores.first().map(Vec::len) else {
        return Err(EvalError::Empty { side: "images" });
    };
    if classes == 0 {
        return Err(EvalError::Empty { side: "classes" });
    }
    check_lengths("images", scores.len(), "classes of them", truth.len())?;
    check_lengths("images", scores.len(), "clusters", clusters.len())?;
    check_references("images", truth, classes)?;
    for (position, row) in scores.iter().enumerate() {
        check_lengths("classes", classes, "scores", row.len())?;
        if row.iter().any(|score| !score.is_finite()) {
            return Err(EvalError::NotFinite { position });
        }
    }
    let (clusters, cluster_count) = dense(clusters.iter().copied());
    let mut counts = vec![ClassCount { images: 0, right: 0 }; classes];
    let rows: Vec<(u32, [f64; 2])> = (0..scores.len())
        .map(|image| {
            let own = scores[image][truth[image] as usize];
            // The own class is among those that score at least as high.
            let rank = scores[image].iter().filter(|&&score| score >= own).count();
            let count = &mut counts[truth[image] as usize];
            count.images += 1;
            count.right += usize::from(rank == 1);
            (clusters[image], [1, 5].map(|k| f64::from(u8::from(rank <= k))))
        })
        .collect();
    let intervals = bootstrap.means(cluster_count, &rows);
    let metric = |n: usize, k: usize| Metric {
        value: rows.iter().map(|row| row.1[n]).sum::<f64>() / rows.len() as f64,
        chance: k.min(classes) as f64 / classes as f64,
        interval: intervals[n],
    };
    let mut sizes: Vec<usize> = counts.iter().map(|count| count.images).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let majority = |k: usize| sizes.iter().take(k).sum::<usize>() as f64 / rows.len() as f64;
    Ok(Accuracy {
        top_1: metric(0, 1),
        top_5: metric(1, 5),
        majority_1: majority(1),
        majority_5: majority(5),
        images: rows.len(),
        clusters: cluster_count,
        classes: counts,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::random::Random;
    use crate::tests::{at, random_embeddings};

    #[test]
    fn scores_are_cosines() {
        let scores = class_scores(&[at(0.0), at(60.0)], &[at(0.0), at(90.0), at(120.0)]).unwrap();
        let expected = [[1.0, 0.0, -0.5], [0.5, 0.75f32.sqrt(), 0.5]];
        for (row, expected) in scores.iter().zip(expected) {
            assert!(row.iter().zip(expected).all(|(s, e)| (s - e).abs() < 1e-6), "{row:?}");
        }
        assert_eq!(class_scores(&[], &[at(0.0)]), Err(EvalError::Empty { side: "images" }));
        let wide = random_embeddings(1, 3, 1);
        assert!(matches!(class_scores(&[at(0.0)], &wide), Err(EvalError::Dimension { .. })));
    }

    #[test]
    fn accuracy_is_that_worked_out_by_hand() {
        let scores: Vec<Vec<f32>> = [
            [0.9, 0.1, 0.2, 0.0, 0.0, 0.0], // right
            [0.9, 0.1, 0.2, 0.3, 0.4, 0.5], // class 1 is last of six
            [0.5, 0.1, 0.5, 0.0, 0.0, 0.0], // tied with class 0, so second
            [0.0, 0.1, 0.2, 0.3, 0.4, 0.5], // class 0 is last
        ]
        .map(Vec::from)
        .to_vec();
        let found = classify(&scores, &[0, 1, 2, 0], &[0, 1, 2, 3], &Bootstrap::default()).unwrap();
        assert_eq!((found.top_1.value, found.top_5.value), (0.25, 0.5));
        assert_eq!((found.top_1.chance, found.top_5.chance), (1.0 / 6.0, 5.0 / 6.0));
        assert_eq!((found.majority_1, found.majority_5), (0.5, 1.0));
        assert_eq!(found.classes[0], ClassCount { images: 2, right: 1 });
        assert_eq!((found.images, found.clusters), (4, 4));
    }

    #[test]
    fn random_scores_are_at_chance() {
        let mut random = Random::new(2, 0);
        let scores: Vec<Vec<f32>> =
            (0..5000).map(|_| (0..8).map(|_| random.below(1 << 20) as f32).collect()).collect();
        let truth: Vec<u32> = (0..5000).map(|n| n % 8).collect();
        let clusters: Vec<u32> = (0..5000).collect();
        let found = classify(&scores, &truth, &clusters, &Bootstrap::default()).unwrap();
        for metric in [found.top_1, found.top_5] {
            // Four standard deviations.
            assert!((metric.value - metric.chance).abs() < 0.028, "{metric:?}");
            let interval = metric.interval.unwrap();
            assert!(interval.low < metric.value && metric.value < interval.high, "{metric:?}");
        }
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let bootstrap = Bootstrap::default();
        assert_eq!(classify(&[], &[], &[], &bootstrap), Err(EvalError::Empty { side: "images" }));
        let reference = EvalError::Reference { side: "images", position: 0, found: 1, count: 1 };
        assert_eq!(classify(&[vec![0.0]], &[1], &[0], &bootstrap), Err(reference));
        let nan = classify(&[vec![f32::NAN]], &[0], &[0], &bootstrap);
        assert_eq!(nan, Err(EvalError::NotFinite { position: 0 }));
    }
}
