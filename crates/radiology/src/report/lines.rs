//! Lines to paragraphs: what was wrapped is joined, what was a list stays one.
//!
//! Deliberately absent: headers and sections.

/// Lines at least so long may have been wrapped; a shorter one ended where its writer ended it.
const WIDTH_MIN: usize = 60;

/// Paragraphs and items of lists of consecutive lines, one a line, without the marks of the items.
pub(super) fn unwrap(lines: &[&str]) -> String {
    let width = lines.iter().map(|line| line.trim_end().chars().count()).max().unwrap_or(0).max(WIDTH_MIN);
    let mut paragraphs: Vec<String> = Vec::new();
    let mut open = false;
    let mut number = 0;
    let mut last_width = 0;
    for line in lines {
        let text = line.trim();
        if text.is_empty() {
            open = false;
            continue;
        }
        let (item, text) = without_mark(text, &mut number);
        let first = text.split_whitespace().next().unwrap_or("");
        let fitted = last_width + 1 + first.chars().count() <= width;
        let broken = fitted && first.starts_with(char::is_uppercase);
        match paragraphs.last_mut().filter(|last| open && !item && (!broken || last.is_empty())) {
            Some(last) => {
                if !(last.ends_with('-') && first.starts_with(char::is_lowercase)) {
                    last.push(' ');
                }
                push_collapsed(last, text);
            }
            None => {
                let mut paragraph = String::new();
                push_collapsed(&mut paragraph, text);
                paragraphs.push(paragraph);
            }
        }
        open = true;
        last_width = line.trim_end().chars().count();
    }
    let listed = paragraphs.iter().flat_map(|paragraph| items(paragraph));
    listed.filter(|paragraph| paragraph.chars().any(char::is_alphanumeric)).collect::<Vec<_>>().join("\n")
}

/// Whether a line begins an item of a list, and the line without its mark.
fn without_mark<'a>(line: &'a str, number: &mut u32) -> (bool, &'a str) {
    if let Some(rest) = ["- ", "* ", "• ", "· ", "– "].iter().find_map(|mark| line.strip_prefix(mark)) {
        return (true, rest.trim_start());
    }
    match numbered(line) {
        Some((n, rest)) if n == *number + 1 || n == 1 => {
            *number = n;
            (true, rest)
        }
        _ => (false, line),
    }
}

/// `3. Text` or `3) Text` as the number and the text.
fn numbered(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if !(1..=2).contains(&digits) {
        return None;
    }
    let rest = text[digits..].strip_prefix(['.', ')'])?;
    let item = rest.trim_start();
    if rest.len() == item.len() || !item.starts_with(char::is_alphabetic) {
        return None;
    }
    Some((text[..digits].parse().ok()?, item))
}

/// Cuts `1. One. 2. Two.` in one line at its numbers, which have to count up from 1.
fn items(paragraph: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut next = 1;
    for (at, word) in words(paragraph) {
        let sentence_ends =
            items.last().is_none_or(|item| item.is_empty() || item.ends_with(['.', ';', ':', '?']));
        let expected = |n: u32| n == next || (n == 2 && next == 1 && at > 0);
        if sentence_ends
            && let Some((n, _)) = numbered(&paragraph[at..])
            && expected(n)
        {
            next = n + 1;
            items.push(String::new());
            continue;
        }
        let item = items.last_mut().expect("it begins with one item");
        if !item.is_empty() {
            item.push(' ');
        }
        item.push_str(word);
    }
    items.retain(|item| !item.is_empty());
    items
}

fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let start = text.as_ptr() as usize;
    text.split_whitespace().map(move |word| (word.as_ptr() as usize - start, word))
}

/// Appends words with single spaces between them.
fn push_collapsed(to: &mut String, text: &str) {
    for (n, word) in text.split_whitespace().enumerate() {
        if n > 0 {
            to.push(' ');
        }
        to.push_str(word);
    }
}
