//! The index on CLIP-like vectors: how many queries per second at which recall, and at what cost.
//!
//! Owns: the command line, the sweep over `ef` and the JSON lines, which have the fields that
//! `peers.py` beside this file writes for other libraries. `make bench-ann` runs both in turn through
//! `run.py`, for which this program also serves as a worker: it builds, then answers one request per
//! line of standard input (`batch MODALITY EF THREADS`, `singles MODALITY EF COUNT`, `recall100
//! MODALITY EF`, `filtered MODALITY SHARE EF COUNT`) with one line of JSON. Deliberately absent: the peers, tables and ratios.
//!
//! - `cargo bench --bench ann -- --generate --n 100000 --data DIR` makes a set,
//! - `cargo bench --bench ann -- --data DIR --threads 1,2 --json FILE` measures on it,
//! - `cargo bench --bench ann` does both in small.

#![allow(missing_docs)]

mod cliplike;
mod dataset;
mod draw;
mod exact;
mod filtered;
mod inserts;
mod measure;
mod ours;
mod process;

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};

use dataset::{DataSet, Modality, Shape};
use exact::{percentile, rounded};
use filtered::Filtered;
use measure::{Batch, Bench, Built, K_LONG, Latency};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The least gain in recall over two steps that makes a further step of a sweep worth its time.
const GAIN_MIN: f64 = 0.002;
/// The set of a run without arguments.
const SMALL: Shape = Shape { n: 2000, dim: 64, queries: 200, learn: 500, seed: 1 };

/// Measures the index on a folder of vectors, or makes such a folder.
#[derive(Debug, Parser)]
#[command(name = "ann")]
struct Args {
    /// Make a set instead of measuring
    #[arg(long)]
    generate: bool,
    /// The folder of the set
    #[arg(long)]
    data: PathBuf,
    /// Base vectors to make
    #[arg(long, default_value_t = 100_000)]
    n: usize,
    /// Components of a vector to make
    #[arg(long, default_value_t = 512)]
    dim: usize,
    /// Queries of each modality: so many are made (1000 if not given), or the first so many asked
    #[arg(long)]
    queries: Option<usize>,
    /// Training texts to make
    #[arg(long, default_value_t = 20_000)]
    learn: usize,
    /// What the set is drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Thread counts of batches, such as 1,2
    #[arg(long, value_delimiter = ',', default_value = "1")]
    threads: Vec<usize>,
    /// Threads of the build; the largest of --threads if not given
    #[arg(long)]
    build_threads: Option<usize>,
    /// Neighbours kept per vector and layer
    #[arg(long, default_value_t = 16)]
    m: usize,
    /// Candidates considered when a vector is linked
    #[arg(long, default_value_t = 200)]
    efc: usize,
    /// Candidate lists to search with, in rising order
    #[arg(long, value_delimiter = ',', default_value = "10,20,40,80,160,320,640,1280")]
    ef: Vec<usize>,
    /// Timed runs of each kind; the median counts
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Single queries of one latency run
    #[arg(long, default_value_t = 300)]
    singles: usize,
    /// End a sweep at this recall, or where it no longer rises
    #[arg(long, default_value_t = 0.995)]
    stop: f64,
    /// Measure recall among the first hundred too, where ef allows
    #[arg(long)]
    recall100: bool,
    /// Leave out the variant with query-aware edges
    #[arg(long)]
    no_query_edges: bool,
    /// Where JSON lines go besides standard output
    #[arg(long)]
    json: Option<PathBuf>,
    /// Answer requests about one variant instead of sweeping
    #[arg(long, hide = true)]
    worker: Option<Variant>,
    /// Measure inserts per second while searches go on, and nothing else
    #[arg(long)]
    inserts: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Variant {
    Diptych,
    DiptychQueries,
}

/// A line of results.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    built: Built,
    modality: &'static str,
    ef: usize,
    threads: usize,
    recall10: f64,
    recall100: Option<f64>,
    qps: f64,
    qps_min: f64,
    qps_max: f64,
    qps_cpu: f64,
    p50_us: f64,
    p99_us: f64,
}

