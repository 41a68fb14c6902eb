//! A contact sheet of phantoms for the eye: `cargo run --example sheet -- OUT.png SEED SIZE COLUMNS`.
//! Deliberately absent: anything a program would read.

use std::time::Instant;

use image::{GenericImage, GrayImage};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: u32| arguments.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let out = arguments.first().map_or("sheet.png", String::as_str);
    let (seed, size, columns) = (number(1, 1), number(2, 256), number(3, 6));
    let rows = columns * 2 / 3;
    let mut sheet = GrayImage::new(columns * size, rows * size);
    let start = Instant::now();
    for i in 0..columns * rows {
        let case = diptych_phantom::case_sized(u64::from(seed), u64::from(i), size);
        println!("{i:3} {} {}", case.labels.join("|"), case.report);
        sheet
            .copy_from(&case.image, i % columns * size, i / columns * size)
            .expect("the sheet is large enough");
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.0} cases/s", f64::from(columns * rows) / seconds);
    sheet.save(out).expect("the sheet can be written");
}
