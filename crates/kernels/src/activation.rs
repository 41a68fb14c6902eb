//! Activation functions, and the approximations of exp, erf and tanh behind them.
//!
//! Owns: [`Activation`] and its formulas. Branch-free expressions that compilers vectorise; accuracy is
//! stated and tested against double precision. NaN stays NaN everywhere.
//! Deliberately absent: where in a network an activation stands, and gradients.

use std::fmt;

/// A function applied to every element between two linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x sigmoid(1.702 x)`.
    QuickGelu,
    /// `x (1 + erf(x / sqrt 2)) / 2`.
    Gelu,
    /// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`, also known as the fast or new GELU.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x sigmoid(x)`, also known as swish.
    Silu,
    /// The hyperbolic tangent.
    Tanh,
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QuickGelu => "quick_gelu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::Relu => "relu",
            Self::Relu6 => "relu6",
            Self::Silu => "silu",
            Self::Tanh => "tanh",
        })
    }
}

impl Activation {
    /// Applies the function to every element.
    pub fn apply(self, x: &mut [f32]) {
        apply(self, x);
    }

    /// [`Activation::apply`] to be inlined where the instruction set is already chosen.
    #[inline(always)]
    pub(crate) fn apply_inline<const FUSED: bool>(self, x: &mut [f32]) {
        match self {
            Self::QuickGelu => each(x, |v| v * sigmoid::<FUSED>(1.702 * v)),
            Self::Gelu => {
                each(x, |v| 0.5 * v * (1.0 + erf_with::<FUSED>(v * std::f32::consts::FRAC_1_SQRT_2)));
            }
            // x (1 + tanh u) / 2 is x sigmoid(2 u).
            Self::GeluTanh => {
                each(x, |v| v * sigmoid::<FUSED>(1.595_769_2 * madd::<FUSED>(0.044_715 * v, v * v, v)));
            }
            Self::Relu => each(x, |v| if v < 0.0 { 0.0 } else { v }),
            Self::Relu6 => each(x, |v| v.clamp(0.0, 6.0)),
            Self::Silu => each(x, |v| v * sigmoid::<FUSED>(v)),
            Self::Tanh => each(x, tanh_with::<FUSED>),
        }
    }
}

crate::multiversion! {
    fn apply(activation: Activation, x: &mut [f32]) {
        activation.apply_inline::<FUSED>(x);
    }
}

/// `e^x` within 2e-7 of its value, relatively. Saturates at the ends of the normal range instead of
/// giving 0 or infinity.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    exp_with::<false>(x)
}

/// The error function within 4e-7 of its value.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    erf_with::<false>(x)
}

/// The hyperbolic tangent within 4e-7 of its value.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    tanh_with::<false>(x)
}

#[inline(always)]
fn each(x: &mut [f32], f: impl Fn(f32) -> f32) {
    for v in x {
        *v = f(*v);
    }
}

/// `a b + c`, in one instruction where the caller says that there is one; without one, `mul_add` is a
/// slow library call.
#[inline(always)]
fn madd<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn sigmoid<const FUSED: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp_with::<FUSED>(-x))
}

/// Horner's scheme, highest coefficient first.
#[inline(always)]
fn polynomial<const FUSED: bool, const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut p = coefficients[0];
    for c in &coefficients[1..] {
        p = madd::<FUSED>(p, x, *c);
    }
    p
}

/// Cody-Waite reduction to |r| <= ln(2)/2 and the polynomial of Cephes `expf`.
#[inline(always)]
#[allow(clippy::excessive_precision)]
pub(crate) fn exp_with<const FUSED: bool>(x: f32) -> f32 {
    /// 1.5 * 2^23: adding it rounds to an integer, whose bits are then at the bottom.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let rounded = madd::<FUSED>(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = madd::<FUSED>(n, 2.121_944_4e-4, madd::<FUSED>(n, -0.693_359_375, x));
    let p = polynomial::<FUSED, 6>(
        r,
        [1.987_569_2e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.000_000_1e-1],
    );
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127).wrapping_shl(23));
    madd::<FUSED>(p * r, r, r + 1.0) * power
}

