//! Metrics on cases small enough to work out by hand, on random embeddings, and on published ones.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use diptych_core::Embedding;

use crate::{EvalError, chance_at, evaluate, label_precision};

/// Gaussian-like directions from a fixed seed.
pub(crate) fn random_embeddings(count: usize, dim: usize, seed: u64) -> Vec<Embedding> {
    let mut state = seed;
    let mut uniform = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let component = |u: &mut dyn FnMut() -> f32| (0..4).map(|_| u()).sum::<f32>();
    (0..count)
        .map(|_| Embedding::new((0..dim).map(|_| component(&mut uniform)).collect::<Vec<f32>>()).unwrap())
        .collect()
}

/// A direction in the plane, in degrees: neighbours can be read off the numbers.
fn at(degrees: f32) -> Embedding {
    Embedding::new([degrees.to_radians().cos(), degrees.to_radians().sin()]).unwrap()
}

fn numbers(count: usize) -> Vec<u32> {
    (0..count as u32).collect()
}

#[test]
fn ranks_are_those_worked_out_by_hand() {
    let images = [at(0.0), at(20.0), at(40.0)];
    // The first finds its image first; the second lies nearer to image 0; the third is furthest of
    // all from its image.
    let texts = [at(1.0), at(5.0), at(2.0)];
    let report = evaluate(&images, &numbers(3), &texts, &numbers(3)).unwrap();
    let forward = report.text_to_image;
    assert_eq!((forward.queries, forward.gallery), (3, 3));
    assert_eq!(forward.recall_at_1, 1.0 / 3.0);
    assert_eq!((forward.recall_at_5, forward.recall_at_10), (1.0, 1.0));
    assert_eq!(forward.median_rank, 2.0);
    assert_eq!((forward.chance_at_1, forward.chance_at_5), (1.0 / 3.0, 1.0));
    // Image 0 is nearest to text 0, image 1 to text 1; image 2 sees text 1, then its own.
    assert_eq!(report.image_to_text.recall_at_1, 2.0 / 3.0);
    assert_eq!(report.image_to_text.median_rank, 1.0);
}

#[test]
fn any_caption_of_the_image_will_do_and_the_others_do_no_harm() {
    let images = [at(0.0), at(90.0)];
    let texts = [at(1.0), at(2.0), at(60.0), at(89.0)];
    let report = evaluate(&images, &[7, 9], &texts, &[7, 7, 7, 9]).unwrap();
    assert_eq!(report.image_to_text.recall_at_1, 1.0);
    // The third caption of the first image lies nearer to the second one.
    assert_eq!(report.text_to_image.recall_at_1, 0.75);
    // Mean over the queries: three right of four, and one of four.
    assert_eq!(report.image_to_text.chance_at_1, 0.5);
}

#[test]
fn an_even_number_of_ranks_has_a_median_between_two() {
    let images = [at(0.0), at(20.0)];
    let report = evaluate(&images, &numbers(2), &[at(1.0), at(2.0)], &numbers(2)).unwrap();
    assert_eq!(report.text_to_image.median_rank, 1.5);
}

#[test]
fn an_encoder_that_maps_everything_to_one_point_ranks_last() {
    let same = vec![at(30.0); 20];
    let report = evaluate(&same, &numbers(20), &same, &numbers(20)).unwrap();
    for direction in [report.text_to_image, report.image_to_text] {
        assert_eq!((direction.recall_at_1, direction.recall_at_10, direction.median_rank), (0.0, 0.0, 20.0));
    }
}

#[test]
fn one_tied_wrong_item_costs_one_rank() {
    let images = [at(0.0), at(0.0), at(90.0)];
    let report = evaluate(&images, &numbers(3), &[at(1.0)], &[0]).unwrap();
    assert_eq!((report.text_to_image.recall_at_1, report.text_to_image.median_rank), (0.0, 2.0));
}

#[test]
fn queries_without_a_right_item_are_left_out_but_stay_in_the_gallery() {
    let images = [at(0.0), at(90.0)];
    let report = evaluate(&images, &[0, 1], &[at(1.0), at(0.0)], &[0, 5]).unwrap();
    assert_eq!((report.text_to_image.queries, report.text_to_image.gallery), (1, 2));
    assert_eq!(report.text_to_image.recall_at_1, 1.0);
    // The text of nobody lies exactly on image 0 and beats its own text.
    assert_eq!((report.image_to_text.queries, report.image_to_text.gallery), (1, 2));
    assert_eq!(report.image_to_text.recall_at_1, 0.0);
}

#[test]
fn equal_embeddings_are_found_and_shuffled_ones_are_near_chance() {
    let embeddings = random_embeddings(1000, 32, 5);
    let paired = evaluate(&embeddings, &numbers(1000), &embeddings, &numbers(1000)).unwrap();
    assert_eq!((paired.text_to_image.recall_at_1, paired.image_to_text.median_rank), (1.0, 1.0));

    // The same embeddings, each under the number of another one.
    let mut others = embeddings.clone();
    others.rotate_left(371);
    let shuffled = evaluate(&embeddings, &numbers(1000), &others, &numbers(1000)).unwrap();
    for direction in [shuffled.text_to_image, shuffled.image_to_text] {
        assert!((direction.chance_at_10 - 0.01).abs() < 1e-12);
        // Four standard deviations of a share of 1000 queries at 1 %.
        assert!((direction.recall_at_10 - direction.chance_at_10).abs() < 0.0126, "{direction:?}");
        assert!((direction.median_rank - 500.5).abs() < 60.0, "{direction:?}");
    }
}

