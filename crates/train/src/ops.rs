//! The non-linear pieces of a transformer, forward and backward, on row-major slices.
//!
//! Owns: the gradients of layer norm, quick GELU and softmax, bias and column sums. Each backward is
//! written by hand for the forward of the kernels crate and checked against finite differences in
//! `tower`'s tests.
//! Deliberately absent: matrix products, and which layer follows which (see `block`).

use diptych_kernels::{Activation, Threads, dot, exp, moments, multiversion};
pub(crate) use diptych_kernels::{add_assign, softmax};

/// Epsilon of every layer norm, as in the published CLIP checkpoints.
pub(crate) const LAYER_NORM_EPS: f32 = 1e-5;

/// `out = (x - mean) / sqrt(var + eps) * weight + bias`, row by row; the width is the length of `weight`.
pub(crate) fn layer_norm(out: &mut [f32], x: &[f32], weight: &[f32], bias: &[f32]) {
    diptych_kernels::layer_norm(out, x, weight.len(), weight, bias, LAYER_NORM_EPS, Threads::One);
}

multiversion! {
    /// Adds the gradient of a layer norm to `dx`, `dweight` and `dbias`, given its input `x` and the
    /// gradient `dy` of its output. The row moments are computed again; that is cheaper than the
    /// memory to keep them.
    pub(crate) fn layer_norm_backward(
        dx: &mut [f32], dweight: &mut [f32], dbias: &mut [f32], dy: &[f32], x: &[f32], weight: &[f32],
    ) {
        let width = weight.len();
        let n = width as f32;
        let rows = dx.chunks_exact_mut(width).zip(dy.chunks_exact(width)).zip(x.chunks_exact(width));
        for ((dx, dy), x) in rows {
            let (mean, scale) = moments(x, LAYER_NORM_EPS);
            for i in 0..width {
                dweight[i] += dy[i] * (x[i] - mean) * scale;
                dbias[i] += dy[i];
            }
            let direct = dot(dy, weight) / n;
            let mut lanes = [0f32; 16];
            let whole = width / 16 * 16;
            for start in (0..whole).step_by(16) {
                let (dy, x, w) = (&dy[start..start + 16], &x[start..start + 16], &weight[start..start + 16]);
                for i in 0..16 {
                    lanes[i] += dy[i] * w[i] * (x[i] - mean);
                }
            }
            let mut along = 0.0;
            for lane in lanes {
                along += lane;
            }
            for i in whole..width {
                along += dy[i] * weight[i] * (x[i] - mean);
            }
            let along = along * scale * scale / n;
            for i in 0..width {
                dx[i] += scale * (dy[i] * weight[i] - direct - (x[i] - mean) * along);
            }
        }
    }
}

/// Quick GELU, `x sigmoid(1.702 x)`: the activation of the OpenAI checkpoints.
pub(crate) fn quick_gelu(out: &mut [f32], x: &[f32]) {
    out.copy_from_slice(x);
    Activation::QuickGelu.apply(out);
}

multiversion! {
    /// Multiplies `d`, the gradient of the output of [`quick_gelu`], by its derivative at `x`.
    pub(crate) fn quick_gelu_backward(d: &mut [f32], x: &[f32]) {
        for (d, &x) in d.iter_mut().zip(x) {
            let s = 1.0 / (1.0 + exp(-1.702 * x));
            *d *= s * (1.0 + 1.702 * x * (1.0 - s));
        }
    }
}

multiversion! {
    /// Turns `d`, the gradient of a softmax row `p`, into the gradient of the row before
    /// the softmax: `scale * p * (d - <d, p>)`.
    pub(crate) fn softmax_backward(d: &mut [f32], p: &[f32], scale: f32) {
        let along = dot(d, p);
        for (d, &p) in d.iter_mut().zip(p) {
            *d = scale * p * (*d - along);
        }
    }
}

multiversion! {
    /// Writes `bias` to every row of `out`.
    pub(crate) fn fill_rows(out: &mut [f32], bias: &[f32]) {
        for row in out.chunks_exact_mut(bias.len()) {
            row.copy_from_slice(bias);
        }
    }
}

multiversion! {
    /// Writes `x + bias` to every row of `out`.
    pub(crate) fn add_bias(out: &mut [f32], x: &[f32], bias: &[f32]) {
        let width = bias.len();
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            for i in 0..width {
                out[i] = x[i] + bias[i];
            }
        }
    }
}

multiversion! {
    /// Adds every row of `x` to `sums`.
    pub(crate) fn add_columns(sums: &mut [f32], x: &[f32]) {
        let width = sums.len();
        for row in x.chunks_exact(width) {
            for i in 0..width {
                sums[i] += row[i];
            }
        }
    }
}

multiversion! {
    /// Sum of squares, accumulated in `f64` every 4,096 values.
    pub(crate) fn sum_of_squares(a: &[f32]) -> f64 {
        let mut total = 0f64;
        for part in a.chunks(4096) {
            total += f64::from(dot(part, part));
        }
        total
    }
}
