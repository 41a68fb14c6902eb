//! Retrieval on cases small enough to work out by hand, against the definitions written out, on
//! random embeddings, and on published ones.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use diptych_core::Embedding;

use crate::random::Random;
use crate::{Bootstrap, Direction, EvalError, Options, Pairs, Report, SHUFFLES_MAX, evaluate};

/// Gaussian-like directions from a fixed seed.
pub(crate) fn random_embeddings(count: usize, dim: usize, seed: u64) -> Vec<Embedding> {
    let mut random = Random::new(seed, 0);
    let mut uniform = || (random.next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
    let component = |u: &mut dyn FnMut() -> f32| (0..4).map(|_| u()).sum::<f32>();
    (0..count)
        .map(|_| Embedding::new((0..dim).map(|_| component(&mut uniform)).collect::<Vec<f32>>()).unwrap())
        .collect()
}

/// A direction in the plane, in degrees: neighbours can be read off the numbers.
pub(crate) fn at(degrees: f32) -> Embedding {
    Embedding::new([degrees.to_radians().cos(), degrees.to_radians().sin()]).unwrap()
}

fn numbers(count: usize) -> Vec<u32> {
    (0..count as u32).collect()
}

/// Without intervals, for speed.
const PLAIN: Options = Options { bootstrap: Bootstrap { resamples: 0, seed: 1 }, answers: 3, control: true };

/// One record per group.
fn measure(images: &[Embedding], of_images: &[u32], texts: &[Embedding], of_texts: &[u32]) -> Report {
    let records = of_images.iter().chain(of_texts).max().map_or(0, |&last| last as usize + 1);
    evaluate(&Pairs::new(images, of_images, texts, of_texts, records).unwrap(), &PLAIN).unwrap()
}

#[test]
fn ranks_are_those_worked_out_by_hand() {
    let images = [at(0.0), at(20.0), at(40.0)];
    // The first finds its image first; the second lies nearer to image 0; the third is furthest of
    // all from its image.
    let texts = [at(1.0), at(5.0), at(2.0)];
    let report = measure(&images, &numbers(3), &texts, &numbers(3));
    let forward = report.text_to_image;
    assert_eq!((forward.queries, forward.gallery, forward.clusters), (3, 3, 3));
    assert_eq!(forward.recall_at_1.value, 1.0 / 3.0);
    assert_eq!((forward.recall_at_5.value, forward.recall_at_10.value), (1.0, 1.0));
    assert_eq!((forward.median_rank.value, forward.median_rank.chance), (2.0, 2.0));
    assert_eq!((forward.recall_at_1.chance, forward.recall_at_5.chance), (1.0 / 3.0, 1.0));
    // Ranks 1, 2 and 3.
    let harmonic = (1.0 + 0.5 + 1.0 / 3.0) / 3.0;
    assert!((forward.mrr.value - harmonic).abs() < 1e-12 && (forward.mrr.chance - harmonic).abs() < 1e-12);
    assert_eq!(forward.mean_average_precision.value, forward.mrr.value);
    assert_eq!(forward.recall_curve, [1.0 / 3.0, 2.0 / 3.0, 1.0]);
    let answers: Vec<(u32, bool)> = forward.outcomes[1].answers.iter().map(|a| (a.item, a.right)).collect();
    assert_eq!(answers, [(0, false), (1, true), (2, false)]);
    // Image 0 is nearest to text 0, image 1 to text 1; image 2 sees text 1, then its own.
    assert_eq!(report.image_to_text.recall_at_1.value, 2.0 / 3.0);
    assert_eq!(report.image_to_text.median_rank.value, 1.0);
}

#[test]
fn all_captions_of_the_image_count_and_none_does_another_harm() {
    let images = [at(0.0), at(90.0)];
    let texts = [at(1.0), at(2.0), at(60.0), at(89.0)];
    let report = measure(&images, &[0, 1], &texts, &[0, 0, 0, 1]);
    let back = report.image_to_text;
    assert_eq!(back.recall_at_1.value, 1.0);
    // All three captions of the first image come before the other one: average precision 1.
    assert_eq!((back.outcomes[0].right, back.mean_average_precision.value), (3, 1.0));
    // The third caption of the first image lies nearer to the second one.
    assert_eq!(report.text_to_image.recall_at_1.value, 0.75);
    // Mean over the queries: three right of four, and one of four.
    assert_eq!(back.recall_at_1.chance, 0.5);
}

#[test]
fn average_precision_looks_at_every_right_answer() {
    let texts = [at(0.0), at(10.0), at(20.0), at(30.0), at(40.0)];
    // Right answers at ranks 1, 3 and 4.
    let report = measure(&[at(0.0)], &[0], &texts, &[0, 1, 0, 0, 1]);
    let expected = (1.0 + 2.0 / 3.0 + 3.0 / 4.0) / 3.0;
    assert!((report.image_to_text.mean_average_precision.value - expected).abs() < 1e-12);
    assert_eq!(report.image_to_text.mrr.value, 1.0);
}

#[test]
fn equal_texts_are_right_for_each_others_images_when_that_is_said() {
    let images = [at(0.0), at(50.0), at(90.0)];
    let texts = [at(51.0), at(51.0), at(89.0), at(2.0)];
    let pairs = Pairs::new(&images, &[0, 1, 2], &texts, &[0, 1, 2, 2], 3).unwrap();
    let own = evaluate(&pairs, &PLAIN).unwrap();
    let shared = evaluate(&pairs.with_equal_texts(&[7, 7, 8, 9]).unwrap(), &PLAIN).unwrap();
    // The text of record 0 finds the image of record 1 first, which is of the same text; the second
    // text of record 2 lies at image 0.
    assert_eq!(own.text_to_image.recall_at_1.value, 0.5);
    assert_eq!(shared.text_to_image.recall_at_1.value, 0.75);
    assert_eq!(shared.text_to_image.outcomes.iter().map(|o| o.right).collect::<Vec<_>>(), [2, 2, 1, 1]);
    // The twin of image 1's text no longer counts as a tie, and is no item of its own; image 0 still
    // sees a text of record 2 first.
    assert_eq!((own.image_to_text.outcomes[1].rank, own.image_to_text.gallery), (2, 4));
    assert_eq!((shared.image_to_text.outcomes[1].rank, shared.image_to_text.gallery), (1, 3));
    assert_eq!(shared.image_to_text.outcomes[0].rank, 2);
    let answers: Vec<u32> = shared.image_to_text.outcomes[2].answers.iter().map(|a| a.item).collect();
    assert_eq!(answers, [2, 0, 3], "answers are texts, not wordings");
}

#[test]
fn copies_of_a_text_that_score_alike_do_not_move_chance() {
    // Every text occurs in four records: each time the same embedding, as any encoder gives.
    let of_texts = |n: u32| n / 4;
    let (mut sums, mut chances) = ([0.0; 3], [0.0; 3]);
    for run in 0..300 {
        let (images, wordings) = (random_embeddings(80, 16, 2 * run), random_embeddings(20, 16, 2 * run + 1));
        let texts: Vec<Embedding> = (0..80).map(|n| wordings[of_texts(n) as usize].clone()).collect();
        let own = numbers(80);
        let equal: Vec<u32> = (0..80).map(of_texts).collect();
        let pairs = Pairs::new(&images, &own, &texts, &own, 80).unwrap().with_equal_texts(&equal).unwrap();
        let found = evaluate(&pairs, &PLAIN).unwrap().image_to_text;
        for (n, metric) in [found.recall_at_10, found.mrr, found.mean_average_precision].iter().enumerate() {
            sums[n] += metric.value / 300.0;
            chances[n] = metric.chance;
        }
    }
    assert_eq!(chances[0], 0.5);
    assert!(
        sums.iter().zip(chances).all(|(mean, chance)| (mean - chance).abs() < 0.01),
        "{sums:?}, {chances:?}"
    );
}

#[test]
fn an_even_number_of_ranks_has_a_median_between_two() {
    let images = [at(0.0), at(20.0)];
    let report = measure(&images, &numbers(2), &[at(1.0), at(2.0)], &numbers(2));
    assert_eq!(report.text_to_image.median_rank.value, 1.5);
}

#[test]
fn an_encoder_that_maps_everything_to_one_point_ranks_last() {
    let same = vec![at(30.0); 20];
    let report = measure(&same, &numbers(20), &same, &numbers(20));
    for direction in [report.text_to_image, report.image_to_text] {
        assert_eq!((direction.recall_at_1.value, direction.recall_at_10.value), (0.0, 0.0));
        assert_eq!(direction.median_rank.value, 20.0);
        assert!((direction.mean_average_precision.value - 0.05).abs() < 1e-12);
    }
}

#[test]
fn one_tied_wrong_item_costs_one_rank() {
    let images = [at(0.0), at(0.0), at(90.0)];
    let report = measure(&images, &numbers(3), &[at(1.0)], &[0]);
    assert_eq!((report.text_to_image.recall_at_1.value, report.text_to_image.median_rank.value), (0.0, 2.0));
    // The answers show what the rank says: the wrong one first.
    assert!(!report.text_to_image.outcomes[0].answers[0].right);
}

#[test]
fn queries_without_a_right_item_are_left_out_but_stay_in_the_gallery() {
    let images = [at(0.0), at(90.0)];
    let report = measure(&images, &[0, 1], &[at(1.0), at(0.0)], &[0, 5]);
    assert_eq!((report.text_to_image.queries, report.text_to_image.gallery), (1, 2));
    assert_eq!(report.text_to_image.recall_at_1.value, 1.0);
    // The text of nobody lies exactly on image 0 and beats its own text.
    assert_eq!((report.image_to_text.queries, report.image_to_text.gallery), (1, 2));
    assert_eq!(report.image_to_text.recall_at_1.value, 0.0);
}

/// Several images and texts per record, equal texts, labels, coarse scores with ties.
struct Corpus {
    images: Vec<Embedding>,
    image_records: Vec<u32>,
    texts: Vec<Embedding>,
    text_records: Vec<u32>,
    wordings: Vec<u32>,
    labels: Vec<Vec<u32>>,
}

impl Corpus {
    fn new(records: u32, seed: u64) -> Self {
        let mut random = Random::new(seed, 0);
        let mut side = |seed| {
            let of: Vec<u32> = (0..records).flat_map(|r| vec![r; 1 + random.below(3)]).collect();
            // Few directions, so that many scores are equal.
            let points = random_embeddings(7, 5, seed);
            let embeddings: Vec<Embedding> = of.iter().map(|_| points[random.below(7)].clone()).collect();
            (embeddings, of)
        };
        let ((images, image_records), (texts, text_records)) = (side(seed + 1), side(seed + 2));
        let wordings = text_records.iter().map(|_| random.below(records as usize) as u32).collect();
        let labels =
            (0..records).map(|_| (0..random.below(4)).map(|_| random.below(5) as u32).collect()).collect();
        Self { images, image_records, texts, text_records, wordings, labels }
    }

    fn pairs(&self) -> Pairs<'_> {
        let records = self.labels.len();
        let pairs =
            Pairs::new(&self.images, &self.image_records, &self.texts, &self.text_records, records).unwrap();
        pairs.with_equal_texts(&self.wordings).unwrap().with_labels(&self.labels).unwrap()
    }

    fn is_right(&self, text: usize, image: usize) -> bool {
        let record = self.image_records[image];
        (0..self.texts.len())
            .any(|t| self.text_records[t] == record && self.wordings[t] == self.wordings[text])
    }
}

