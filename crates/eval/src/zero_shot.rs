//! Classification by prompts: classes from texts, scores, probabilities and accuracy.
//!
//! Deliberately absent: what the prompts say, and measures of single labels (see `binary`).

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

/// One embedding for a class out of those of its prompts: their mean, scaled to unit norm. All are of
/// unit norm already, so that each prompt weighs the same (Radford et al., 2021, section 3.1.4).
///
/// # Errors
/// [`EvalError`] when there are no prompts, dimensions differ, or the prompts cancel out.
pub fn ensemble(prompts: &[Embedding]) -> Result<Embedding, EvalError> {
    if prompts.is_empty() {
        return Err(EvalError::Empty { side: "prompts" });
    }
    check_dimensions(&[("prompts", prompts)])?;
    let mut sum = vec![0f64; prompts[0].dim()];
    for prompt in prompts {
        sum.iter_mut().zip(prompt.as_slice()).for_each(|(sum, &v)| *sum += f64::from(v));
    }
    let cancelled = EvalError::Cancelled { prompts: prompts.len() };
    // What is left of opposite directions is rounding.
    if sum.iter().map(|v| v * v).sum::<f64>().sqrt() < 1e-5 * prompts.len() as f64 {
        return Err(cancelled);
    }
    let mean: Vec<f32> = sum.into_iter().map(|v| (v / prompts.len() as f64) as f32).collect();
    Embedding::new(mean).map_err(|_| cancelled)
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

/// What a model makes of the cosines of one image with all classes. With a bias, as in the SigLIP
/// family, each class is a question of its own, `sigmoid(scale * cosine + bias)`; without, they share
/// a probability of 1, `softmax(scale * cosines)`. `scale` is the factor itself, not its logarithm.
pub fn probabilities(cosines: &[f32], scale: f32, bias: Option<f32>) -> Vec<f64> {
    let logit = |cosine: f32| f64::from(scale) * f64::from(cosine);
    if let Some(bias) = bias {
        return cosines.iter().map(|&c| sigmoid(logit(c) + f64::from(bias))).collect();
    }
    let highest = cosines.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let terms: Vec<f64> = cosines.iter().map(|&c| (logit(c) - logit(highest)).exp()).collect();
    let sum: f64 = terms.iter().sum();
    terms.into_iter().map(|term| term / sum).collect()
}

/// The probability that something is there out of the cosines with a text that says so and with one
/// that denies it: their softmax. A bias would cancel out.
pub fn pair_probability(positive: f32, negative: f32, scale: f32) -> f64 {
    sigmoid(f64::from(scale) * (f64::from(positive) - f64::from(negative)))
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

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::random::Random;
    use crate::tests::{at, random_embeddings};

    #[test]
    fn an_ensemble_lies_in_the_middle() {
        let middle = ensemble(&[at(10.0), at(50.0)]).unwrap();
        assert!((middle.cosine(&at(30.0)) - 1.0).abs() < 1e-6);
        assert!((ensemble(&[at(10.0)]).unwrap().cosine(&at(10.0)) - 1.0).abs() < 1e-6);
        let error = ensemble(&[at(10.0), at(190.0)]).unwrap_err();
        assert_eq!(error, EvalError::Cancelled { prompts: 2 });
        assert_eq!(ensemble(&[]), Err(EvalError::Empty { side: "prompts" }));
    }

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
    fn probabilities_are_a_softmax_or_sigmoids() {
        let p = probabilities(&[0.3, 0.1], 10.0, None);
        assert!((p[0] - 1.0 / (1.0 + (-2f64).exp())).abs() < 1e-6 && (p[0] + p[1] - 1.0).abs() < 1e-12);
        let p = probabilities(&[0.3, 0.1], 10.0, Some(-2.0));
        assert!((p[0] - sigmoid(1.0)).abs() < 1e-6 && (p[1] - sigmoid(-1.0)).abs() < 1e-6);
        // No overflow at any scale.
        assert_eq!(probabilities(&[1.0, -1.0], 1e30, None), [1.0, 0.0]);
        assert_eq!(pair_probability(0.4, 0.4, 100.0), 0.5);
        let both = probabilities(&[0.31, 0.24], 20.0, None);
        assert!((pair_probability(0.31, 0.24, 20.0) - both[0]).abs() < 1e-12);
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
