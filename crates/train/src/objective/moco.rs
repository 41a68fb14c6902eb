//! Queries against the keys of a momentum encoder, those of this batch and a queue of earlier ones.

use std::collections::HashMap;

use diptych_kernels::{Mat, dot};
use serde::{Deserialize, Serialize};

use super::rows::{Operand, Unit, product, scaled_cosines};
use super::softmax::contrast;
use super::views::{Gradients, Queued, Relation, Views};
use super::{Bound, Needs, Scalar, inverse_temperature, learned_scale};

/// MoCo (He et al. 2020) within one modality: with k the key of the same image, in another view,
///
/// `L = mean_q -ln(exp(q.k / tau) / (exp(q.k / tau) + sum over the queue of exp(q.r / tau)))`.
///
/// Rows of the queue with the id of the query are left out. While the queue is empty, nothing is
/// learned: push the keys of a batch before it is judged and the others of the batch are negatives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Moco {
    /// tau, or where it starts.
    pub temperature: f32,
    /// Learn `ln(1 / tau)`; the paper does not.
    pub learn_temperature: bool,
    /// Image queries, image keys.
    pub images: bool,
    /// Text queries, text keys. With both, the loss is the mean.
    pub texts: bool,
    /// Rows that a queue keeps, K.
    pub queue: usize,
    /// m: the key encoder moves by 1 - m towards the other at every step.
    pub momentum: f32,
}

impl Default for Moco {
    fn default() -> Self {
        Self {
            temperature: 0.07,
            learn_temperature: false,
            images: true,
            texts: false,
            queue: 4096,
            momentum: 0.999,
        }
    }
}

impl Moco {
    pub(super) fn bounds(&self) -> Vec<Bound> {
        let modalities = f32::from(u8::from(self.images) + u8::from(self.texts));
        let mut bounds = memory_bounds(self.temperature, self.queue, self.momentum);
        bounds.push(Bound::new("images + texts", modalities, "at least one of both", modalities > 0.0));
        bounds
    }

    pub(super) fn scalars(&self) -> Vec<Scalar> {
        learned_scale(self.temperature, self.learn_temperature)
    }

    pub(super) fn needs(&self) -> Needs {
        Needs {
            key_images: self.images,
            image_queue: self.images,
            key_texts: self.texts,
            text_queue: self.texts,
            ..Needs::default()
        }
    }

    pub(super) fn evaluate(&self, views: &Views<'_>, scalars: &[f32]) -> Gradients {
        let scale = inverse_temperature(self.temperature, scalars);
        let share = if self.images && self.texts { 0.5 } else { 1.0 };
        let mut out = Gradients::zeros(views, scalars.len());
        let (mut loss, mut d_scale) = (0.0, 0.0);
        if self.images {
            let own: Vec<_> = views.image_ids.iter().map(|&id| vec![id]).collect();
            let keys = Unit::new(views.key_images, views.dim);
            let queries = Unit::new(views.images, views.dim);
            let side = against(&queries, Keys::Own(&keys), views.image_queue, &own, scale, share);
            out.images = side.d_queries;
            loss += side.loss;
            d_scale += side.d_scale;
        }
        if self.texts {
            let own: Vec<_> = views.text_ids.iter().map(|&id| vec![id]).collect();
            let keys = Unit::new(views.key_texts, views.dim);
            let queries = Unit::new(views.texts, views.dim);
            let side = against(&queries, Keys::Own(&keys), views.text_queue, &own, scale, share);
            out.texts = side.d_queries;
            loss += side.loss;
            d_scale += side.d_scale;
        }
        out.loss = loss as f32;
        out.scalars.fill(d_scale as f32);
        out
    }
}

/// MoCo across modalities, the contrast of ALBEF (Li et al. 2021): images as queries against the key
/// texts of the batch and the queue of texts, texts against key images and the queue of images; each an
/// [`super::InfoNce`] direction, and the mean of both. The relation of the batch says which keys are
/// positives; rows of a queue with the id of the query or of one of its positives are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MocoCross {
    /// tau, or where it starts.
    pub temperature: f32,
    /// Learn `ln(1 / tau)` along with the towers.
    pub learn_temperature: bool,
    /// Rows that a queue keeps, K.
    pub queue: usize,
    /// m: the key encoder moves by 1 - m towards the other at every step.
    pub momentum: f32,
}

impl Default for MocoCross {
    fn default() -> Self {
        Self { temperature: 0.07, learn_temperature: true, queue: 4096, momentum: 0.995 }
    }
}

impl MocoCross {
    pub(super) fn bounds(&self) -> Vec<Bound> {
        memory_bounds(self.temperature, self.queue, self.momentum)
    }

    pub(super) fn scalars(&self) -> Vec<Scalar> {
        learned_scale(self.temperature, self.learn_temperature)
    }

    pub(super) fn needs(&self) -> Needs {
        Needs { key_images: true, key_texts: true, image_queue: true, text_queue: true, ..Needs::default() }
    }

