//! A benchmark's data as files in a folder: how they are made, named, written and read.
//!
//! Owns: the folder's layout, which the Python scripts beside this file read too: raw little-endian
//! matrices, row by row, and `meta.json` with shapes, parameters and measured statistics.
//! Deliberately absent: how vectors are drawn (see `cliplike`).

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::cliplike::{Model, PARAMS};
use crate::draw::Purpose;
use crate::exact::{Statistics, Truth, exact};

/// True neighbours kept of every query.
pub const NEIGHBORS: usize = 100;
/// Fewest base vectors and components the model is defined for.
const N_MIN: usize = 1000;
const DIM_MIN: usize = 8;

/// Values written at once.
const PART: usize = 1 << 20;

/// What is to be generated.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub n: usize,
    pub dim: usize,
    /// Queries of each modality.
    pub queries: usize,
    /// Training texts, disjoint from the queries.
    pub learn: usize,
    pub seed: u64,
}

/// What a query is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modality {
    Text,
    Image,
}

impl Modality {
    pub const ALL: [Self; 2] = [Self::Text, Self::Image];

    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
        }
    }
}

/// Queries of one modality, row by row, with their true neighbours.
pub struct Queries {
    pub vectors: Vec<f32>,
    pub truth: Vec<u32>,
}

/// A folder's contents.
pub struct DataSet {
    pub dim: usize,
    /// Neighbours per query in [`Queries::truth`].
    pub k: usize,
    pub base: Vec<f32>,
    pub text: Queries,
    pub image: Queries,
    pub learn: Vec<f32>,
}

impl DataSet {
    /// Draws a set, finds its true neighbours and measures it: text statistics first, then image.
    pub fn generate(shape: &Shape) -> Result<(Self, [Statistics; 2])> {
        let Shape { n, dim, queries, learn, seed } = *shape;
        ensure!(
            n >= N_MIN && dim >= DIM_MIN && queries >= 1,
            "the model needs --n {N_MIN}, --dim {DIM_MIN}, --queries 1 or more of each"
        );
        let model = Model::new(n, dim, seed);
        let base = model.base(n);
        let answered = |vectors: Vec<f32>| {
            let truth: Truth = exact(&base, &vectors, dim, NEIGHBORS);
            let statistics = truth.statistics();
            (Queries { vectors, truth: truth.ids }, statistics)
        };
        let (text, of_text) = answered(model.texts(queries, Purpose::TextQueries));
        let (image, of_image) = answered(model.image_queries(queries, &base));
        let learn = model.texts(learn, Purpose::LearnTexts);
        Ok((Self { dim, k: NEIGHBORS, base, text, image, learn }, [of_text, of_image]))
    }

    /// Writes all files; `meta.json` last, so that a folder with one is complete.
    pub fn write(&self, dir: &Path, shape: &Shape, [text, image]: &[Statistics; 2]) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("{} cannot be created", dir.display()))?;
        write_values(&dir.join("base.f32"), &self.base, f32::to_le_bytes)?;
        write_values(&dir.join("learn_text.f32"), &self.learn, f32::to_le_bytes)?;
        for modality in Modality::ALL {
            let (name, queries) = (modality.name(), self.queries(modality));
            write_values(&dir.join(format!("query_{name}.f32")), &queries.vectors, f32::to_le_bytes)?;
            write_values(&dir.join(format!("gt_{name}.i32")), &queries.truth, u32::to_le_bytes)?;
        }
        let meta = json!({
            "format": "raw little-endian, row by row",
            "generator": "diptych benches/ann",
            "n": shape.n, "dim": shape.dim, "queries": shape.queries, "learn": shape.learn,
            "seed": shape.seed, "k": self.k,
            "metric": "inner product of unit vectors",
            "params": PARAMS,
            "stats": {"text": text, "image": image},
        });
        let path = dir.join("meta.json");
        fs::write(&path, format!("{meta:#}\n"))
            .with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Reads a folder and checks that its files have the sizes that `meta.json` tells.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("meta.json");
        let text = fs::read_to_string(&path).with_context(|| {
            format!("{} cannot be read; make a set with --generate --n 100000 --data DIR", path.display())
        })?;
        let meta: Value = serde_json::from_str(&text)?;
        let field = |name: &str| -> Result<usize> {
            let value =
                meta[name].as_u64().with_context(|| format!("{}: no number {name:?}", path.display()))?;
            Ok(usize::try_from(value)?)
        };
        let (n, dim, queries, learn, k) =
            (field("n")?, field("dim")?, field("queries")?, field("learn")?, field("k")?);
        let of = |name: &str| -> Result<Queries> {
            Ok(Queries {
                vectors: read_values(
                    &dir.join(format!("query_{name}.f32")),
                    queries * dim,
                    f32::from_le_bytes,
                )?,
                truth: read_values(&dir.join(format!("gt_{name}.i32")), queries * k, u32::from_le_bytes)?,
            })
        };
        Ok(Self {
            dim,
            k,
            base: read_values(&dir.join("base.f32"), n * dim, f32::from_le_bytes)?,
            text: of("text")?,
            image: of("image")?,
            learn: read_values(&dir.join("learn_text.f32"), learn * dim, f32::from_le_bytes)?,
        })
    }

    /// The queries of one modality.
    pub fn queries(&self, modality: Modality) -> &Queries {
        match modality {
            Modality::Text => &self.text,
            Modality::Image => &self.image,
        }
    }
}

/// In parts, so that a large set is not in memory twice.
fn write_values<T: Copy>(path: &Path, values: &[T], bytes: fn(T) -> [u8; 4]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(path)?;
        values.chunks(PART).try_for_each(|part| {
            let part: Vec<u8> = part.iter().flat_map(|&value| bytes(value)).collect();
            file.write_all(&part)
        })
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

fn read_values<T: Send>(path: &Path, count: usize, value: fn([u8; 4]) -> T) -> Result<Vec<T>> {
    let bytes = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    ensure!(
        bytes.len() == count * 4,
        "{} has {} bytes instead of the {} that meta.json tells; generate the set again",
        path.display(),
        bytes.len(),
        count * 4
    );
    Ok(bytes.par_chunks_exact(4).map(|b| value([b[0], b[1], b[2], b[3]])).collect())
}
