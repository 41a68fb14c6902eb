//! The convolutions against their definitions.

use super::*;

fn noise(count: usize, seed: u32) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 23) - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn kernel(shape: (usize, usize, usize), seed: u32) -> Kernel {
    let (out, input, side) = shape;
    Kernel { shape, weight: noise(out * input * side * side, seed), bias: noise(out, seed + 1) }
}

/// The definition, for one group per input channel.
fn expected(kernel: &Kernel, x: &Map, stride: usize) -> Vec<f64> {
    let (out, _, side) = kernel.shape;
    let (high, wide) = (x.height.div_ceil(stride), x.width.div_ceil(stride));
    let mut values = Vec::new();
    for (y, left, o) in (0..high * wide * out).map(|i| (i / (wide * out), i / out % wide, i % out)) {
        let mut sum = kernel.bias[o];
        for (ky, kx) in (0..side * side).map(|i| (i / side, i % side)) {
            let (row, column) =
                ((y * stride + ky).wrapping_sub(side / 2), (left * stride + kx).wrapping_sub(side / 2));
            if row < x.height && column < x.width {
                let channel = o / (out / x.channels);
                let value = x.values[(row * x.width + column) * x.channels + channel];
                sum += f64::from(value) * kernel.weight[(o * side + ky) * side + kx];
            }
        }
        values.push(sum);
    }
    values
}

#[test]
fn depthwise_agrees_with_the_definition_at_odd_sizes() {
    for (height, width, inputs, out, side, stride) in [
        (1, 1, 1, 1, 3, 1),
        (5, 9, 17, 17, 7, 1),
        (8, 11, 16, 32, 7, 2),
        (6, 7, 5, 10, 3, 2),
        (3, 3, 40, 40, 1, 2),
    ] {
        let values = noise(height * width * inputs, 7).iter().map(|v| *v as f32).collect();
        let x = Map { height, width, channels: inputs, values };
        let kernel = kernel((out, 1, side), 3);
        let truth = expected(&kernel, &x, stride);
        let layer = kernel.into_depthwise(stride, inputs);
        let run = |threads| layer.forward(&x, &mut Vec::new(), threads);
        let found = run(Threads::One);
        assert_eq!((found.height, found.width), (height.div_ceil(stride), width.div_ceil(stride)));
        assert_eq!(found.values.len(), truth.len());
        for (found, truth) in found.values.iter().zip(&truth) {
            assert!((f64::from(*found) - truth).abs() < 1e-5, "{height}x{width}x{inputs}: {found}, {truth}");
        }
        assert_eq!(run(Threads::All).values, found.values, "threads decide nothing");
    }
}

#[test]
fn a_sum_of_branches_is_one_kernel() {
    let x =
        Map { height: 4, width: 5, channels: 3, values: noise(60, 9).iter().map(|v| *v as f32).collect() };
    let (large, small) = (kernel((3, 1, 7), 1), kernel((3, 1, 3), 5));
    let mut sum = kernel((3, 1, 7), 1);
    sum.add(&small, 2.0);
    sum.add(&Kernel::identity((3, 1, 1)), -1.0);
    let parts = [(expected(&large, &x, 1), 1.0), (expected(&small, &x, 1), 2.0)];
    for (i, found) in expected(&sum, &x, 1).iter().enumerate() {
        let truth: f64 = parts.iter().map(|(part, factor)| part[i] * factor).sum::<f64>();
        assert!((found - (truth - f64::from(x.values[i]))).abs() < 1e-12, "{i}");
    }
}
