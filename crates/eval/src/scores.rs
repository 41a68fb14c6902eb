//! Exact scores of many queries against a whole gallery, in blocks that stay in cache.
//!
//! Owns: the inner products and how they are spread over threads. Every score is summed in the same
//! order whatever its place in a block and whatever instructions the machine has, so equal
//! embeddings score equally and results agree between machines.

use diptych_core::Embedding;
use rayon::prelude::*;

/// Queries scored together, sharing each load of a gallery item.
const QUERIES: usize = 4;
/// Partial sums of an inner product; one or two vector registers.
const LANES: usize = 8;
/// Gallery items passed by all queries of a block before the next ones: 128 KiB at 512 dimensions.
const ITEMS: usize = 64;
/// Most queries of a block.
const BLOCK_QUERIES_MAX: usize = 64;
/// Scores a thread holds at a time (8 MiB), unless so few do not cover [`QUERIES`] queries.
const BLOCK_SCORES: usize = 2 << 20;

/// Calls `finish(query, scores)` for every query, with its scores in gallery order; gives the
/// results in query order. All embeddings have one dimension, and the gallery is not empty.
pub(crate) fn map_rows<T: Send>(
    queries: &[Embedding],
    gallery: &[Embedding],
    finish: impl Fn(usize, &[f32]) -> T + Sync,
) -> Vec<T> {
    let fitting = (BLOCK_SCORES / gallery.len()).clamp(QUERIES, BLOCK_QUERIES_MAX);
    // Small evaluations are spread over all threads too.
    let even = queries.len().div_ceil(4 * rayon::current_num_threads()).max(QUERIES);
    let block = fitting.min(even).next_multiple_of(QUERIES);
    let score = kernel();
    let blocks = queries.par_chunks(block).enumerate().map_init(Vec::new, |scores, (number, queries)| {
        scores.clear();
        scores.resize(queries.len() * gallery.len(), 0.0);
        score(queries, gallery, scores);
        let rows = scores.chunks_exact(gallery.len()).enumerate();
        rows.map(|(row, scores)| finish(number * block + row, scores)).collect::<Vec<T>>()
    });
    blocks.flatten_iter().collect()
}

/// Positions of the `k` highest scores, highest first; `k` is 1 to the number of scores. Among equal
/// scores the item of lower `merit` counts as nearer, so that ties never flatter a model, and among
/// those the earlier one.
pub(crate) fn nearest(scores: &[f32], k: usize, merit: impl Fn(u32) -> f32) -> Vec<u32> {
    let nearer = |a: u32, b: u32| {
        let (score_a, score_b) = (scores[a as usize], scores[b as usize]);
        score_a > score_b || (score_a == score_b && merit(a) < merit(b))
    };
    let mut best: Vec<u32> = Vec::with_capacity(k + 1);
    let mut worst = f32::NEG_INFINITY;
    for (item, &score) in (0u32..).zip(scores) {
        // Nearly every item is passed over here.
        if score < worst {
            continue;
        }
        let place = best.partition_point(|&other| !nearer(item, other));
        best.insert(place, item);
        best.truncate(k);
        if best.len() == k {
            worst = scores[best[k - 1] as usize];
        }
    }
    best
}

/// Fills `scores[query * gallery.len() + item]`.
type Kernel = fn(queries: &[Embedding], gallery: &[Embedding], scores: &mut [f32]);

fn kernel() -> Kernel {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the machine has AVX2, as was just checked.
        return |queries, gallery, scores| unsafe { score_avx2(queries, gallery, scores) };
    }
    score_block
}

/// [`score_block`] with 8 components to an instruction. Multiplications and additions stay
/// separate (no FMA), so the scores are those of every other machine.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn score_avx2(queries: &[Embedding], gallery: &[Embedding], scores: &mut [f32]) {
    score_block(queries, gallery, scores);
}

#[inline(always)]
fn score_block(queries: &[Embedding], gallery: &[Embedding], scores: &mut [f32]) {
    for (first_item, items) in gallery.chunks(ITEMS).enumerate().map(|(n, items)| (n * ITEMS, items)) {
        let rows = scores.chunks_mut(QUERIES * gallery.len());
        for (queries, rows) in queries.chunks(QUERIES).zip(rows) {
            // The last group repeats its last query; what it scores again is not written.
            let last = queries.len() - 1;
            let group: [&[f32]; QUERIES] = std::array::from_fn(|n| queries[n.min(last)].as_slice());
            for (n, item) in items.iter().enumerate() {
                let products = inner_products(group, item.as_slice());
                for (row, product) in rows.chunks_exact_mut(gallery.len()).zip(products) {
                    row[first_item + n] = product;
                }
            }
        }
    }
}

#[inline(always)]
fn inner_products(queries: [&[f32]; QUERIES], item: &[f32]) -> [f32; QUERIES] {
    let (item, item_rest) = item.as_chunks::<LANES>();
    let whole = queries.map(|query| &query.as_chunks::<LANES>().0[..item.len()]);
    let mut sums = [[0f32; LANES]; QUERIES];
    for (position, item) in item.iter().enumerate() {
        for (sums, query) in sums.iter_mut().zip(whole) {
            add_products(sums, &query[position], item);
        }
    }
    let item_rest = padded(item_rest);
    let mut products = [0f32; QUERIES];
    for ((product, sums), query) in products.iter_mut().zip(&mut sums).zip(queries) {
        add_products(sums, &padded(query.as_chunks::<LANES>().1), &item_rest);
        let [a, b, c, d, e, f, g, h] = *sums;
        *product = ((a + e) + (c + g)) + ((b + f) + (d + h));
    }
    products
}

#[inline(always)]
fn add_products(sums: &mut [f32; LANES], a: &[f32; LANES], b: &[f32; LANES]) {
    for lane in 0..LANES {
        sums[lane] += a[lane] * b[lane];
    }
}

#[inline(always)]
fn padded(rest: &[f32]) -> [f32; LANES] {
    let mut lanes = [0f32; LANES];
    lanes[..rest.len()].copy_from_slice(rest);
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::random_embeddings;

    #[test]
    fn scores_are_cosines_for_every_size_of_block_and_dimension() {
        for dim in [1, 3, 8, 13, 64] {
            let queries = random_embeddings(131, dim, 1);
            let gallery = random_embeddings(67, dim, 2);
            let rows = map_rows(&queries, &gallery, |query, row| (query, row.to_vec()));
            assert_eq!(rows.len(), queries.len());
            for (n, (query, row)) in rows.into_iter().enumerate() {
                assert_eq!((query, row.len()), (n, gallery.len()));
                for (score, item) in row.iter().zip(&gallery) {
                    assert!((score - queries[n].cosine(item)).abs() < 1e-6);
                }
            }
        }
    }

    #[test]
    fn every_machine_and_every_place_in_a_block_gives_the_same_bits() {
        let queries = random_embeddings(7, 100, 3);
        let gallery = vec![random_embeddings(1, 100, 4).remove(0); 130];
        let mut plain = vec![0.0; queries.len() * gallery.len()];
        score_block(&queries, &gallery, &mut plain);
        let mut detected = vec![1.0; plain.len()];
        kernel()(&queries, &gallery, &mut detected);
        assert_eq!(plain, detected);
        assert!(plain.chunks(gallery.len()).all(|row| row.iter().all(|score| *score == row[0])));
    }
}
