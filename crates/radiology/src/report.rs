//! Reports: their sections and sentences.