fn main() -> Result<()> {
    // Cargo passes `--bench`, and what was meant for the benches that have criterion's harness.
    let args: Vec<OsString> = std::env::args_os().filter(|arg| arg != "--bench").collect();
    let meant = |arg: &OsString| {
        let arg = arg.to_string_lossy();
        arg == "--data" || arg.starts_with("--data=") || arg == "--generate" || arg == "--help"
    };
    if !args.iter().any(meant) {
        return small();
    }
    let args = Args::parse_from(args);
    ensure!(
        args.threads.iter().chain(&args.build_threads).all(|&t| t > 0) && args.repeats > 0,
        "--threads, --build-threads and --repeats start at 1"
    );
    if args.generate {
        return generate(&args);
    }
    if args.worker == Some(Variant::DiptychQueries) && !ours::QUERY_EDGES {
        println!("{}", json!({"unavailable": "the index knows no query-aware edges yet"}));
        return Ok(());
    }
    let data = DataSet::read(&args.data)?;
    let mut output = Output::open(args.json.as_ref())?;
    if args.inserts {
        return output.line(&inserts::measure(&data, args.params(), args.build_threads())?);
    }
    let queries = args.queries.unwrap_or(usize::MAX);
    let mut bench = Bench::build(data, args.params(), args.build_threads(), queries)?;
    if let Some(variant) = args.worker {
        return serve(&mut bench, &args, variant);
    }
    sweep(&mut bench, &args, &mut output)?;
    if !args.no_query_edges && bench.learn_queries()? {
        sweep(&mut bench, &args, &mut output)?;
    }
    Ok(())
}

impl Args {
    fn params(&self) -> ours::Params {
        ours::Params { m: self.m, efc: self.efc }
    }

    fn build_threads(&self) -> usize {
        self.build_threads.or(self.threads.iter().copied().max()).unwrap_or(1)
    }
}

fn generate(args: &Args) -> Result<()> {
    let start = Instant::now();
    let queries = args.queries.unwrap_or(1000);
    let shape = Shape { n: args.n, dim: args.dim, queries, learn: args.learn, seed: args.seed };
    let (set, statistics) = DataSet::generate(&shape)?;
    set.write(&args.data, &shape, &statistics)?;
    for (modality, found) in Modality::ALL.iter().zip(&statistics) {
        eprintln!("{}: {}", modality.name(), serde_json::to_string(found)?);
    }
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("{} x {} in {}, {seconds:.1} s", args.n, args.dim, args.data.display());
    Ok(())
}

/// A run that takes seconds, so that whoever benches everything sees that this one works.
fn small() -> Result<()> {
    let dir = tempfile::tempdir().context("no temporary folder can be made")?;
    let (set, statistics) = DataSet::generate(&SMALL)?;
    set.write(dir.path(), &SMALL, &statistics)?;
    let params = ours::Params { m: 16, efc: 200 };
    let mut bench = Bench::build(DataSet::read(dir.path())?, params, 1, SMALL.queries)?;
    let built = &bench.built;
    println!("{} x {} CLIP-like vectors, built in {:.2} s on one thread", built.n, SMALL.dim, built.build_s);
    for modality in Modality::ALL {
        for ef in [10, 40] {
            let batch = bench.batch(modality, ef, 1)?;
            let Latency { p99_us, .. } = bench.singles(modality, ef, SMALL.queries)?;
            println!(
                "{:5} queries, ef {ef:2}: recall@10 {:.3}, {:.0} queries/s, p99 {p99_us:.0} us",
                modality.name(),
                batch.recall10,
                batch.qps
            );
        }
    }
    println!("More: cargo bench --bench ann -- --help; beside the peers: make bench-ann");
    Ok(())
}

/// Both modalities over the candidate lists.
fn sweep(bench: &mut Bench, args: &Args, output: &mut Output) -> Result<()> {
    for modality in Modality::ALL {
        let mut reached: Vec<f64> = Vec::new();
        for &ef in &args.ef {
            let recall10 = step(bench, args, modality, ef, output)?;
            reached.push(recall10);
            let stalls = reached.len() > 3 && recall10 - reached[reached.len() - 3] < GAIN_MIN;
            if recall10 >= args.stop || stalls {
                break;
            }
        }
    }
    Ok(())
}

