//! A classification as lines for a terminal and as JSON.

use diptych_core::Encode;
use diptych_eval::{Accuracy, Detection, Metric};
use serde_json::{Value, json};

use super::{Classification, Measured};
use crate::eval::{align, interval, interval_json, number};
use crate::output::{grouped, short_id};

/// The likeliest labels of every image.
pub fn images(classification: &Classification<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for (image, path) in classification.pictures.paths.iter().enumerate() {
        lines.push(path.display().to_string());
        for (name, probability) in likeliest(classification, image) {
            lines.push(format!("  {probability:.3}  {name}"));
        }
    }
    lines
}

/// The first labels of an image with their probabilities, the likeliest first.
fn likeliest<'a>(classification: &Classification<'a>, image: usize) -> Vec<(&'a str, f64)> {
    let probabilities = classification.scores.probabilities(classification.encoder, image);
    let names = classification.classes.iter().map(|class| class.name.as_str());
    let mut each: Vec<(&str, f64)> = names.zip(probabilities).collect();
    each.sort_by(|a, b| b.1.total_cmp(&a.1));
    each.truncate(classification.args.top as usize);
    each
}

/// What was measured, as tables.
pub fn tables(classification: &Classification<'_>, measured: &Measured) -> Vec<String> {
    let detections = &measured.detections;
    let prompts: usize = classification.classes.iter().map(|c| c.prompts.len() + c.negatives.len()).sum();
    let against = if classification.scores.negative.is_some() { ", each against its denial" } else { "" };
    let mut lines = vec![
        format!(
            "model  {} {}",
            classification.encoder.family(),
            short_id(&classification.encoder.model_id())
        ),
        format!(
            "images {} of {} groups; {} labels by {prompts} prompts{against}",
            grouped(detections.items as u64),
            grouped(detections.clusters as u64),
            classification.classes.len()
        ),
        String::new(),
    ];
    if let Some(accuracy) = &measured.accuracy {
        lines.push(format!(
            "accuracy on {} images with one of the labels{}",
            grouped(accuracy.images as u64),
            left_out(measured)
        ));
        lines.extend(align(&accuracy_rows(accuracy)));
        lines.push(String::new());
    }
    lines.push("each label against all other images".to_owned());
    lines.extend(align(&detection_rows(classification, measured)));
    lines
}

fn left_out(measured: &Measured) -> String {
    match measured.left_out {
        0 => String::new(),
        n => format!(" ({} others are left out)", grouped(n as u64)),
    }
}

fn cells(row: &[&str]) -> Vec<String> {
    row.iter().map(|&cell| cell.to_owned()).collect()
}

fn accuracy_rows(accuracy: &Accuracy) -> Vec<Vec<String>> {
    let mut rows = vec![cells(&["", "value", "95 % interval", "chance", "most frequent"])];
    let mut row = |name: &str, metric: &Metric, majority: f64| {
        let said = |value| number(value, name);
        let numbers = [said(metric.value), interval(metric, name), said(metric.chance), said(majority)];
        rows.push(std::iter::once(name.to_owned()).chain(numbers).collect());
    };
    row("top 1", &accuracy.top_1, accuracy.majority_1);
    // Five of five are always right.
    if accuracy.classes.len() > 5 {
        row("top 5", &accuracy.top_5, accuracy.majority_5);
    }
    rows
}

fn detection_rows(classification: &Classification<'_>, measured: &Measured) -> Vec<Vec<String>> {
    let detections = &measured.detections;
    let headings =
        ["label", "with it", "without", "AUC", "95 % interval", "chance", "AP", "95 % interval", "chance"];
    let mut rows = vec![cells(&headings)];
    let metric = |metric: &Option<Metric>| match metric {
        Some(m) => [number(m.value, "auc"), interval(m, "auc"), number(m.chance, "auc")],
        None => ["-", "-", "-"].map(str::to_owned),
    };
    for (class, detection) in classification.classes.iter().zip(&detections.labels) {
        let mut row = vec![class.name.clone()];
        row.extend([detection.positives, detection.negatives].map(|n| grouped(n as u64)));
        row.extend(metric(&detection.auc).into_iter().chain(metric(&detection.average_precision)));
        rows.push(row);
    }
    if detections.labels.len() > 1 {
        let mut row = cells(&["mean", "", ""]);
        row.extend(metric(&detections.mean_auc));
        row.extend(metric(&detections.mean_average_precision));
        rows.push(row);
    }
    rows
}

/// Everything: the likeliest labels of every image, and what was measured.
pub fn json(classification: &Classification<'_>, measured: Option<&Measured>) -> Value {
    let images: Vec<Value> = classification
        .pictures
        .paths
        .iter()
        .enumerate()
        .map(|(image, path)| {
            let labels: Vec<Value> = likeliest(classification, image)
                .into_iter()
                .map(|(name, probability)| json!({ "label": name, "probability": probability }))
                .collect();
            json!({ "image": path.display().to_string(), "labels": labels })
        })
        .collect();
    let classes: Vec<Value> = classification
        .classes
        .iter()
        .map(|class| json!({ "label": class.name, "prompts": class.prompts, "negative": class.negatives }))
        .collect();
    let mut value = json!({
        "model_id": classification.encoder.model_id().to_string(),
        "classes": classes,
        "images": images,
    });
    if let Some(measured) = measured {
        value["measured"] = measured_json(classification, measured);
    }
    value
}

fn measured_json(classification: &Classification<'_>, measured: &Measured) -> Value {
    let metric = |metric: &Metric| json!({ "value": metric.value, "chance": metric.chance, "interval": interval_json(metric) });
    let optional = |m: &Option<Metric>| m.as_ref().map_or(Value::Null, metric);
    let detection = |name: &str, d: &Detection| {
        json!({
            "label": name,
            "positives": d.positives,
            "negatives": d.negatives,
            "auc": optional(&d.auc),
            "average_precision": optional(&d.average_precision),
        })
    };
    let detections = &measured.detections;
    let names = classification.classes.iter().map(|class| class.name.as_str());
    let labels: Vec<Value> =
        names.clone().zip(&detections.labels).map(|(name, found)| detection(name, found)).collect();
    let accuracy = measured.accuracy.as_ref().map(|accuracy| {
        let classes: Vec<Value> = names
            .zip(&accuracy.classes)
            .map(|(name, count)| json!({ "label": name, "images": count.images, "right": count.right }))
            .collect();
        json!({
            "top_1": metric(&accuracy.top_1),
            "top_5": metric(&accuracy.top_5),
            "most_frequent_1": accuracy.majority_1,
            "most_frequent_5": accuracy.majority_5,
            "images": accuracy.images,
            "left_out": measured.left_out,
            "classes": classes,
        })
    });
    json!({
        "labels": labels,
        "mean_auc": optional(&detections.mean_auc),
        "mean_average_precision": optional(&detections.mean_average_precision),
        "accuracy": accuracy,
        "images": detections.items,
        "groups": detections.clusters,
        "group_by": classification.args.measure.group_by,
        "bootstrap": classification.args.measure.bootstrap,
        "seed": classification.args.measure.seed,
    })
}
