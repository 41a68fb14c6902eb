//! What people type to search by words.
//!
//! Owns: reading it. Words may be there or not; `+word` must be there and `-word` must not; a `"phrase in
//! quotes"` must be there word for word. Nothing that is typed is a mistake: a quote that is never closed
//! ends with the text, a sign that stands alone means nothing, and there are no names of fields, no
//! parentheses and no `AND`. Deliberately absent: the search.

use std::collections::HashSet;

use crate::LexicalError;
use crate::analysis::{Word, words};

/// Most different words and phrases of one query.
pub const WORDS_MAX: usize = 512;

/// Words to search by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LexicalQuery {
    /// What a piece of text is scored by, each once, in the order typed.
    pub(crate) scored: Vec<Probe>,
    /// What a record must have.
    pub(crate) required: Vec<Probe>,
    /// What it must not have.
    pub(crate) excluded: Vec<Probe>,
}

/// One thing that is looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Probe {
    /// A word, whatever its ending.
    Stem(String),
    /// Words in this form and order, one directly behind the other; at least one.
    Phrase(Vec<String>),
}

/// How a word or phrase was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    None,
    Plus,
    Minus,
}

impl LexicalQuery {
    /// Reads what was typed:
    ///
    /// - `words` are looked for whatever their case, accents and English endings; each that a text has adds
    ///   to its score.
    /// - `"a phrase"` must be there, word for word in this order, case and accents aside; typographic
    ///   quotes do, too.
    /// - `+word` must be there, `-word` must not. A word of several parts, as `+x-ray`, is a phrase then.
    ///
    /// What must or must not be there is asked of a record as a whole, whichever of its texts has it.
    ///
    /// # Errors
    /// [`LexicalError::NoWords`], [`LexicalError::OnlyExcluded`] or [`LexicalError::TooManyWords`].
    pub fn parse(typed: &str) -> Result<Self, LexicalError> {
        let mut query = Self { scored: Vec::new(), required: Vec::new(), excluded: Vec::new() };
        let mut rest = typed;
        while let Some((sign, quoted, text, behind)) = next(rest) {
            query.add(sign, quoted, words(text));
            rest = behind;
        }
        query.each_once();
        match (query.scored.is_empty(), query.excluded.is_empty()) {
            (true, true) => return Err(LexicalError::NoWords),
            (true, false) => return Err(LexicalError::OnlyExcluded),
            (false, _) => {}
        }
        match query.scored.len() + query.excluded.len() {
            found if found > WORDS_MAX => Err(LexicalError::TooManyWords { found }),
            _ => Ok(query),
        }
    }

    /// Whether a record must or must not have something to be found, by words or otherwise.
    pub fn has_conditions(&self) -> bool {
        !self.required.is_empty() || !self.excluded.is_empty()
    }

    /// Whether there is something that every record found has; a record without it is not found otherwise.
    pub fn requires(&self) -> bool {
        !self.required.is_empty()
    }

    fn add(&mut self, sign: Sign, quoted: bool, words: Vec<Word>) {
        let Some(first) = words.first() else { return };
        let probe = match words.len() {
            1 if !quoted => Probe::Stem(first.stem.clone()),
            _ => Probe::Phrase(words.iter().map(|word| word.form.clone()).collect()),
        };
        match sign {
            Sign::Minus => self.excluded.push(probe),
            Sign::None if !quoted => self.scored.extend(words.into_iter().map(|word| Probe::Stem(word.stem))),
            Sign::None | Sign::Plus => {
                // The words of a phrase count, and that they stand together counts.
                self.scored.extend(words.into_iter().map(|word| Probe::Stem(word.stem)));
                self.scored.push(probe.clone());
                self.required.push(probe);
            }
        }
    }

    fn each_once(&mut self) {
        for probes in [&mut self.scored, &mut self.required, &mut self.excluded] {
            let mut seen = HashSet::new();
            probes.retain(|probe| seen.insert(probe.clone()));
        }
    }
}