#[test]
fn chance_is_hypergeometric() {
    // C(3, 2) / C(5, 2) = 3 / 10.
    assert!((chance_at(2, 2, 5) - 0.7).abs() < 1e-12);
    assert!((chance_at(10, 1, 1000) - 0.01).abs() < 1e-12);
    assert_eq!((chance_at(4, 2, 5), chance_at(9, 1, 3), chance_at(3, 0, 5)), (1.0, 1.0, 0.0));
    assert_eq!(chance_at(9, 0, 5), 0.0);
}

#[test]
fn label_precision_is_the_share_of_the_nearest() {
    let gallery = [at(0.0), at(10.0), at(20.0), at(30.0)];
    let labels = [1, 2, 1, 2];
    let report = label_precision(&[at(0.0), at(31.0)], &[1, 2], &gallery, &labels, 3).unwrap();
    // Nearest three of the first: 1, 2, 1; of the second: 2, 1, 2.
    assert!((report.precision - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!((report.chance, report.k, report.queries, report.gallery), (0.5, 3, 2, 4));
    let report = label_precision(&[at(0.0), at(0.0)], &[1, 3], &gallery, &labels, 4).unwrap();
    assert_eq!((report.precision, report.chance, report.queries), (0.5, 0.5, 1));
}

#[test]
fn tied_items_are_taken_in_gallery_order() {
    let gallery = vec![at(10.0); 4];
    let precision = |k| label_precision(&[at(0.0)], &[1], &gallery, &[1, 2, 1, 2], k).unwrap().precision;
    assert_eq!([precision(1), precision(2), precision(4)], [1.0, 0.5, 0.5]);
}

#[test]
fn label_precision_of_unrelated_embeddings_is_near_chance() {
    let labels: Vec<u32> = (0..1000).map(|n| n % 10).collect();
    let (queries, gallery) = (random_embeddings(1000, 32, 7), random_embeddings(1000, 32, 8));
    let report = label_precision(&queries, &labels, &gallery, &labels, 5).unwrap();
    assert!((report.chance - 0.1).abs() < 1e-12);
    assert!((report.precision - 0.1).abs() < 0.02, "{report:?}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let (one, wide) = ([at(0.0)], random_embeddings(1, 3, 9));
    assert_eq!(evaluate(&[], &[], &one, &[0]), Err(EvalError::Empty { side: "images" }));
    let lengths = EvalError::Lengths { side: "texts", embeddings: 1, groups: 2 };
    assert_eq!(evaluate(&one, &[0], &one, &[0, 1]), Err(lengths));
    let dimension = EvalError::Dimension { side: "texts", position: 0, expected: 2, found: 3 };
    assert_eq!(evaluate(&one, &[0], &wide, &[0]), Err(dimension));
    assert_eq!(evaluate(&one, &[0], &one, &[1]), Err(EvalError::NoPairs { queries: 1, gallery: 1 }));
    for k in [0, 2] {
        assert_eq!(label_precision(&one, &[0], &one, &[0], k), Err(EvalError::K { k, gallery: 1 }));
    }
    let message = label_precision(&one, &[0], &one, &[0], 2).unwrap_err().to_string();
    assert_eq!(message, "k is 2; choose one from 1 to the size of the gallery, 1");
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
    let report = evaluate(&images, &numbers(700), &texts, &numbers(700)).unwrap();
    let rounded = |share: f64| (share * 1e4).round() / 1e4;
    let figures = [report.text_to_image, report.image_to_text]
        .map(|d| [rounded(d.recall_at_1), rounded(d.recall_at_5), rounded(d.recall_at_10), d.median_rank]);
    assert_eq!(figures, [[0.1543, 0.41, 0.57, 8.0], [0.1543, 0.4243, 0.5971, 7.0]]);
}

/// A size that people evaluate at: `cargo test --release -p diptych-eval -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement of seconds to minutes, run on demand"]
fn thirty_thousand_texts_against_ten_thousand_images() {
    let (images, texts) = (random_embeddings(10_000, 512, 1), random_embeddings(30_000, 512, 2));
    let text_groups: Vec<u32> = (0..30_000).map(|n| n / 3).collect();
    let start = std::time::Instant::now();
    let report = evaluate(&images, &numbers(10_000), &texts, &text_groups).unwrap();
    eprintln!("both directions in {:.1} s: {report:?}", start.elapsed().as_secs_f64());
    assert_eq!((report.text_to_image.queries, report.image_to_text.queries), (30_000, 10_000));
    assert!(report.text_to_image.recall_at_10 < 0.003);
}
