//! Rows of unit length, their cosines, and the way back through both.
//!
//! Owns: normalisation with its gradient, and the matrix products of every objective, spread over
//! threads. Deliberately absent: what is done with the cosines.

use diptych_kernels::{Mat, MatMut, dot, multiversion};
use rayon::prelude::*;

use super::views::{Gradients, Views};
use crate::ops::matmul;

/// The length of every row, and the rows scaled to unit length. A zero row becomes NaN, which the
/// trainer reports as a loss that is not finite.
pub(crate) fn unit_rows(x: &[f32], dim: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut norms, mut unit) = (vec![0f32; x.len() / dim], x.to_vec());
    normalize(&mut unit, &mut norms);
    (norms, unit)
}

multiversion! {
    fn normalize(rows: &mut [f32], norms: &mut [f32]) {
        let dim = rows.len() / norms.len().max(1);
        for (i, norm) in norms.iter_mut().enumerate() {
            let row = &mut rows[i * dim..][..dim];
            *norm = dot(row, row).sqrt();
            for x in row.iter_mut() {
                *x /= *norm;
            }
        }
    }
}

/// Rows scaled to unit length, and what is needed to go back.
pub(super) struct Unit {
    pub rows: Vec<f32>,
    norms: Vec<f32>,
    pub dim: usize,
}

impl Unit {
    pub fn new(raw: &[f32], dim: usize) -> Self {
        let (norms, rows) = unit_rows(raw, dim);
        Self { rows, norms, dim }
    }

    pub fn count(&self) -> usize {
        self.norms.len()
    }

    pub fn row(&self, i: usize) -> &[f32] {
        &self.rows[i * self.dim..][..self.dim]
    }

    /// Turns the gradient of `scale * unit rows` into that of the raw rows: `d <- scale (d - <d, u> u) /
    /// norm`. Returns the gradient of `ln scale`, the sum of `scale <d, u>`.
    pub fn backward(&self, d: &mut [f32], scale: f32) -> f64 {
        let mut along = vec![0f32; self.count()];
        unit_backward(d, &self.rows, &self.norms, scale, &mut along);
        along.iter().map(|&a| f64::from(a)).sum()
    }
}

multiversion! {
    fn unit_backward(d: &mut [f32], unit: &[f32], norms: &[f32], scale: f32, along: &mut [f32]) {
        let dim = unit.len() / norms.len().max(1);
        for (i, norm) in norms.iter().enumerate() {
            let (d, u) = (&mut d[i * dim..][..dim], &unit[i * dim..][..dim]);
            let projection = dot(d, u);
            along[i] = scale * projection;
            let factor = scale / norm;
            for k in 0..dim {
                d[k] = (d[k] - projection * u[k]) * factor;
            }
        }
    }
}

/// `scale` times the cosine of every left row with every right row.
pub(super) struct Similarity<'a> {
    left: &'a Unit,
    right: &'a Unit,
    scale: f32,
    /// `[left, right]`; to be replaced by their gradient before [`Similarity::backward`].
    pub logits: Vec<f32>,
}

impl<'a> Similarity<'a> {
    pub fn new(left: &'a Unit, right: &'a Unit, scale: f32) -> Self {
        let mut logits = vec![0f32; left.count() * right.count()];
        scaled_cosines(&mut logits, right.count(), left, &right.rows, scale);
        Self { left, right, scale, logits }
    }

    /// From the gradient of the logits to those of the raw left rows, the raw right rows, and `ln scale`.
    pub fn backward(&self) -> (Vec<f32>, Vec<f32>, f64) {
        let d = &self.logits;
        let (n, m, dim) = (self.left.count(), self.right.count(), self.left.dim);
        let (mut left, mut right) = (vec![0f32; n * dim], vec![0f32; m * dim]);
        product(&mut left, dim, (n, dim, m), Operand::rows(d, m), Mat::new(&self.right.rows, dim), false);
        product(&mut right, dim, (m, dim, n), Operand::columns(d, m), Mat::new(&self.left.rows, dim), false);
        let d_log_scale = self.left.backward(&mut left, self.scale);
        self.right.backward(&mut right, self.scale);
        (left, right, d_log_scale)
    }
}

impl Similarity<'_> {
    /// What an objective of this one matrix gives back, from its loss and the gradient of the logits; the
    /// scale is the only scalar, if one is learned.
    pub fn gradients(&self, views: &Views<'_>, scalars: usize, loss: f64) -> Gradients {
        let mut out = Gradients::zeros(views, scalars);
        let d_scale;
        (out.images, out.texts, d_scale) = self.backward();
        out.scalars.fill(d_scale as f32);
        out.loss = loss as f32;
        out
    }
}

/// Writes `scale` times the product of every unit row with every key into `out`, whose rows are `stride`
/// elements apart.
pub(super) fn scaled_cosines(out: &mut [f32], stride: usize, unit: &Unit, keys: &[f32], scale: f32) {
    let dim = unit.dim;
    // Scaling the factor costs less than scaling the product.
    let scaled: Vec<f32> = unit.rows.iter().map(|x| x * scale).collect();
    let shape = (unit.count(), keys.len() / dim, dim);
    product(out, stride, shape, Operand::rows(&scaled, dim), Mat::new(keys, dim).t(), false);
}

/// The left factor of [`product`]: a row-major matrix, or the transpose of one.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    data: &'a [f32],
    stride: usize,
    transposed: bool,
}

impl<'a> Operand<'a> {
    pub fn rows(data: &'a [f32], stride: usize) -> Self {
        Self { data, stride, transposed: false }
    }

    pub fn columns(data: &'a [f32], stride: usize) -> Self {
        Self { data, stride, transposed: true }
    }

    fn starting_at(self, i: usize) -> Mat<'a> {
        if self.transposed {
            Mat::new(&self.data[i..], self.stride).t()
        } else {
            Mat::new(&self.data[i * self.stride..], self.stride)
        }
    }
}

/// [`matmul`] over blocks of rows, the blocks spread over threads; the blocks do not depend on their
/// number, so neither does any bit of the result.
pub(super) fn product(
    c: &mut [f32],
    stride: usize,
    (m, n, k): (usize, usize, usize),
    a: Operand<'_>,
    b: Mat<'_>,
    add: bool,
) {
    const BLOCK: usize = 128;
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    c.par_chunks_mut(BLOCK * stride).enumerate().for_each(|(block, c)| {
        let from = block * BLOCK;
        if from < m {
            let rows = BLOCK.min(m - from);
            matmul(MatMut::new(c, stride), (rows, n, k), a.starting_at(from), b, add);
        }
    });
}
