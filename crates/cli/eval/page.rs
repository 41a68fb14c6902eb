//! An evaluation as one HTML page that needs nothing else: no network, no scripts, no fonts.
//!
//! Owns: its text, its tables and which queries are shown. Nothing on it depends on when or where it
//! was written, so that equal runs give equal bytes. Plots are in `plots`, its style in `page.css`.

use std::fmt::Write as _;

use anyhow::Result;
use diptych_eval::{Answer, Direction, Outcome};

use super::table::{counts, describe_pairs, rows};
use super::thumbnail::data_url;
use super::{Corpus, Evaluation, plots};
use crate::output;

/// Queries shown of each kind (best, median, worst) and direction.
const EXAMPLES: usize = 2;
/// Characters of a text that are shown.
const TEXT_CHARS: usize = 600;

pub fn write(evaluation: &Evaluation<'_>) -> Result<String> {
    let report = evaluation.report;
    let control = report.control.as_ref();
    let mut page = String::new();
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>Retrieval evaluation: {0}</title>\n\
         <style>\n{1}</style>\n</head>\n<body>\n<main>\n<h1>Retrieval evaluation</h1>\n",
        escape(&describe_pairs(evaluation)),
        include_str!("page.css"),
    );
    summary(&mut page, evaluation);
    for (id, name, answers, direction, control) in [
        (
            "text-to-image",
            "text to image",
            "images",
            &report.text_to_image,
            control.map(|c| &c.text_to_image),
        ),
        ("image-to-text", "image to text", "texts", &report.image_to_text, control.map(|c| &c.image_to_text)),
    ] {
        section(&mut page, id, name, direction, control);
        examples(&mut page, evaluation.corpus, name, answers, direction)?;
    }
    about(&mut page, evaluation);
    page += "</main>\n</body>\n</html>\n";
    Ok(page)
}

/// What a reader in a hurry needs: both recalls in words, and what else to know.
fn summary(page: &mut String, evaluation: &Evaluation<'_>) {
    let report = evaluation.report;
    let _ = writeln!(page, "<p>{}</p>", escape(&describe_pairs(evaluation)));
    for (queries, answers, direction) in
        [("texts", "image", &report.text_to_image), ("images", "text", &report.image_to_text)]
    {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let _ = writeln!(
            page,
            "<p>Of {} {queries}, <strong>{}</strong> find a right {answers} first (chance {:.2} %) and \
             <strong>{}</strong> among the first ten (chance {}), in a gallery of {}.</p>",
            output::grouped(direction.queries as u64),
            percent(direction.recall_at_1.value),
            100.0 * direction.recall_at_1.chance,
            percent(direction.recall_at_10.value),
            percent(direction.recall_at_10.chance),
            output::grouped(direction.gallery as u64),
        );
    }
    for note in evaluation.corpus.notes(report) {
        let _ = writeln!(page, "<p class=\"note\">Note: {}.</p>", escape(&note));
    }
}

/// The numbers and plots of one direction.
fn section(page: &mut String, id: &str, name: &str, direction: &Direction, control: Option<&Direction>) {
    let _ = writeln!(page, "<h2 id=\"{id}\">{}</h2>", capitalised(name));
    page.push_str("<div class=\"plots\">\n");
    for (caption, plot) in [
        (
            "Share of queries with a right answer among the first k",
            plots::recall_curve(name, direction, control),
        ),
        ("Where the first right answer came", plots::rank_histogram(name, direction)),
        ("Values with 95 % intervals", plots::intervals(name, direction, control)),
    ] {
        let _ = writeln!(page, "<figure><figcaption>{caption}</figcaption>{plot}</figure>");
    }
    page.push_str("<div class=\"scroll\">");
    let caption = format!("{}: {}", capitalised(name), counts(direction));
    table(page, &caption, &rows(direction, control));
    page.push_str("</div>\n</div>\n");
}

