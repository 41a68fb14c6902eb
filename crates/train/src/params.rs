//! Where each parameter lies in one flat vector, and how it starts.
//!
//! Owns: names (those of the checkpoint), shapes as stored, initial values, which parameters are
//! trained and which weight decay touches. A flat vector makes the optimiser, the checkpoint and the
//! export loops over one slice. Deliberately absent: what the parameters are used for (see `tower`).

use std::collections::BTreeMap;
use std::ops::Range;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// A run of consecutive parameters: of those that are trained, or of those that stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    start: usize,
    len: usize,
    trained: bool,
}

impl Span {
    /// This span of the trained parameters, of their gradients or moments.
    pub fn of(self, all: &[f32]) -> &[f32] {
        &all[self.range()]
    }

    /// The same, mutable.
    pub fn of_mut(self, all: &mut [f32]) -> &mut [f32] {
        &mut all[self.range()]
    }

    /// Where it lies in its vector.
    pub fn range(self) -> Range<usize> {
        self.start..self.start + self.len
    }

    /// Number of parameters.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether it has a gradient.
    pub fn trained(self) -> bool {
        self.trained
    }

    /// A part of it.
    pub fn cut(self, first: usize, len: usize) -> Span {
        assert!(first + len <= self.len, "{first} + {len} of {} parameters", self.len);
        Span { start: self.start + first, len, ..self }
    }

    /// One span over this one and `next`, where `next` lies right behind.
    pub fn joined(self, next: Span) -> Option<Span> {
        let neighbours = self.trained == next.trained && self.start + self.len == next.start;
        neighbours.then_some(Span { len: self.len + next.len, ..self })
    }
}

/// All values of a layout, lent to a forward or backward pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Params<'a> {
    /// What the optimiser changes.
    pub trained: &'a [f32],
    /// What stays as it was read.
    pub frozen: &'a [f32],
}

impl<'a> Params<'a> {
    /// The values of a span.
    pub fn of(&self, span: Span) -> &'a [f32] {
        &(if span.trained { self.trained } else { self.frozen })[span.range()]
    }
}

/// All values of a layout.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Values {
    /// What the optimiser changes.
    pub trained: Vec<f32>,
    /// What stays as it was read.
    pub frozen: Vec<f32>,
}

#[cfg(test)]
impl Values {
    /// All of them, to run a tower with.
    pub fn params(&self) -> Params<'_> {
        Params { trained: &self.trained, frozen: &self.frozen }
    }
}

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Init {
    /// The same value everywhere.
    Constant(f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
}

impl Init {
    fn fill(self, values: &mut [f32], rng: &mut ChaCha8Rng) {
        for value in values {
            *value = match self {
                Self::Constant(c) => c,
                Self::Normal(std) => std * normal(rng),
            };
        }
    }
}

/// One named tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Slot {
    /// Its name in checkpoints.
    pub name: String,
    /// Its shape there; empty for a scalar.
    pub shape: Vec<usize>,
    /// Where it lies.
    pub span: Span,
    /// How it starts.
    pub init: Init,
    /// Whether weight decay applies.
    pub decay: bool,
}

/// All tensors of a model or a tower, in the order they lie in memory. Those that are trained and those
/// that are not lie in vectors of their own, so that optimiser and gradients never see the latter.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Layout {
    slots: Vec<Slot>,
    len: usize,
    frozen_len: usize,
}

impl Layout {
    /// Appends a tensor that is trained.
    pub fn push(&mut self, name: String, shape: &[usize], init: Init, decay: bool) -> Span {
        self.tensor(&name, shape, init, decay, true)
    }

    /// The tensor of this name; appends it unless it is there already. Parts of one stored tensor may
    /// be asked for in several places.
    ///
    /// # Panics
    /// If it is there with another shape, or is trained in one place and frozen in another.
    pub fn tensor(&mut self, name: &str, shape: &[usize], init: Init, decay: bool, trained: bool) -> Span {
        if let Some(slot) = self.slots.iter().find(|slot| slot.name == name) {
            assert!(slot.shape == shape && slot.span.trained == trained, "`{name}` has two meanings");
            return slot.span;
        }
        let len = shape.iter().product();
        let end = if trained { &mut self.len } else { &mut self.frozen_len };
        let span = Span { start: *end, len, trained };
        *end += len;
        self.slots.push(Slot { name: name.to_owned(), shape: shape.to_vec(), span, init, decay });
        span
    }

    /// The tensors.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Number of trained parameters.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Number of parameters that stay as they are.
    pub fn frozen_len(&self) -> usize {
        self.frozen_len
    }

    /// Fresh parameters.
    pub fn init(&self, rng: &mut ChaCha8Rng) -> Vec<f32> {
        let mut all = vec![0f32; self.len];
        for slot in self.slots.iter().filter(|slot| slot.span.trained) {
            slot.init.fill(slot.span.of_mut(&mut all), rng);
        }
        all
    }

    /// Parameters from a checkpoint: what `stored` has for a slot, as it lies in its file, and a fresh
    /// start for a slot that it has nothing for.
    ///
    /// # Errors
    /// Those of `stored`.
    ///
    /// # Panics
    /// If a stored tensor has another number of values than its slot.
    pub fn load<E>(
        &self,
        rng: &mut ChaCha8Rng,
        mut stored: impl FnMut(&Slot) -> Result<Option<Vec<f32>>, E>,
    ) -> Result<Values, E> {
        let mut values = Values { trained: vec![0f32; self.len], frozen: vec![0f32; self.frozen_len] };
        for slot in &self.slots {
            let all = if slot.span.trained { &mut values.trained } else { &mut values.frozen };
            match stored(slot)? {
                Some(tensor) => slot.span.of_mut(all).copy_from_slice(&tensor),
                None => slot.init.fill(slot.span.of_mut(all), rng),
            }
        }
        Ok(values)
    }

    /// The trained tensors by name, each as it is stored: what to replace in the checkpoint that they
    /// were read from.
    pub fn collect(&self, trained: &[f32]) -> BTreeMap<String, Vec<f32>> {
        let slots = self.slots.iter().filter(|slot| slot.span.trained);
        slots.map(|slot| (slot.name.clone(), slot.span.of(trained).to_vec())).collect()
    }

    /// 1 where weight decay applies, 0 elsewhere.
    pub fn decay_mask(&self) -> Vec<f32> {
        let mut mask = vec![0f32; self.len];
        for slot in self.slots.iter().filter(|slot| slot.decay && slot.span.trained) {
            slot.span.of_mut(&mut mask).fill(1.0);
        }
        mask
    }
}

/// A standard normal draw (Box-Muller; the second of each pair is dropped).
pub(crate) fn normal(rng: &mut ChaCha8Rng) -> f32 {
    // 1 - u lies in (0, 1], so the logarithm is finite.
    let u: f64 = 1.0 - rng.random::<f64>();
    let angle = std::f64::consts::TAU * rng.random::<f64>();
    ((-2.0 * u.ln()).sqrt() * angle.cos()) as f32
}
