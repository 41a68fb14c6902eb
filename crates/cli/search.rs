//! `diptych search`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use diptych_core::{Modality, Query, QuerySource};
use diptych_engine::{Found, IndexKind};
use diptych_proto::v1 as wire;
use diptych_server::{attributes_from_wire, modality_from_wire, modality_to_wire};
use serde_json::{Map, Value, json};

use crate::args::SearchArgs;
use crate::{local, output, remote, sources};

pub fn run(args: &SearchArgs) -> Result<ExitCode> {
    let hits = match (&args.place.data, &args.place.model, &args.place.server) {
        (Some(data), Some(model), None) => search_here(args, data, model)?,
        (_, _, Some(server)) => search_there(args, server)?,
        _ => unreachable!("the parser wants --data and --model, or --server"),
    };
    if args.json {
        let hits: Vec<Value> = hits.iter().map(Shown::json).collect();
        output::line(&serde_json::to_string_pretty(&json!({ "hits": hits }))?)?;
    } else if hits.is_empty() {
        output::line(&format!("no records with a {} part yet", args.target))?;
    } else {
        let width = hits.iter().map(|h| h.key.chars().count()).max().unwrap_or(0).min(40);
        for (rank, hit) in hits.iter().enumerate() {
            output::line(&format!(
                "{:>3}  {:>6.3}  {:<width$}  {}",
                rank + 1,
                hit.score,
                hit.key,
                hit.summary()
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A hit as it is shown, wherever it came from.
struct Shown {
    key: String,
    score: f32,
    part: String,
    text: Option<String>,
    image: Option<String>,
    attributes: Map<String, Value>,
}

impl Shown {
    fn json(&self) -> Value {
        let mut hit = json!({"key": self.key, "score": self.score, "part": self.part});
        if let Some(text) = &self.text {
            hit["text"] = json!(text);
        }
        if let Some(image) = &self.image {
            hit["image"] = json!(image);
        }
        hit["attributes"] = Value::Object(self.attributes.clone());
        hit
    }

    fn summary(&self) -> String {
        let what = self.text.as_deref().or(self.image.as_deref()).unwrap_or(&self.part);
        let labels = match self.attributes.get("labels") {
            Some(Value::Array(labels)) if self.text.is_none() => {
                let labels: Vec<&str> = labels.iter().filter_map(Value::as_str).collect();
                format!("  [{}]", labels.join(", "))
            }
            _ => String::new(),
        };
        // The end of a path says more than its beginning.
        let what = match &self.image {
            Some(path) if self.text.is_none() => {
                Path::new(path).file_name().map_or(path.clone(), |f| f.to_string_lossy().into_owned())
            }
            _ => what.to_owned(),
        };
        format!("{}{labels}", output::shorten(&what, 100))
    }
}

fn source(args: &SearchArgs) -> Result<QuerySource> {
    match (&args.text, &args.image, &args.key) {
        (Some(text), ..) => Ok(QuerySource::Text(text.clone())),
        (_, Some(path), _) => {
            let bytes = sources::read_image(path).map_err(|reason| anyhow!("{} {reason}", path.display()))?;
            Ok(QuerySource::Image(bytes))
        }
        (.., Some(key)) => Ok(QuerySource::Key { key: key.clone(), part: None }),
        _ => unreachable!("the parser wants one of --text, --image and --key"),
    }
}

/// One question does not pay for a graph: it is answered by an exact scan.
fn search_here(args: &SearchArgs, data: &Path, model: &Path) -> Result<Vec<Shown>> {
    let query = Query::new(source(args)?, args.target, args.k, args.ef)?;
    let engine = local::open_engine(data, model, IndexKind::Exact, false)?;
    let outcome = engine.search(&args.place.collection, &query)?;
    Ok(outcome.hits.into_iter().map(shown_here).collect())
}

fn shown_here(Found { hit, record }: Found) -> Shown {
    use diptych_core::Part;
    let (text, image) = match record.part(hit.part) {
        Some(Part::Text(text)) => (Some(text.text.clone()), None),
        Some(Part::Image(image)) => (None, Some(image.source.clone())),
        None => (None, None),
    };
    Shown {
        key: hit.key.to_string(),
        score: hit.score,
        part: hit.part.to_string(),
        text,
        image,
        attributes: attributes(record.attributes()),
    }
}

fn attributes(attributes: &diptych_core::Attributes) -> Map<String, Value> {
    attributes.iter().map(|(name, value)| (name.clone(), output::attribute_json(value))).collect()
}

fn search_there(args: &SearchArgs, url: &str) -> Result<Vec<Shown>> {
    use wire::search_request::Query as WireQuery;
    let query = match source(args)? {
        QuerySource::Text(text) => WireQuery::Text(text),
        QuerySource::Image(bytes) => WireQuery::Image(bytes),
        QuerySource::Key { key, .. } => WireQuery::Key(wire::KeyQuery { key: key.to_string(), part: None }),
        QuerySource::Vector(values) => WireQuery::Vector(wire::Vector { values }),
    };
    let request = wire::SearchRequest {
        collection: args.place.collection.to_string(),
        query: Some(query),
        target: modality_to_wire(args.target),
        // Out of range here is out of range there: the server says what is right.
        k: Some(u32::try_from(args.k).unwrap_or(u32::MAX)),
        ef: args.ef,
    };
    let response = remote::runtime()?.block_on(async {
        remote::connect(url).await?.search(request).await.map_err(|s| remote::failed(&s))
    })?;
    response.into_inner().hits.into_iter().map(shown_there).collect()
}

fn shown_there(hit: wire::Hit) -> Result<Shown> {
    use wire::part::Content;
    let part = hit.part.unwrap_or_default();
    let reference = part.r#ref.unwrap_or_default();
    let modality = modality_from_wire(reference.modality).map_or("unknown", Modality::as_str);
    let (text, image) = match part.content {
        Some(Content::Text(text)) => (Some(text.text), None),
        Some(Content::Image(image)) => (None, Some(image.source)),
        None => (None, None),
    };
    let attributes_here = attributes_from_wire(hit.attributes).map_err(|s| remote::failed(&s))?;
    Ok(Shown {
        key: hit.key,
        score: hit.score,
        part: format!("{modality}:{}", reference.ordinal),
        text,
        image,
        attributes: attributes(&attributes_here),
    })
}
