//! What canonical correlation analysis solves for.
//!
//! Owns: pairing the features of frozen towers, and handing the solution to the heads' first layers.
//! Deliberately absent: the solution itself (see `objective`), and when it is asked for.

use crate::data::Collection;
use crate::error::TrainError;
use crate::objective::{Affine, Cca, CcaOptions};
use crate::sampler::{Images, Inputs, Texts};
use crate::setup::{IMAGE_HEAD, TEXT_HEAD};

/// Solves for the projections of both sides.
pub(crate) fn solve(
    options: &CcaOptions,
    collection: &Collection,
    images: &Images,
    texts: &Texts,
) -> Result<Cca, TrainError> {
    let (mut views, mut numbers) = (Vec::new(), Vec::new());
    for (picture, &record) in collection.record_of.iter().enumerate() {
        let whole = &texts.of_record[record as usize].whole;
        // Every view and every text at least once, the shorter list repeated.
        for k in 0..images.views().max(whole.len()) {
            views.push((picture, k % images.views()));
            numbers.push(whole[k % whole.len()]);
        }
    }
    match (images.seen(&views), texts.inputs.take(&numbers)) {
        (Inputs::Rows(images), Inputs::Rows(texts)) => Ok(Cca::fit(&images, &texts, numbers.len(), options)?),
        _ => unreachable!("recipes with cca have frozen towers"),
    }
}

/// The tensor of this name, if it is part of the solution.
pub(crate) fn tensor(cca: &Cca, name: &str) -> Option<Vec<f32>> {
    [(IMAGE_HEAD, &cca.image), (TEXT_HEAD, &cca.text)].into_iter().find_map(|(prefix, affine)| {
        let Affine { weight, bias, .. } = affine;
        match name.strip_prefix(prefix)? {
            ".0.weight" => Some(weight.clone()),
            ".0.bias" => Some(bias.clone()),
            _ => None,
        }
    })
}
