//! What is evaluated: the items of both sides, whom they belong to, and what is known of that.
//!
//! Owns: the checks of these lists and which items are right answers for which. An image and a text
//! belong together when they are of one record, or when the record of the image has the same text.

use std::collections::HashMap;

use diptych_core::Embedding;

use crate::EvalError;
use crate::bootstrap::dense;

/// Images and texts by the records they belong to. Records are numbered from 0; one may have several
/// images and several texts, all of them right answers for each other.
#[derive(Debug, Clone)]
pub struct Pairs<'a> {
    pub(crate) images: Side<'a>,
    pub(crate) texts: Side<'a>,
    /// Per text, the number of its wording.
    wordings: Vec<u32>,
    wording_count: usize,
    /// Per wording, its first text, where equal texts were named.
    pub(crate) distinct_texts: Option<Vec<u32>>,
    /// Per record, its cluster.
    pub(crate) clusters: Vec<u32>,
    /// Distinct label sets, each sorted and without repetition, and the number of each record's set.
    pub(crate) labels: Option<(Vec<Vec<u32>>, Vec<u32>)>,
}

/// Embeddings with the record of each; not empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side<'a> {
    pub embeddings: &'a [Embedding],
    pub records: &'a [u32],
}

/// Which gallery items are right for which queries, by the wordings that both belong to.
pub(crate) struct Relation {
    /// Per query, its wordings, each once.
    queries: Vec<Vec<u32>>,
    /// Per wording, its gallery items.
    items: Vec<Vec<u32>>,
}

impl Relation {
    /// The right items of a query, each once and in no particular order.
    pub fn right(&self, query: usize) -> impl Iterator<Item = u32> {
        self.queries[query].iter().flat_map(|&wording| self.items[wording as usize].iter().copied())
    }
}

impl<'a> Pairs<'a> {
    /// Images and texts, each with the number of its record, below `records`. Every record is a
    /// cluster of its own, and equal texts of different records are wrong answers for each other,
    /// until it is said otherwise.
    ///
    /// # Errors
    /// [`EvalError`] when a side is empty, lengths or dimensions differ or a record is not there.
    pub fn new(
        images: &'a [Embedding],
        image_records: &'a [u32],
        texts: &'a [Embedding],
        text_records: &'a [u32],
        records: usize,
    ) -> Result<Self, EvalError> {
        let images = Side::new("images", images, image_records, records)?;
        let texts = Side::new("texts", texts, text_records, records)?;
        check_dimensions(&[("images", images.embeddings), ("texts", texts.embeddings)])?;
        let clusters = (0u32..).take(records).collect();
        Ok(Self {
            images,
            texts,
            wordings: text_records.to_vec(),
            wording_count: records,
            distinct_texts: None,
            clusters,
            labels: None,
        })
    }

    /// Says which texts are the same: those of equal number. They are right answers for the images of
    /// all their records, and one item of the gallery: copies that score alike would stand together
    /// in every order, unlike in a random one, so that chance would be wrong.
    ///
    /// # Errors
    /// [`EvalError::Lengths`] when there is not one number for each text.
    pub fn with_equal_texts(mut self, numbers: &[u32]) -> Result<Self, EvalError> {
        check_lengths("texts", self.texts.records.len(), "numbers of wordings", numbers.len())?;
        (self.wordings, self.wording_count) = dense(numbers.iter().copied());
        let mut first = vec![None; self.wording_count];
        for (text, &wording) in (0u32..).zip(&self.wordings) {
            first[wording as usize].get_or_insert(text);
        }
        self.distinct_texts = Some(first.into_iter().flatten().collect());
        Ok(self)
    }

    /// Says which records are not independent of one another, such as those of one patient: those of
    /// equal number are resampled and shuffled together.
    ///
    /// # Errors
    /// [`EvalError::Lengths`] when there is not one number for each record.
    pub fn with_clusters(mut self, clusters: &[u32]) -> Result<Self, EvalError> {
        check_lengths("records", self.clusters.len(), "clusters", clusters.len())?;
        self.clusters = clusters.to_vec();
        Ok(self)
    }