fn table(page: &mut String, caption: &str, rows: &[Vec<String>]) {
    let _ = write!(page, "<table><caption>{}</caption>\n<thead><tr>", escape(caption));
    for heading in &rows[0] {
        let heading = if heading.is_empty() { "metric" } else { heading };
        let _ = write!(page, "<th scope=\"col\">{heading}</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in &rows[1..] {
        let _ = write!(page, "<tr><th scope=\"row\">{}</th>", row[0]);
        for (n, cell) in row[1..].iter().enumerate() {
            let class = if n == 0 { " class=\"value\"" } else { "" };
            let _ = write!(page, "<td{class}>{cell}</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table>\n");
}

/// The best, the middle and the worst queries of a direction, by rank and then by order; each once.
fn chosen(direction: &Direction) -> Vec<(&'static str, Vec<&Outcome>)> {
    let mut order: Vec<&Outcome> = direction.outcomes.iter().collect();
    order.sort_by_key(|outcome| (outcome.rank, outcome.query));
    let each = EXAMPLES.min(order.len().div_ceil(3));
    let best: Vec<&Outcome> = order.drain(..each).collect();
    let each = EXAMPLES.min(order.len().div_ceil(2));
    let mut worst = order.split_off(order.len() - each);
    worst.reverse();
    let each = EXAMPLES.min(order.len());
    // The middle of all queries: as many were taken from both ends.
    let first = (order.len() - each) / 2;
    let median = order.drain(first..first + each).collect();
    vec![("Best", best), ("Median", median), ("Worst", worst)]
}

fn examples(
    page: &mut String,
    corpus: &Corpus,
    name: &str,
    answers: &str,
    direction: &Direction,
) -> Result<()> {
    let _ = writeln!(
        page,
        "<h3>Examples</h3>\n<p class=\"note\">Queries {name} with their first {answers}, nearest first. Right \
         answers are marked and framed in green.</p>"
    );
    let to_images = answers == "images";
    for (kind, outcomes) in chosen(direction) {
        for outcome in outcomes {
            let right = if outcome.right == 1 {
                "1 right answer".to_owned()
            } else {
                format!("{} right answers", outcome.right)
            };
            let _ = writeln!(
                page,
                "<section class=\"example\"><h4>{kind}: first right answer at rank {} of {} ({right})</h4>",
                output::grouped(u64::from(outcome.rank)),
                output::grouped(direction.gallery as u64),
            );
            if to_images {
                let text = shortened(&corpus.texts[outcome.query as usize]);
                let _ = writeln!(page, "<p class=\"query\">{text}</p>\n<ol class=\"answers pictures\">");
                for answer in &outcome.answers {
                    picture_answer(page, corpus, answer)?;
                }
                page.push_str("</ol></section>\n");
            } else {
                let picture = picture(corpus, outcome.query)?;
                let _ = writeln!(page, "<div class=\"asked\">{picture}<ol class=\"answers\">");
                for answer in &outcome.answers {
                    let text = shortened(&corpus.texts[answer.item as usize]);
                    let key = escape(corpus.key_of_text(answer.item));
                    let _ = writeln!(
                        page,
                        "{}{text} <span class=\"verdict\">{key}, {}</span></li>",
                        item(answer),
                        verdict(answer)
                    );
                }
                page.push_str("</ol></div></section>\n");
            }
        }
    }
    Ok(())
}

fn picture_answer(page: &mut String, corpus: &Corpus, answer: &Answer) -> Result<()> {
    let key = escape(corpus.key_of_image(answer.item));
    let picture = picture(corpus, answer.item)?;
    let verdict = verdict(answer);
    let _ = writeln!(page, "{}{picture}<span class=\"verdict\">{verdict}</span><br>{key}</li>", item(answer));
    Ok(())
}

fn picture(corpus: &Corpus, image: u32) -> Result<String> {
    let url = data_url(&corpus.images[image as usize])?;
    Ok(format!("<img src=\"{url}\" alt=\"Image of record {}\">", escape(corpus.key_of_image(image))))
}

fn item(answer: &Answer) -> &'static str {
    if answer.right { "<li class=\"right\">" } else { "<li>" }
}

fn verdict(answer: &Answer) -> String {
    let word = if answer.right { "✓ right" } else { "✗ wrong" };
    format!("{word}, {:.3}", answer.score)
}

/// How it was measured, and the model.
fn about(page: &mut String, evaluation: &Evaluation<'_>) {
    let args = evaluation.args;
    page.push_str("<h2 id=\"how\">How to read this</h2>\n");
    let unit = match &args.measure.group_by {
        Some(attribute) => format!("records with the same '{}'", escape(attribute)),
        None => "records".to_owned(),
    };
    let _ = writeln!(
        page,
        "<p><strong>Recall@k</strong>: share of queries with a right answer among the first k. <strong>MRR</strong>: mean \
         of 1 over the rank of the first right answer. <strong>mAP</strong>: mean average precision over all right \
         answers. <strong>nDCG@10</strong>: the first ten by how many labels they share (Jaccard), discounted by rank, over \
         the best possible order. <strong>Same labels@k</strong>, <strong>any label@k</strong>: share of the first k with \
         exactly the labels of the query, or at least one of them. Ties count against the model.</p>\n\
         <p><strong>Chance</strong> is what a random order of the gallery gives, exactly. <strong>Shuffled pairs</strong>: \
         the same scores with the images of every group given to another group, the mean and the range of {} such \
         shuffles; measures of pairs must come out at chance, those of labels show what a model's favourite answers reach \
         whatever the query. <strong>Intervals</strong> hold the middle \
         95 % of {} resamples of {unit}, seed {}, against the same gallery.</p>",
        evaluation.report.control.as_ref().map_or(0, |control| control.shuffles),
        output::grouped(u64::from(args.measure.bootstrap)),
        args.measure.seed,
    );
    let right = if args.duplicates_wrong {
        "Only the own record counts as right, even where others have the same text."
    } else {
        "All images and texts of a record are right answers for each other, and so are the images of all records \
         that have the same text word for word."
    };
    let _ = writeln!(page, "<p>{right}</p>");
    page.push_str("<div class=\"scroll\"><table class=\"facts\"><caption>The model</caption>\n<tbody>\n");
    for (label, value) in evaluation.encoder.describe() {
        let _ = writeln!(page, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", label.trim(), escape(&value));
    }
    let _ = writeln!(page, "<tr><th scope=\"row\">precision</th><td>{}</td></tr>", args.model.precision);
    page.push_str("</tbody></table></div>\n");
}

fn shortened(text: &str) -> String {
    escape(&output::shorten(text, TEXT_CHARS))
}

fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Text as HTML, in elements and attributes.
fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            letter => html.push(letter),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        assert_eq!(escape("<b a=\"1\" c='2'>&"), "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;");
        assert_eq!(capitalised("text to image"), "Text to image");
    }
}
