//! The non-linear pieces of a transformer, forward and backward, on row-major slices.
//!
//! Owns: the gradients of layer norm, activations and softmax, bias and column sums. Each backward is
//! written by hand for the forward of the kernels crate and checked against finite differences in the
//! tests of `tape`.
//! Deliberately absent: how matrices are multiplied (see the kernels crate), and which layer follows which
//! (see `tower`).

use diptych_kernels::{Activation, Mat, MatMut, dot, erf, exp, moments, multiversion, tanh};
pub(crate) use diptych_kernels::{add_assign, softmax};

/// Nanoseconds that all threads have spent in products.
#[cfg(test)]
pub(crate) static PRODUCT_NANOS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// The kernels' product. All of training goes through here, so that a measurement can tell how much of a
/// step it is.
pub(crate) fn matmul(c: MatMut<'_>, shape: (usize, usize, usize), a: Mat<'_>, b: Mat<'_>, add: bool) {
    #[cfg(test)]
    let start = std::time::Instant::now();
    diptych_kernels::matmul(c, shape, a, b, add);
    #[cfg(test)]
    PRODUCT_NANOS.fetch_add(start.elapsed().as_nanos() as u64, std::sync::atomic::Ordering::Relaxed);
}

multiversion! {
    /// Adds the gradient of a layer norm to `dx`, given its input `x` and the gradient `dy` of its
    /// output, and those of its parameters to `dweight` and `dbias`; both are empty when the parameters
    /// are frozen. The row moments are computed again; that is cheaper than the memory to keep them.
    pub(crate) fn layer_norm_backward(
        dx: &mut [f32], dweight: &mut [f32], dbias: &mut [f32], dy: &[f32], x: &[f32], weight: &[f32], eps: f32,
    ) {
        let width = weight.len();
        let n = width as f32;
        let rows = dx.chunks_exact_mut(width).zip(dy.chunks_exact(width)).zip(x.chunks_exact(width));
        for ((dx, dy), x) in rows {
            let (mean, scale) = moments(x, eps);
            if !dweight.is_empty() {
                for i in 0..width {
                    dweight[i] += dy[i] * (x[i] - mean) * scale;
                    dbias[i] += dy[i];
                }
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

multiversion! {
    /// Multiplies `d`, the gradient of an activation's output, by its derivative at `x`.
    pub(crate) fn activation_backward(activation: Activation, d: &mut [f32], x: &[f32]) {
        let sigmoid = |x: f32| 1.0 / (1.0 + exp(-x));
        match activation {
            Activation::QuickGelu => each(d, x, |x| {
                let s = sigmoid(1.702 * x);
                s * (1.0 + 1.702 * x * (1.0 - s))
            }),
            // The normal distribution function and x times its density.
            Activation::Gelu => each(d, x, |x| {
                let density = 0.398_942_3 * exp(-0.5 * x * x);
                0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)) + x * density
            }),
            // x sigmoid(v) with v = 2 sqrt(2 / pi) (x + 0.044715 x^3).
            Activation::GeluTanh => each(d, x, |x| {
                let s = sigmoid(1.595_769_2 * (x + 0.044_715 * x * x * x));
                s + x * s * (1.0 - s) * 1.595_769_2 * (1.0 + 3.0 * 0.044_715 * x * x)
            }),
            Activation::Relu => each(d, x, |x| if x > 0.0 { 1.0 } else { 0.0 }),
            Activation::Relu6 => each(d, x, |x| if x > 0.0 && x < 6.0 { 1.0 } else { 0.0 }),
            Activation::Silu => each(d, x, |x| {
                let s = sigmoid(x);
                s * (1.0 + x * (1.0 - s))
            }),
            Activation::Tanh => each(d, x, |x| {
                let t = tanh(x);
                1.0 - t * t
            }),
        }
    }
}

#[inline(always)]
fn each(d: &mut [f32], x: &[f32], derivative: impl Fn(f32) -> f32) {
    for (d, &x) in d.iter_mut().zip(x) {
        *d *= derivative(x);
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
    /// Writes `bias` to the columns from `first` on of every row of `out`, which are `width` wide.
    pub(crate) fn fill_columns(out: &mut [f32], width: usize, first: usize, bias: &[f32]) {
        for row in out.chunks_exact_mut(width) {
            row[first..first + bias.len()].copy_from_slice(bias);
        }
    }
}

multiversion! {
    /// Adds `bias` to the columns from `first` on of every row of `out`, which are `width` wide.
    pub(crate) fn add_to_columns(out: &mut [f32], width: usize, first: usize, bias: &[f32]) {
        for row in out.chunks_exact_mut(width) {
            let row = &mut row[first..first + bias.len()];
            for i in 0..bias.len() {
                row[i] += bias[i];
            }
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
    /// Adds the columns from `first` on of every row of `x`, which are `width` wide, to `sums`.
    pub(crate) fn add_columns(sums: &mut [f32], x: &[f32], width: usize, first: usize) {
        let n = sums.len();
        for row in x.chunks_exact(width) {
            let row = &row[first..first + n];
            for i in 0..n {
                sums[i] += row[i];
            }
        }
    }
}

multiversion! {
    /// Writes `x * scale` to every row of `out`.
    pub(crate) fn multiply_columns(out: &mut [f32], x: &[f32], scale: &[f32]) {
        let width = scale.len();
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            for i in 0..width {
                out[i] = x[i] * scale[i];
            }
        }
    }
}

multiversion! {
    /// Adds the sums over all rows of `a * b` to `sums`.
    pub(crate) fn add_column_products(sums: &mut [f32], a: &[f32], b: &[f32]) {
        let width = sums.len();
        for (a, b) in a.chunks_exact(width).zip(b.chunks_exact(width)) {
            for i in 0..width {
                sums[i] += a[i] * b[i];
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
