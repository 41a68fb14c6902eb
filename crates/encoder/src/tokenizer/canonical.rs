//! What SigLIP's tokenizer does to a text in front of its SentencePiece model.
//!
//! Owns: the canonicalisation (lower case, no punctuation, single spaces) and SentencePiece's own
//! normaliser, whose rules are a trie within the model file. Done here rather than by the tokenizers
//! library because that one looks rules up by grapheme, SentencePiece by the longest match.

use super::clean::single_spaces;

/// What SentencePiece writes for a space.
pub(super) const SPACE: char = '▁';

/// The whole of it for one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Canonical {
    pub(super) lower: bool,
    /// Special tokens, which are left as they are within a text.
    pub(super) special: Vec<String>,
    pub(super) charsmap: Option<CharsMap>,
    pub(super) remove_extra_whitespaces: bool,
}

impl Canonical {
    /// The text as the model's pieces spell it.
    pub(super) fn apply(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + SPACE.len_utf8());
        let mut rest = text;
        // A space goes in front of a text, not of what follows a special token in it.
        let mut prefix = Some(SPACE);
        loop {
            let next = self.special.iter().filter_map(|token| Some((rest.find(token.as_str())?, token)));
            let Some((at, token)) = next.min_by_key(|&(at, token)| (at, usize::MAX - token.len())) else {
                self.segment(prefix.take(), rest, &mut out);
                return out;
            };
            self.segment(prefix.take(), &rest[..at], &mut out);
            out.push_str(token);
            rest = &rest[at + token.len()..];
        }
    }

    /// In one line, for the model id.
    pub(super) fn describe(&self) -> String {
        let charsmap = self.charsmap.as_ref().map_or("none".to_owned(), CharsMap::digest);
        format!(
            "siglip (lower {}, single spaces {}, rules {charsmap})",
            self.lower, self.remove_extra_whitespaces
        )
    }

    fn segment(&self, prefix: Option<char>, text: &str, out: &mut String) {
        let mut text: String =
            prefix.into_iter().chain(text.chars().map(|c| if c == SPACE { ' ' } else { c })).collect();
        if self.lower {
            text = text.to_lowercase();
        }
        text.retain(|c| !c.is_ascii_punctuation());
        let text = single_spaces(&text);
        let before = out.len();
        let mut rest = text.as_str();
        let mut after_space = false;
        while let Some(c) = rest.chars().next() {
            let rule = self.charsmap.as_ref().and_then(|map| map.longest(rest));
            let (mut spelled, taken) = rule.unwrap_or((&rest[..c.len_utf8()], c.len_utf8()));
            rest = &rest[taken..];
            if self.remove_extra_whitespaces && after_space {
                spelled = spelled.trim_start_matches(' ');
            }
            if !spelled.is_empty() {
                after_space = spelled.ends_with(' ');
                out.extend(spelled.chars().map(|c| if c == ' ' { SPACE } else { c }));
            }
        }
        if self.remove_extra_whitespaces {
            let kept = out[before..].trim_end_matches(SPACE).len();
            out.truncate(before + kept);
        }
    }
}

/// SentencePiece's `precompiled_charsmap`: a trie of byte strings as a double array, and the texts that
/// replace them, each ended by a NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CharsMap {
    trie: Vec<u32>,
    texts: String,
}

impl CharsMap {
    /// Reads it: the length of the trie in bytes, the trie, the texts.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let cut = "precompiled_charsmap is cut short";
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or(cut)?;
        let (trie, texts) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or(cut)?;
        let (units, odd) = trie.as_chunks::<4>();
        if units.is_empty() || !odd.is_empty() {
            return Err(cut);
        }
        let texts = str::from_utf8(texts).map_err(|_| "precompiled_charsmap is not UTF-8")?;
        Ok(Self {
            trie: units.iter().map(|unit| u32::from_le_bytes(*unit)).collect(),
            texts: texts.to_owned(),
        })
    }

    /// The replacement of the longest prefix of `text` that has one, and the bytes of that prefix.
    fn longest(&self, text: &str) -> Option<(&str, usize)> {
        let offset = |unit: u32| (unit >> 10) << ((unit & (1 << 9)) >> 6);
        let mut node = offset(self.trie[0]);
        let mut found = None;
        for (at, byte) in text.bytes().enumerate() {
            node ^= u32::from(byte);
            let Some(&unit) = self.trie.get(node as usize) else { break };
            // The label, with the bit that marks a value.
            if unit & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            node ^= offset(unit);
            if unit >> 8 & 1 == 1 {
                let value = self.trie.get(node as usize).map(|value| value & !(1 << 31));
                found = value.map(|value| (value as usize, at + 1));
            }
        }
        let (start, taken) = found.filter(|&(_, taken)| text.is_char_boundary(taken))?;
        let spelled = self.texts.get(start..)?;
        Some((&spelled[..spelled.find('\0').unwrap_or(spelled.len())], taken))
    }

    fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for unit in &self.trie {
            hasher.update(&unit.to_le_bytes());
        }
        hasher.update(self.texts.as_bytes());
        hasher.finalize().to_hex()[..16].to_owned()
    }
}
