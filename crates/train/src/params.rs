//! Where each parameter lies in one flat vector, and how it starts.
//!
//! Owns: names (those of Hugging Face `CLIPModel`), shapes, initial values and which parameters
//! weight decay touches. A flat vector makes the optimiser, the checkpoint and the export loops over
//! one slice. Deliberately absent: what the parameters are used for (see `tower`).

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// A run of consecutive parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    start: usize,
    len: usize,
}

impl Span {
    /// The parameters of this span.
    pub fn of(self, all: &[f32]) -> &[f32] {
        &all[self.start..self.start + self.len]
    }

    /// The parameters of this span, mutable.
    pub fn of_mut(self, all: &mut [f32]) -> &mut [f32] {
        &mut all[self.start..self.start + self.len]
    }

    /// This span and the one right behind it, both mutable.
    pub fn pair_mut(self, next: Span, all: &mut [f32]) -> (&mut [f32], &mut [f32]) {
        assert_eq!(self.start + self.len, next.start, "spans are not neighbours");
        all[self.start..next.start + next.len].split_at_mut(self.len)
    }

    /// One span over this one and all up to the end of `last`.
    pub fn through(self, last: Span) -> Span {
        assert!(last.start >= self.start, "spans are out of order");
        Span { start: self.start, len: last.start + last.len - self.start }
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

/// One named tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Slot {
    /// Its Hugging Face name.
    pub name: String,
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Where it lies.
    pub span: Span,
    /// How it starts.
    pub init: Init,
    /// Whether weight decay applies.
    pub decay: bool,
}

/// All tensors of a model or a tower, in the order they lie in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Layout {
    slots: Vec<Slot>,
    len: usize,
}

impl Layout {
    /// Appends a tensor.
    pub fn push(&mut self, name: String, shape: &[usize], init: Init, decay: bool) -> Span {
        let len = shape.iter().product();
        let span = Span { start: self.len, len };
        self.len += len;
        self.slots.push(Slot { name, shape: shape.to_vec(), span, init, decay });
        span
    }

    /// Appends a matrix `[out, in]` that decays.
    pub fn matrix(&mut self, name: String, rows: usize, cols: usize, std: f32) -> Span {
        self.push(name, &[rows, cols], Init::Normal(std), true)
    }

    /// Appends `{name}.weight`, ones, and `{name}.bias`, zeros: a layer norm. Neither decays.
    pub fn norm(&mut self, name: &str, width: usize) -> (Span, Span) {
        let weight = self.push(format!("{name}.weight"), &[width], Init::Constant(1.0), false);
        (weight, self.push(format!("{name}.bias"), &[width], Init::Constant(0.0), false))
    }

    /// Appends all tensors of another layout behind this one's.
    pub fn append(&mut self, other: &Layout) {
        for slot in &other.slots {
            self.push(slot.name.clone(), &slot.shape, slot.init, slot.decay);
        }
    }

    /// The tensors.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Fresh parameters.
    pub fn init(&self, rng: &mut ChaCha8Rng) -> Vec<f32> {
        let mut all = vec![0f32; self.len];
        for slot in &self.slots {
            for value in slot.span.of_mut(&mut all) {
                *value = match slot.init {
                    Init::Constant(c) => c,
                    Init::Normal(std) => std * normal(rng),
                };
            }
        }
        all
    }

    /// 1 where weight decay applies, 0 elsewhere.
    pub fn decay_mask(&self) -> Vec<f32> {
        let mut mask = vec![0f32; self.len];
        for slot in self.slots.iter().filter(|slot| slot.decay) {
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
