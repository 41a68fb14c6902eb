//! From an ingested text to the pieces that the model reads.
//!
//! A text within the model's context is one piece, or one for each of its sentences where that is asked for.
//! A longer one is divided where the encoder says, and its chunks together are the text, byte for byte: what
//! no chunk's embedding sees is counted, never dropped in silence. Queries are not divided; the family's own truncation applies to them.

use diptych_core::{Chunking, Encode, EncodeError, PreparedText, Record, TextPart, sentences};

use crate::EngineError;

/// What became of the texts of one record, or of many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TextCounts {
    /// Texts longer than the model's context that were divided into chunks.
    pub split: u64,
    /// The chunks of those.
    pub chunks: u64,
    /// Texts of which some tokens are in no embedding.
    pub truncated: u64,
    /// Those tokens.
    pub truncated_tokens: u64,
}

impl TextCounts {
    /// Counts one text; `long` when it is longer than the model's context.
    pub(crate) fn count(&mut self, text: &TextPart, long: bool) {
        let chunks = if long { text.chunk_ends.len() as u64 } else { 0 };
        self.split += u64::from(chunks > 0);
        self.chunks += chunks;
        self.truncated += u64::from(text.truncated_tokens > 0);
        self.truncated_tokens += u64::from(text.truncated_tokens);
    }

    /// Adds the counts of other texts.
    pub fn add(&mut self, other: Self) {
        self.split += other.split;
        self.chunks += other.chunks;
        self.truncated += other.truncated;
        self.truncated_tokens += other.truncated_tokens;
    }
}

/// Tokenises a text; one prepared text per piece of the part, in order, and whether the text is longer than
/// the model's context.
pub(crate) fn prepare_text(
    encoder: &dyn Encode,
    text: String,
    chunking: Chunking,
) -> Result<(TextPart, Vec<PreparedText>, bool), EngineError> {
    let whole = encoder.prepare_text(&text)?;
    let long = whole.truncated_tokens > 0;
    let pieces = match chunking {
        Chunking::Sentences => sentence_pieces(encoder, &text)?,
        Chunking::Context if long => encoder.split_text(&text),
        Chunking::Context => Vec::new(),
    };
    if pieces.len() > 1 {
        let chunks = prepare_chunks(encoder, &text, &pieces)?;
        if chunks.len() > 1 {
            let (chunk_ends, pieces): (Vec<u32>, Vec<PreparedText>) = chunks.into_iter().unzip();
            let truncated_tokens = pieces.iter().fold(0u32, |sum, p| sum.saturating_add(p.truncated_tokens));
            return Ok((TextPart { text, truncated_tokens, chunk_ends }, pieces, long));
        }
    }
    Ok((TextPart::whole(text, whole.truncated_tokens), vec![whole], long))
}

/// The sentences of a text, each beyond the model's context divided further.
fn sentence_pieces<'t>(encoder: &dyn Encode, text: &'t str) -> Result<Vec<&'t str>, EngineError> {
    let mut pieces = Vec::new();
    for sentence in sentences(text) {
        match encoder.prepare_text(sentence) {
            Ok(prepared) if prepared.truncated_tokens > 0 => pieces.extend(encoder.split_text(sentence)),
            Ok(_) | Err(EncodeError::EmptyText) => pieces.push(sentence),
            Err(error) => return Err(error.into()),
        }
        Record::check_points(pieces.len())?;
    }
    Ok(pieces)
}

