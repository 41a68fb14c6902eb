//! Text in the character sets of DICOM (PS3.3 section C.12.1.1.2).
//!
//! Owns: which decoder a Specific Character Set names, code extensions by escape sequences among them, and
//! what becomes of text that declares none. Not here: which elements hold text.

use dicom_dictionary_std::tags;
use dicom_encoding::text::{SpecificCharacterSet, TextCodec};

use super::error::DicomError;

/// How the text of a file is decoded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Charset {
    /// None declared: ASCII, and where it is not, UTF-8 if it is that, else Latin 1.
    Undeclared,
    /// A known one.
    Known(SpecificCharacterSet),
    /// One that nobody knows; only ASCII can be trusted.
    Unknown,
}

impl Charset {
    /// The character set that a value of Specific Character Set names.
    pub(crate) fn named(value: &str) -> Self {
        let names: Vec<String> = value.split('\\').map(canonical).filter(|name| !name.is_empty()).collect();
        // Of several, the one with many bytes a character: its decoder reads ASCII too.
        let wide = ["87", "159", "149", "58"].map(|number| format!("ISO 2022 IR {number}"));
        let name = wide.iter().find(|wide| names.contains(wide)).or(names.first());
        match name.map(String::as_str) {
            None | Some("ISO_IR 6" | "ISO 2022 IR 6") => Self::Undeclared,
            Some(name) => SpecificCharacterSet::from_code(name).map_or(Self::Unknown, Self::Known),
        }
    }

    /// The text in these bytes, without the filling around it.
    ///
    /// # Errors
    ///
    /// [`DicomError::Invalid`] for anything but ASCII in a character set that is not known.
    pub(crate) fn decode(&self, bytes: &[u8]) -> Result<String, DicomError> {
        if bytes.is_ascii() && !bytes.contains(&0x1B) {
            return Ok(trim(&String::from_utf8_lossy(bytes)));
        }
        match self {
            Self::Undeclared => Ok(trim(&match std::str::from_utf8(bytes) {
                Ok(text) => text.to_owned(),
                Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
            })),
            Self::Known(codec) => {
                Ok(trim(&codec.decode(&without_designations(bytes)).unwrap_or_else(|_| ascii_of(bytes))))
            }
            Self::Unknown => Err(DicomError::Invalid {
                tag: tags::SPECIFIC_CHARACTER_SET,
                name: "Specific Character Set",
                reason: "names no character set that is known, and there is text beyond ASCII".to_owned(),
            }),
        }
    }
}

fn canonical(name: &str) -> String {
    let name =
        name.trim_matches(|c: char| c == ' ' || c == '\0').to_ascii_uppercase().replace(['-', '_'], " ");
    match name.strip_prefix("ISO IR ") {
        Some(number) => format!("ISO_IR {number}"),
        None => name,
    }
}

/// Without the escape sequences that designate a set and change no bytes: `ESC $ ) x`, `ESC - x`, `ESC ) x`.
fn without_designations(bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match tail {
            [b'$', b')', _, tail @ ..] if byte == 0x1B => tail,
            [b'-' | b')', _, tail @ ..] if byte == 0x1B => tail,
            _ => {
                kept.push(byte);
                tail
            }
        };
    }
    kept
}

fn ascii_of(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|&byte| if byte.is_ascii() { char::from(byte) } else { char::REPLACEMENT_CHARACTER })
        .collect()
}

fn trim(text: &str) -> String {
    text.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn text_is_decoded_by_the_set_that_is_declared() {
        assert_eq!(Charset::named("ISO_IR 100").decode(b"Buc^J\xe9r\xf4me ").unwrap(), "Buc^Jérôme");
        assert_eq!(Charset::named("ISO-IR 192").decode("Ωmega\0".as_bytes()).unwrap(), "Ωmega");
        assert_eq!(Charset::named("ISO_IR 144").decode(b"\xbb\xee").unwrap(), "Лю");
        let japanese = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B";
        assert_eq!(Charset::named("\\ISO 2022 IR 87").decode(japanese).unwrap(), "Yamada^Tarou=山田^太郎");
        let korean = b"Hong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce";
        assert_eq!(Charset::named("\\ISO 2022 IR 149").decode(korean).unwrap(), "Hong=洪^吉");
    }

    #[test]
    fn text_without_a_declared_set_is_utf8_or_latin() {
        assert_eq!(Charset::named("").decode("é".as_bytes()).unwrap(), "é");
        assert_eq!(Charset::named("ISO_IR 6").decode(b"\xe9").unwrap(), "é");
    }

    #[test]
    fn an_unknown_set_is_refused_only_where_it_matters() {
        let odd = Charset::named("KLINGON 1");
        assert_eq!(odd.decode(b"plain ").unwrap(), "plain");
        let error = odd.decode(b"caf\xe9").unwrap_err().to_string();
        assert!(error.contains("(0008,0005)") && !error.contains("caf"), "{error}");
    }
}
