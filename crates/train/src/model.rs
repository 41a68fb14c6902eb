//! Both sides of a model, one flat parameter vector, and the gradient of one batch.
//!
//! Owns: towers and heads, splitting a batch into chunks that run in parallel and adding their gradients
//! up in a fixed order, so that a run gives the same bits on any number of threads; and cached gradients
//! (Gao et al. 2021): a batch larger than memory is embedded piece by piece, its loss is taken over all
//! of it, and the pieces are run again for their gradients. Deliberately absent: where batches come
//! from, what is minimised, and what the optimiser does.

use std::ops::Range;

use diptych_core::Modality;
use rayon::prelude::*;

use crate::head::Head;
use crate::ops::add_assign;
use crate::params::{Layout, Params, Span};
use crate::sampler::Inputs;
use crate::tape::{LinearSpan, Node, Tape};
use crate::tower::{ImageTower, TextTower};

/// Chunks per side at most. Fixed, see above; more than cores, so that unequal chunks even out.
const CHUNKS: usize = 8;
/// Values in the gradients of all chunks together at most, as long as there are two chunks: what a large
/// open tower may take of the memory.
const CHUNK_VALUES: usize = 1 << 28;
/// Samples of a chunk where there is no tower, as long as there are two chunks: a product has to prepare
/// the weights of a head, and a gradient has to be written, once per chunk.
const ROWS: usize = 256;

/// What runs in front of a head.
#[derive(Debug)]
pub(crate) enum Trunk {
    /// Nothing: rows of a frozen tower, this wide.
    Rows(usize),
    /// An image tower.
    Image(Box<ImageTower>),
    /// A text tower.
    Text(Box<TextTower>),
}

/// One side of a model.
#[derive(Debug)]
pub(crate) struct Side {
    trunk: Trunk,
    head: Option<Head>,
    /// Where the side's own parameters lie among the trained ones.
    own: Range<usize>,
    work: Vec<Work>,
}

/// A tape per chunk, and what leaves it.
#[derive(Debug, Default)]
struct Work {
    tape: Tape,
    last: Option<Node>,
}

/// What dropout draws from, and the number of the first sample of a call among those of its batch: what
/// is left out of a sample does not depend on the piece it is embedded in.
pub(crate) type Seed = (u64, usize);

/// The towers and heads of a model. It holds no trained parameters: those are passed to every call.
#[derive(Debug)]
pub(crate) struct Model {
    image: Side,
    text: Side,
    layout: Layout,
    frozen: Vec<f32>,
    /// Gradients of all parameters, one vector per chunk.
    grads: Vec<Vec<f32>>,
}

impl Trunk {
    /// Width of its output.
    pub fn out(&self) -> usize {
        match self {
            Self::Rows(width) => *width,
            Self::Image(tower) => tower.out(),
            Self::Text(tower) => tower.out(),
        }
    }
}

impl Side {
    /// A side of these parts, whose parameters lie at `own` among the trained ones.
    pub fn new(trunk: Trunk, head: Option<Head>, own: Range<usize>) -> Self {
        Self { trunk, head, own, work: Vec::new() }
    }

    /// The head, if there is one.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// The trained layer that it ends with, if that is linear.
    pub fn last_layer(&self) -> Option<&LinearSpan> {
        let layer = match (&self.head, &self.trunk) {
            (Some(head), _) => head.last_layer(),
            (None, Trunk::Image(tower)) => tower.last_layer(),
            (None, Trunk::Text(tower)) => tower.last_layer(),
            (None, Trunk::Rows(_)) => None,
        };
        layer.filter(|layer| layer.trained())
    }

    /// Dimensions of the shared space.
    pub fn dim(&self) -> usize {
        self.head.as_ref().map_or(self.trunk.out(), Head::dim)
    }

