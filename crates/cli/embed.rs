//! `diptych embed`, and the batched embedding that `eval` shares.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use diptych_core::{Embedding, Encode, PreparedImage};
use diptych_engine::{BulkOptions, ordered_map};
use diptych_ingest::ItemImage;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

use crate::args::EmbedArgs;
use crate::{local, output, sources};

pub fn run(args: &EmbedArgs) -> Result<ExitCode> {
    let encoder = local::load_model(&args.model.dir, args.model.precision)?;
    let started = Instant::now();
    let images = embed_images(&encoder, &args.images)?;
    let image_seconds = started.elapsed();
    let texts = match &args.texts {
        Some(path) => embed_texts(&encoder, &sources::read_lines(path)?)?,
        None => Vec::new(),
    };
    let mut tensors = Vec::new();
    if !args.images.is_empty() {
        tensors.push(("image_embeds", rows(&images)));
    }
    if args.texts.is_some() {
        tensors.push(("text_embeds", rows(&texts)));
    }
    write(&args.out, &encoder, &tensors)?;
    let rate = if images.is_empty() {
        String::new()
    } else {
        format!(
            ", {:.0} images per second",
            images.len() as f64 / image_seconds.as_secs_f64().max(f64::EPSILON)
        )
    };
    output::line(&format!(
        "embedded {} images and {} texts of {} dimensions to {}{rate}",
        images.len(),
        texts.len(),
        encoder.dim(),
        args.out.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Embeds image files in order.
pub fn embed_images(encoder: &dyn Encode, paths: &[PathBuf]) -> Result<Vec<Embedding>> {
    embed_loaded(encoder, paths, |path| {
        let bytes = sources::read_image(path).map_err(|reason| anyhow::anyhow!("{reason}"));
        bytes.and_then(|bytes| Ok(encoder.prepare_image(&bytes)?)).with_context(|| path.display().to_string())
    })
}

/// Embeds the images of items in order, wherever they are.
pub fn embed_item_images(encoder: &dyn Encode, images: &[&ItemImage]) -> Result<Vec<Embedding>> {
    embed_loaded(encoder, images, |image| {
        let bytes = image.load().map_err(|reason| anyhow::anyhow!("{reason}"))?;
        encoder.prepare_image(&bytes).with_context(|| image.source())
    })
}

/// Embeds what is loaded: a decode pool in front of batched encoding, as ingestion does it.
fn embed_loaded<T: Sync>(
    encoder: &dyn Encode,
    images: &[T],
    load: impl Fn(&T) -> Result<PreparedImage> + Sync,
) -> Result<Vec<Embedding>> {
    let BulkOptions { workers, batch } = BulkOptions::default();
    let bar = output::progress_bar(Some(images.len() as u64), "images");
    let mut embeddings = Vec::with_capacity(images.len());
    std::thread::scope(|scope| {
        let mut prepared = ordered_map(scope, images, workers, 2 * batch + workers, &load);
        loop {
            let images = prepared.by_ref().take(batch).collect::<Result<Vec<_>>>()?;
            if images.is_empty() {
                break;
            }
            embeddings.extend(encoder.encode_images(&images)?);
            bar.set_position(embeddings.len() as u64);
        }
        anyhow::Ok(())
    })?;
    bar.finish_and_clear();
    Ok(embeddings)
}

/// Texts that are named when they were truncated; beyond these they are only counted.
const TRUNCATED_NAMED: usize = 10;

/// Embeds texts in order, each truncated by the rule of the model's family; says which were.
pub fn embed_texts(encoder: &dyn Encode, texts: &[String]) -> Result<Vec<Embedding>> {
    let mut embeddings = Vec::with_capacity(texts.len());
    let mut truncated: Vec<usize> = Vec::new();
    let mut context = 0;
    for (start, chunk) in (0..).step_by(64).zip(texts.chunks(64)) {
        let prepared = (start..)
            .zip(chunk)
            .map(|(n, text)| encoder.prepare_text(text).with_context(|| format!("text {}", n + 1)))
            .collect::<Result<Vec<_>>>()?;
        for (n, text) in (start + 1..).zip(&prepared).filter(|(_, text)| text.truncated_tokens > 0) {
            truncated.push(n);
            // What was cut fills the context.
            context = text.ids.len();
        }
        embeddings.extend(encoder.encode_texts(&prepared)?);
    }
    if !truncated.is_empty() {
        eprintln!("{}", truncation_note(&truncated, context));
    }
    Ok(embeddings)
}

fn truncation_note(truncated: &[usize], context: usize) -> String {
    let named: Vec<String> = truncated.iter().take(TRUNCATED_NAMED).map(usize::to_string).collect();
    let more = truncated.len() - named.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let (texts, were) = if truncated.len() == 1 { ("text", "was") } else { ("texts", "were") };
    format!(
        "{} {texts} {were} truncated to the model's context of {context} tokens: number {}{more}",
        truncated.len(),
        named.join(", ")
    )
}

fn rows(embeddings: &[Embedding]) -> (usize, Vec<u8>) {
    let bytes = embeddings.iter().flat_map(|e| e.as_slice()).flat_map(|v| v.to_le_bytes()).collect();
    (embeddings.len(), bytes)
}

fn write(out: &Path, encoder: &dyn Encode, tensors: &[(&str, (usize, Vec<u8>))]) -> Result<()> {
    let views = tensors
        .iter()
        .map(|(name, (n, bytes))| {
            let view = TensorView::new(Dtype::F32, vec![*n, encoder.dim()], bytes)?;
            Ok((*name, view))
        })
        .collect::<Result<Vec<_>>>()?;
    let metadata = HashMap::from([("model_id".to_owned(), encoder.model_id().to_string())]);
    serialize_to_file(views, Some(metadata), out).with_context(|| format!("cannot write {}", out.display()))
}
