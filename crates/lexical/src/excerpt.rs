//! Which sentence of a text has the words.
//!
//! Deliberately absent: how a sentence is shown.

use crate::analysis::words;
use crate::query::{LexicalQuery, Probe};

impl LexicalQuery {
    /// The sentence of a text that has most of the words and phrases that were asked for, the first of equal
    /// ones; white space around it left out. A sentence ends with a line, or with `.`, `!`, `?` or `;` before
    /// white space.
    pub fn sentence<'t>(&self, text: &'t str) -> &'t str {
        let mut best = (0, text.trim());
        for sentence in sentences(text) {
            let count = self.count(sentence);
            if count > best.0 {
                best = (count, sentence);
            }
        }
        best.1
    }

    /// Words and phrases of the query that a text has.
    fn count(&self, text: &str) -> usize {
        let words = words(text);
        let has = |probe: &&Probe| match probe {
            Probe::Stem(stem) => words.iter().any(|word| word.stem == *stem),
            Probe::Phrase(forms) => words
                .windows(forms.len())
                .any(|window| window.iter().zip(forms).all(|(word, form)| word.form == *form)),
        };
        self.scored.iter().filter(has).count()
    }
}

fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let ends = |&(at, c): &(usize, char)| {
            let behind = &rest[at + c.len_utf8()..];
            c == '\n' || (matches!(c, '.' | '!' | '?' | ';') && behind.starts_with(char::is_whitespace))
        };
        let end = rest.char_indices().find(ends).map_or(rest.len(), |(at, c)| at + c.len_utf8());
        let (sentence, behind) = rest.split_at(end);
        rest = behind;
        Some(sentence.trim())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_sentence_with_most_of_the_words_is_shown() {
        let text = "FINDINGS: The heart is 1.5 times as large.\nLeft effusion; no fracture! An effusion\n";
        let shown = |typed: &str| LexicalQuery::parse(typed).unwrap().sentence(text);
        assert_eq!(shown("effusions"), "Left effusion;");
        assert_eq!(shown("\"no fracture\" effusion"), "no fracture!");
        assert_eq!(shown("an effusion"), "An effusion");
        assert_eq!(shown("heart larger"), "FINDINGS: The heart is 1.5 times as large.");
        assert_eq!(shown("aorta"), text.trim());
    }
}
