//! The element-wise work between the matrix products, one pass over memory each.
//!
//! Owns: bias with activation, bias with residual, layer norm, causal softmax, and the approximations
//! of exp and erf behind them. Plain loops that compilers vectorise; rows are spread over threads.
//! candle's own versions make several passes, lack two of the activations, and take the variance as
//! E[x^2] - E[x]^2, which loses digits. Inference only: none of these has a gradient.

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, InplaceOp3, Layout, Result, Tensor, bail};
use rayon::prelude::*;

use crate::config::Activation;

/// Fewest elements worth a task of their own.
const TASK_ELEMENTS: usize = 1 << 14;

/// `x = activation(x + bias)`, bias over the last dimension.
pub(crate) struct Bias(pub(crate) Option<Activation>);
/// `x = x + y + bias`: what a block adds to the residual stream.
pub(crate) struct Residual;
/// `x = (x - mean) / sqrt(variance + eps) * weight + bias` over the last dimension.
pub(crate) struct Normalise {
    pub(crate) eps: f32,
}
/// Softmax over the last dimension of square matrices; with `causal`, row i sees columns 0 to i.
pub(crate) struct Softmax {
    pub(crate) causal: bool,
}

/// A normalised copy of `x`.
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    let out = x.copy()?;
    out.inplace_op3(weight, bias, &Normalise { eps })?;
    Ok(out)
}

impl InplaceOp2 for Bias {
    fn name(&self) -> &'static str {
        "bias-activation"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, xl: &Layout, bias: &CpuStorage, bl: &Layout) -> Result<()> {
        let bias = floats(bias, bl)?;
        let activation = self.0;
        rows_mut(x, xl, bias.len(), |_, row| {
            for (v, b) in row.iter_mut().zip(bias) {
                *v += b;
            }
            match activation {
                None => {}
                Some(Activation::QuickGelu) => apply(row, |v| v * sigmoid(1.702 * v)),
                Some(Activation::Silu) => apply(row, |v| v * sigmoid(v)),
                Some(Activation::Relu) => apply(row, |v| v.max(0.0)),
                Some(Activation::Gelu) => {
                    apply(row, |v| 0.5 * v * (1.0 + erf(v * std::f32::consts::FRAC_1_SQRT_2)));
                }
                // 0.5 x (1 + tanh(u)) with u = sqrt(2/pi) (x + 0.044715 x^3) is x sigmoid(2 u).
                Some(Activation::GeluTanh) => {
                    apply(row, |v| v * sigmoid(1.595_769 * (v + 0.044_715 * v * v * v)));
                }
            }
        })
    }
}

impl InplaceOp3 for Residual {
    fn name(&self) -> &'static str {
        "residual"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        xl: &Layout,
        y: &CpuStorage,
        yl: &Layout,
        bias: &CpuStorage,
        bl: &Layout,
    ) -> Result<()> {
        let (y, bias) = (floats(y, yl)?, floats(bias, bl)?);
        if y.len() != xl.shape().elem_count() {
            bail!("residual of {} elements onto {:?}", y.len(), xl.shape());
        }
        let width = bias.len();
        rows_mut(x, xl, width, |i, row| {
            for ((v, y), b) in row.iter_mut().zip(&y[i * width..]).zip(bias) {
                *v += y + b;
            }
        })
    }
}

impl InplaceOp3 for Normalise {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        xl: &Layout,
        weight: &CpuStorage,
        wl: &Layout,
        bias: &CpuStorage,
        bl: &Layout,
    ) -> Result<()> {
        let (weight, bias) = (floats(weight, wl)?, floats(bias, bl)?);
        let (width, eps) = (weight.len(), self.eps);
        rows_mut(x, xl, width, |_, row| {
            let mean = sum(row, |v| v) / width as f32;
            let variance = sum(row, |v| (v - mean) * (v - mean)) / width as f32;
            let scale = 1.0 / (variance + eps).sqrt();
            for ((v, w), b) in row.iter_mut().zip(weight).zip(bias) {
                *v = (*v - mean) * scale * w + b;
            }
        })
    }
}

impl InplaceOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, xl: &Layout) -> Result<()> {
        let width = xl.shape().dims().last().copied().unwrap_or(1);
        let causal = self.causal;
        rows_mut(x, xl, width, |i, row| {
            let visible = if causal { i % width + 1 } else { width };
            let (row, hidden) = row.split_at_mut(visible);
            hidden.fill(0.0);
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            apply(row, |v| exp(v - max));
            let scale = 1.0 / sum(row, |v| v);
            apply(row, |v| v * scale);
        })
    }
}

/// The elements of a contiguous `f32` tensor.
fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!("expected a contiguous f32 tensor, got {:?}", layout.shape()),
    }
}

/// Runs `f` on every row of a contiguous `f32` tensor, many rows to a thread.
fn rows_mut(
    storage: &mut CpuStorage,
    layout: &Layout,
    width: usize,
    f: impl Fn(usize, &mut [f32]) + Sync,
) -> Result<()> {
    let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
        bail!("expected a contiguous f32 tensor, got {:?}", layout.shape());
    };
    let values = &mut values[start..end];
    if width == 0 || !values.len().is_multiple_of(width) {
        bail!("rows of {width} in {:?}", layout.shape());
    }
    let least = (TASK_ELEMENTS / width).max(1);
    values.par_chunks_mut(width).enumerate().with_min_len(least).for_each(|(i, row)| f(i, row));
    Ok(())
}