/// Every metric of text to image from its definition: each query sorts the whole gallery.
fn by_definition(corpus: &Corpus) -> Vec<f64> {
    let jaccard = |a: u32, b: u32| {
        let set = |r: u32| corpus.labels[r as usize].iter().collect::<std::collections::BTreeSet<_>>();
        let (a, b) = (set(a), set(b));
        let union = a.union(&b).count();
        if union == 0 { 1.0 } else { a.intersection(&b).count() as f64 / union as f64 }
    };
    let (mut sums, mut counted, mut labelled) = (vec![0.0; 12], 0.0, 0.0);
    for (t, text) in corpus.texts.iter().enumerate() {
        // Scored in gallery order by the sums that the crate makes, so that ties are the same ones.
        let scores =
            crate::scores::map_rows(std::slice::from_ref(text), &corpus.images, |_, r| r.to_vec()).remove(0);
        let gain = |i: usize| jaccard(corpus.text_records[t], corpus.image_records[i]);
        let right = |i: usize| corpus.is_right(t, i);
        let sorted = |against: &dyn Fn(usize) -> f64| {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(against(a).total_cmp(&against(b))));
            order
        };
        let order = sorted(&|i| f64::from(u8::from(right(i))));
        let places: Vec<usize> =
            (1..).zip(&order).filter(|&(_, &i)| right(i)).map(|(rank, _)| rank).collect();
        counted += 1.0;
        for (sum, k) in sums.iter_mut().zip([1, 5, 10]) {
            *sum += f64::from(u8::from(places[0] <= k));
        }
        sums[3] += 1.0 / places[0] as f64;
        let precisions = (1..).zip(&places).map(|(hit, &rank)| f64::from(hit) / rank as f64);
        sums[4] += precisions.sum::<f64>() / places.len() as f64;

        let order = sorted(&gain);
        let dcg = |gains: Vec<f64>| (2..12).zip(gains).map(|(n, g)| g / f64::from(n).log2()).sum::<f64>();
        let mut best: Vec<f64> = (0..scores.len()).map(gain).collect();
        best.sort_by(|a, b| b.total_cmp(a));
        labelled += 1.0;
        sums[5] += dcg(order.iter().map(|&i| gain(i)).collect()) / dcg(best);
        for (n, k) in [1, 5, 10].into_iter().enumerate() {
            let share = |ok: &dyn Fn(usize) -> bool| {
                order.iter().take(k).filter(|&&i| ok(i)).count() as f64 / k as f64
            };
            sums[6 + n] += share(&|i| gain(i) == 1.0);
            sums[9 + n] += share(&|i| gain(i) > 0.0);
        }
    }
    sums.iter().zip(0..).map(|(sum, n)| sum / if n < 5 { counted } else { labelled }).collect()
}

