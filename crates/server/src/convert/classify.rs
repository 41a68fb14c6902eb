//! What is classified, among which labels, and how well each fits.

use diptych_core::{CollectionName, ModelId, QuerySource};
use diptych_engine::{Classified, Label};
use diptych_proto::v1 as wire;
use tonic::Status;

use super::collection_from_wire;
use super::search::key_query_from_wire;

/// A classification of the wire.
pub(crate) struct ClassifyCall {
    pub(crate) collection: CollectionName,
    pub(crate) subject: QuerySource,
    pub(crate) labels: Vec<Label>,
    pub(crate) templates: Vec<String>,
    /// Most labels wanted.
    pub(crate) k: usize,
}

pub(crate) fn classify_from_wire(request: wire::ClassifyRequest) -> Result<ClassifyCall, Status> {
    use wire::classify_request::Subject;
    let subject = match request.subject {
        Some(Subject::Image(bytes)) => QuerySource::Image(bytes),
        Some(Subject::Text(text)) => QuerySource::Text(text),
        Some(Subject::Key(key)) => key_query_from_wire(key)?,
        Some(Subject::Vector(vector)) => QuerySource::Vector(vector.values),
        None => {
            return Err(Status::invalid_argument(
                "the request has nothing to classify; set one of image, text, key and vector",
            ));
        }
    };
    let label = |wire::ClassLabel { name, prompts }| Label { name, prompts };
    let k = match request.k {
        Some(0) => {
            return Err(Status::invalid_argument("k is 0; ask for at least one label, or leave it out"));
        }
        k => k.map_or(usize::MAX, |k| usize::try_from(k).unwrap_or(usize::MAX)),
    };
    Ok(ClassifyCall {
        collection: collection_from_wire(request.collection)?,
        subject,
        labels: request.labels.into_iter().map(label).collect(),
        templates: request.templates,
        k,
    })
}

pub(crate) fn classified_to_wire(
    classified: Vec<Classified>,
    k: usize,
    model: ModelId,
    independent: bool,
) -> wire::ClassifyResponse {
    let score =
        |of: Classified| wire::ClassScore { name: of.label, probability: of.probability, score: of.score };
    wire::ClassifyResponse {
        scores: classified.into_iter().take(k).map(score).collect(),
        model_id: model.to_string(),
        independent,
    }
}
