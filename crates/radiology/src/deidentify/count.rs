//! How much was removed, by kind of identifier: numbers, never values.

use std::collections::BTreeMap;
use std::fmt;

/// A kind of identifying value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Names of people.
    Name,
    /// Numbers and codes of patients, studies, accounts and people.
    Identifier,
    /// DICOM UIDs.
    Uid,
    /// Dates, and moments with a date.
    Date,
    /// Times of day.
    Time,
    /// Ages; in texts those over 89 alone.
    Age,
    /// Addresses and places.
    Address,
    /// Phone numbers, e-mail and web addresses.
    Contact,
    /// Hospitals, clinics, departments.
    Institution,
    /// Names and numbers of devices.
    Device,
    /// Descriptions and other free text.
    Text,
    /// Overlays, curves and drawn annotation.
    Graphic,
    /// Private attributes.
    Private,
    /// Anything else that the profile names.
    Other,
}

/// Numbers by kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts(BTreeMap<Kind, u64>);

impl Kind {
    /// One lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Identifier => "identifier",
            Self::Uid => "uid",
            Self::Date => "date",
            Self::Time => "time",
            Self::Age => "age",
            Self::Address => "address",
            Self::Contact => "contact",
            Self::Institution => "institution",
            Self::Device => "device",
            Self::Text => "text",
            Self::Graphic => "graphic",
            Self::Private => "private",
            Self::Other => "other",
        }
    }
}

impl Counts {
    /// How many of a kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.0.get(&kind).copied().unwrap_or(0)
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// The kinds that occur, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, u64)> + '_ {
        self.0.iter().map(|(kind, count)| (*kind, *count))
    }

    /// Adds the numbers of another count.
    pub fn add(&mut self, other: &Self) {
        for (kind, count) in other.iter() {
            *self.0.entry(kind).or_default() += count;
        }
    }

    pub(super) fn one(&mut self, kind: Kind) {
        *self.0.entry(kind).or_default() += 1;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (i, (kind, count)) in self.iter().enumerate() {
            write!(f, "{}{} {count}", if i == 0 { "" } else { ", " }, kind.as_str())?;
        }
        Ok(())
    }
}