fn without_median(direction: &Direction) -> Vec<(String, crate::Metric)> {
    direction.metrics().into_iter().filter(|(name, _)| name != "median_rank").collect()
}

#[test]
fn every_metric_is_that_of_its_definition() {
    for seed in 0..10 {
        let corpus = Corpus::new(40, 100 * seed);
        let report = evaluate(&corpus.pairs(), &PLAIN).unwrap();
        assert_eq!(report.text_to_image.queries, corpus.texts.len());
        let found = without_median(&report.text_to_image);
        assert_eq!(found.len(), 12);
        for ((name, metric), expected) in found.iter().zip(by_definition(&corpus)) {
            assert!((metric.value - expected).abs() < 1e-9, "{name}: {} is not {expected}", metric.value);
        }
    }
}

#[test]
fn every_chance_is_the_mean_over_random_encoders() {
    const RUNS: usize = 400;
    let mut corpus = Corpus::new(40, 7);
    let mut sums: Vec<(String, f64, f64)> = Vec::new();
    for run in 0..RUNS {
        corpus.images = random_embeddings(corpus.images.len(), 32, 2 * run as u64 + 1000);
        corpus.texts = random_embeddings(corpus.texts.len(), 32, 2 * run as u64 + 1001);
        let report = evaluate(&corpus.pairs(), &PLAIN).unwrap();
        for (d, direction) in [report.text_to_image, report.image_to_text].iter().enumerate() {
            for (n, (name, metric)) in without_median(direction).into_iter().enumerate() {
                if run == 0 {
                    sums.push((name, 0.0, metric.chance));
                }
                sums[12 * d + n].1 += metric.value / RUNS as f64;
            }
        }
    }
    for (name, mean, chance) in sums {
        // The standard error of a mean of 400 runs with some 80 queries each is at most .003.
        assert!((mean - chance).abs() < 0.01, "{name}: {mean} on average, {chance} by the formula");
    }
}

