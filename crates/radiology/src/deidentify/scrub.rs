//! Finds what identifies people in prose, by rules, and redacts it.
//!
//! Rules look at words, numbers and marks from each place of a text a bounded way ahead, so the time is
//! linear in the text. What they are told of the study (`Known`) is found wherever it stands. A year alone,
//! a month alone, a time of day and an age under 90 stay: they identify nobody (45 CFR 164.514(b)), and
//! reports are poorer without. Deliberately absent: statistics and dictionaries of names; a name in running
//! text without a title, a label or a header that knows it is not found.

mod dates;
mod names;
mod numbers;
mod places;
mod tokens;
mod words;

use super::count::Kind;
use super::{Counts, Known, REDACTED, Scrubbed};
use tokens::Tokens;
pub(super) use words::is_common;

/// Tokens `from..to` are of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    from: usize,
    to: usize,
    kind: Kind,
}

/// Redacts what the rules and the known values find.
pub(super) fn text(text: &str, known: &Known) -> (String, Scrubbed) {
    let tokens = Tokens::new(text);
    let mut spans = by_rules(&tokens);
    spans.extend(by_known(text, &tokens, known));
    redact(text, spans)
}

/// Redacts the known values alone; `None` when there are none.
pub(super) fn known_alone(text: &str, known: &Known) -> Option<String> {
    let spans = by_known(text, &Tokens::new(text), known);
    (!spans.is_empty()).then(|| redact(text, spans).0)
}

type Span = (usize, usize, Kind);

fn by_rules(tokens: &Tokens<'_>) -> Vec<Span> {
    // The first that finds something at a place has it.
    const RULES: &[fn(&Tokens<'_>, usize) -> Option<Found>] = &[
        numbers::address_of_net,
        dates::date,
        numbers::social_security,
        numbers::phone,
        numbers::labelled,
        numbers::uid,
        places::address,
        numbers::long_number,
        numbers::age,
        names::titled,
        names::labelled,
        places::institution,
        names::with_degree,
    ];
    let mut spans = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match RULES.iter().find_map(|rule| rule(tokens, at)) {
            Some(found) => {
                spans.push((tokens.start(found.from), tokens.end(found.to - 1), found.kind));
                at = found.to.max(at + 1);
            }
            None => at += 1,
        }
    }
    spans
}

fn by_known(text: &str, tokens: &Tokens<'_>, known: &Known) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut named: Option<usize> = None;
    for at in 0..tokens.len() {
        let Some(word) = tokens.name_key(at) else { continue };
        let beside = named.is_some_and(|last| at - last <= 2);
        let is_part = |w: &String| known.parts.contains(w) || (*w != word && known.weak.contains(w));
        let ahead = || (at + 1..=at + 2).any(|next| tokens.name_key(next).is_some_and(|w| is_part(&w)));
        if known.parts.contains(&word) || (known.weak.contains(&word) && (beside || ahead())) {
            spans.push((tokens.start(at), tokens.end(at), Kind::Name));
            named = Some(at);
        }
    }
    if !known.ids.is_empty() {
        // Of the same length in bytes, so that places agree.
        let lower = text.to_ascii_lowercase();
        for id in &known.ids {
            for (start, _) in lower.match_indices(id.as_str()) {
                let end = start + id.len();
                let before = lower[..start].chars().next_back();
                let after = lower[end..].chars().next();
                if ![before, after].into_iter().flatten().any(char::is_alphanumeric) {
                    spans.push((start, end, Kind::Identifier));
                }
            }
        }
    }
    spans
}

/// Writes the text with each span, or union of overlapping ones, redacted once.
fn redact(text: &str, mut spans: Vec<Span>) -> (String, Counts) {
    // Of overlapping spans, the longest gives the kind.
    spans.sort_unstable_by_key(|&(start, end, kind)| (start, std::cmp::Reverse(end), kind));
    let mut out = String::with_capacity(text.len());
    let mut counts = Counts::default();
    let mut written = 0;
    for (start, end, kind) in spans {
        if start >= written {
            let between = &text[written..start];
            let adjoining = out.ends_with(REDACTED) && between.chars().all(|c| matches!(c, ' ' | '-' | ','));
            if !adjoining {
                out.push_str(between);
                out.push_str(REDACTED);
            }
            counts.one(kind);
        }
        written = written.max(end);
    }
    out.push_str(&text[written..]);
    (out, counts)
}
