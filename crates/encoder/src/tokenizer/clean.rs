//! What a family does to a text before its tokenizer.
//!
//! Owns: open_clip's three cleanings and the decoding of HTML entities, both as Python does them.
//! Does not own repairing broken text, which is in `ftfy`, nor what a tokenizer's own normaliser does.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use super::canonical::Canonical;
use super::ftfy;

/// A cleaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Clean {
    /// Nothing.
    None,
    /// Repair, entities, white space, lower case.
    Lower,
    /// Repair, entities, white space.
    Whitespace,
    /// Repair, entities, no punctuation, lower case, white space.
    Canonicalize,
    /// SigLIP's canonicalisation and its SentencePiece model's rules.
    Siglip(Arc<Canonical>),
}

/// The names of HTML 5, with their ampersand and, where it is required, their semicolon.
static ENTITIES: LazyLock<HashMap<&'static str, &'static str>> =
    LazyLock::new(|| entities::ENTITIES.iter().map(|e| (e.entity, e.characters)).collect());

impl Clean {
    /// By open_clip's name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Lower, Self::Whitespace, Self::Canonicalize].into_iter().find(|clean| clean.name() == name)
    }

    /// open_clip's name, where it has one.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lower => "lower",
            Self::Whitespace => "whitespace",
            Self::Canonicalize => "canonicalize",
            Self::Siglip(_) => "siglip",
        }
    }

    /// What decides the cleaned text, for the model id.
    pub(super) fn definition(&self) -> String {
        match self {
            Self::Siglip(canonical) => canonical.describe(),
            other => other.name().to_owned(),
        }
    }

    /// The cleaned text.
    pub(super) fn apply<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let basic = || unescape(&unescape(&ftfy::fix_text(text))).into_owned();
        match self {
            Self::None => Cow::Borrowed(text),
            Self::Siglip(canonical) => Cow::Owned(canonical.apply(text)),
            Self::Lower => Cow::Owned(single_spaces(&basic()).to_lowercase()),
            Self::Whitespace => Cow::Owned(single_spaces(&basic())),
            Self::Canonicalize => {
                let kept: String = basic()
                    .chars()
                    .map(|c| if c == '_' { ' ' } else { c })
                    .filter(|c| !c.is_ascii_punctuation())
                    .collect();
                Cow::Owned(single_spaces(&kept.to_lowercase()))
            }
        }
    }
}

/// Words joined by single spaces; Python counts four separators among the control characters as white
/// space.
pub(super) fn single_spaces(text: &str) -> String {
    let space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    text.split(space).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The text of one entity of HTML 5, given with its ampersand.
pub(super) fn entity(name: &str) -> Option<&'static str> {
    ENTITIES.get(name).copied()
}

/// Decodes HTML character references as browsers do, those without a semicolon included.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = numeric(rest, &mut out).or_else(|| named(rest, &mut out)).unwrap_or_else(|| {
            out.push('&');
            1
        });
        rest = &rest[taken..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Decodes `&#123;` or `&#x7b;` at the start of `text`; gives the bytes it took.
fn numeric(text: &str, out: &mut String) -> Option<usize> {
    let digits = text.strip_prefix("&#")?;
    let (digits, radix) = match digits.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    let count = digits.bytes().take_while(|b| char::from(*b).is_digit(radix)).count();
    if count == 0 {
        return None;
    }
    // The digits may be any number of them; what does not fit is no character either.
    let number = digits[..count].bytes().filter_map(|b| char::from(b).to_digit(radix));
    let number = number.fold(0u32, |n, digit| n.saturating_mul(radix).saturating_add(digit));
    match number {
        0 => out.push('\u{fffd}'),
        0x0d => out.push('\r'),
        0x80..=0x9f => out.push(ftfy::windows_1252(number as u8)),
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef => {}
        n if n <= 0x10_ffff && n & 0xfffe == 0xfffe => {}
        n => out.push(char::from_u32(n).unwrap_or('\u{fffd}')),
    }
    let taken = text.len() - digits.len() + count;
    Some(taken + usize::from(text[taken..].starts_with(';')))
}

/// Decodes the longest name of an entity at the start of `text`; gives the bytes it took.
fn named(text: &str, out: &mut String) -> Option<usize> {
    let stop = |c: char| matches!(c, '\t' | '\n' | '\u{c}' | ' ' | '<' | '&' | '#' | ';');
    let length: usize = text[1..].chars().take(32).take_while(|&c| !stop(c)).map(char::len_utf8).sum();
    let end = 1 + length;
    let whole = end + usize::from(length > 0 && text[end..].starts_with(';'));
    let ends = std::iter::once(whole).chain((3..whole).rev()).filter(|&end| text.is_char_boundary(end));
    for end in ends {
        if let Some(characters) = entity(&text[..end]) {
            out.push_str(characters);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Results of Python's `html.unescape`.
    #[test]
    fn entities_decode_as_in_python() {
        for (text, expected) in [
            ("fish &amp; chips &lt;b&gt;", "fish & chips <b>"),
            ("&amp;amp;", "&amp;"),
            ("&notit; &notin; &not", "¬it; ∉ ¬"),
            ("&#39;&#x27;&#X27 &#39", "''' '"),
            ("&#0;&#128;&#x81;&#xD800;&#1114112;&#99999999999;", "\u{fffd}€\u{81}\u{fffd}\u{fffd}\u{fffd}"),
            ("&#1;|&#x1f;|&#xfffe;|&#13;", "|||\r"),
            ("& &; &# &#; &#x; &zzz; &&amp", "& &; &# &#; &#x; &zzz; &&"),
            ("&CounterClockwiseContourIntegral;", "∳"),
            ("&NotEqualTilde;", "≂\u{338}"),
            ("&é&ampé", "&é&é"),
        ] {
            assert_eq!(unescape(text), expected, "{text}");
        }
    }

    #[test]
    fn the_three_cleanings_of_open_clip() {
        let text = " A_Dog's\u{a0} \tLIFE &amp;amp; “more”! ";
        assert_eq!(Clean::Lower.apply(text), "a_dog's life & \"more\"!");
        assert_eq!(Clean::Whitespace.apply(text), "A_Dog's LIFE & \"more\"!");
        assert_eq!(Clean::Canonicalize.apply(text), "a dogs life more");
        assert_eq!(Clean::from_name("lower"), Some(Clean::Lower));
        assert_eq!(Clean::from_name("none"), None);
    }
}