#[inline(always)]
fn apply(row: &mut [f32], f: impl Fn(f32) -> f32) {
    for v in row {
        *v = f(*v);
    }
}

/// A sum over eight running totals, which vectorises and rounds less than one.
#[inline(always)]
fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = row.as_chunks::<8>();
    let mut totals = [0f32; 8];
    for chunk in chunks {
        for (total, &v) in totals.iter_mut().zip(chunk) {
            *total += f(v);
        }
    }
    totals.iter().sum::<f32>() + rest.iter().map(|&v| f(v)).sum::<f32>()
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// e^x within 2e-7 of its value, by Cody-Waite reduction to |r| <= ln(2)/2 and the polynomial of
/// Cephes `expf`. Saturates at the ends of the normal range instead of giving 0 or infinity.
#[inline(always)]
#[allow(clippy::excessive_precision)]
fn exp(x: f32) -> f32 {
    /// 1.5 * 2^23: adding it rounds to an integer, whose bits are then at the bottom.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * 0.693_359_375 + n * 2.121_944_4e-4;
    let p = 1.987_569_2e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5.000_000_1e-1;
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127).wrapping_shl(23));
    (p * r * r + r + 1.0) * power
}

/// The error function within 4e-7 of its value: the odd rational approximation of degree 13 over 8
/// that Eigen uses, on |x| <= 4.
#[inline(always)]
#[allow(clippy::excessive_precision)]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let s = x * x;
    let p = -2.726_142_258_013_06e-10_f32;
    let p = p * s + 2.770_681_424_959_02e-08;
    let p = p * s - 2.101_024_020_825_08e-06;
    let p = p * s - 5.692_506_394_623_46e-05;
    let p = p * s - 7.349_906_303_268_55e-04;
    let p = p * s - 2.954_599_808_540_25e-03;
    let p = p * s - 1.609_603_332_624_15e-02;
    let q = -1.456_607_184_649_96e-05_f32;
    let q = q * s - 2.133_740_552_789_05e-04;
    let q = q * s - 1.682_826_974_382_03e-03;
    let q = q * s - 7.373_329_167_204_68e-03;
    let q = q * s - 1.426_473_905_141_89e-02;
    x * p / q
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn exp_and_erf_are_close_to_the_truth() {
        for i in -9000..9000i32 {
            let x = i as f32 * 0.0096;
            let truth = f64::from(x).exp();
            assert!((f64::from(exp(x)) - truth).abs() <= 2e-7 * truth, "exp({x})");
            let truth = candle_core::cpu::erf::erf_f64(f64::from(x));
            assert!((f64::from(erf(x)) - truth).abs() <= 4e-7, "erf({x})");
        }
        assert!(exp(-1e30) < 2e-38 && exp(1e30) > 1e38);
    }

    fn activated(activation: Activation) -> Vec<f32> {
        let x = Tensor::new(&[[-6f32, -1.5, -0.1], [0.0, 0.7, 4.0]], &Device::Cpu).expect("tensor");
        let bias = Tensor::new(&[0f32, 0.5, -0.5], &Device::Cpu).expect("tensor");
        x.inplace_op2(&bias, &Bias(Some(activation))).expect("runs");
        x.flatten_all().and_then(|x| x.to_vec1()).expect("values")
    }

    #[test]
    fn activations_follow_their_definitions() {
        let inputs = [-6f64, -1.0, -0.6, 0.0, 1.2, 3.5];
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        let definitions: [(Activation, &dyn Fn(f64) -> f64); 5] = [
            (Activation::QuickGelu, &|x| x * logistic(1.702 * x)),
            (Activation::Silu, &|x| x * logistic(x)),
            (Activation::Relu, &|x| x.max(0.0)),
            (Activation::Gelu, &|x| 0.5 * x * (1.0 + candle_core::cpu::erf::erf_f64(x / 2f64.sqrt()))),
            (Activation::GeluTanh, &|x| {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
            }),
        ];
        for (activation, definition) in definitions {
            for (x, y) in inputs.iter().zip(activated(activation)) {
                assert!((definition(*x) - f64::from(y)).abs() < 2e-6, "{activation}({x}) = {y}");
            }
        }
    }

    #[test]
    fn causal_softmax_hides_later_columns() {
        let x = Tensor::new(&[[[1f32, 9.0], [1.0, 1.0]]], &Device::Cpu).expect("tensor");
        x.inplace_op1(&Softmax { causal: true }).expect("runs");
        assert_eq!(x.to_vec3::<f32>().expect("values"), [[[1.0, 0.0], [0.5, 0.5]]]);
    }

    #[test]
    fn layer_norm_keeps_its_digits_under_a_large_mean() {
        let x = Tensor::new(&[[1000f32, 1001.0, 1002.0, 1003.0]], &Device::Cpu).expect("tensor");
        let one = Tensor::ones(4, candle_core::DType::F32, &Device::Cpu).expect("tensor");
        let y = layer_norm(&x, &one, &one.zeros_like().expect("zeros"), 1e-5).expect("runs");
        let y = y.to_vec2::<f32>().expect("values");
        for (found, expected) in y[0].iter().zip([-1.341_636_4, -0.447_212_1, 0.447_212_1, 1.341_636_4]) {
            assert!((found - expected).abs() < 1e-6, "{y:?}");
        }
    }
}
