//! Anatomy and its qualities: "the heart is enlarged", "clear lungs".
//!
//! Owns: which anatomy a quality is said of, and what finding that amounts to. Deliberately absent: whether it is
//! denied or doubted (see `scope`).

use super::Observation::*;
use super::Status::*;
use super::lexicon::{Anatomy, LUNG, Lexeme, Meaning, Quality};
use super::scope::{Clause, Mention, Said, Statement, statement};
use super::words::Token;

/// Most tokens between anatomy and what is said of it.
const REACH: usize = 6;

impl Clause<'_> {
    /// Findings that a quality of anatomy amounts to: "the heart is enlarged".
    pub fn described(&self) -> Vec<Mention> {
        let mut mentions = Vec::new();
        for (n, lexeme) in self.lexemes.iter().enumerate() {
            let quality = match lexeme.meaning {
                Meaning::Quality(quality) => quality,
                Meaning::ClearOf => Quality::Clear,
                _ => continue,
            };
            let before = self.subjects(n);
            let after = self.qualified(n);
            let predicate = self.is_predicate(n);
            let (subjects, floor) = match (before, after) {
                (before, _) if predicate && !before.is_empty() => (before, true),
                (_, after) if !after.is_empty() => (after, false),
                (before, _) => (before, true),
            };
            // What is said of the subject itself does not fall under what was said before it.
            let floor =
                if floor { subjects.iter().map(|s| s.start).min().unwrap_or(self.start) } else { self.start };
            for subject in &subjects {
                let Meaning::Anatomy(anatomy) = subject.meaning else { continue };
                if let Some(meaning) = combine(anatomy, quality) {
                    mentions.push(Mention { meaning, start: lexeme.start, end: lexeme.end, floor });
                }
            }
            if subjects.is_empty() && self.stands_alone(lexeme) {
                let meaning = Said { plain: statement(&[NoFinding], Present), denied: None, doubted: None };
                mentions.push(Mention { meaning, start: lexeme.start, end: lexeme.end, floor: self.start });
            }
        }
        mentions
    }

    /// "Normal." and nothing else.
    fn stands_alone(&self, lexeme: &Lexeme) -> bool {
        matches!(lexeme.meaning, Meaning::Quality(Quality::Normal | Quality::Negative))
            && self.lexemes.len() == 1
            && self.end - self.start <= 2
    }

    /// Whether a verb or a colon stands between the anatomy before a quality and the quality.
    fn is_predicate(&self, n: usize) -> bool {
        let lexeme = &self.lexemes[n];
        let from = self.lexemes[..n]
            .iter()
            .rev()
            .find(|l| matches!(l.meaning, Meaning::Anatomy(_)))
            .map_or(self.start, |l| l.end);
        let links = |token: &Token| match token {
            Token::Colon => true,
            token => matches!(
                token.word(),
                "is" | "are"
                    | "was"
                    | "were"
                    | "appears"
                    | "appear"
                    | "remain"
                    | "remains"
                    | "within"
                    | "demonstrates"
                    | "has"
                    | "have"
                    | "look"
                    | "looks"
                    | "seem"
                    | "seems"
            ),
        };
        lexeme.start.saturating_sub(from) <= REACH && self.tokens[from..lexeme.start].iter().any(links)
            || matches!(self.word(lexeme.start), "within")
    }

    /// The anatomy before a quality that it is said of: the nearest, and what is listed with it.
    fn subjects(&self, n: usize) -> Vec<Lexeme> {
        let mut subjects: Vec<Lexeme> = Vec::new();
        let mut next = self.lexemes[n].start;
        for lexeme in self.lexemes[..n].iter().rev() {
            let gap = &self.tokens[lexeme.end..next];
            let near = if subjects.is_empty() {
                gap.len() <= REACH && !gap.contains(&Token::Comma)
            } else {
                is_list(gap)
            };
            match lexeme.meaning {
                Meaning::Anatomy(_) if near => {
                    subjects.push(*lexeme);
                    next = lexeme.start;
                }
                // "The heart is not enlarged", "heart size remains normal".
                Meaning::Trigger(_) | Meaning::Quality(Quality::Borderline)
                    if subjects.is_empty() && near => {}
                _ => break,
            }
        }
        subjects
    }

    /// The anatomy behind a quality that it is said of: "normal heart size and mediastinal contours".
    fn qualified(&self, n: usize) -> Vec<Lexeme> {
        let mut subjects: Vec<Lexeme> = Vec::new();
        let mut last = self.lexemes[n].end;
        for lexeme in &self.lexemes[n + 1..] {
            let gap = &self.tokens[last..lexeme.start];
            let near = if subjects.is_empty() {
                gap.len() <= 3 && !gap.contains(&Token::Comma)
            } else {
                is_list(gap) && !gap.contains(&Token::Comma)
            };
            match lexeme.meaning {
                Meaning::Anatomy(_) if near => {
                    subjects.push(*lexeme);
                    last = lexeme.end;
                }
                _ => break,
            }
        }
        subjects
    }
}

/// Whether nothing but a comma and "and" stands between the members of a list.
fn is_list(gap: &[Token]) -> bool {
    gap.len() <= 4
        && gap.iter().all(|token| {
            *token == Token::Comma
                || matches!(
                    token.word(),
                    "and" | "the" | "or" | "both" | "visualized" | "mediastinal" | "size"
                )
        })
}

/// What a quality of anatomy amounts to.
fn combine(anatomy: Anatomy, quality: Quality) -> Option<Said> {
    use Anatomy::*;
    use Quality::*;
    let said = |observations, status| Some(Said::of(observations, status));
    match (anatomy, quality) {
        (Heart, Enlarged) => said(&[Cardiomegaly], Present),
        (Heart, Borderline) => said(&[Cardiomegaly], Uncertain),
        (Heart, Normal) => said(&[Cardiomegaly], Absent),
        (Mediastinum, Enlarged) => said(&[EnlargedCardiomediastinum], Present),
        (Mediastinum, Borderline) => said(&[EnlargedCardiomediastinum], Uncertain),
        (Mediastinum, Normal | Clear) => said(&[EnlargedCardiomediastinum], Absent),
        (Silhouette, Enlarged) => said(&[EnlargedCardiomediastinum], Present),
        (Silhouette, Borderline) => said(&[Cardiomegaly, EnlargedCardiomediastinum], Uncertain),
        (Silhouette, Normal) => said(&[Cardiomegaly, EnlargedCardiomediastinum], Absent),
        (Lungs, Clear | Normal) => {
            let clear = Statement { observations: LUNG, status: Absent, blanket: true };
            Some(Said { plain: Some(clear), denied: None, doubted: None })
        }
        (Vessels, Normal) => said(&[Edema], Absent),
        (Vessels, Congested) => said(&[Edema], Present),
        (Vessels, Enlarged) => said(&[Edema], Uncertain),
        (Markings, Enlarged | Abnormal | Thickened) => said(&[Opacity], Present),
        (Angles, Clear | Normal | Intact) => said(&[Effusion], Absent),
        (Angles, Blunted) => said(&[Effusion], Uncertain),
        (Pleura, Clear | Normal) => said(&[Effusion, Pneumothorax], Absent),
        (Pleura, Thickened) => said(&[PleuralOther], Present),
        (Bones, Normal | Intact) => said(&[Fracture], Absent),
        (Study, Normal | Clear | Negative) => {
            Some(Said { plain: statement(&[NoFinding], Present), denied: None, doubted: None })
        }
        _ => None,
    }
}