    /// Values of one sample; of a text, whose samples are lists of their own, one.
    pub fn values(&self) -> usize {
        match &self.trunk {
            Trunk::Rows(width) => *width,
            Trunk::Image(tower) => tower.pixels(),
            Trunk::Text(_) => 1,
        }
    }

    /// The samples of every chunk: neighbours in length, for texts.
    fn chunks(&self, inputs: &Inputs) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.count(inputs)).collect();
        let mut per_chunk = order.len().div_ceil(self.work.len()).max(1);
        match inputs {
            Inputs::Tokens(texts) => order.sort_by_key(|&i| (texts[i].len(), i)),
            Inputs::Rows(_) => per_chunk = per_chunk.max(order.len().div_ceil(2).clamp(1, ROWS)),
            Inputs::Pixels(_) => {}
        }
        order.chunks(per_chunk).map(<[usize]>::to_vec).collect()
    }

    fn count(&self, inputs: &Inputs) -> usize {
        match (inputs, &self.trunk) {
            (Inputs::Tokens(texts), _) => texts.len(),
            (Inputs::Rows(rows), Trunk::Rows(width)) => rows.len() / width,
            (Inputs::Pixels(values), Trunk::Image(tower)) => values.len() / tower.pixels(),
            _ => unreachable!("each side is fed what it was built for"),
        }
    }

    /// Runs one chunk forward.
    fn run(
        &self,
        work: &mut Work,
        params: &Params<'_>,
        inputs: &Inputs,
        chosen: &[usize],
        seed: Option<Seed>,
    ) {
        let tape = &mut work.tape;
        tape.reset();
        // Images and rows keep their order, so a chunk is one run of them.
        let run = |size: usize| chosen[0] * size..(chosen[0] + chosen.len()) * size;
        let x = match (inputs, &self.trunk) {
            (Inputs::Rows(rows), Trunk::Rows(width)) => tape.input(&rows[run(*width)], *width),
            (Inputs::Pixels(values), Trunk::Image(tower)) => {
                tower.forward(tape, params, &values[run(tower.pixels())])
            }
            (Inputs::Tokens(texts), Trunk::Text(tower)) => {
                let texts: Vec<&[u32]> = chosen.iter().map(|&i| texts[i].as_slice()).collect();
                tower.forward(tape, params, &texts)
            }
            _ => unreachable!("each side is fed what it was built for"),
        };
        let seeds: Option<Vec<u64>> =
            seed.map(|(seed, first)| chosen.iter().map(|&i| mixed(seed, first + i)).collect());
        work.last = Some(match &self.head {
            None => x,
            Some(head) => head.forward(tape, params, x, seeds.as_deref()),
        });
    }

    /// Embeds inputs into rows of the shared space, not yet of unit length, in the order given. With a
    /// seed, dropout is on.
    fn embed(&mut self, params: &Params<'_>, inputs: &Inputs, seed: Option<Seed>) -> Vec<f32> {
        let chunks = self.chunks(inputs);
        let mut work = std::mem::take(&mut self.work);
        work.par_iter_mut()
            .zip(&chunks)
            .for_each(|(work, chosen)| self.run(work, params, inputs, chosen, seed));
        let dim = self.dim();
        let mut out = vec![0f32; self.count(inputs) * dim];
        for (work, chosen) in work.iter().zip(&chunks) {
            let rows = work.tape.rows(work.last.expect("the chunk has just run"));
            for (row, &i) in rows.chunks_exact(dim).zip(chosen) {
                out[i * dim..][..dim].copy_from_slice(row);
            }
        }
        self.work = work;
        out
    }

    /// Runs the last `embed` backward and leaves the gradients of each chunk in a vector of its own; tells
    /// how many there are.
    fn backward(
        &mut self,
        params: &Params<'_>,
        inputs: &Inputs,
        d_rows: &[f32],
        grads: &mut [Vec<f32>],
    ) -> usize {
        let (chunks, dim, own) = (self.chunks(inputs), self.dim(), self.own.clone());
        let each = self.work.par_iter_mut().zip(&chunks).zip(grads);
        each.for_each(|((work, chosen), grads)| {
            grads[own.clone()].fill(0.0);
            let mut d = Vec::with_capacity(chosen.len() * dim);
            chosen.iter().for_each(|&i| d.extend_from_slice(&d_rows[i * dim..][..dim]));
            let last = work.last.expect("a forward pass comes first");
            work.tape.backward(last, &d, params, grads);
        });
        chunks.len()
    }
}

