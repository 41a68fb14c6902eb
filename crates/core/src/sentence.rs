//! Where sentences end.
//!
//! Owns: the one rule by which long texts are cut, evidence is shown and reports are read. Deliberately absent:
//! tokens, and what a sentence says.

/// Words that end in a full stop within a sentence.
const ABBREVIATIONS: [&str; 22] = [
    "al", "approx", "ca", "cf", "col", "dr", "e.g", "eq", "fig", "gen", "i.e", "jr", "mr", "mrs", "ms", "no",
    "prof", "resp", "sr", "st", "viz", "vs",
];

/// The sentences of a text in order, without white space around them, none of them empty.
pub fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (sentence, after) = rest.split_at(sentence_end(rest));
            rest = after;
            let sentence = sentence.trim();
            if !sentence.is_empty() {
                return Some(sentence);
            }
        }
        None
    })
}

/// Bytes up to the end of the first sentence, closing quotes and brackets included.
fn sentence_end(text: &str) -> usize {
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let (wide, narrow) =
            (matches!(c, '。' | '！' | '？' | '｡' | '．'), matches!(c, '.' | '!' | '?' | '…'));
        if matches!(c, '\n' | '\u{2028}' | '\u{2029}') {
            return at + c.len_utf8();
        }
        if !wide && !narrow {
            continue;
        }
        let mut end = at + c.len_utf8();
        while let Some(&(next, closing)) = chars.peek()
            && matches!(
                closing,
                '.' | '!'
                    | '?'
                    | '…'
                    | '"'
                    | '\''
                    | ')'
                    | ']'
                    | '”'
                    | '’'
                    | '»'
                    | '」'
                    | '』'
                    | '）'
                    | '。'
                    | '！'
                    | '？'
            )
        {
            end = next + closing.len_utf8();
            chars.next();
        }
        let after = &text[end..];
        let free = after.is_empty() || after.starts_with(char::is_whitespace);
        if wide || free && !(c == '.' && end == at + 1 && goes_on(&text[..at], after)) {
            return end;
        }
    }
    text.len()
}

/// Whether a full stop between `before` and `after` ends an abbreviation, an initial or an ordinal
/// rather than a sentence.
fn goes_on(before: &str, after: &str) -> bool {
    let next = after.trim_start().chars().next();
    if next.is_some_and(char::is_lowercase) {
        return true;
    }
    let word = before.rsplit(|c: char| c.is_whitespace() || c == '(').next().unwrap_or(before);
    let initial = word.chars().count() == 1 && word.chars().all(char::is_uppercase);
    initial || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_where_a_reader_ends_them() {
        let text = "It is 3.14 m long. Dr. Smith, i.e. J. Smith, agrees! \"Really?\" he said. No\nnext line\n\n 犬が走る。猫も。 (End.) etc. and so on... Yes";
        let found: Vec<&str> = sentences(text).collect();
        assert_eq!(
            found,
            [
                "It is 3.14 m long.",
                "Dr. Smith, i.e. J. Smith, agrees!",
                "\"Really?\"",
                "he said.",
                "No",
                "next line",
                "犬が走る。",
                "猫も。",
                "(End.)",
                "etc. and so on...",
                "Yes"
            ]
        );
    }
}
