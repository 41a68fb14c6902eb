//! Labels and the prompts that stand for them.
//!
//! Owns: the forms in which labels are given, templates, and when a label is true of a record.
//! Deliberately absent: embedding the prompts.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use crate::args::{ClassifyArgs, PromptSet};
use crate::sources;

/// What a template has in place of the label.
const PLACE: &str = "{}";
/// More labels than any list that people classify by.
const LABELS_MAX: usize = 100_000;

const PHOTOS: [&str; 5] = [
    "a photo of a {}.",
    "a photo of the {}.",
    "a close-up photo of a {}.",
    "a picture with a {} in it.",
    "{}.",
];
const RADIOLOGY: [&str; 2] = ["{}.", "There is {}."];
const RADIOLOGY_NEGATIVE: [&str; 2] = ["No {}.", "There is no {}."];

/// A label with its prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    pub name: String,
    /// What records call it: values of the attribute with the truth.
    truth: Vec<String>,
    /// Texts that say it is there; at least one.
    pub prompts: Vec<String>,
    /// Texts that deny it; none when the label is one of several that exclude each other.
    pub negatives: Vec<String>,
}

impl Class {
    /// Whether the values of a record say that this label is true of it.
    pub fn is_true(&self, values: &[String]) -> bool {
        values.iter().any(|value| {
            self.truth.iter().any(|name| {
                value.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        })
    }
}

/// The labels that were asked for, each once.
pub fn of(args: &ClassifyArgs) -> Result<Vec<Class>> {
    let templates = Templates::of(args)?;
    let classes = match &args.labels_file {
        Some(path) if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) => {
            from_json(path, &templates)?
        }
        Some(path) => sources::read_lines(path)?.iter().map(|name| templates.class(name)).collect(),
        None => args.labels.iter().map(|name| templates.class(name)).collect(),
    };
    if classes.is_empty() || classes.len() > LABELS_MAX {
        bail!("{} labels were given; give 1 to {LABELS_MAX}", classes.len());
    }
    let mut seen = HashSet::new();
    for class in &classes {
        if class.name.is_empty() {
            bail!("a label is empty; write labels as 'cat,dog' without a comma too many");
        }
        if !seen.insert(class.name.as_str()) {
            bail!("the label '{}' is given twice; give each once", class.name);
        }
    }
    let denied = classes.iter().filter(|class| !class.negatives.is_empty()).count();
    if denied > 0
        && denied < classes.len()
        && let Some(class) = classes.iter().find(|class| class.negatives.is_empty())
    {
        bail!(
            "the label '{}' has no negative prompts while others have; give all labels some, or none",
            class.name
        );
    }
    Ok(classes)
}

/// Prompts with [`PLACE`] in them.
struct Templates {
    positive: Vec<String>,
    negative: Vec<String>,
}

impl Templates {
    fn of(args: &ClassifyArgs) -> Result<Self> {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        if args.templates.is_empty() {
            return Ok(match args.prompts {
                PromptSet::Photos => Self { positive: owned(&PHOTOS), negative: Vec::new() },
                PromptSet::Radiology => {
                    Self { positive: owned(&RADIOLOGY), negative: owned(&RADIOLOGY_NEGATIVE) }
                }
            });
        }
        for template in args.templates.iter().chain(&args.negative_templates) {
            if !template.contains(PLACE) {
                bail!("the template '{template}' has no {PLACE}; put it where the label belongs");
            }
        }
        Ok(Self { positive: args.templates.clone(), negative: args.negative_templates.clone() })
    }

    /// A label by its name alone.
    fn class(&self, name: &str) -> Class {
        let name = name.trim();
        let words = words(name);
        Class {
            name: name.to_owned(),
            truth: vec![name.to_owned()],
            prompts: filled(&self.positive, &words),
            negatives: filled(&self.negative, &words),
        }
    }
}

/// A name as words: `central_venous` is "central venous".
fn words(name: &str) -> String {
    name.replace('_', " ")
}

fn filled(templates: &[String], words: &str) -> Vec<String> {
    templates.iter().map(|template| template.replace(PLACE, words)).collect()
}

/// A list whose entries are names or objects.
fn from_json(path: &Path, templates: &Templates) -> Result<Vec<Class>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the labels in {}", path.display()))?;
    let shown = path.display();
    let entries: Vec<Value> = serde_json::from_str(&text).with_context(|| {
        format!(
            "{shown} is no JSON list of labels; write [\"a\", {{\"name\": \"b\", \"prompts\": [\"...\"]}}]"
        )
    })?;
    let class = |(n, entry): (usize, Value)| {
        let class = match entry {
            Value::String(name) => Ok(templates.class(&name)),
            Value::Object(fields) => from_object(fields, templates),
            _ => Err("it is neither a name nor an object; write {\"name\": \"...\"}".to_owned()),
        };
        class.map_err(|reason| anyhow::anyhow!("label {} of {shown}: {reason}", n + 1))
    };
    entries.into_iter().enumerate().map(class).collect()
}

