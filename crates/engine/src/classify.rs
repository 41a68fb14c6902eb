//! Which of several labels fits best, by the model alone.
//!
//! Owns: labels to prompts to one embedding per label, and their comparison with an image, a text, a stored
//! record or a vector. Deliberately absent: how cosines become probabilities (see `zero_shot` of the core).

use std::collections::HashSet;

use diptych_core::limits::{LABELS_MAX, PROMPTS_MAX};
use diptych_core::{CollectionName, Embedding, QuerySource, ensemble};

use crate::{Engine, EngineError};

/// Where the name of a label goes in a template.
const BLANK: &str = "{}";

/// Something that a subject may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// Texts that describe it; where there are none, the templates do.
    pub prompts: Vec<String>,
}

/// How well a label fits.
#[derive(Debug, Clone, PartialEq)]
pub struct Classified {
    /// The label's name.
    pub label: String,
    /// The probability that the model gives it among all labels that were asked for, 0 to 1.
    pub probability: f64,
    /// The cosine of the subject and the mean of the label's prompts, -1 to 1.
    pub score: f32,
}

impl Engine {
    /// Compares a subject with labels; the most probable comes first, equals in their order. A label without
    /// prompts is put into each template in the place of `{}`, or is its own prompt where there are none.
    /// `collection` is where a stored record is looked for.
    ///
    /// # Errors
    /// [`EngineError::Labels`] when there are too few or too many labels or prompts, one has no name or
    /// comes twice, or its prompts cancel out; and as [`Engine::search`] for the subject.
    pub fn classify(
        &self,
        collection: &CollectionName,
        subject: &QuerySource,
        labels: &[Label],
        templates: &[String],
    ) -> Result<Vec<Classified>, EngineError> {
        check(labels, templates)?;
        let (_, subject, _) = self.embed_source(|| self.space(collection), subject)?;
        let embeddings = self.embed_labels(labels, templates)?;
        let cosines: Vec<f32> = embeddings.iter().map(|label| label.cosine(&subject)).collect();
        let probabilities = self.encoder().logits().probabilities(&cosines);
        let each = labels.iter().zip(probabilities).zip(cosines);
        let mut classified: Vec<Classified> = each
            .map(|((label, probability), score)| Classified { label: label.name.clone(), probability, score })
            .collect();
        // Probabilities may be equal where cosines are not.
        classified.sort_by(|a, b| {
            b.probability.total_cmp(&a.probability).then_with(|| b.score.total_cmp(&a.score))
        });
        Ok(classified)
    }

    /// One embedding per label.
    fn embed_labels(&self, labels: &[Label], templates: &[String]) -> Result<Vec<Embedding>, EngineError> {
        let prompts: Vec<Vec<String>> = labels.iter().map(|label| prompts_of(label, templates)).collect();
        let all: Vec<&str> = prompts.iter().flatten().map(String::as_str).collect();
        let mut embedded = self.embed_queries(&all)?.into_iter().map(|query| query.embedding);
        let each = labels.iter().zip(&prompts).map(|(label, prompts)| {
            let own: Vec<Embedding> = embedded.by_ref().take(prompts.len()).collect();
            ensemble(&own).map_err(|_| {
                refused(format!(
                    "the prompts of label '{}' cancel each other out; use others",
                    shown(&label.name)
                ))
            })
        });
        each.collect()
    }
}

fn prompts_of(label: &Label, templates: &[String]) -> Vec<String> {
    match (label.prompts.is_empty(), templates.is_empty()) {
        (false, _) => label.prompts.clone(),
        (true, true) => vec![label.name.clone()],
        (true, false) => templates.iter().map(|template| template.replace(BLANK, &label.name)).collect(),
    }
}

fn check(labels: &[Label], templates: &[String]) -> Result<(), EngineError> {
    let found = labels.len();
    if !(2..=LABELS_MAX).contains(&found) {
        return Err(refused(format!("there are {found} labels; give 2 to {LABELS_MAX} to choose among")));
    }
    let most = labels.iter().map(|label| label.prompts.len()).chain([templates.len()]).max();
    if let Some(found) = most.filter(|&found| found > PROMPTS_MAX) {
        return Err(refused(format!("a label has {found} prompts or templates; give at most {PROMPTS_MAX}")));
    }
    if let Some(template) = templates.iter().find(|template| !template.contains(BLANK)) {
        return Err(refused(format!(
            "the template '{}' has no place for the label; put {BLANK} where its name goes",
            shown(template)
        )));
    }
    let mut names = HashSet::new();
    for label in labels {
        if label.name.trim().is_empty() {
            return Err(refused("a label has no name; give each one".to_owned()));
        }
        if !names.insert(label.name.as_str()) {
            return Err(refused(format!("the label '{}' comes twice; give it once", shown(&label.name))));
        }
    }
    Ok(())
}

fn refused(reason: String) -> EngineError {
    EngineError::Labels { reason }
}

/// The beginning of what a client sent, for a message.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}