/// The next word or phrase: its sign, whether it is in quotes, itself, and what follows.
fn next(typed: &str) -> Option<(Sign, bool, &str, &str)> {
    let mut rest = typed.trim_start();
    let mut sign = Sign::None;
    loop {
        let mut chars = rest.chars();
        let (new, ends) = match chars.next()? {
            '+' => (Sign::Plus, false),
            '-' | '−' => (Sign::Minus, false),
            c if is_quote(c) => (sign, true),
            _ => break,
        };
        let behind = chars.as_str();
        if ends {
            let end = behind.find(is_quote).unwrap_or(behind.len());
            let after = behind[end..].chars().next().map_or(end, |quote| end + quote.len_utf8());
            return Some((sign, true, &behind[..end], &behind[after..]));
        }
        if behind.starts_with(char::is_whitespace) {
            // A sign that stands alone.
            return next(behind);
        }
        (sign, rest) = (new, behind);
    }
    let end = rest.find(|c: char| c.is_whitespace() || is_quote(c)).unwrap_or(rest.len());
    Some((sign, false, &rest[..end], &rest[end..]))
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '“' | '”' | '„' | '«' | '»')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn stem(word: &str) -> Probe {
        Probe::Stem(word.to_owned())
    }

    fn phrase(words: &[&str]) -> Probe {
        Probe::Phrase(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn words_phrases_and_signs_are_read() {
        let query = LexicalQuery::parse("Effusions +Large -\"no effusion\" \"left lung\"").unwrap();
        let scored = [stem("effus"), stem("larg"), stem("left"), stem("lung"), phrase(&["left", "lung"])];
        assert_eq!(query.scored, scored);
        assert_eq!(query.required, [stem("larg"), phrase(&["left", "lung"])]);
        assert_eq!(query.excluded, [phrase(&["no", "effusion"])]);
        assert!(query.has_conditions());
        assert!(!LexicalQuery::parse("left lung").unwrap().has_conditions());
    }

    #[test]
    fn what_is_typed_oddly_has_a_meaning() {
        let scored = |typed: &str| LexicalQuery::parse(typed).unwrap().scored;
        assert_eq!(scored("x-ray"), [stem("x"), stem("ray")]);
        assert_eq!(scored("café CAFE"), [stem("cafe")]);
        assert_eq!(scored("a - b"), [stem("a"), stem("b")]);
        assert_eq!(scored("title:x (AND) \\ ~2 ^"), ["titl", "x", "and", "2"].map(stem));
        assert_eq!(scored("“left lung”"), scored("\"left lung"));
        assert_eq!(scored("foo\"bar\""), [stem("foo"), stem("bar"), phrase(&["bar"])]);
        assert_eq!(LexicalQuery::parse("+x-ray").unwrap().required, [phrase(&["x", "ray"])]);
        assert_eq!(LexicalQuery::parse("a -−+b").unwrap().required, [stem("b")]);
        assert_eq!(LexicalQuery::parse("a -x-ray").unwrap().excluded, [phrase(&["x", "ray"])]);
    }

    #[test]
    fn nothing_to_look_for_is_refused_with_the_remedy() {
        for typed in ["", "  ", "-", "\"\"", "+ - \" !? \"", "\u{0}"] {
            assert_eq!(LexicalQuery::parse(typed), Err(LexicalError::NoWords), "{typed}");
        }
        assert_eq!(LexicalQuery::parse("-a -\"b c\""), Err(LexicalError::OnlyExcluded));
        let many: Vec<String> = (0..=WORDS_MAX).map(|n| n.to_string()).collect();
        let found = WORDS_MAX + 1;
        assert_eq!(LexicalQuery::parse(&many.join(" ")), Err(LexicalError::TooManyWords { found }));
        let same = "effusion ".repeat(10 * WORDS_MAX);
        assert_eq!(LexicalQuery::parse(&same).unwrap().scored, [stem("effus")]);
    }
}
