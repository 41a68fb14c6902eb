//! An evaluation as JSON: everything that was measured, without examples.

use diptych_core::Encode;
use diptych_eval::{Direction, LABEL_DEPTHS, Metric};
use serde_json::{Map, Value, json};

use super::plots::rank_bins;
use super::{Evaluation, file_name};

pub fn of(evaluation: &Evaluation<'_>) -> Value {
    let Evaluation { encoder, corpus, report, args } = evaluation;
    let control = report.control.as_ref().map(|control| {
        json!({
            "text_to_image": shuffled(&control.text_to_image),
            "image_to_text": shuffled(&control.image_to_text),
            "shuffles": control.shuffles,
        })
    });
    json!({
        "text_to_image": direction(&report.text_to_image),
        "image_to_text": direction(&report.image_to_text),
        "control": control,
        "model_id": encoder.model_id().to_string(),
        "pairs": file_name(&args.pairs),
        "records": corpus.items.len(),
        "images": corpus.images.len(),
        "texts": corpus.texts.len(),
        "texts_in_several_records": corpus.texts_shared,
        "duplicates_wrong": args.duplicates_wrong,
        "labels": corpus.labels.as_ref().map(|(attribute, _)| attribute),
        "group_by": args.measure.group_by,
        "bootstrap": args.measure.bootstrap,
        "seed": args.measure.seed,
    })
}

/// A direction of the control: means over shuffles and their range.
fn shuffled(control: &Direction) -> Value {
    let mut value = direction(control);
    if let Some(fields) = value.as_object_mut() {
        // What would be the interval of a sample is the range of the shuffles.
        let range = fields.remove("interval").unwrap_or(Value::Null);
        fields.insert("range".to_owned(), range);
        fields.remove("ranks");
    }
    value
}

fn direction(direction: &Direction) -> Value {
    let metrics = direction.metrics();
    let by_name = |of: &dyn Fn(&Metric) -> Value| {
        metrics.iter().map(|(name, metric)| (name.clone(), of(metric))).collect::<Map<String, Value>>()
    };
    let mut value = by_name(&|metric| json!(metric.value));
    value.insert("chance".to_owned(), json!(by_name(&|metric| json!(metric.chance))));
    value.insert("interval".to_owned(), json!(by_name(&interval)));
    for (k, metric) in [(1, direction.recall_at_1), (5, direction.recall_at_5), (10, direction.recall_at_10)]
    {
        value.insert(format!("chance@{k}"), json!(metric.chance));
    }
    if let Some(labels) = &direction.labels {
        for (k, metric) in LABEL_DEPTHS.iter().zip(&labels.exact) {
            value.insert(format!("label_chance@{k}"), json!(metric.chance));
        }
        value.insert("label_queries".to_owned(), json!(labels.queries));
    }
    let bins: Vec<Value> = rank_bins(direction)
        .iter()
        .map(|bin| json!({ "from": bin.from, "to": bin.to, "queries": bin.queries, "chance": bin.chance }))
        .collect();
    let rest = json!({
        "queries": direction.queries,
        "gallery": direction.gallery,
        "groups": direction.clusters,
        "recall_curve": direction.recall_curve,
        "chance_curve": direction.chance_curve,
        "ranks": bins,
    });
    if let Value::Object(rest) = rest {
        value.extend(rest);
    }
    Value::Object(value)
}

/// `[low, high]`, or null.
pub fn interval(metric: &Metric) -> Value {
    metric.interval.map_or(Value::Null, |interval| json!([interval.low, interval.high]))
}
