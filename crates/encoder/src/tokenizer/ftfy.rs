//! Repairing text that went through careless programs, as open_clip does with the ftfy library.
//!
//! Owns: the repairs of ftfy 6 that do not guess: HTML entities, C1 control characters, Latin
//! ligatures, character width, curly quotes, line breaks, terminal escapes, control characters and
//! NFC, repeated until nothing changes. Deliberately absent: undoing mojibake (UTF-8 that was read as
//! another encoding, such as `sÃ³` for `só`). ftfy decides that by a long list of unlikely pairs of
//! characters; such a text keeps its broken characters here, and its ids differ from open_clip's.

use std::borrow::Cow;

use tokenizers::NormalizedString;

use super::clean::{entity, unescape};

/// The repaired text. As in ftfy, lines are repaired one by one, and the first `<` ends the decoding
/// of entities: the text may be HTML then.
pub(super) fn fix_text(text: &str) -> Cow<'_, str> {
    // The repairs leave printable ASCII without an ampersand alone.
    if text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'&' || b == b'\n' || b == b'\t') {
        return Cow::Borrowed(text);
    }
    let mut entities = true;
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        entities = entities && !line.contains('<');
        out.push_str(&fix_line(line, entities));
    }
    Cow::Owned(out)
}

fn fix_line(line: &str, entities: bool) -> String {
    let mut line = line.to_owned();
    // A decoded entity may have been the last one to hold `<`.
    let mut entities = entities;
    loop {
        entities = entities && !line.contains('<');
        let mut fixed = if entities { unescape_whole(&line) } else { line.clone() };
        fixed = fix_characters(&fixed);
        fixed = fixed.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n");
        fixed = remove_terminal_escapes(&fixed);
        fixed.retain(|c| !is_control(c));
        let mut normalized = NormalizedString::from(fixed);
        normalized.nfc();
        if normalized.get() == line {
            return line;
        }
        line = normalized.get().to_owned();
    }
}

/// Decodes entities that end in a semicolon, among them names that were put in capitals as a whole.
fn unescape_whole(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let hash = usize::from(rest[1..].starts_with('#'));
        let name = rest[1 + hash..].bytes().take(24).take_while(u8::is_ascii_alphanumeric).count();
        let end = 1 + hash + name;
        if name == 0 || !rest[end..].starts_with(';') {
            out.push('&');
            rest = &rest[1..];
            continue;
        }
        let (whole, after) = rest.split_at(end + 1);
        out.push_str(&whole_entity(whole));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The text of `&name;` or `&#number;`, or itself when it has none.
fn whole_entity(whole: &str) -> Cow<'_, str> {
    if whole.starts_with("&#") {
        let decoded = unescape(whole);
        // A semicolon that is left over shows that only a part was decoded.
        return if decoded.contains(';') { Cow::Borrowed(whole) } else { decoded };
    }
    if let Some(characters) = entity(whole) {
        return Cow::Borrowed(characters);
    }
    if whole.bytes().any(|b| b.is_ascii_lowercase()) || unescape(whole) != whole {
        return Cow::Borrowed(whole);
    }
    match entity(&whole.to_ascii_lowercase()) {
        Some(characters) => Cow::Owned(characters.to_uppercase()),
        None => Cow::Borrowed(whole),
    }
}

/// C1 controls, ligatures, widths and quotes, in this order.
fn fix_characters(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let c = if ('\u{80}'..='\u{9f}').contains(&c) { windows_1252(c as u8) } else { c };
        if let Some(letters) = ligature(c) {
            letters.chars().map(straight).for_each(|c| out.push(c));
        } else if c == '\u{3000}' {
            out.push(' ');
        } else if ('\u{ff01}'..='\u{ffef}').contains(&c) {
            let mut wide = NormalizedString::from(c.to_string());
            wide.nfkc();
            out.push_str(wide.get());
        } else {
            out.push(straight(c));
        }
    }
    out
}

fn straight(c: char) -> char {
    match c {
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        _ => c,
    }
}

/// Latin letters that one character stands for.
fn ligature(c: char) -> Option<&'static str> {
    Some(match c {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "\u{2bc}n",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

/// Removes `ESC [ numbers letter`.
fn remove_terminal_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let end = 2 + escape[2..].bytes().take_while(|b| b.is_ascii_digit() || *b == b';').count();
        if escape[end..].starts_with(|c: char| c.is_ascii_alphabetic()) {
            rest = &escape[end + 1..];
        } else {
            out.push_str(&escape[..2]);
            rest = &escape[2..];
        }
    }
    out.push_str(rest);
    out
}

/// Characters that are not meant to be in a text.
fn is_control(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{206a}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
}

/// The character of a byte from 0x80 to 0x9f in Windows-1252; the five that it lacks stay.
pub(super) fn windows_1252(byte: u8) -> char {
    const C1: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
        '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    match byte {
        0x80..=0x9f => C1[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Results of ftfy 6.3.1.
    #[test]
    fn repairs_as_ftfy_does() {
        for (text, expected) in [
            ("it’s a “quoted” dog", "it's a \"quoted\" dog"),
            ("the ﬁnal oﬃce ŉ", "the final office 'n"),
            ("fish &amp; chips &lt;b&gt;", "fish & chips <b>"),
            ("<b>fish &amp; chips", "<b>fish &amp; chips"),
            ("<b>\nfish &amp; chips", "<b>\nfish &amp; chips"),
            ("a &amp; b\n<b>", "a & b\n<b>"),
            ("Ｆｕｌｌ　ｗｉｄｔｈ １２３ ｶﾞ", "Full width 123 ガ"),
            ("P&EACUTE;REZ &SZLIG; &nTILDE; &amp", "PÉREZ SS &nTILDE; &amp"),
            ("&#38;lt;x &#x41; &#99999999;", "<x A \u{fffd}"),
            ("a\r\nb\rc\u{2028}d", "a\nb\nc\nd"),
            ("\u{1b}[36;44mblue\u{1b}[0m \u{1b}[x \u{1b}[", "blue  ["),
            ("\u{feff}nul\0 e\u{301} A\u{30a}", "nul é Å"),
        ] {
            assert_eq!(fix_text(text), expected, "{text:?}");
        }
    }

    #[test]
    fn plain_text_is_not_copied() {
        assert!(matches!(fix_text("a dog, 3.14!\n"), Cow::Borrowed(_)));
    }
}
