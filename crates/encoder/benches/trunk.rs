//! Features per second of the trunks that heads are trained on: MobileNetV2 and a MiniLM.
//!
//! Owns: the timing of whole batches. `cargo bench -p diptych-encoder --bench trunk -- MODELS` takes the folder
//! with both models, of which one may be absent; `benches/trunk.py` times the reference libraries on the same.
//! Wall-clock and processor time are both printed: on a machine that does other things too, only the second
//! says something.

#![allow(missing_docs)]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use diptych_core::{EncodeError, PreparedImage, PreparedText};
use diptych_encoder::{ImageTrunk, RgbImage, TextTrunk};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 32;
const ROUNDS: usize = 8;
const CAPTION: &str = "a brown dog runs along the beach with a stick in its mouth";

fn main() -> Result<(), Box<dyn Error>> {
    let Some(models) = std::env::args().skip(1).find(|arg| !arg.starts_with("--")) else {
        println!("give the folder that holds mobilenet_v2 and all-MiniLM-L6-v2-fp16");
        return Ok(());
    };
    let models = Path::new(&models);
    if let Ok(trunk) = ImageTrunk::open(&models.join("mobilenet_v2")) {
        let photo = RgbImage::from_fn(500, 375, |x, y| image::Rgb([x as u8, y as u8, (x ^ y) as u8]));
        let prepare = || trunk.prepare_rgb(&photo);
        time("prepare a photo of 500 x 375", BATCH, || (0..BATCH).try_for_each(|_| prepare().map(drop)))?;
        let images: Vec<PreparedImage> = vec![prepare()?; BATCH];
        time("MobileNetV2, batch 32", BATCH, || trunk.features(&images).map(drop))?;
        time("MobileNetV2, batch 1", 1, || trunk.features(&images[..1]).map(drop))?;
    }
    if let Ok(trunk) = TextTrunk::open(&models.join("all-MiniLM-L6-v2-fp16")) {
        let texts: Vec<PreparedText> = vec![trunk.prepare(CAPTION)?; BATCH];
        time("MiniLM, batch 32", BATCH, || trunk.features(&texts).map(drop))?;
    }
    Ok(())
}

/// Prints how many inputs a second, by the clock and by processor time, in the best of several rounds.
fn time(
    what: &str,
    inputs: usize,
    mut run: impl FnMut() -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    run()?;
    let (mut wall, mut processor) = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        let (clock, used) = (Instant::now(), processor_seconds());
        run()?;
        wall = wall.min(clock.elapsed().as_secs_f64());
        processor = processor.min(processor_seconds() - used);
    }
    let per_second = inputs as f64 / wall;
    println!("{what}: {per_second:.1} a second, {:.2} ms of one core each", processor / inputs as f64 * 1e3);
    Ok(())
}

/// Processor time of all threads so far; 0 where the system does not tell it.
fn processor_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    tasks.filter_map(nanoseconds).sum::<f64>() / 1e9
}