#[test]
fn equal_embeddings_are_found_and_shuffled_ones_are_at_chance() {
    let embeddings = random_embeddings(1000, 32, 5);
    let labels: Vec<Vec<u32>> = (0..1000).map(|n| vec![n % 10, 10 + n % 7]).collect();
    let clusters: Vec<u32> = (0..1000).map(|n| n / 4).collect();
    let own = numbers(1000);
    let pairs = Pairs::new(&embeddings, &own, &embeddings, &own, 1000).unwrap();
    let pairs = pairs.with_labels(&labels).unwrap().with_clusters(&clusters).unwrap();
    let options = Options { bootstrap: Bootstrap { resamples: 200, seed: 1 }, answers: 0, control: true };
    let report = evaluate(&pairs, &options).unwrap();
    assert_eq!((report.text_to_image.recall_at_1.value, report.image_to_text.median_rank.value), (1.0, 1.0));
    assert_eq!(report.text_to_image.clusters, 250);
    let control = *report.control.unwrap();
    assert_eq!(control.shuffles, SHUFFLES_MAX);
    for direction in [&control.text_to_image, &control.image_to_text] {
        assert!(direction.outcomes.is_empty());
        assert_eq!(direction.recall_at_1.value, 0.0, "no query is given its own item");
        let (found, chance) = (direction.recall_at_10, 0.01);
        assert!((found.chance - chance).abs() < 1e-12);
        // Its own item stands first, which leaves nine places for the right one.
        assert!((found.value - 0.009).abs() < 0.002, "{found:?}");
        assert!((direction.recall_curve[9] - found.value).abs() < 1e-12);
        let range = found.interval.unwrap();
        assert!(range.low < range.high && range.low <= chance && chance <= range.high);
        let median = direction.median_rank;
        assert!((median.value - median.chance).abs() < 12.0 && median.chance == 500.5);
        let labels = direction.labels.unwrap();
        for metric in [labels.ndcg, labels.exact[1], labels.any[1]] {
            assert!((metric.value - metric.chance).abs() < 0.005, "{metric:?}");
        }
    }
}

