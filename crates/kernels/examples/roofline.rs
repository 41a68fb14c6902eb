//! Measures the kernels against what the machine could do at best: a loop of nothing but fused
//! multiply-adds, and a plain read of memory. Prints ratios, which survive a busy or slow machine
//! better than times do.
//!
//! Run: `cargo run --release -p diptych-kernels --example roofline`

use std::hint::black_box;
use std::time::Instant;

use diptych_kernels::{
    Activation, AttentionShape, Epilogue, Mask, PackedMatrix, QuantizedMatrix, Threads, attention, linear,
    linear_q8, multiversion, sum,
};

/// Seconds of processor time that this process has used, all threads together.
fn processor_seconds() -> f64 {
    #[repr(C)]
    struct Time {
        seconds: i64,
        nanoseconds: i64,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut Time) -> i32;
    }
    const PROCESS: i32 = if cfg!(target_os = "macos") { 12 } else { 2 };
    let mut time = Time { seconds: 0, nanoseconds: 0 };
    // SAFETY: a valid clock and a `timespec` of a 64-bit system.
    unsafe { clock_gettime(PROCESS, &mut time) };
    time.seconds as f64 + 1e-9 * time.nanoseconds as f64
}

/// Median seconds of processor time of `runs` calls: what other programs on the machine disturb least.
fn median(runs: usize, mut f: impl FnMut()) -> f64 {
    f();
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = processor_seconds();
            f();
            processor_seconds() - start
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Seconds on the clock of the fastest of `runs` calls.
fn fastest(runs: usize, mut f: impl FnMut()) -> f64 {
    let once = |_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    (0..runs).map(once).fold(f64::INFINITY, f64::min)
}

/// Multiplications per second of one core that does nothing but fused multiply-adds on registers, as
/// wide as they come.
#[cfg(target_arch = "x86_64")]
fn peak_of_a_core() -> f64 {
    use std::arch::x86_64::*;

    use diptych_kernels::{Level, level};
    const ROUNDS: usize = 1 << 17;
    const CHAINS: usize = 12;

    #[target_feature(enable = "avx512f")]
    fn wide(x: f32) -> f32 {
        let (x, mut sums) = (_mm512_set1_ps(x), [_mm512_set1_ps(0.1); CHAINS]);
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(x, *sum, x);
            }
        }
        _mm512_reduce_add_ps(sums.into_iter().fold(x, |a, b| _mm512_add_ps(a, b)))
    }
    #[target_feature(enable = "avx2,fma")]
    fn middle(x: f32) -> f32 {
        let (x, mut sums) = (_mm256_set1_ps(x), [_mm256_set1_ps(0.1); CHAINS]);
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(x, *sum, x);
            }
        }
        _mm256_cvtss_f32(sums.into_iter().fold(x, |a, b| _mm256_add_ps(a, b)))
    }
    let lanes = match level() {
        Level::Avx512 => 16,
        Level::Avx2 => 8,
        Level::Portable => panic!("no fused multiply-add on this machine"),
    };
    let seconds = median(31, || {
        // SAFETY: `level` found the features of the function that is called.
        black_box(unsafe { if lanes == 16 { wide(black_box(0.5)) } else { middle(black_box(0.5)) } });
    });
    (ROUNDS * CHAINS * lanes) as f64 / seconds
}

/// Elsewhere, the best product of a size that fits the caches.
#[cfg(not(target_arch = "x86_64"))]
fn peak_of_a_core() -> f64 {
    let (m, n, k) = (48, 64, 256);
    let (w, x, mut y) = (PackedMatrix::pack(&values(n * k), n, k), values(m * k), vec![0.0; m * n]);
    let seconds = median(101, || linear(&mut y, &x, m, &w, Epilogue::None, Threads::One));
    (m * n * k) as f64 / seconds
}

multiversion! { fn read(x: &[f32]) -> f32 { sum(x) } }

/// Bytes per second of processor time that one thread reads from memory, `data` being larger than any
/// cache.
fn streaming_read(data: &[f32]) -> f64 {
    let seconds = median(3, || {
        black_box(read(data));
    });
    size_of_val(data) as f64 / seconds
}

fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 1013) as f32 / 1013.0 - 0.5).collect()
}

/// Ratio to the peak of one product on one thread, and of one product at a time on all threads.
fn large(threads: usize) {
    println!("rows     k     n   one thread, processor time   all threads, clock (ratio to peak)");
    for (k, n) in [(512, 512), (512, 2048), (2048, 512), (768, 768), (768, 2304), (768, 3072), (3072, 768)] {
        let (w, bias) = (PackedMatrix::pack(&values(n * k), n, k), values(n));
        for m in [50, 197, 200, 800, 1600] {
            let (x, mut y) = (values(m * k), vec![0.0; m * n]);
            let work = (m * n * k) as f64;
            let runs = ((2e9 / work) as usize).clamp(7, 41);
            let peak = peak_of_a_core();
            let one = median(runs, || linear(&mut y, &x, m, &w, Epilogue::Bias(&bias), Threads::One));
            let all = fastest(2 * runs, || linear(&mut y, &x, m, &w, Epilogue::Bias(&bias), Threads::All));
            let all = work / all / peak / threads as f64;
            println!("{m:4} {k:5} {n:5}   {:25.1}%   {:17.1}%", 100.0 * work / one / peak, 100.0 * all);
        }
    }
}