/// One candidate list: a row for every number of threads. Returns the recall.
fn step(bench: &mut Bench, args: &Args, modality: Modality, ef: usize, output: &mut Output) -> Result<f64> {
    let mut latencies = Vec::new();
    for _ in 0..args.repeats {
        latencies.push(bench.singles(modality, ef, args.singles)?);
    }
    let latency = |of: fn(&Latency) -> f64| rounded(percentile(latencies.iter().map(of).collect(), 0.5), 1);
    let recall100 = if args.recall100 && ef >= K_LONG { bench.recall100(modality, ef)? } else { None };
    let mut recall10 = 0.0;
    for &threads in &args.threads {
        let mut batches = Vec::new();
        for _ in 0..args.repeats {
            batches.push(bench.batch(modality, ef, threads)?);
        }
        recall10 = batches[0].recall10;
        let of = |p: f64, of: fn(&Batch) -> f64| rounded(percentile(batches.iter().map(of).collect(), p), 1);
        output.line(&Row {
            built: bench.built.clone(),
            modality: modality.name(),
            ef,
            threads,
            recall10,
            recall100,
            qps: of(0.5, |b| b.qps),
            qps_min: of(0.0, |b| b.qps),
            qps_max: of(1.0, |b| b.qps),
            qps_cpu: of(0.5, |b| b.qps_cpu),
            p50_us: latency(|l| l.p50_us),
            p99_us: latency(|l| l.p99_us),
        })?;
    }
    Ok(recall10)
}

/// Standard output and, if asked for, a file.
struct Output(Option<File>);

impl Output {
    fn open(path: Option<&PathBuf>) -> Result<Self> {
        let create = |path: &PathBuf| {
            File::create(path).with_context(|| format!("{} cannot be written", path.display()))
        };
        path.map(create).transpose().map(Self)
    }

    fn line(&mut self, row: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(row)?;
        println!("{line}");
        if let Some(file) = &mut self.0 {
            writeln!(file, "{line}")?;
        }
        Ok(())
    }
}

/// The worker: first what the build cost, then one answer per line.
fn serve(bench: &mut Bench, args: &Args, variant: Variant) -> Result<()> {
    let mut out = std::io::stdout();
    if variant == Variant::DiptychQueries {
        bench.learn_queries()?;
    }
    writeln!(out, "{}", serde_json::to_string(&bench.built)?)?;
    // A sweep asks for one filter at a time.
    let mut filtered = None;
    for line in std::io::stdin().lock().lines() {
        let reply =
            answer(bench, &line?, args, &mut filtered).unwrap_or_else(|e| json!({"error": format!("{e:#}")}));
        writeln!(out, "{reply}")?;
        out.flush()?;
    }
    Ok(())
}

fn answer(bench: &mut Bench, request: &str, args: &Args, filter: &mut Option<Filtered>) -> Result<Value> {
    let words: Vec<&str> = request.split_whitespace().collect();
    let modality = |name: &str| {
        let found = Modality::ALL.into_iter().find(|m| m.name() == name);
        found.with_context(|| format!("no modality {name:?}; ask for text or image"))
    };
    Ok(match words.as_slice() {
        ["batch", name, ef, threads] => {
            serde_json::to_value(bench.batch(modality(name)?, ef.parse()?, threads.parse()?)?)?
        }
        ["singles", name, ef, count] => {
            serde_json::to_value(bench.singles(modality(name)?, ef.parse()?, count.parse()?)?)?
        }
        ["filtered", name, share, ef, count] => {
            let (modality, share, count) = (modality(name)?, share.parse()?, count.parse()?);
            let ready = match filter.take().filter(|f| f.asked == (modality, share, count)) {
                Some(ready) => ready,
                None => Filtered::new(&args.data, modality, share, count)?,
            };
            serde_json::to_value(bench.filtered(filter.insert(ready), ef.parse()?)?)?
        }
        ["recall100", name, ef] => json!({"recall100": bench.recall100(modality(name)?, ef.parse()?)?}),
        _ => bail!("cannot answer {request:?}; the requests are in the head of benches/ann/main.rs"),
    })
}
