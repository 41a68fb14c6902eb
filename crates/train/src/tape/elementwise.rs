//! What a tape does to each element or each row by itself.
//!
//! Owns: activations, sums, factors per column, dropout and unit length, with their gradients.
//! Deliberately absent: what moves rows about (see `rows`).

use std::ops::Range;

use diptych_kernels::{Activation, dot, multiversion};

use super::buffers::Buffer;
use super::{Back, Node, Op, Tape};
use crate::ops::{activation_backward, add_assign, add_column_products, multiply_columns};
use crate::params::{Params, Span};

/// See [`Tape::activation`].
#[derive(Debug)]
pub(super) struct Activate {
    pub(super) x: Node,
    activation: Activation,
}

/// See [`Tape::add`].
#[derive(Debug)]
pub(super) struct Add {
    pub(super) a: Node,
    pub(super) b: Node,
}

/// See [`Tape::scale`].
#[derive(Debug)]
pub(super) struct Scale {
    pub(super) x: Node,
    scale: Span,
    pub(super) residual: Option<Node>,
}

/// See [`Tape::dropout`].
#[derive(Debug)]
pub(super) struct Dropout {
    pub(super) x: Node,
    rate: f32,
    seeds: Range<usize>,
}

/// See [`Tape::unit`].
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) x: Node,
}

impl Tape {
    /// A function of every element.
    pub fn activation(&mut self, x: Node, activation: Activation) -> Node {
        let mut y = self.copy_of(x);
        activation.apply(&mut y);
        self.push(Op::Activation(Activate { x, activation }), self.width(x), y, self.needs(x))
    }

    /// `a + b`, which have the same shape.
    pub fn add(&mut self, a: Node, b: Node) -> Node {
        assert_eq!(self.width(a), self.width(b), "a sum of rows of different widths");
        let mut y = self.copy_of(a);
        add_assign(&mut y, self.rows(b));
        self.push(Op::Add(Add { a, b }), self.width(a), y, self.needs(a) || self.needs(b))
    }

    /// `residual + x * scale`, with a factor per column (layer scale).
    pub fn scale(&mut self, x: Node, scale: Span, residual: Option<Node>, params: &Params<'_>) -> Node {
        assert_eq!(scale.len(), self.width(x), "a factor per column");
        let mut y = self.pool.take(self.rows(x).len());
        multiply_columns(&mut y, self.rows(x), params.of(scale));
        if let Some(residual) = residual {
            add_assign(&mut y, self.rows(residual));
        }
        let needs = self.needs(x) || scale.trained() || residual.is_some_and(|r| self.needs(r));
        self.push(Op::Scale(Scale { x, scale, residual }), self.width(x), y, needs)
    }

    /// Sets each value to 0 with probability `rate` and divides the others by `1 - rate` (Srivastava et
    /// al. 2014). Which ones it hits depends on the row's seed and the column alone.
    ///
    /// # Panics
    /// Unless `0 <= rate < 1` and there is a seed per row.
    pub fn dropout(&mut self, x: Node, rate: f32, seeds: &[u64]) -> Node {
        assert!((0.0..1.0).contains(&rate), "a dropout rate of {rate}");
        assert_eq!(seeds.len(), self.count(x), "a seed per row");
        let mut y = self.copy_of(x);
        drop_out(&mut y, self.width(x), rate, seeds);
        let start = self.seeds.len();
        self.seeds.extend_from_slice(seeds);
        let op = Dropout { x, rate, seeds: start..self.seeds.len() };
        self.push(Op::Dropout(op), self.width(x), y, self.needs(x))
    }

    /// Each row divided by its length. A row of zeros becomes NaN.
    pub fn unit(&mut self, x: Node) -> Node {
        let mut y = self.copy_of(x);
        for row in y.chunks_exact_mut(self.width(x)) {
            let norm = dot(row, row).sqrt();
            row.iter_mut().for_each(|v| *v /= norm);
        }
        self.push(Op::Unit(Unit { x }), self.width(x), y, self.needs(x))
    }

    fn copy_of(&mut self, x: Node) -> Buffer {
        let mut y = self.pool.take(self.entries[x.0].value().len());
        y.copy_from_slice(self.rows(x));
        y
    }
}

impl Activate {
    pub fn backward(&self, mut dy: Buffer, back: &mut Back<'_>) {
        activation_backward(self.activation, &mut dy, back.before[self.x.0].value());
        back.give(self.x, dy);
    }
}

impl Add {
    pub fn backward(&self, dy: Buffer, back: &mut Back<'_>) {
        if back.needs(self.a) {
            let mut da = back.open_zeroed(self.a);
            add_assign(&mut da, &dy);
            back.close(self.a, da);
        }
        back.give(self.b, dy);
    }
}

impl Scale {
    pub fn backward(&self, dy: Buffer, back: &mut Back<'_>) {
        if self.scale.trained() {
            let x = back.before[self.x.0].value();
            add_column_products(self.scale.of_mut(back.grads), &dy, x);
        }
        if back.needs(self.x) {
            let mut dx = back.pool.take(dy.len());
            multiply_columns(&mut dx, &dy, back.params.of(self.scale));
            back.give(self.x, dx);
        }
        match self.residual {
            Some(residual) => back.give(residual, dy),
            None => back.pool.give(dy),
        }
    }
}

impl Dropout {
    pub fn backward(&self, width: usize, mut dy: Buffer, back: &mut Back<'_>) {
        drop_out(&mut dy, width, self.rate, &back.seeds[self.seeds.clone()]);
        back.give(self.x, dy);
    }
}

impl Unit {
    /// `dx = (dy - <dy, y> y) / |x|`.
    pub fn backward(&self, width: usize, mut dy: Buffer, back: &mut Back<'_>) {
        let x = back.before[self.x.0].value();
        for (d, x) in dy.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let norm = dot(x, x).sqrt();
            let along = dot(d, x) / norm;
            for (d, x) in d.iter_mut().zip(x) {
                *d = (*d - along * (x / norm)) / norm;
            }
        }
        back.give(self.x, dy);
    }
}

fn drop_out(rows: &mut [f32], width: usize, rate: f32, seeds: &[u64]) {
    // A hash of 32 bits is below this with probability `rate`.
    let limit = (f64::from(rate) * 4_294_967_296.0) as u32;
    for (row, seed) in rows.chunks_exact_mut(width).zip(seeds) {
        drop_out_of_row(row, (seed ^ (seed >> 32)) as u32, limit, 1.0 / (1.0 - rate));
    }
}

multiversion! {
    /// Sets to 0 where a hash of seed and column is below `limit`, multiplies by `kept` elsewhere. The hash
    /// is 32 bits of multiplications and shifts (Wellons 2018, `lowbias32`), as many at a time as the
    /// processor has lanes.
    fn drop_out_of_row(row: &mut [f32], seed: u32, limit: u32, kept: f32) {
        for (column, v) in row.iter_mut().enumerate() {
            let mut x = seed.wrapping_add((column as u32).wrapping_mul(0x9e37_79b9));
            x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
            x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
            x ^= x >> 16;
            *v *= if x < limit { 0.0 } else { kept };
        }
    }
}
