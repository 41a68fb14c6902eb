//! What an objective sees of a batch, and what it gives back.
//!
//! Owns: [`Views`] with the check of its shapes, [`Relation`], [`Gradients`], and who is kin to whom
//! inside one modality. Deliberately absent: how rows come about, and any loss.

use super::{Needs, ObjectiveError};

/// How an image and a text of a batch are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Relation {
    /// They belong together.
    Positive = 1,
    /// A wrong answer for each other.
    Negative = 2,
    /// Neither: the text is a duplicate of one that belongs to the image, say. Left out of every sum.
    Neutral = 4,
}

/// What may be learned from one batch of n images and m texts.
///
/// Rows are what the towers put out, of any length: every objective scales them itself where it wants
/// unit rows. Slices that no objective in use needs (see [`Needs`]) may be empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Views<'a> {
    /// Length of every row.
    pub dim: usize,
    /// `[n, dim]`.
    pub images: &'a [f32],
    /// `[m, dim]`.
    pub texts: &'a [f32],
    /// `[n, m]`.
    pub relation: &'a [Relation],
    /// `[n, dim]`: another augmented view of every image.
    pub second_images: &'a [f32],
    /// `[m, dim]`: another view of every text.
    pub second_texts: &'a [f32],
    /// `[n, dim]`: the images in the eyes of the momentum encoder, best in another view. No gradient.
    pub key_images: &'a [f32],
    /// `[m, dim]`: the texts in the eyes of the momentum encoder. No gradient.
    pub key_texts: &'a [f32],
    /// `[n]`: two rows with one id, of whichever modality, are no negatives for each other in a queue.
    /// The number of the record serves, or of the set of records that share a text. Empty: none equal.
    pub image_ids: &'a [u64],
    /// `[m]`, in the numbering of `image_ids`.
    pub text_ids: &'a [u64],
    /// Earlier key images.
    pub image_queue: Queued<'a>,
    /// Earlier key texts.
    pub text_queue: Queued<'a>,
    /// `[n, m]`, in 0..=1: what the labels of image and text have in common.
    pub label_similarity: &'a [f32],
}

/// The content of a [`super::Queue`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Queued<'a> {
    /// Unit rows `[k, dim]`, oldest first.
    pub rows: &'a [f32],
    /// `[k]`.
    pub ids: &'a [u64],
}

impl<'a> Views<'a> {
    /// A batch of images and texts without anything optional.
    pub fn pairs(dim: usize, images: &'a [f32], texts: &'a [f32], relation: &'a [Relation]) -> Self {
        Self {
            dim,
            images,
            texts,
            relation,
            second_images: &[],
            second_texts: &[],
            key_images: &[],
            key_texts: &[],
            image_ids: &[],
            text_ids: &[],
            image_queue: Queued::default(),
            text_queue: Queued::default(),
            label_similarity: &[],
        }
    }

    /// Number of images.
    pub fn n(&self) -> usize {
        self.images.len() / self.dim
    }

    /// Number of texts.
    pub fn m(&self) -> usize {
        self.texts.len() / self.dim
    }

    /// Whether every slice has the length that the others imply, and those needed are there.
    pub fn check(&self, needs: Needs) -> Result<(), ObjectiveError> {
        let dim = self.dim;
        if dim == 0 || self.images.is_empty() || self.texts.is_empty() {
            return Err(ObjectiveError::Empty);
        }
        let whole = |what, len: usize| match len % dim {
            0 => Ok(()),
            _ => Err(ObjectiveError::Shape { what, expected: len.div_ceil(dim) * dim, found: len }),
        };
        whole("images", self.images.len())?;
        whole("texts", self.texts.len())?;
        whole("image_queue", self.image_queue.rows.len())?;
        whole("text_queue", self.text_queue.rows.len())?;
        let (images, texts) = (self.images.len(), self.texts.len());
        let (n, m) = (self.n(), self.m());
        let (image_queue, text_queue) = (self.image_queue.rows.len() / dim, self.text_queue.rows.len() / dim);
        let slices = [
            ("relation", true, self.relation.len(), n * m),
            ("second_images", needs.second_images, self.second_images.len(), images),
            ("second_texts", needs.second_texts, self.second_texts.len(), texts),
            ("key_images", needs.key_images, self.key_images.len(), images),
            ("key_texts", needs.key_texts, self.key_texts.len(), texts),
            ("label_similarity", needs.label_similarity, self.label_similarity.len(), n * m),
            ("image_ids", needs.image_queue || needs.text_queue, self.image_ids.len(), n),
            ("text_ids", needs.image_queue || needs.text_queue, self.text_ids.len(), m),
            ("image_queue.ids", needs.image_queue, self.image_queue.ids.len(), image_queue),
            ("text_queue.ids", needs.text_queue, self.text_queue.ids.len(), text_queue),
        ];
        for (what, needed, found, expected) in slices {
            if found != expected && (needed || found != 0) {
                return Err(ObjectiveError::Shape { what, expected, found });
            }
        }
        Ok(())
    }

