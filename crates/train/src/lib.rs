//! Contrastive objectives, recipes, and the loop that turns pairs into a checkpoint.
#![allow(dead_code)]

mod block;
mod gemm;
mod loss;
mod model;
mod ops;
mod optimizer;
mod params;
mod simd;
mod tower;
