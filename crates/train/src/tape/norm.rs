//! Layer norms on a tape.
//!
//! Owns: [`NormSpan`] and the norm with its gradients. Deliberately absent: the arithmetic (see `ops`).

use diptych_kernels::{Threads, layer_norm};

use super::buffers::Buffer;
use super::{Back, Node, Op, Tape};
use crate::ops::layer_norm_backward;
use crate::params::{Params, Span};

/// The parameters of `(x - mean) / sqrt(variance + eps) * weight + bias` over each row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NormSpan {
    weight: Span,
    bias: Span,
    eps: f32,
}

impl NormSpan {
    /// Both as long as a row is wide, and both trained or neither.
    ///
    /// # Panics
    /// If they are not.
    pub fn new(weight: Span, bias: Span, eps: f64) -> Self {
        assert!(weight.len() == bias.len() && weight.trained() == bias.trained(), "parts of different norms");
        Self { weight, bias, eps: eps as f32 }
    }
}

/// See [`Tape::layer_norm`].
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) x: Node,
    norm: NormSpan,
}

impl Tape {
    /// The normalised rows of `x`.
    pub fn layer_norm(&mut self, x: Node, norm: &NormSpan, params: &Params<'_>) -> Node {
        let (width, x_values) = (self.width(x), self.entries[x.0].value());
        assert_eq!(width, norm.weight.len(), "a norm over rows of another width");
        let mut y = self.pool.take(x_values.len());
        let (weight, bias) = (params.of(norm.weight), params.of(norm.bias));
        layer_norm(&mut y, x_values, width, weight, bias, norm.eps, Threads::One);
        let needs = self.needs(x) || norm.weight.trained();
        self.push(Op::Norm(Norm { x, norm: *norm }), width, y, needs)
    }
}

impl Norm {
    pub fn backward(&self, dy: Buffer, back: &mut Back<'_>) {
        let NormSpan { weight, bias, eps } = self.norm;
        // A layer whose input is given still has gradients of its own; those of the input are dropped.
        let mut dx = back.open_zeroed(self.x);
        let (d_weight, d_bias): (&mut [f32], &mut [f32]) = match weight.trained() {
            true => {
                let [weight, bias] = back
                    .grads
                    .get_disjoint_mut([weight.range(), bias.range()])
                    .expect("weight and bias are two tensors");
                (weight, bias)
            }
            false => (&mut [], &mut []),
        };
        let x = back.before[self.x.0].value();
        layer_norm_backward(&mut dx, d_weight, d_bias, &dy, x, back.params.of(weight), eps);
        back.pool.give(dy);
        if back.needs(self.x) { back.close(self.x, dx) } else { back.pool.give(dx) }
    }
}