/// The odd rational approximation of degree 13 over 8 that Eigen uses, on |x| <= 4.
#[inline(always)]
#[allow(clippy::excessive_precision)]
fn erf_with<const FUSED: bool>(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let s = x * x;
    let p = polynomial::<FUSED, 7>(
        s,
        [
            -2.726_142_258_013_06e-10,
            2.770_681_424_959_02e-08,
            -2.101_024_020_825_08e-06,
            -5.692_506_394_623_46e-05,
            -7.349_906_303_268_55e-04,
            -2.954_599_808_540_25e-03,
            -1.609_603_332_624_15e-02,
        ],
    );
    let q = polynomial::<FUSED, 5>(
        s,
        [
            -1.456_607_184_649_96e-05,
            -2.133_740_552_789_05e-04,
            -1.682_826_974_382_03e-03,
            -7.373_329_167_204_68e-03,
            -1.426_473_905_141_89e-02,
        ],
    );
    x * p / q
}

/// `1 - 2 / (e^2x + 1)`, which is accurate absolutely; near 0, where it would lose digits, the first
/// terms of the series.
#[inline(always)]
fn tanh_with<const FUSED: bool>(x: f32) -> f32 {
    let far = 1.0 - 2.0 / (exp_with::<FUSED>(2.0 * x) + 1.0);
    let s = x * x;
    let near = x * polynomial::<FUSED, 4>(s, [-17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0]);
    if s < 0.04 { near } else { far }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Abramowitz and Stegun 7.1.5 near 0 and 7.1.14 (a continued fraction) far from it.
    fn erf_f64(x: f64) -> f64 {
        let a = x.abs();
        let value = if a < 2.5 {
            let (mut term, mut total) = (a, a);
            for n in 1..80 {
                term *= -a * a / f64::from(n);
                total += term / f64::from(2 * n + 1);
            }
            total * std::f64::consts::FRAC_2_SQRT_PI
        } else {
            let mut fraction = a;
            for n in (1..80).rev() {
                fraction = a + f64::from(n) / 2.0 / fraction;
            }
            1.0 - (-a * a).exp() / fraction / std::f64::consts::PI.sqrt()
        };
        value.copysign(x)
    }

    fn check_approximations<const FUSED: bool>() {
        for i in -9000..9000i32 {
            let x = i as f32 * 0.0096;
            let truth = f64::from(x).exp();
            assert!((f64::from(exp_with::<FUSED>(x)) - truth).abs() <= 2e-7 * truth, "exp({x})");
            let x = x / 10.0;
            assert!((f64::from(erf_with::<FUSED>(x)) - erf_f64(f64::from(x))).abs() <= 4e-7, "erf({x})");
            let truth = f64::from(x).tanh();
            let error = (f64::from(tanh_with::<FUSED>(x)) - truth).abs();
            assert!(error <= 2e-7 && error <= 2e-6 * truth.abs(), "tanh({x})");
        }
        assert!(exp_with::<FUSED>(-1e30) < 2e-38 && exp_with::<FUSED>(1e30) > 1e38);
        assert_eq!(tanh_with::<FUSED>(f32::INFINITY), 1.0);
        assert_eq!(tanh_with::<FUSED>(f32::NEG_INFINITY), -1.0);
    }

    #[test]
    fn exp_erf_and_tanh_are_close_to_the_truth() {
        check_approximations::<false>();
        check_approximations::<true>();
    }

    fn definition(activation: Activation, x: f64) -> f64 {
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        match activation {
            Activation::QuickGelu => x * logistic(1.702 * x),
            Activation::Silu => x * logistic(x),
            Activation::Relu => x.max(0.0),
            Activation::Relu6 => x.clamp(0.0, 6.0),
            Activation::Tanh => x.tanh(),
            Activation::Gelu => 0.5 * x * (1.0 + erf_f64(x / 2f64.sqrt())),
            Activation::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
            }
        }
    }

    const ALL: [Activation; 7] = [
        Activation::QuickGelu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::Relu6,
        Activation::Silu,
        Activation::Tanh,
    ];

    #[test]
    fn activations_follow_their_definitions() {
        for activation in ALL {
            let inputs: Vec<f32> = (-1200..=1200).map(|i| i as f32 / 100.0).collect();
            let mut outputs = inputs.clone();
            activation.apply(&mut outputs);
            for (&x, &y) in inputs.iter().zip(&outputs) {
                let truth = definition(activation, f64::from(x));
                let bound = 1e-6 * truth.abs().max(1.0);
                assert!((truth - f64::from(y)).abs() < bound, "{activation}({x}) = {y}, expected {truth}");
            }
        }
    }

    #[test]
    fn nothing_hides_a_nan() {
        for activation in ALL {
            let mut x = [1.0, f32::NAN, -1.0];
            activation.apply(&mut x);
            assert!(x[1].is_nan() && x[0].is_finite() && x[2].is_finite(), "{activation}: {x:?}");
        }
        assert!(exp(f32::NAN).is_nan() && erf(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
    }
}
