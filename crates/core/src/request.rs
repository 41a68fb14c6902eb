//! Ids by which a repeated request is recognised. Deliberately absent: how long they are remembered.

use crate::NameError;
use crate::limits::REQUEST_ID_BYTES_MAX;
use crate::record::check_name;

/// The id that a client gave a write, such as a UUID: repeated with the same id, the write is done once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(String);

impl RequestId {
    /// Checks an id: 1 to 128 bytes, no control characters.
    ///
    /// # Errors
    /// [`NameError`] when it is empty, too long or contains such a character.
    pub fn new(id: impl Into<String>) -> Result<Self, NameError> {
        let id = id.into();
        check_name("request id", &id, REQUEST_ID_BYTES_MAX)?;
        Ok(Self(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_bounded() {
        assert!(RequestId::new("7f9c24e8-3b12-4fef-91e0-39ba1d9b1234").is_ok());
        assert!(RequestId::new("").is_err() && RequestId::new("a\nb").is_err());
        assert!(RequestId::new("x".repeat(REQUEST_ID_BYTES_MAX + 1)).is_err());
    }
}