    /// Says what is true of each record: a set of labels, each a number. Order and repetition within
    /// a set mean nothing.
    ///
    /// # Errors
    /// [`EvalError::Lengths`] when there is not one set for each record.
    pub fn with_labels(mut self, labels: &[Vec<u32>]) -> Result<Self, EvalError> {
        check_lengths("records", self.clusters.len(), "label sets", labels.len())?;
        let mut numbers: HashMap<Vec<u32>, u32> = HashMap::new();
        let (mut sets, mut of_records) = (Vec::new(), Vec::with_capacity(labels.len()));
        for labels in labels {
            let mut set = labels.clone();
            set.sort_unstable();
            set.dedup();
            let next =
                u32::try_from(sets.len()).expect("no more sets than records, which have 32-bit numbers");
            of_records.push(*numbers.entry(set).or_insert_with_key(|set| {
                sets.push(set.clone());
                next
            }));
        }
        self.labels = Some((sets, of_records));
        Ok(self)
    }

    /// Right answers in both directions, text to image and image to text, when the images of each
    /// record belong to the record that `owner` gives.
    pub(crate) fn relations(&self, owner: impl Fn(u32) -> u32) -> (Relation, Relation) {
        let mut of_record = vec![Vec::new(); self.clusters.len()];
        let mut texts = vec![Vec::new(); self.wording_count];
        for ((text, &record), &wording) in (0u32..).zip(self.texts.records).zip(&self.wordings) {
            let wordings: &mut Vec<u32> = &mut of_record[record as usize];
            if !wordings.contains(&wording) {
                wordings.push(wording);
            }
            match self.distinct_texts {
                // The gallery has one item for each wording, in their order.
                Some(_) => texts[wording as usize] = vec![wording],
                None => texts[wording as usize].push(text),
            }
        }
        let of_images: Vec<Vec<u32>> =
            self.images.records.iter().map(|&record| of_record[owner(record) as usize].clone()).collect();
        let mut images = vec![Vec::new(); self.wording_count];
        for (image, wordings) in (0u32..).zip(&of_images) {
            wordings.iter().for_each(|&wording| images[wording as usize].push(image));
        }
        let of_texts = self.wordings.iter().map(|&wording| vec![wording]).collect();
        (Relation { queries: of_texts, items: images }, Relation { queries: of_images, items: texts })
    }
}

impl<'a> Side<'a> {
    fn new(
        name: &'static str,
        embeddings: &'a [Embedding],
        records: &'a [u32],
        count: usize,
    ) -> Result<Self, EvalError> {
        check_lengths(name, embeddings.len(), "record numbers", records.len())?;
        if embeddings.is_empty() {
            return Err(EvalError::Empty { side: name });
        }
        check_references(name, records, count)?;
        Ok(Self { embeddings, records })
    }
}

pub(crate) fn check_lengths(
    side: &'static str,
    expected: usize,
    what: &'static str,
    found: usize,
) -> Result<(), EvalError> {
    if found == expected { Ok(()) } else { Err(EvalError::Lengths { side, expected, what, found }) }
}

/// Every number is below `count`.
pub(crate) fn check_references(side: &'static str, numbers: &[u32], count: usize) -> Result<(), EvalError> {
    match numbers.iter().position(|&number| number as usize >= count) {
        Some(position) => Err(EvalError::Reference { side, position, found: numbers[position], count }),
        None => Ok(()),
    }
}

/// All embeddings have the dimension of the first of the first side, which is not empty.
pub(crate) fn check_dimensions(sides: &[(&'static str, &[Embedding])]) -> Result<(), EvalError> {
    let expected = sides[0].1[0].dim();
    for &(side, embeddings) in sides {
        if let Some(position) = embeddings.iter().position(|e| e.dim() != expected) {
            let found = embeddings[position].dim();
            return Err(EvalError::Dimension { side, position, expected, found });
        }
    }
    Ok(())
}
