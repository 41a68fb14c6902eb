//! How long a DICOM file takes from its bytes to the picture that is shown: parsing, decoding, window.
//!
//! `cargo bench --bench dicom -- [--repeat N] FILE...` prints a line for each file: its path and the
//! milliseconds of each repetition. `peer.py` makes the files, runs this and other software in turn, and
//! compares the medians. Reading from the disk is outside of the clock on both sides.

use std::hint::black_box;
use std::time::Instant;

use diptych_radiology::dicom::DicomFile;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench").peekable();
    let mut repeat = 3;
    if arguments.peek().is_some_and(|argument| argument == "--repeat") {
        repeat = arguments.nth(1).ok_or("--repeat wants a number")?.parse()?;
    }
    for path in arguments {
        let bytes = std::fs::read(&path)?;
        let mut times = Vec::new();
        for _ in 0..repeat {
            let copy = bytes.clone();
            let began = Instant::now();
            black_box(DicomFile::read(copy)?.frame(0)?);
            times.push(format!("{:.3}", began.elapsed().as_secs_f64() * 1000.0));
        }
        println!("{path}\t{}", times.join(" "));
    }
    Ok(())
}