    /// Every positive pair, image by image.
    pub fn positives(&self) -> Vec<(usize, usize)> {
        positives(self.relation, self.m())
    }

    /// `[n, n]`: pairs of images that share a text, each image with itself included.
    pub fn kin_images(&self) -> Vec<bool> {
        let (n, m) = (self.n(), self.m());
        let mut kin = identity(n);
        for (i, j) in self.positives() {
            for other in 0..n {
                if self.relation[other * m + j] != Relation::Negative {
                    kin[i * n + other] = true;
                    kin[other * n + i] = true;
                }
            }
        }
        kin
    }

    /// `[m, m]`: pairs of texts that an image has in common, each text with itself included.
    pub fn kin_texts(&self) -> Vec<bool> {
        let m = self.m();
        let mut kin = identity(m);
        for (i, j) in self.positives() {
            for other in 0..m {
                if self.relation[i * m + other] != Relation::Negative {
                    kin[j * m + other] = true;
                    kin[other * m + j] = true;
                }
            }
        }
        kin
    }
}

/// Row and column of every [`Relation::Positive`], row by row.
pub(super) fn positives(relation: &[Relation], columns: usize) -> Vec<(usize, usize)> {
    /// A run of this length without a positive costs a few vector instructions.
    const RUN: usize = 64;
    let mut found = Vec::new();
    for (run, related) in relation.chunks(RUN).enumerate() {
        if related.iter().fold(0, |bits, r| bits | *r as u8) & Relation::Positive as u8 == 0 {
            continue;
        }
        let places = related.iter().enumerate().filter(|(_, r)| **r == Relation::Positive);
        found.extend(places.map(|(at, _)| ((run * RUN + at) / columns, (run * RUN + at) % columns)));
    }
    found
}

fn identity(n: usize) -> Vec<bool> {
    (0..n * n).map(|at| at / n == at % n).collect()
}

/// A loss and its gradients, each as long as the slice of [`Views`] it belongs to; zeros where the
/// objective does not look.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gradients {
    /// The value of the objective.
    pub loss: f32,
    /// Gradient of `Views::images`.
    pub images: Vec<f32>,
    /// Gradient of `Views::texts`.
    pub texts: Vec<f32>,
    /// Gradient of `Views::second_images`.
    pub second_images: Vec<f32>,
    /// Gradient of `Views::second_texts`.
    pub second_texts: Vec<f32>,
    /// Gradients of the learned scalars, in the order of [`super::Objective::scalars`].
    pub scalars: Vec<f32>,
}

impl Gradients {
    /// All zero.
    pub fn zeros(views: &Views<'_>, scalars: usize) -> Self {
        Self {
            loss: 0.0,
            images: vec![0.0; views.images.len()],
            texts: vec![0.0; views.texts.len()],
            second_images: vec![0.0; views.second_images.len()],
            second_texts: vec![0.0; views.second_texts.len()],
            scalars: vec![0.0; scalars],
        }
    }

    /// Adds `factor` times the rows' gradients of another; loss and scalars are left alone.
    pub fn add_rows(&mut self, other: &Self, factor: f32) {
        let add = |to: &mut [f32], from: &[f32]| to.iter_mut().zip(from).for_each(|(t, f)| *t += factor * f);
        add(&mut self.images, &other.images);
        add(&mut self.texts, &other.texts);
        add(&mut self.second_images, &other.second_images);
        add(&mut self.second_texts, &other.second_texts);
    }
}
