//! From the records found to the records answered.
//!
//! Owns: leaving out, grouping, collapsing, diversity. Everything works on candidates in their order, best
//! first, and keeps that order; only diversity changes it. Deliberately absent: finding candidates.

use std::collections::HashSet;

use diptych_core::{AttributeValue, Embedding, Shape};

use super::Found;

/// A record that was found, and the vector of its best part.
pub(super) struct Candidate {
    pub found: Found,
    /// What it is ordered by: its score, or where several orders became one, what makes them comparable.
    pub worth: f64,
    /// Where the shape needs it.
    pub embedding: Option<Embedding>,
    /// The number by which words know the record; `None` without texts.
    pub number: Option<u64>,
}

/// Whether the order or the number of candidates depends on more of them than are answered.
pub(super) fn is_shaped(shape: &Shape) -> bool {
    shape.exclude_same.is_some()
        || shape.group_by.is_some()
        || shape.collapse.is_some()
        || shape.diversity.is_some_and(|diversity| diversity > 0.0)
}

/// Whether the vectors of candidates are compared with each other.
pub(super) fn compares(shape: &Shape) -> bool {
    shape.collapse.is_some() || shape.diversity.is_some_and(|diversity| diversity > 0.0)
}

/// What is left of the candidates, best first; at most `wanted`.
pub(super) fn shaped(
    mut candidates: Vec<Candidate>,
    shape: &Shape,
    excluded: &[AttributeValue],
    wanted: usize,
) -> Vec<Found> {
    if let Some(name) = &shape.exclude_same {
        candidates.retain(|c| !value(c, name).is_some_and(|value| excluded.contains(value)));
    }
    if let Some(limit) = shape.collapse {
        collapse(&mut candidates, limit);
    }
    if let Some(name) = &shape.group_by {
        let mut seen: HashSet<String> = HashSet::new();
        candidates.retain(|c| value(c, name).is_none_or(|value| seen.insert(spelt(value))));
    }
    match shape.diversity {
        Some(diversity) if diversity > 0.0 => diverse(candidates, diversity.into(), wanted),
        _ => candidates.into_iter().take(wanted).map(|c| c.found).collect(),
    }
}

fn value<'c>(candidate: &'c Candidate, name: &str) -> Option<&'c AttributeValue> {
    candidate.found.record.attributes().get(name)
}

/// A value as a key; of another type it is another one.
fn spelt(value: &AttributeValue) -> String {
    format!("{value:?}")
}

/// Leaves out what is as similar as `limit` to something better.
fn collapse(candidates: &mut Vec<Candidate>, limit: f32) {
    let mut kept: Vec<Embedding> = Vec::new();
    candidates.retain(|candidate| {
        let Some(embedding) = &candidate.embedding else { return true };
        let fresh = kept.iter().all(|other| other.cosine(embedding) < limit);
        if fresh {
            kept.push(embedding.clone());
        }
        fresh
    });
}

/// Maximal marginal relevance (Carbonell and Goldstein 1998): each next record is the one with the largest
/// `(1 - diversity) score - diversity max cosine to those before`.
fn diverse(candidates: Vec<Candidate>, diversity: f64, wanted: usize) -> Vec<Found> {
    let mut left: Vec<(Candidate, f32)> = candidates.into_iter().map(|c| (c, -1.0)).collect();
    let mut chosen = Vec::new();
    while chosen.len() < wanted && !left.is_empty() {
        let worth = |(c, nearest): &(Candidate, f32)| {
            // Before anything is chosen there is nothing to differ from.
            let penalty = if chosen.is_empty() { 0.0 } else { diversity * f64::from(*nearest) };
            (1.0 - diversity) * c.worth - penalty
        };
        // The first of equals, which is the better one.
        let best =
            (1..left.len()).fold(0, |best, i| if worth(&left[i]) > worth(&left[best]) { i } else { best });
        let (candidate, _) = left.remove(best);
        if let Some(embedding) = &candidate.embedding {
            for (other, nearest) in &mut left {
                *nearest = other.embedding.as_ref().map_or(*nearest, |o| nearest.max(o.cosine(embedding)));
            }
        }
        chosen.push(candidate.found);
    }
    chosen
}
