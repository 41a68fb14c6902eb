//! The one place where encoding, index and store meet.
