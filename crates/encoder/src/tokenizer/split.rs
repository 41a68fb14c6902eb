//! Cutting a long text into chunks that fit the context.
//!
//! Owns: greedy packing of sentences by a caller's count of tokens. Does not own that count, nor where
//! sentences end. Every character but white space between chunks is in exactly one chunk, in order.

use diptych_core::sentences;

/// Cuts `text` into chunks of at most `room` tokens; `count` counts them. A text without tokens comes
/// back whole, as does one that fits.
pub(super) fn split<'t>(text: &'t str, room: usize, count: &dyn Fn(&str) -> usize) -> Vec<&'t str> {
    // A token is seldom more than a word, so that a much longer text need not be counted whole.
    if text.len() <= room.saturating_mul(16) && count(text) <= room {
        return vec![text];
    }
    let mut pieces = Vec::new();
    for sentence in sentences(text) {
        let tokens = count(sentence);
        if tokens <= room {
            pieces.push((sentence, tokens));
        } else {
            cut_sentence(sentence, room, count, &mut pieces);
        }
    }
    let chunks = pack(text, &pieces, room, count);
    if chunks.is_empty() { vec![text] } else { chunks }
}

/// Joins neighbours as long as the sum of their tokens fits. Joining may change how a text is cut into
/// tokens, so each chunk is counted once more and falls back to its pieces when it does not fit.
fn pack<'t>(
    text: &'t str,
    pieces: &[(&'t str, usize)],
    room: usize,
    count: &dyn Fn(&str) -> usize,
) -> Vec<&'t str> {
    let mut chunks = Vec::new();
    let mut first = 0;
    while first < pieces.len() {
        let mut sum = pieces[first].1;
        let mut end = first + 1;
        while end < pieces.len() && sum + pieces[end].1 <= room {
            sum += pieces[end].1;
            end += 1;
        }
        // Halving bounds the counting when a tokenizer is not additive.
        while end > first + 1 && count(spanned(text, &pieces[first..end])) > room {
            end = first + (end - first) / 2;
        }
        chunks.push(spanned(text, &pieces[first..end]));
        first = end;
    }
    chunks
}

/// The part of `text` from the first to the last of `pieces`, which are slices of it.
fn spanned<'t>(text: &'t str, pieces: &[(&'t str, usize)]) -> &'t str {
    let (Some((first, _)), Some((last, _))) = (pieces.first(), pieces.last()) else {
        return "";
    };
    let start = first.as_ptr() as usize - text.as_ptr() as usize;
    let end = last.as_ptr() as usize - text.as_ptr() as usize + last.len();
    &text[start..end]
}

/// Cuts a sentence that is too long by itself between words, and a word that is too long by itself
/// between characters.
fn cut_sentence<'t>(
    sentence: &'t str,
    room: usize,
    count: &dyn Fn(&str) -> usize,
    pieces: &mut Vec<(&'t str, usize)>,
) {
    for word in sentence.split_whitespace() {
        let tokens = count(word);
        if tokens <= room {
            pieces.push((word, tokens));
            continue;
        }
        let mut rest = word;
        while !rest.is_empty() {
            let (part, after) = rest.split_at(longest_prefix(rest, room, count));
            // The parts of a word fill their chunks: only the last leaves room for what follows.
            pieces.push((part, if after.is_empty() { count(part) } else { room }));
            rest = after;
        }
    }
}

/// Bytes of a long prefix of `word` that fits, at least one character.
fn longest_prefix(word: &str, room: usize, count: &dyn Fn(&str) -> usize) -> usize {
    let ends: Vec<usize> = word.char_indices().map(|(at, c)| at + c.len_utf8()).take(room * 64).collect();
    let (mut fits, mut step) = (1, 1);
    while fits < ends.len() && count(&word[..ends[(fits + step).min(ends.len()) - 1]]) <= room {
        fits = (fits + step).min(ends.len());
        step *= 2;
    }
    while step > 1 {
        step /= 2;
        if fits + step <= ends.len() && count(&word[..ends[fits + step - 1]]) <= room {
            fits += step;
        }
    }
    ends.get(fits - 1).copied().unwrap_or(word.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> usize {
        text.split_whitespace().map(|word| word.chars().count().div_ceil(4)).sum()
    }

    fn check<'t>(text: &'t str, room: usize, count: &dyn Fn(&str) -> usize) -> Vec<&'t str> {
        let chunks = split(text, room, count);
        let solid = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        assert_eq!(solid(&chunks.concat()), solid(text), "{chunks:?}");
        chunks
    }

    #[test]
    fn chunks_pack_sentences_and_lose_nothing() {
        let text = "One two three. Four five. Six seven eight nine. Ten.";
        assert_eq!(check(text, 100, &words), [text]);
        assert_eq!(check(text, 8, &words), ["One two three. Four five.", "Six seven eight nine. Ten."]);
        for room in 1..12 {
            for chunk in check(text, room, &words) {
                assert!(words(chunk) <= room, "{room}: {chunk}");
            }
        }
    }

    #[test]
    fn long_sentences_are_cut_between_words_and_long_words_between_characters() {
        let text = "abcdefghij klm é漢字漢字漢字漢字漢字漢字 z";
        for room in 1..6 {
            for chunk in check(text, room, &words) {
                assert!(words(chunk) <= room, "{room}: {chunk}");
            }
        }
        assert_eq!(check("aa bb cc dd", 3, &words), ["aa bb cc", "dd"]);
    }

    /// A tokenizer may need more tokens for a whole than for its parts.
    #[test]
    fn a_count_that_is_not_additive_still_fits() {
        let count = |text: &str| words(text) + text.matches(". ").count() * 2;
        for chunk in check("One. Two. Three. Four. Five. Six. Seven.", 4, &count) {
            assert!(count(chunk) <= 4, "{chunk}");
        }
    }

    #[test]
    fn a_text_without_tokens_comes_back() {
        for text in ["", "  \n"] {
            assert_eq!(split(text, 4, &words), [text]);
        }
        assert_eq!(split("!!! ...", 4, &|_| 0), ["!!! ..."]);
    }
}
