//! The Rust workers of `make bench-encode`: Diptych's encoder and stock candle-transformers.
//!
//! Owns: one process per peer that loads the benchmark's model once, then answers one request per
//! line of standard input with one line of JSON. Does not own the order of requests, statistics or
//! the report: `benches/encode/run.py` lets one worker at a time compute and compares them.
//!
//! Requests, where CASE is `image BATCH`, `text BATCH TOKENS PADDED` or `gemm BATCH M K N COPIES`:
//! `seconds WARM COUNT CASE` times COUNT calls after WARM untimed ones, `vectors CASE` returns the
//! embeddings, `peak` the largest resident memory so far in KiB.
//!
//! Both peers run on the allocator of the shipped binary.

#![allow(missing_docs)]

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use candle_transformers::models::clip::{ClipConfig, ClipModel};
use diptych_core::{Embedding, Encode, PreparedImage};
use diptych_encoder::{DualEncoder, Precision};
use diptych_kernels::{Epilogue, PackedMatrix, Threads, linear};
use rayon::prelude::*;
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Sizes of the inputs that `make_model.py` writes.
const SIDE: usize = 224;
const CONTEXT: usize = 77;
const BOS: u32 = 49_406;
/// Also what published tokenizers pad with.
const EOS: u32 = 49_407;

fn main() -> Result<()> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (peer, dir) = match args.as_slice() {
        [peer, dir] if peer.as_os_str() == "ours" => (Peer::Ours(Box::new(DualEncoder::load(dir)?)), dir),
        [peer, dir] if peer.as_os_str() == "ours-int8" => {
            (Peer::Ours(Box::new(DualEncoder::load_with(dir, Precision::Int8)?)), dir)
        }
        [peer, dir] if peer.as_os_str() == "candle" => (Peer::Candle(Box::new(load_candle(dir)?)), dir),
        _ => {
            println!("This is a worker of benches/encode/run.py; `make bench-encode` runs it.");
            return Ok(());
        }
    };
    let mut out = std::io::stdout();
    writeln!(out, "{}", json!({"ready": true}))?;
    for line in std::io::stdin().lock().lines() {
        let reply = answer(&peer, dir, &line?).unwrap_or_else(|e| json!({"error": e.to_string()}));
        writeln!(out, "{reply}")?;
        out.flush()?;
    }
    Ok(())
}

fn answer(peer: &Peer, dir: &Path, request: &str) -> Result<Value> {
    let words: Vec<&str> = request.split_whitespace().collect();
    match words.as_slice() {
        ["seconds", warm, count, "gemm", sizes @ ..] => {
            gemm_seconds(&numbers(sizes)?, warm.parse()?, count.parse()?)
        }
        ["seconds", warm, count, case @ ..] => {
            let input = Input::read(peer, dir, case)?;
            time(warm.parse()?, count.parse()?, |_| peer.embed(&input))
        }
        ["vectors", case @ ..] => Ok(json!({"vectors": peer.embed(&Input::read(peer, dir, case)?)?})),
        ["peak"] => Ok(json!({"peak_kib": peak_kib()?})),
        _ => Err(format!("no such request: {request}").into()),
    }
}

fn time<T>(warm: usize, count: usize, mut call: impl FnMut(usize) -> Result<T>) -> Result<Value> {
    for i in 0..warm {
        black_box(call(i)?);
    }
    let start = Instant::now();
    for i in 0..count {
        black_box(call(warm + i)?);
    }
    Ok(json!({"seconds": start.elapsed().as_secs_f64()}))
}

/// `x * weight^T` as linear layers have it, through the products that the encoder itself uses, over
/// COPIES different weights in turn: a model's layers do not find theirs in the cache either.
fn gemm_seconds(sizes: &[usize], warm: usize, count: usize) -> Result<Value> {
    let &[batch, m, k, n, copies] = sizes else {
        return Err("gemm takes BATCH M K N COPIES".into());
    };
    let random = |count: usize| (0..count).map(|i| (i * 7919 % 2003) as f32 / 1001.5 - 1.0).collect();
    let x: Vec<f32> = random(batch * m * k);
    let matrix: Vec<f32> = random(n * k);
    let weights: Vec<PackedMatrix> = (0..copies).map(|_| PackedMatrix::pack(&matrix, n, k)).collect();
    let mut y = vec![0f32; batch * m * n];
    time(warm, count, |i| {
        let weight = &weights[i % copies];
        // Independent products, as attention has them, go one to a thread.
        let threads = if batch == 1 { Threads::All } else { Threads::One };
        y.par_chunks_exact_mut(m * n).zip(x.par_chunks_exact(m * k)).for_each(|(y, x)| {
            linear(y, x, m, weight, Epilogue::None, threads);
        });
        Ok(())
    })
}