impl Model {
    /// A model of two sides whose parameters lie as `layout` says; `frozen` are those that never change.
    pub fn new(mut image: Side, mut text: Side, layout: Layout, frozen: Vec<f32>) -> Self {
        let chunks = (CHUNK_VALUES / layout.len().max(1)).clamp(2, CHUNKS);
        for side in [&mut image, &mut text] {
            side.work = (0..chunks).map(|_| Work::default()).collect();
        }
        let grads = vec![vec![0f32; layout.len()]; chunks];
        Self { image, text, layout, frozen, grads }
    }

    /// All tensors.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The values of a span, trained or not.
    pub fn values<'a>(&'a self, span: Span, trained: &'a [f32]) -> &'a [f32] {
        Params { trained, frozen: &self.frozen }.of(span)
    }

    /// Dimensions of the shared space.
    pub fn dim(&self) -> usize {
        self.image.dim()
    }

    /// One side.
    pub fn side(&self, modality: Modality) -> &Side {
        match modality {
            Modality::Image => &self.image,
            Modality::Text => &self.text,
        }
    }

    /// Embeds images into rows of the shared space, not yet of unit length, without dropout.
    pub fn embed_images(&mut self, trained: &[f32], inputs: &Inputs) -> Vec<f32> {
        self.embed(Modality::Image, trained, inputs, None)
    }

    /// Embeds texts likewise.
    pub fn embed_texts(&mut self, trained: &[f32], inputs: &Inputs) -> Vec<f32> {
        self.embed(Modality::Text, trained, inputs, None)
    }

    /// Embeds inputs of one side. With a seed, the heads leave out some of their inputs.
    pub fn embed(
        &mut self,
        modality: Modality,
        trained: &[f32],
        inputs: &Inputs,
        seed: Option<Seed>,
    ) -> Vec<f32> {
        assert_eq!(trained.len(), self.layout.len(), "parameters of another model");
        let params = Params { trained, frozen: &self.frozen };
        let side = match modality {
            Modality::Image => &mut self.image,
            Modality::Text => &mut self.text,
        };
        side.embed(&params, inputs, seed)
    }

    /// Adds to `grads` the gradient of all parameters from the last [`Model::embed`] of one side, given
    /// the gradient of its rows.
    pub fn backward(
        &mut self,
        modality: Modality,
        trained: &[f32],
        inputs: &Inputs,
        d_rows: &[f32],
        grads: &mut [f32],
    ) {
        let params = Params { trained, frozen: &self.frozen };
        let side = match modality {
            Modality::Image => &mut self.image,
            Modality::Text => &mut self.text,
        };
        let used = side.backward(&params, inputs, d_rows, &mut self.grads);
        add_up(grads, &self.grads[..used], side.own.clone());
    }
}

/// A seed of its own for every sample of a batch.
fn mixed(seed: u64, sample: usize) -> u64 {
    seed ^ (sample as u64).wrapping_mul(0xff51_afd7_ed55_8ccd)
}

/// Adds the chunks' gradients, first to last, where a side's parameters lie.
fn add_up(out: &mut [f32], chunks: &[Vec<f32>], own: Range<usize>) {
    const PIECE: usize = 1 << 14;
    out[own.clone()].par_chunks_mut(PIECE).enumerate().for_each(|(i, out)| {
        for grads in chunks {
            add_assign(out, &grads[own.start + i * PIECE..][..out.len()]);
        }
    });
}
