//! An evaluation as lines for a terminal.

use diptych_core::Encode;
use diptych_eval::{Direction, Metric};

use super::{Evaluation, file_name};
use crate::output::{count, grouped, short_id};

/// Columns between which there are two spaces.
const HEADINGS: [&str; 6] = ["", "value", "95 % interval", "chance", "shuffled pairs", "their range"];

pub fn lines(evaluation: &Evaluation<'_>) -> Vec<String> {
    let report = evaluation.report;
    let mut lines = vec![
        format!("model  {} {}", evaluation.encoder.family(), short_id(&evaluation.encoder.model_id())),
        format!("pairs  {}", describe_pairs(evaluation)),
    ];
    let control = report.control.as_ref();
    for (name, direction, control) in [
        ("text to image", &report.text_to_image, control.map(|c| &c.text_to_image)),
        ("image to text", &report.image_to_text, control.map(|c| &c.image_to_text)),
    ] {
        lines.push(String::new());
        lines.push(format!("{name}: {}", counts(direction)));
        lines.extend(align(&rows(direction, control)));
    }
    lines
}

/// Which pairs there are, in words.
pub fn describe_pairs(evaluation: &Evaluation<'_>) -> String {
    let corpus = evaluation.corpus;
    let mut said = format!(
        "{}: {}, {}, {}",
        file_name(&evaluation.args.pairs),
        count_grouped(corpus.items.len(), "record"),
        count_grouped(corpus.images.len(), "image"),
        count_grouped(corpus.texts.len(), "text")
    );
    if let Some((attribute, _)) = &corpus.labels {
        said += &format!(", labels from '{attribute}'");
    }
    if let Some(attribute) = &evaluation.args.measure.group_by {
        said += &format!(", grouped by '{attribute}'");
    }
    said
}

/// What the numbers of a direction rest on.
pub fn counts(direction: &Direction) -> String {
    format!(
        "{} of {}, gallery of {}",
        if direction.queries == 1 {
            "1 query".to_owned()
        } else {
            format!("{} queries", grouped(direction.queries as u64))
        },
        count_grouped(direction.clusters, "group"),
        grouped(direction.gallery as u64)
    )
}

fn count_grouped(n: usize, what: &str) -> String {
    if n == 1 { count(1, what) } else { format!("{} {what}s", grouped(n as u64)) }
}

/// A line of headings and one per metric, as cells.
pub fn rows(direction: &Direction, control: Option<&Direction>) -> Vec<Vec<String>> {
    let controls = control.map(Direction::metrics).unwrap_or_default();
    let width = if control.is_some() { HEADINGS.len() } else { HEADINGS.len() - 2 };
    let mut rows = vec![HEADINGS[..width].iter().map(|&heading| heading.to_owned()).collect::<Vec<_>>()];
    for (name, metric) in direction.metrics() {
        let written = |value: f64| number(value, &name);
        let mut row =
            vec![title(&name), written(metric.value), interval(&metric, &name), written(metric.chance)];
        if control.is_some() {
            // A metric that the control does not define, such as nDCG without a shared label.
            let found = controls.iter().find(|(other, _)| *other == name).map(|(_, metric)| metric);
            row.push(found.map_or("-".to_owned(), |metric| written(metric.value)));
            row.push(found.map_or("-".to_owned(), |metric| interval(metric, &name)));
        }
        rows.push(row);
    }
    rows
}

/// The name of a metric as people write it.
pub fn title(name: &str) -> String {
    match name {
        "mrr" => "MRR".to_owned(),
        "map" => "mAP".to_owned(),
        "median_rank" => "median rank".to_owned(),
        name => match name.split_once('@') {
            Some(("ndcg", k)) => format!("nDCG@{k}"),
            Some(("label_precision", k)) => format!("same labels@{k}"),
            Some(("any_label_precision", k)) => format!("any label@{k}"),
            _ => name.to_owned(),
        },
    }
}

/// Ranks with one decimal, shares with three or, where these would say nothing, four.
pub fn number(value: f64, name: &str) -> String {
    if name == "median_rank" {
        format!("{value:.1}")
    } else if value > 0.0 && value < 0.01 {
        format!("{value:.4}")
    } else {
        format!("{value:.3}")
    }
}

/// `[low, high]`, or a dash.
pub fn interval(metric: &Metric, name: &str) -> String {
    metric.interval.map_or("-".to_owned(), |i| format!("[{}, {}]", number(i.low, name), number(i.high, name)))
}

/// Rows of cells as lines: the first column to the left, the others to the right.
pub fn align(rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("  {cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(|row| line(row).trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows =
            [["", "value"], ["recall@1", "0.5"], ["MRR", "10.25"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(align(&rows), ["            value", "  recall@1    0.5", "  MRR       10.25"]);
    }

    #[test]
    fn small_shares_keep_their_digits() {
        assert_eq!(
            [number(0.001, "mrr"), number(0.5, "mrr"), number(0.0, "mrr")],
            ["0.0010", "0.500", "0.000"]
        );
        assert_eq!(number(8.0, "median_rank"), "8.0");
        assert_eq!(title("any_label_precision@5"), "any label@5");
    }
}