    pub(super) fn evaluate(&self, views: &Views<'_>, scalars: &[f32]) -> Gradients {
        let scale = inverse_temperature(self.temperature, scalars);
        let (n, m) = (views.n(), views.m());
        let mut image_ids: Vec<_> = views.image_ids.iter().map(|&id| vec![id]).collect();
        let mut text_ids: Vec<_> = views.text_ids.iter().map(|&id| vec![id]).collect();
        for (i, j) in views.positives() {
            image_ids[i].push(views.text_ids[j]);
            text_ids[j].push(views.image_ids[i]);
        }
        let transposed: Vec<_> = (0..n * m).map(|at| views.relation[at % n * m + at / n]).collect();
        let (images, texts) = (Unit::new(views.images, views.dim), Unit::new(views.texts, views.dim));
        let (key_images, key_texts) =
            (Unit::new(views.key_images, views.dim), Unit::new(views.key_texts, views.dim));
        let of_images = Keys::Related(&key_texts, views.relation);
        let of_images = against(&images, of_images, views.text_queue, &image_ids, scale, 0.5);
        let of_texts = Keys::Related(&key_images, &transposed);
        let of_texts = against(&texts, of_texts, views.image_queue, &text_ids, scale, 0.5);
        let mut out = Gradients::zeros(views, scalars.len());
        out.images = of_images.d_queries;
        out.texts = of_texts.d_queries;
        out.loss = (of_images.loss + of_texts.loss) as f32;
        out.scalars.fill((of_images.d_scale + of_texts.d_scale) as f32);
        out
    }
}

fn memory_bounds(temperature: f32, queue: usize, momentum: f32) -> Vec<Bound> {
    let rows = queue as f32;
    vec![
        Bound::temperature("temperature", temperature),
        Bound::new("queue", rows, "1 to 1048576", (1..=1 << 20).contains(&queue)),
        Bound::new("momentum", momentum, "0 to below 1", (0.0..1.0).contains(&momentum)),
    ]
}

/// The keys of this batch.
enum Keys<'a> {
    /// Key i is the positive of query i and of no interest to the others.
    Own(&'a Unit),
    /// `[queries, keys]` says how they are related.
    Related(&'a Unit, &'a [Relation]),
}

struct Side {
    loss: f64,
    d_queries: Vec<f32>,
    d_scale: f64,
}

/// Queries against the keys of the batch and the queue; `ids` of a query are those it must not be
/// contrasted with.
fn against(
    queries: &Unit,
    keys: Keys<'_>,
    queue: Queued<'_>,
    ids: &[Vec<u64>],
    scale: f32,
    weight: f64,
) -> Side {
    let (n, dim) = (queries.count(), queries.dim);
    let block = match keys {
        Keys::Own(_) => 1,
        Keys::Related(keys, _) => keys.count(),
    };
    let columns = block + queue.ids.len();
    let mut logits = vec![0f32; n * columns];
    let mut relation = vec![Relation::Negative; n * columns];
    match keys {
        Keys::Own(keys) => {
            for i in 0..n {
                logits[i * columns] = scale * dot(queries.row(i), keys.row(i));
                relation[i * columns] = Relation::Positive;
            }
        }
        Keys::Related(keys, related) => {
            scaled_cosines(&mut logits, columns, queries, &keys.rows, scale);
            for (to, from) in relation.chunks_mut(columns).zip(related.chunks(block)) {
                to[..block].copy_from_slice(from);
            }
        }
    }
    if !queue.ids.is_empty() {
        scaled_cosines(&mut logits[block..], columns, queries, queue.rows, scale);
        leave_out_kin(&mut relation, block, queue.ids, ids);
    }
    let loss = contrast(&mut logits, &relation, columns, (weight, 0.0));
    let d = logits;
    let mut d_queries = vec![0f32; n * dim];
    match keys {
        Keys::Own(keys) => {
            for (i, d_query) in d_queries.chunks_mut(dim).enumerate() {
                d_query.iter_mut().zip(keys.row(i)).for_each(|(q, k)| *q = d[i * columns] * k);
            }
        }
        Keys::Related(keys, _) => {
            let (d, keys) = (Operand::rows(&d, columns), Mat::new(&keys.rows, dim));
            product(&mut d_queries, dim, (n, dim, block), d, keys, false);
        }
    }
    if !queue.ids.is_empty() {
        let (d, rows) = (Operand::rows(&d[block..], columns), Mat::new(queue.rows, dim));
        product(&mut d_queries, dim, (n, dim, columns - block), d, rows, true);
    }
    let d_scale = queries.backward(&mut d_queries, scale);
    Side { loss, d_queries, d_scale }
}

/// Makes neutral every row of the queue, which begins at column `block`, that has an id of the query.
fn leave_out_kin(relation: &mut [Relation], block: usize, queue: &[u64], ids: &[Vec<u64>]) {
    let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
    for (place, id) in queue.iter().enumerate() {
        places.entry(*id).or_default().push(place);
    }
    for (row, ids) in relation.chunks_mut(block + queue.len()).zip(ids) {
        for &place in ids.iter().filter_map(|id| places.get(id)).flatten() {
            row[block + place] = Relation::Neutral;
        }
    }
}
