//! Dense single-precision arithmetic on the CPU, with the instruction set chosen at run time.
//!
//! Owns: products with packed weights and what follows them ([`linear`], and [`linear_q8`] with 8-bit
//! weights), attention, layer norm,
//! activations, a strided product for training ([`matmul()`]), and the choice between AVX-512, AVX2
//! and portable code ([`multiversion!`]).
//! Deliberately absent: tensors, shapes beyond what a call needs, which layer follows which, gradients.
//!
//! Every element of a result is one fixed sequence of operations: it depends neither on the number
//! of threads nor on the other rows of the same call.

mod activation;
mod attention;
mod kernel;
mod linear;
mod matmul;
mod norm;
mod packed;
mod quantized;
mod quantized_kernel;
mod simd;
mod threads;

pub use activation::{Activation, erf, exp, tanh};
pub use attention::{AttentionShape, Mask, attention, cross_attention};
pub use linear::{Epilogue, linear, linear_rows};
pub use matmul::{Mat, MatMut, matmul};
pub use norm::{add_assign, layer_norm, layer_norm_in_place, moments, softmax};
pub use packed::PackedMatrix;
pub use quantized::{QuantizedMatrix, linear_q8};
pub use simd::{LANES, Level, dot, level, max, sum};
pub use threads::Threads;
