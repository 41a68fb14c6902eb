//! Work along single rows: layer norm, softmax, sums of rows.
//!
//! Owns: the functions that need a whole row before they can write any of it, and the residual sum.
//! Deliberately absent: gradients, and bias with activation (an epilogue of `linear`).

use crate::activation::exp_with;
use crate::simd::{max, sum};
use crate::threads::{Shared, Threads};
use crate::{lane_sum, multiversion};

/// Fewest elements worth a task of their own.
const TASK_ELEMENTS: usize = 1 << 14;

/// Mean of a row and `1 / sqrt(variance + eps)`. Two passes: the shortcut `E[x^2] - E[x]^2` loses the
/// digits of a row whose mean is large.
#[inline(always)]
pub fn moments(row: &[f32], eps: f32) -> (f32, f32) {
    let n = row.len() as f32;
    let mean = sum(row) / n;
    let variance = lane_sum!(row, row, |x, _y| (x - mean) * (x - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// `out = (x - mean) / sqrt(variance + eps) * weight + bias` for every row of `width` elements.
///
/// # Panics
/// If the slices do not hold whole rows, the same number in `x` and `out`, and one of each parameter.
pub fn layer_norm(
    out: &mut [f32],
    x: &[f32],
    width: usize,
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    threads: Threads,
) {
    assert!(out.len() == x.len(), "layer norm of {} elements into {}", x.len(), out.len());
    in_chunks(out, width, threads, |at, out| {
        out.copy_from_slice(&x[at..at + out.len()]);
        norm_rows(out, weight, bias, eps);
    });
}

/// [`layer_norm`] with the result in place of its input.
///
/// # Panics
/// As [`layer_norm`].
pub fn layer_norm_in_place(
    x: &mut [f32],
    width: usize,
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    threads: Threads,
) {
    in_chunks(x, width, threads, |_, x| norm_rows(x, weight, bias, eps));
}

/// Runs `f(offset, rows)` on pieces of whole rows.
fn in_chunks(x: &mut [f32], width: usize, threads: Threads, f: impl Fn(usize, &mut [f32]) + Sync + Send) {
    assert!(width > 0 && x.len().is_multiple_of(width), "{} elements in rows of {width}", x.len());
    let piece = (TASK_ELEMENTS / width).max(1) * width;
    let (len, x) = (x.len(), Shared::new(x));
    threads.each(len.div_ceil(piece), |i| {
        let at = i * piece;
        // SAFETY: the pieces do not overlap and end with the slice.
        f(at, unsafe { std::slice::from_raw_parts_mut(x.at(at), piece.min(len - at)) });
    });
}

multiversion! {
    fn norm_rows(x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
        let width = weight.len();
        assert!(bias.len() == width, "{width} weights, {} biases", bias.len());
        assert!(x.len().is_multiple_of(width), "{} elements in rows of {width}", x.len());
        for row in x.chunks_exact_mut(width) {
            let (mean, scale) = moments(row, eps);
            for i in 0..width {
                row[i] = (row[i] - mean) * scale * weight[i] + bias[i];
            }
        }
    }
}

multiversion! {
    /// Softmax of `scale * row` over the first `visible` entries of a row; the others become 0.
    ///
    /// # Panics
    /// If `visible` is 0 or beyond the row.
    pub fn softmax(row: &mut [f32], visible: usize, scale: f32) {
        let (seen, hidden) = row.split_at_mut(visible);
        let norm = 1.0 / exp_minus_max::<FUSED>(seen, scale);
        for x in seen.iter_mut() {
            *x *= norm;
        }
        hidden.fill(0.0);
    }
}

/// Replaces a row by `e^(scale (x - max))` and returns the sum of that.
#[inline(always)]
fn exp_minus_max<const FUSED: bool>(row: &mut [f32], scale: f32) -> f32 {
    assert!(!row.is_empty(), "softmax over nothing");
    let top = max(row);
    for x in row.iter_mut() {
        *x = exp_with::<FUSED>((*x - top) * scale);
    }
    sum(row)
}

multiversion! {
    /// The softmax numerators of one row in place, the entries from `visible` on set to 0, and the
    /// reciprocal of their sum.
    pub(crate) fn softmax_numerators(row: &mut [f32], visible: usize, scale: f32) -> f32 {
        let (seen, hidden) = row.split_at_mut(visible);
        hidden.fill(0.0);
        1.0 / exp_minus_max::<FUSED>(seen, scale)
    }
}

multiversion! {
    /// `a += b`, element by element.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add_assign(a: &mut [f32], b: &[f32]) {
        assert!(a.len() == b.len(), "{} elements onto {}", b.len(), a.len());
        for (a, b) in a.iter_mut().zip(b) {
            *a += b;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_norm_keeps_its_digits_under_a_large_mean() {
        let mut y = [0f32; 4];
        let x = [1000f32, 1001.0, 1002.0, 1003.0];
        layer_norm(&mut y, &x, 4, &[1.0; 4], &[0.0; 4], 1e-5, Threads::One);
        for (found, expected) in y.iter().zip([-1.341_636_4, -0.447_212_1, 0.447_212_1, 1.341_636_4]) {
            assert!((found - expected).abs() < 1e-6, "{y:?}");
        }
    }

    #[test]
    fn layer_norm_is_the_same_on_any_number_of_threads_and_in_place() {
        let width = 333;
        let x: Vec<f32> = (0..width * 200).map(|i| ((i * 37) % 101) as f32 / 7.0 - 5.0).collect();
        let weight: Vec<f32> = (0..width).map(|i| 1.0 + i as f32 / 100.0).collect();
        let bias: Vec<f32> = (0..width).map(|i| i as f32 / 50.0).collect();
        let (mut one, mut all, mut place) = (vec![0.0; x.len()], vec![0.0; x.len()], x.clone());
        layer_norm(&mut one, &x, width, &weight, &bias, 1e-6, Threads::One);
        layer_norm(&mut all, &x, width, &weight, &bias, 1e-6, Threads::All);
        layer_norm_in_place(&mut place, width, &weight, &bias, 1e-6, Threads::All);
        assert!(one == all && one == place);
        for (i, row) in x.chunks(width).enumerate() {
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / width as f64;
            let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / width as f64;
            for j in 0..width {
                let expected = (f64::from(row[j]) - mean) / (variance + 1e-6).sqrt() * f64::from(weight[j])
                    + f64::from(bias[j]);
                assert!((f64::from(one[i * width + j]) - expected).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn softmax_hides_later_entries_and_shows_a_nan() {
        let mut row = [1f32, 1.0, 9.0];
        softmax(&mut row, 2, 0.5);
        assert_eq!(row, [0.5, 0.5, 0.0]);
        let mut row = [1f32, f32::NAN, 2.0];
        softmax(&mut row, 3, 1.0);
        assert!(row.iter().all(|x| x.is_nan()), "{row:?}");
    }
}
