//! Parts: the searchable pieces of a record and how they are named.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Which side of the shared space a part lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Modality {
    /// Pixels.
    Image,
    /// Words.
    Text,
}

impl Modality {
    /// Both, in the order in which they are stored.
    pub const ALL: [Self; 2] = [Self::Image, Self::Text];

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Image => Self::Text,
            Self::Text => Self::Image,
        }
    }

    /// The name used in output and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "text",
        }
    }
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Modality {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "image" => Ok(Self::Image),
            "text" => Ok(Self::Text),
            other => Err(format!("unknown modality '{other}'; use 'image' or 'text'")),
        }
    }
}

/// The identity of one vector. Given out by the store, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PointId(pub u64);

/// Which part of a record: the `ordinal`-th image or the `ordinal`-th text, counted from 0 within
/// its modality. Written `image:0`, `text:2`.
///
/// A text longer than the model's context is searched by its chunks, each a part of its own:
/// `text:2#0`, `text:2#1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartRef {
    /// Image or text.
    pub modality: Modality,
    /// Position among the images or the texts that the record was given.
    pub ordinal: u32,
    /// Which chunk of a long text, counted from 0; `None` for the image or text as a whole.
    pub chunk: Option<u32>,
}

impl PartRef {
    /// An image or text as a whole.
    pub const fn whole(modality: Modality, ordinal: u32) -> Self {
        Self { modality, ordinal, chunk: None }
    }

    /// One chunk of a long text.
    pub const fn chunk(ordinal: u32, chunk: u32) -> Self {
        Self { modality: Modality::Text, ordinal, chunk: Some(chunk) }
    }

    /// Whether `other` is this part or, when this is a whole text, one of its chunks.
    pub fn covers(self, other: Self) -> bool {
        (self.modality, self.ordinal) == (other.modality, other.ordinal)
            && (self.chunk.is_none() || self.chunk == other.chunk)
    }
}

impl fmt::Display for PartRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.modality, self.ordinal)?;
        self.chunk.map_or(Ok(()), |chunk| write!(f, "#{chunk}"))
    }
}

impl FromStr for PartRef {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || format!("'{s}' is not a part; write it like 'image:0', 'text:2' or 'text:2#1'");
        let (modality, position) = s.split_once(':').ok_or_else(wrong)?;
        let modality = modality.parse().map_err(|_| wrong())?;
        let (ordinal, chunk) = match position.split_once('#') {
            Some((ordinal, chunk)) if modality == Modality::Text => (ordinal, Some(chunk)),
            Some(_) => return Err(wrong()),
            None => (position, None),
        };
        Ok(Self {
            modality,
            ordinal: ordinal.parse().map_err(|_| wrong())?,
            chunk: chunk.map(str::parse).transpose().map_err(|_| wrong())?,
        })
    }
}

/// How a text is divided into the pieces that are searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Chunking {
    /// Into as few as the model's context allows.
    #[default]
    Context,
    /// Into its sentences, so that a search finds the one that says what was asked; a sentence beyond the
    /// model's context is divided further.
    Sentences,
}

/// A BLAKE3 digest of some content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// What is kept of an image: where it came from and what it was, not its pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePart {
    /// Path or name the image was read from; free text, may be empty.
    pub source: String,
    /// Digest of the encoded file.
    pub digest: Digest,
    /// Width in pixels, after EXIF orientation.
    pub width: u32,
    /// Height in pixels, after EXIF orientation.
    pub height: u32,
}

/// One text of a record, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextPart {
    /// The text as given.
    pub text: String,
    /// Tokens beyond the model's context, which no embedding sees.
    pub truncated_tokens: u32,
    /// Where each chunk of a long text ends, in bytes: ascending, the last at the end of the text, so
    /// that the chunks together are the text. Empty when the text is one piece.
    pub chunk_ends: Vec<u32>,
}

impl TextPart {
    /// A text in one piece.
    pub fn whole(text: impl Into<String>, truncated_tokens: u32) -> Self {
        Self { text: text.into(), truncated_tokens, chunk_ends: Vec::new() }
    }

    /// The bytes of one chunk, counted from 0.
    pub fn chunk(&self, n: u32) -> Option<Range<usize>> {
        let n = n as usize;
        let end = *self.chunk_ends.get(n)? as usize;
        let start = n.checked_sub(1).map_or(0, |before| self.chunk_ends[before] as usize);
        Some(start..end)
    }

    /// Pieces that are searched: the chunks, or the text itself.
    pub fn pieces(&self) -> usize {
        self.chunk_ends.len().max(1)
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let Some(&last) = self.chunk_ends.last() else { return Ok(()) };
        let mut before = 0;
        for &end in &self.chunk_ends {
            if end <= before || !self.text.is_char_boundary(end as usize) {
                return Err(format!("a chunk from byte {before} to {end} is no piece of the text"));
            }
            before = end;
        }
        if last as usize != self.text.len() {
            return Err(format!("the chunks end at byte {last}, the text at {}", self.text.len()));
        }
        Ok(())
    }
}

/// One image or text of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// An image.
    Image(ImagePart),
    /// A text.
    Text(TextPart),
}

impl Part {
    /// The side of the shared space this part lies on.
    pub fn modality(&self) -> Modality {
        match self {
            Self::Image(_) => Modality::Image,
            Self::Text(_) => Modality::Text,
        }
    }

    /// Pieces of it that are searched, each with an embedding of its own.
    pub fn pieces(&self) -> usize {
        match self {
            Self::Image(_) => 1,
            Self::Text(text) => text.pieces(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_names_are_read_as_they_are_written() {
        for (part, name) in [
            (PartRef::whole(Modality::Image, 0), "image:0"),
            (PartRef::whole(Modality::Text, 12), "text:12"),
            (PartRef::chunk(1, 30), "text:1#30"),
        ] {
            assert_eq!(part.to_string(), name);
            assert_eq!(name.parse(), Ok(part));
        }
        for name in ["", "text", "text:", "text:x", "text:0#", "text:0#-1", "image:0#1", "sound:0"] {
            assert!(name.parse::<PartRef>().is_err(), "{name}");
        }
        assert!(PartRef::whole(Modality::Text, 1).covers(PartRef::chunk(1, 30)));
        assert!(!PartRef::chunk(1, 3).covers(PartRef::chunk(1, 30)));
    }

    #[test]
    fn chunks_are_pieces_of_their_text() {
        let text =
            |ends: &[u32]| TextPart { chunk_ends: ends.to_vec(), ..TextPart::whole("Zürich. Yes.", 0) };
        let whole = text(&[]);
        assert_eq!((whole.check(), whole.pieces(), whole.chunk(0)), (Ok(()), 1, None));
        let split = text(&[9, 13]);
        assert_eq!((split.check(), split.pieces()), (Ok(()), 2));
        let chunks: Vec<&str> = (0..2).map(|n| &split.text[split.chunk(n).expect("is there")]).collect();
        assert_eq!(chunks, ["Zürich. ", "Yes."]);
        assert_eq!(split.chunk(2), None);
        // Inside a character, backwards, not to the end, beyond the end.
        for ends in [&[2, 13][..], &[9, 9, 13], &[9], &[9, 99]] {
            assert!(text(ends).check().is_err(), "{ends:?}");
        }
    }
}
