//! How many records have which values.
//!
//! Owns: the counts of one attribute's values over the records that meet a filter. A record counts once,
//! however many parts it has: it is counted by the first point of each modality. Deliberately absent:
//! which points meet a filter (see `postings`).

use std::borrow::Cow;

use diptych_core::{Facet, FacetCounts, FacetValue, Filter, Modality, Target};
use diptych_index::PointSet;

use super::AttributeIndex;
use super::postings::{Postings, Sides, Term};
use crate::points::Points;

/// The records that are counted, by one point each.
struct Counted<'a> {
    /// Of records that are counted by an image, and by a text.
    sides: [Option<Cow<'a, PointSet>>; 2],
}

impl Counted<'_> {
    fn len(&self) -> u64 {
        self.sides.iter().flatten().map(|points| points.len()).sum()
    }

    fn among(&self, sides: &[Points; 2]) -> u64 {
        let common = |side: usize| self.sides[side].as_ref().map_or(0, |points| sides[side].common(points));
        common(0) + common(1)
    }
}

impl AttributeIndex {
    /// Records with parts of the target that meet a filter.
    pub(crate) fn count(&self, filter: Option<&Filter>, target: Target) -> u64 {
        counted(&self.read(), filter, target).len()
    }

    /// The values of attributes over the records with parts of the target that meet a filter.
    pub(crate) fn facets(
        &self,
        facets: &[Facet],
        filter: Option<&Filter>,
        target: Target,
    ) -> Vec<FacetCounts> {
        let postings = self.read();
        let counted = counted(&postings, filter, target);
        facets.iter().map(|facet| count_values(&postings, &counted, facet)).collect()
    }
}

fn counted<'a>(postings: &'a Postings, filter: Option<&Filter>, target: Target) -> Counted<'a> {
    let side = |modality: Modality, leads: &'a PointSet| match filter {
        None => Cow::Borrowed(leads),
        Some(filter) => Cow::Owned(postings.meeting(filter.condition(), modality as usize).as_ref() & leads),
    };
    let [image, text] = &postings.leads;
    let (image, text) = match target {
        Target::Only(Modality::Image) => (Some(side(Modality::Image, image)), None),
        Target::Only(Modality::Text) => (None, Some(side(Modality::Text, text))),
        Target::Both => (Some(side(Modality::Image, image)), Some(side(Modality::Text, &postings.only_text))),
    };
    Counted { sides: [image, text] }
}