fn from_object(mut fields: Map<String, Value>, templates: &Templates) -> Result<Class, String> {
    let Some(Value::String(name)) = fields.remove("name") else {
        return Err("it has no \"name\"; give it one in quotes".to_owned());
    };
    let mut class = templates.class(&name);
    // What a class says for itself replaces the templates of both kinds.
    if fields.contains_key("prompts") {
        class.negatives.clear();
    }
    let words = match fields.remove("words") {
        None => words(&class.name),
        Some(Value::String(words)) => words,
        Some(_) => return Err("\"words\" is no text; write what stands for {} in quotes".to_owned()),
    };
    if fields.get("prompts").is_none() {
        class.prompts = filled(&templates.positive, &words);
        class.negatives = filled(&templates.negative, &words);
    }
    for (field, texts) in
        [("prompts", &mut class.prompts), ("negative", &mut class.negatives), ("truth", &mut class.truth)]
    {
        if let Some(value) = fields.remove(field) {
            *texts = filled(&strings(field, value)?, &words);
        }
    }
    match fields.keys().next() {
        Some(unknown) => Err(format!(
            "\"{unknown}\" is unknown; use \"name\", \"words\", \"prompts\", \"negative\", \"truth\""
        )),
        None => Ok(class),
    }
}

/// A text or a list of texts, none blank and not empty.
fn strings(field: &str, value: Value) -> Result<Vec<String>, String> {
    let wrong = || format!("\"{field}\" is no text and no list of texts; write [\"...\"]");
    let texts = match value {
        Value::String(text) => vec![text],
        Value::Array(entries) => entries
            .into_iter()
            .map(|entry| if let Value::String(text) = entry { Ok(text) } else { Err(wrong()) })
            .collect::<Result<_, _>>()?,
        _ => return Err(wrong()),
    };
    if texts.is_empty() || texts.iter().any(|text| text.trim().is_empty()) {
        return Err(format!("\"{field}\" has no text or a blank one; leave the field out or fill it"));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn templates() -> Templates {
        Templates { positive: vec!["{}.".to_owned()], negative: vec!["No {}.".to_owned()] }
    }

    fn parse(json: &str) -> Result<Class, String> {
        let Value::Object(fields) = serde_json::from_str(json).unwrap() else { panic!("an object") };
        from_object(fields, &templates())
    }

    #[test]
    fn a_label_is_true_where_it_is_named_or_continued() {
        let class = templates().class("effusion");
        let is_true = |value: &str| class.is_true(&["nodule.left".to_owned(), value.to_owned()]);
        assert!(is_true("effusion") && is_true("effusion.left.large"));
        assert!(!is_true("effusions") && !is_true("no effusion") && !class.is_true(&[]));
    }

    #[test]
    fn prompts_come_from_templates_or_from_the_label_itself() {
        let class = templates().class("chest_tube");
        assert_eq!(
            (class.prompts, class.negatives),
            (vec!["chest tube.".to_owned()], vec!["No chest tube.".to_owned()])
        );
        let class = parse(r#"{"name": "line", "words": "central line", "truth": ["line.central"]}"#).unwrap();
        assert_eq!(class.prompts, ["central line."]);
        assert!(class.is_true(&["line.central".to_owned()]) && !class.is_true(&["line".to_owned()]));
        let class = parse(r#"{"name": "cat", "prompts": ["a {}", "kitten"], "negative": "no cat"}"#).unwrap();
        assert_eq!(
            (class.prompts, class.negatives),
            (vec!["a cat".to_owned(), "kitten".to_owned()], vec!["no cat".to_owned()])
        );
        assert!(parse(r#"{"name": "cat", "prompts": "a cat"}"#).unwrap().negatives.is_empty());
    }

    #[test]
    fn wrong_labels_say_what_would_be_right() {
        for (json, says) in [
            (r#"{"prompts": ["a"]}"#, "\"name\""),
            (r#"{"name": "a", "prompt": "a"}"#, "\"prompt\" is unknown"),
            (r#"{"name": "a", "prompts": [1]}"#, "list of texts"),
            (r#"{"name": "a", "prompts": []}"#, "no text"),
            (r#"{"name": "a", "words": 3}"#, "words"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(says), "{json}: {error}");
        }
    }
}