/// The chunks of a text that is divided into pieces, each with the byte at which it ends. White space between
/// two pieces goes with the first, and what holds no token goes with what follows it.
fn prepare_chunks(
    encoder: &dyn Encode,
    text: &str,
    pieces: &[&str],
) -> Result<Vec<(u32, PreparedText)>, EngineError> {
    let starts = piece_starts(text, pieces)?;
    Record::check_points(starts.len())?;
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let mut chunks: Vec<(u32, PreparedText)> = Vec::with_capacity(starts.len());
    let (mut start, mut last_start) = (0, 0);
    for end in ends {
        match encoder.prepare_text(&text[start..end]) {
            Ok(prepared) => {
                chunks.push((byte_offset(end), prepared));
                (last_start, start) = (start, end);
            }
            Err(EncodeError::EmptyText) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if start < text.len()
        && let Some(last) = chunks.last_mut()
    {
        *last = (byte_offset(text.len()), encoder.prepare_text(&text[last_start..])?);
    }
    Ok(chunks)
}

/// Where each piece begins in its text; the first counts from the text's own beginning.
fn piece_starts(text: &str, pieces: &[&str]) -> Result<Vec<usize>, EngineError> {
    let mut starts = vec![0];
    let mut end = 0;
    for (n, piece) in pieces.iter().enumerate() {
        let start = (piece.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
        let within = start >= end && start.checked_add(piece.len()).is_some_and(|end| end <= text.len());
        if !within || !text.is_char_boundary(start) {
            let reason = format!("it divides a text into pieces of which number {} is out of place", n + 1);
            return Err(EncodeError::Model { reason }.into());
        }
        end = start + piece.len();
        if n > 0 && start > starts[starts.len() - 1] {
            starts.push(start);
        }
    }
    Ok(starts)
}

fn byte_offset(offset: usize) -> u32 {
    u32::try_from(offset).expect("a text has at most TEXT_BYTES_MAX bytes")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use diptych_core::limits::{POINTS_MAX, TEXT_BYTES_MAX};
    use diptych_core::{Embedding, HashEncoder, ModelId, PreparedImage, RecordError};

    use super::*;

    /// The hash encoder with another way to divide, and for which dots and semicolons are no tokens.
    struct Scripted {
        inner: HashEncoder,
        split: fn(&str) -> Vec<&str>,
    }

    impl Encode for Scripted {
        fn model_id(&self) -> ModelId {
            self.inner.model_id()
        }
        fn dim(&self) -> usize {
            self.inner.dim()
        }
        fn prepare_image(&self, bytes: &[u8]) -> Result<PreparedImage, EncodeError> {
            self.inner.prepare_image(bytes)
        }
        fn prepare_text(&self, text: &str) -> Result<PreparedText, EncodeError> {
            self.inner.prepare_text(&text.replace(['.', ';'], " "))
        }
        fn split_text<'t>(&self, text: &'t str) -> Vec<&'t str> {
            (self.split)(text)
        }
        fn encode_images(&self, images: &[PreparedImage]) -> Result<Vec<Embedding>, EncodeError> {
            self.inner.encode_images(images)
        }
        fn encode_texts(&self, texts: &[PreparedText]) -> Result<Vec<Embedding>, EncodeError> {
            self.inner.encode_texts(texts)
        }
    }

    fn scripted(split: fn(&str) -> Vec<&str>) -> Scripted {
        Scripted { inner: HashEncoder::with_context(8, 3), split }
    }

    fn whole_or_chunks(
        encoder: &dyn Encode,
        text: String,
    ) -> Result<(TextPart, Vec<PreparedText>), EngineError> {
        prepare_text(encoder, text, Chunking::Context).map(|(part, pieces, _)| (part, pieces))
    }

    fn chunks(part: &TextPart) -> Vec<&str> {
        (0..part.chunk_ends.len() as u32).map(|n| &part.text[part.chunk(n).unwrap()]).collect()
    }

    #[test]
    fn the_chunks_of_a_long_text_are_the_text() {
        let encoder = HashEncoder::with_context(8, 3);
        let text = "  One two.\n\nThree four five. Six seven eight nine. ";
        let (part, pieces) = whole_or_chunks(&encoder, text.to_owned()).unwrap();
        assert_eq!(chunks(&part), ["  One two.\n\n", "Three four five. ", "Six seven eight ", "nine. "]);
        assert_eq!(chunks(&part).concat(), text);
        assert_eq!((part.text.as_str(), part.truncated_tokens), (text, 0));
        for (piece, chunk) in pieces.iter().zip(chunks(&part)) {
            assert_eq!(*piece, encoder.prepare_text(chunk).unwrap());
        }
        let (short, pieces) = whole_or_chunks(&encoder, "One two.".to_owned()).unwrap();
        assert_eq!((short, pieces.len()), (TextPart::whole("One two.", 0), 1));
    }

    #[test]
    fn a_text_is_divided_into_its_sentences_where_that_is_asked_for() {
        let encoder = HashEncoder::with_context(8, 4);
        let text = "FINDINGS: No effusion. Small nodule.\nThe heart is not enlarged at all.";
        let (part, pieces, long) = prepare_text(&encoder, text.to_owned(), Chunking::Sentences).unwrap();
        let expected =
            ["FINDINGS: No effusion. ", "Small nodule.\n", "The heart is not ", "enlarged at all."];
        assert_eq!(chunks(&part), expected);
        assert_eq!((pieces.len(), long, part.truncated_tokens), (4, true, 0));
        let mut counts = TextCounts::default();
        counts.count(&part, long);
        assert_eq!((counts.split, counts.chunks), (1, 4));

        let wide = HashEncoder::with_context(8, 40);
        let (part, pieces, long) = prepare_text(&wide, text.to_owned(), Chunking::Sentences).unwrap();
        assert_eq!((chunks(&part).len(), pieces.len(), long), (3, 3, false));
        let mut counts = TextCounts::default();
        counts.count(&part, long);
        assert_eq!(counts, TextCounts::default(), "a text within the context is not a long one");
        let (part, ..) = prepare_text(&wide, "One sentence.".to_owned(), Chunking::Sentences).unwrap();
        assert_eq!(part, TextPart::whole("One sentence.", 0));
    }

    #[test]
    fn what_no_chunk_holds_is_counted() {
        // Divides, but not finely enough.
        let encoder = scripted(|text| text.split_inclusive(';').collect());
        let (part, pieces) = whole_or_chunks(&encoder, "a b c d e; f g h i".to_owned()).unwrap();
        assert_eq!((part.truncated_tokens, pieces.len()), (2 + 1, 2));
        // Cannot divide at all.
        let encoder = scripted(|text| vec![text]);
        let (part, pieces) = whole_or_chunks(&encoder, "a b c d".to_owned()).unwrap();
        assert_eq!((part, pieces.len()), (TextPart::whole("a b c d", 1), 1));
        // Leaves out words that it should not: they go with what is before them.
        let encoder = scripted(|text| vec![&text[..2], &text[4..]]);
        let (part, _) = whole_or_chunks(&encoder, "a b c d".to_owned()).unwrap();
        assert_eq!(chunks(&part), ["a b ", "c d"]);
    }

    #[test]
    fn a_piece_without_tokens_goes_with_its_neighbour() {
        let encoder = scripted(|text| text.split_inclusive(';').collect());
        let (part, pieces) = whole_or_chunks(&encoder, "..;a b;.. ;c d;...".to_owned()).unwrap();
        assert_eq!(chunks(&part), ["..;a b;", ".. ;c d;..."]);
        assert_eq!(pieces.len(), 2);
    }

    #[test]
    fn pieces_out_of_place_and_too_many_pieces_are_refused() {
        let splits: [fn(&str) -> Vec<&str>; 3] = [
            |_| vec!["a b", "c d"],
            |text| vec![&text[4..], &text[..4]],
            |text| vec![&text[..5], &text[4..]],
        ];
        for split in splits {
            let error = whole_or_chunks(&scripted(split), "a b c d".to_owned()).unwrap_err();
            assert!(matches!(error, EngineError::Encode(EncodeError::Model { .. })), "{error}");
        }
        let encoder = HashEncoder::with_context(8, 3);
        let text = "word ".repeat(TEXT_BYTES_MAX / 5);
        let error = whole_or_chunks(&encoder, text).unwrap_err();
        let EngineError::Record(RecordError::TooManyPoints { found }) = error else { panic!("{error}") };
        assert!(found > POINTS_MAX);
    }
}