enum Peer {
    Ours(Box<DualEncoder>),
    Candle(Box<ClipModel>),
}

/// A batch in the form that its peer takes.
enum Input {
    Images(Vec<PreparedImage>),
    Texts(Vec<Vec<u32>>),
    ImageTensor(Tensor),
    TextTensor(Tensor),
}

impl Peer {
    fn embed(&self, input: &Input) -> Result<Vec<Vec<f32>>> {
        let rows = |embeddings: Vec<Embedding>| embeddings.iter().map(|e| e.as_slice().to_vec()).collect();
        match (self, input) {
            (Self::Ours(encoder), Input::Images(images)) => Ok(rows(encoder.encode_images(images)?)),
            (Self::Ours(encoder), Input::Texts(texts)) => Ok(rows(encoder.encode_ids(texts)?)),
            (Self::Candle(model), Input::ImageTensor(x)) => Ok(model.get_image_features(x)?.to_vec2()?),
            (Self::Candle(model), Input::TextTensor(x)) => Ok(model.get_text_features(x)?.to_vec2()?),
            _ => Err("the input was made for the other peer".into()),
        }
    }
}

impl Input {
    fn read(peer: &Peer, dir: &Path, case: &[&str]) -> Result<Self> {
        let ours = matches!(peer, Peer::Ours(_));
        let Some((kind, sizes)) = case.split_first() else {
            return Err("the request names no case".into());
        };
        match (*kind, numbers(sizes)?.as_slice()) {
            ("image", &[batch]) => {
                let images = images(dir, batch)?;
                if ours {
                    return Ok(Self::Images(images));
                }
                let pixels: Vec<f32> = images.iter().flat_map(|image| image.values.iter().copied()).collect();
                let shape = (batch, 3, SIDE, SIDE);
                Ok(Self::ImageTensor(Tensor::from_vec(pixels, shape, &Device::Cpu)?))
            }
            ("text", &[batch, tokens, padded]) => {
                let texts = texts(dir, batch, tokens, padded)?;
                if ours {
                    return Ok(Self::Texts(texts));
                }
                let ids = texts.concat();
                Ok(Self::TextTensor(Tensor::from_vec(ids, (batch, padded), &Device::Cpu)?))
            }
            _ => Err(format!("no such case: {}", case.join(" ")).into()),
        }
    }
}

/// The first images of the fixed set, normalised pixels; read one by one, so that the peak memory is
/// the encoder's.
fn images(dir: &Path, batch: usize) -> Result<Vec<PreparedImage>> {
    let mut file = File::open(dir.join("images.f32"))?;
    let mut bytes = vec![0; 4 * 3 * SIDE * SIDE];
    let mut image = || {
        file.read_exact(&mut bytes)?;
        let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Ok(PreparedImage { values, width: SIDE as u32, height: SIDE as u32 })
    };
    (0..batch).map(|_| image()).collect()
}

/// The first token sequences of the fixed set, special tokens included, padded at the end.
fn texts(dir: &Path, batch: usize, tokens: usize, padded: usize) -> Result<Vec<Vec<u32>>> {
    if !(2..=padded).contains(&tokens) || padded > CONTEXT {
        return Err(format!("texts have 2 to {CONTEXT} tokens, not {tokens} in {padded}").into());
    }
    let bytes = std::fs::read(dir.join("tokens.u32"))?;
    let ids: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    let rows = ids.get(..batch * CONTEXT).ok_or("tokens.u32 holds fewer texts")?.chunks(CONTEXT);
    let sequence = |row: &[u32]| {
        let mut ids = vec![BOS];
        ids.extend_from_slice(&row[..tokens - 2]);
        ids.resize(padded, EOS);
        ids
    };
    Ok(rows.map(sequence).collect())
}

fn numbers(words: &[&str]) -> Result<Vec<usize>> {
    Ok(words.iter().map(|word| word.parse()).collect::<std::result::Result<_, _>>()?)
}

fn load_candle(dir: &Path) -> Result<ClipModel> {
    let bytes = std::fs::read(dir.join("model.safetensors"))?;
    let weights = candle_nn::VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu)?;
    Ok(ClipModel::new(weights, &ClipConfig::vit_base_patch32())?)
}

/// `VmHWM` of this process; Linux only.
fn peak_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