/// Ratio to a streaming read for the weights of a text tower, larger together than any cache. Both on
/// one thread and in turns, since neighbours on the machine take their share of the memory too.
fn small() {
    println!(
        "rows     k     n   weights read on one thread, ratio to a streaming read (lowest, median, highest)"
    );
    let data = vec![1f32; 48 << 20];
    for (k, n) in [(512, 2048), (768, 3072), (3072, 768)] {
        let copies = (192 << 20) / (n * k * 4);
        let raw = values(n * k);
        let weights: Vec<PackedMatrix> = (0..copies).map(|_| PackedMatrix::pack(&raw, n, k)).collect();
        let bias = values(n);
        for m in [1, 2, 4, 8, 12, 16] {
            let (x, mut y) = (values(m * k), vec![0.0; m * n]);
            let mut ratios: Vec<f64> = (0..7)
                .map(|_| {
                    let seconds = median(3, || {
                        for w in &weights {
                            linear(&mut y, &x, m, w, Epilogue::Bias(&bias), Threads::One);
                        }
                    });
                    100.0 * (copies * n * k * 4) as f64 / seconds / streaming_read(&data)
                })
                .collect();
            ratios.sort_by(f64::total_cmp);
            println!("{m:4} {k:5} {n:5}   {:6.1}% {:6.1}% {:6.1}%", ratios[0], ratios[3], ratios[6]);
        }
    }
}

fn others(peak: f64) {
    for (batch, positions, heads, width) in
        [(32, 50, 12, 64), (8, 197, 12, 64), (2, 577, 16, 64), (16, 77, 8, 64)]
    {
        let shape = AttentionShape::new(batch, positions, heads, width);
        let qkv = values(batch * positions * 3 * shape.hidden());
        let mut out = vec![0.0; batch * positions * shape.hidden()];
        let seconds = median(15, || attention(&mut out, &qkv, shape, Mask::default(), Threads::One));
        let work = (2 * batch * positions * positions * shape.hidden()) as f64;
        println!("attention {shape:?}: {:.1}% of peak", 100.0 * work / seconds / peak);
    }
    let (m, n, k) = (800, 3072, 768);
    let (w, x, mut y, bias) =
        (PackedMatrix::pack(&values(n * k), n, k), values(m * k), vec![0.0; m * n], values(n));
    for activation in [Activation::QuickGelu, Activation::Gelu, Activation::GeluTanh] {
        let e = Epilogue::BiasActivation(Some(&bias), activation);
        let seconds = median(15, || linear(&mut y, &x, m, &w, e, Threads::One));
        println!(
            "{activation} after {m}x{n}x{k}: {:.1}% of peak",
            100.0 * (m * n * k) as f64 / seconds / peak
        );
    }
}

/// Speed of 8-bit products relative to single precision.
fn quantized() {
    println!("rows     k     n   8-bit product, times as fast as single precision (processor time)");
    for (k, n) in [(768, 3072), (3072, 768), (512, 2048)] {
        let raw = values(n * k);
        let (q, w, bias) = (QuantizedMatrix::quantize(&raw, n, k), PackedMatrix::pack(&raw, n, k), values(n));
        for m in [1, 8, 50, 200, 1600] {
            let (x, mut y) = (values(m * k), vec![0.0; m * n]);
            let (runs, e) = (if m < 100 { 101 } else { 9 }, Epilogue::Bias(&bias));
            let single = median(runs, || linear(&mut y, &x, m, &w, e, Threads::One));
            let bytes = median(runs, || linear_q8(&mut y, &x, m, &q, e, Threads::One));
            println!("{m:4} {k:5} {n:5}   {:.2}", single / bytes);
        }
    }
}

fn main() {
    let (threads, peak) = (rayon::current_num_threads(), peak_of_a_core());
    println!("{threads} threads, {:.1} GFLOP/s a core", 2e-9 * peak);
    let want = |name: &str| std::env::args().len() == 1 || std::env::args().any(|a| a == name);
    if want("large") {
        large(threads);
    }
    if want("small") {
        small();
    }
    if want("others") {
        others(peak);
    }
    if want("quantized") {
        quantized();
    }
    println!("{:.1} GFLOP/s a core at the end", 2e-9 * peak_of_a_core());
}