#[test]
fn intervals_hold_the_value_and_repeat_by_seed() {
    let corpus = Corpus::new(60, 11);
    let run = |seed| {
        let bootstrap = Bootstrap { resamples: 300, seed };
        evaluate(&corpus.pairs(), &Options { bootstrap, answers: 2, control: true }).unwrap()
    };
    let report = run(1);
    for direction in [&report.text_to_image, &report.image_to_text] {
        for (name, metric) in direction.metrics() {
            let interval = metric.interval.unwrap();
            assert!(interval.low <= metric.value && metric.value <= interval.high, "{name}: {metric:?}");
        }
    }
    assert_eq!(report, run(1));
    let other = run(2);
    assert_eq!(other.text_to_image.mrr.value, report.text_to_image.mrr.value);
    assert_ne!(other.text_to_image.mrr.interval, report.text_to_image.mrr.interval);
}

#[test]
fn the_interval_of_the_median_is_that_of_samples_written_out() {
    // Ranks 1 to 9, one query each: a sample's median is the middle of its nine ranks.
    let images: Vec<Embedding> = (0..9).map(|n| at(10.0 * n as f32)).collect();
    let texts = vec![at(0.0); 9];
    let own = numbers(9);
    let pairs = Pairs::new(&images, &own, &texts, &own, 9).unwrap();
    let report = evaluate(
        &pairs,
        &Options { bootstrap: Bootstrap { resamples: 5000, seed: 1 }, answers: 0, control: true },
    );
    let metric = report.unwrap().text_to_image.median_rank;
    let mut random = Random::new(77, 0);
    let mut medians: Vec<usize> = (0..20_000)
        .map(|_| {
            let mut sample: Vec<usize> = (0..9).map(|_| 1 + random.below(9)).collect();
            sample.sort_unstable();
            sample[4]
        })
        .collect();
    medians.sort_unstable();
    let interval = metric.interval.unwrap();
    assert_eq!(metric.value, 5.0);
    assert_eq!([interval.low, interval.high], [medians[500] as f64, medians[19_499] as f64]);
}

