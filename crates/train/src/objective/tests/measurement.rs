//! How much of an objective's time is matrix products.

#![allow(clippy::unwrap_used)]

use super::*;

/// Prints how much of the time goes into matrix products; run with `--ignored --nocapture`, and with
/// `RAYON_NUM_THREADS=1` for figures that other work on the machine disturbs less.
#[test]
#[ignore = "a measurement"]
fn most_of_the_time_is_matrix_products() {
    use std::time::{Duration, Instant};
    let (n, dim) = (512, 256);
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let mut rows = || -> Vec<f32> { (0..n * dim).map(|_| normal(rng)).collect() };
    let (images, texts) = (rows(), rows());
    let relation: Vec<_> =
        (0..n * n).map(|at| if at / n == at % n { Relation::Positive } else { Relation::Negative }).collect();
    let views = Views::pairs(dim, &images, &texts, &relation);
    let fastest = |f: &mut dyn FnMut()| -> Duration {
        let once = |_| {
            let start = Instant::now();
            f();
            start.elapsed()
        };
        (0..100).map(once).min().unwrap()
    };
    let mut square = vec![0f32; n * n];
    let mut tall = vec![0f32; n * dim];
    let products = fastest(&mut || {
        use diptych_kernels::Mat;
        use rows::{Operand, product};
        product(&mut square, n, (n, n, dim), Operand::rows(&images, dim), Mat::new(&texts, dim).t(), false);
        product(&mut tall, dim, (n, dim, n), Operand::rows(&square, n), Mat::new(&texts, dim), false);
        product(&mut tall, dim, (n, dim, n), Operand::columns(&square, n), Mat::new(&images, dim), false);
    });
    println!("three products of n = {n}, dim = {dim}: {products:?}");
    for objective in objectives() {
        let needs = objective.needs();
        if needs == Needs::default() {
            let scalars = start(&objective);
            let all = fastest(&mut || {
                objective.evaluate(&views, &scalars).unwrap();
            });
            let share = products.as_secs_f64() / all.as_secs_f64();
            println!("{:12} {all:?}, products {:.0} %", objective.kind(), 100.0 * share);
        }
    }
}