fn count_values(postings: &Postings, counted: &Counted<'_>, facet: &Facet) -> FacetCounts {
    let name = facet.attribute();
    let Some(attribute) = postings.attribute(name) else {
        return FacetCounts { attribute: name.to_owned(), records: 0, values: Vec::new(), distinct: 0 };
    };
    let mut found: Vec<(u64, &Term)> = Vec::new();
    let all: [&std::collections::BTreeMap<Term, Sides>; 2] = [&attribute.values, &attribute.members];
    for (term, sides) in all.into_iter().flatten() {
        match counted.among(sides) {
            0 => {}
            records => found.push((records, term)),
        }
    }
    let distinct = found.len() as u64;
    found.sort_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.cmp(y)));
    let values = found
        .into_iter()
        .filter_map(|(records, term)| Some(FacetValue { value: term.value()?, records }))
        .take(facet.limit())
        .collect();
    FacetCounts { attribute: name.to_owned(), records: counted.among(&attribute.any), values, distinct }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use diptych_core::{AttributeValue, Attributes, FilterValue, Number, PartRef, PointId};
    use diptych_store::{Applied, Outcome};

    use super::*;

    /// A record with images and texts, whose points begin at `first`.
    fn record(first: u64, images: u32, texts: u32) -> Vec<(PartRef, PointId)> {
        let images = (0..images).map(|n| PartRef::whole(Modality::Image, n));
        let texts = (0..texts).map(|n| PartRef::whole(Modality::Text, n));
        images.chain(texts).zip(first..).map(|(part, id)| (part, PointId(id))).collect()
    }

    fn change(added: Vec<(PartRef, PointId)>, removed: Vec<(PartRef, PointId)>) -> Applied {
        Applied { outcome: Outcome::Updated, seq: Some(1), added, removed, kept: Vec::new(), repeated: None }
    }

    fn attributes(view: &str, labels: &[&str], age: i64) -> Attributes {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        Attributes::from([
            ("view".to_owned(), AttributeValue::String(view.to_owned())),
            ("labels".to_owned(), AttributeValue::List(labels)),
            ("age".to_owned(), AttributeValue::Integer(age)),
        ])
    }

    fn told(counts: &FacetCounts) -> Vec<(String, u64)> {
        let told = |value: &FacetValue| match &value.value {
            FilterValue::Text(text) => (text.clone(), value.records),
            FilterValue::Number(Number::Integer(v)) => (v.to_string(), value.records),
            other => panic!("{other:?}"),
        };
        counts.values.iter().map(told).collect()
    }

    fn filled() -> AttributeIndex {
        let index = AttributeIndex::default();
        for (points, of) in [
            (record(10, 2, 3), attributes("PA", &["mass", "nodule"], 40)),
            (record(20, 1, 0), attributes("AP", &["mass"], 41)),
            (record(30, 0, 2), attributes("PA", &["none"], 40)),
        ] {
            index.apply(&[change(points, Vec::new())], &[&of]);
        }
        index
    }

    #[test]
    fn a_record_counts_once_however_many_parts_it_has() {
        let index = filled();
        let facets = |target| {
            let facets = ["view", "labels"].map(|name| Facet::new(name, 10).unwrap());
            let counts = index.facets(&facets, None, target);
            (told(&counts[0]), told(&counts[1]))
        };
        let pairs = |pairs: &[(&str, u64)]| pairs.iter().map(|&(v, n)| (v.to_owned(), n)).collect::<Vec<_>>();
        let both = (pairs(&[("PA", 2), ("AP", 1)]), pairs(&[("mass", 2), ("nodule", 1), ("none", 1)]));
        assert_eq!(facets(Target::Both), both);
        let image = (pairs(&[("AP", 1), ("PA", 1)]), pairs(&[("mass", 2), ("nodule", 1)]));
        assert_eq!(facets(Target::Only(Modality::Image)), image);
        let text = (pairs(&[("PA", 2)]), pairs(&[("mass", 1), ("nodule", 1), ("none", 1)]));
        assert_eq!(facets(Target::Only(Modality::Text)), text);
    }

    #[test]
    fn a_filter_and_a_limit_bound_what_is_counted_and_listed() {
        let index = filled();
        let filter: Filter = "age = 40".parse().unwrap();
        assert_eq!(index.count(Some(&filter), Target::Both), 2);
        assert_eq!(index.count(None, Target::Only(Modality::Image)), 2);
        let facet = [Facet::new("labels", 1).unwrap(), Facet::new("age", 5).unwrap()];
        let counts = index.facets(&facet, Some(&filter), Target::Both);
        assert_eq!(told(&counts[0]), [("mass".to_owned(), 1)]);
        assert_eq!((counts[0].records, counts[0].distinct), (2, 3));
        assert_eq!(told(&counts[1]), [("40".to_owned(), 2)]);
        let none = index.facets(&[Facet::new("sex", 5).unwrap()], None, Target::Both);
        assert_eq!((none[0].records, none[0].values.len()), (0, 0));
    }

    #[test]
    fn what_is_deleted_or_too_long_to_be_shown_is_not_listed() {
        let index = filled();
        index.apply(&[change(Vec::new(), record(30, 0, 2))], &[&Attributes::new()]);
        index.apply(&[change(record(40, 1, 1), Vec::new())], &[&attributes(&"x".repeat(65), &[], 1)]);
        let counts = &index.facets(&[Facet::new("view", 5).unwrap()], None, Target::Both)[0];
        assert_eq!(told(counts), [("AP".to_owned(), 1), ("PA".to_owned(), 1)]);
        assert_eq!((counts.records, counts.distinct), (3, 3));
    }
}