#[test]
fn one_cluster_has_neither_control_nor_intervals() {
    let images = [at(0.0), at(50.0)];
    let own = numbers(2);
    let pairs = Pairs::new(&images, &own, &images, &own, 2).unwrap();
    let report = evaluate(&pairs.with_clusters(&[3, 3]).unwrap(), &Options::default()).unwrap();
    assert_eq!((report.control, report.text_to_image.mrr.interval), (None, None));
    assert_eq!(report.text_to_image.recall_at_1.value, 1.0);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let (one, wide) = ([at(0.0)], random_embeddings(1, 3, 9));
    let refused = |images, of_images, texts, of_texts| {
        Pairs::new(images, of_images, texts, of_texts, 2).and_then(|p| evaluate(&p, &PLAIN)).unwrap_err()
    };
    assert_eq!(refused(&[], &[], &one, &[0]), EvalError::Empty { side: "images" });
    let lengths = EvalError::Lengths { side: "texts", expected: 1, what: "record numbers", found: 2 };
    assert_eq!(refused(&one, &[0], &one, &[0, 1]), lengths);
    let dimension = EvalError::Dimension { side: "texts", position: 0, expected: 2, found: 3 };
    assert_eq!(refused(&one, &[0], &wide, &[0]), dimension);
    let reference = EvalError::Reference { side: "texts", position: 0, found: 2, count: 2 };
    assert_eq!(refused(&one, &[0], &one, &[2]), reference);
    assert_eq!(refused(&one, &[0], &one, &[1]), EvalError::NoPairs { queries: 1, gallery: 1 });
    let pairs = Pairs::new(&one, &[0], &one, &[0], 1).unwrap();
    assert_eq!(
        pairs.with_labels(&[]).unwrap_err().to_string(),
        "0 label sets for 1 records; give one for each"
    );
}

/// Reads the array of a version 1 `.npy` file of little-endian float32 in C order.
fn read_npy(path: &Path) -> Vec<Embedding> {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..start]).unwrap();
    assert!(header.contains("'<f4'") && header.contains("(700, 512)"), "{header}");
    let values: Vec<f32> =
        bytes[start..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    values.chunks_exact(512).map(|row| Embedding::new(row).unwrap()).collect()
}

#[test]
fn published_embeddings_give_their_published_recall() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/roco-embeddings");
    if !folder.exists() {
        eprintln!("SKIPPED: {} is absent, so published recall was not reproduced", folder.display());
        return;
    }
    let (images, texts) = (read_npy(&folder.join("image.npy")), read_npy(&folder.join("text.npy")));
    assert_eq!((images.len(), texts.len()), (700, 700));
    let report = measure(&images, &numbers(700), &texts, &numbers(700));
    let rounded = |share: f64| (share * 1e4).round() / 1e4;
    let figures = [report.text_to_image, report.image_to_text].map(|d| {
        let recall = [d.recall_at_1, d.recall_at_5, d.recall_at_10].map(|metric| rounded(metric.value));
        [recall[0], recall[1], recall[2], d.median_rank.value]
    });
    assert_eq!(figures, [[0.1543, 0.41, 0.57, 8.0], [0.1543, 0.4243, 0.5971, 7.0]]);
}

/// A size that people evaluate at: `cargo test --release -p diptych-eval -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement of seconds to minutes, run on demand"]
fn thirty_thousand_texts_against_ten_thousand_images() {
    let (images, texts) = (random_embeddings(10_000, 512, 1), random_embeddings(30_000, 512, 2));
    let text_records: Vec<u32> = (0..30_000).map(|n| n / 3).collect();
    let labels: Vec<Vec<u32>> = (0..10_000).map(|n| vec![n % 50, 50 + n % 70]).collect();
    let start = std::time::Instant::now();
    let own = numbers(10_000);
    let pairs = Pairs::new(&images, &own, &texts, &text_records, 10_000).unwrap();
    let report = evaluate(&pairs.with_labels(&labels).unwrap(), &Options::default()).unwrap();
    eprintln!("both directions and the control in {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!((report.text_to_image.queries, report.image_to_text.queries), (30_000, 10_000));
    assert!(report.text_to_image.recall_at_10.value < 0.003);
}
