//! From stored grey values to what is shown: modality lookup table or rescale, then a VOI lookup table or a
//! window, then inversion (PS3.3 sections C.11.1, C.11.2 and C.7.6.3.1.2).
//!
//! A frame of at most 16 bits is one lookup for each pixel: the whole chain is run once for each value that
//! occurs. Which parameters apply to a frame, its own functional groups before the shared ones before the
//! data set, is decided here too. Presentation states and overlays are deliberately absent.

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

use super::dataset::DataSet;
use super::error::DicomError;
use super::pixels::{Photometric, RawFrame, Samples, invalid};

/// Values of a frame after the modality stage, before any window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistics {
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// The mean of all values.
    pub mean: f64,
}

/// How stored values become those of the modality, such as Hounsfield units.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Modality {
    Rescale { slope: f64, intercept: f64 },
    Table(Table),
}

/// A lookup table; what lies before its first entry or behind its last is as that.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table {
    first: f64,
    entries: Vec<u16>,
    /// Bits of an entry.
    bits: u32,
}

/// How values of the modality become brightness.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Voi {
    Table(Table),
    Window {
        centre: f64,
        width: f64,
        function: Function,
    },
    /// Nothing is said: from the smallest value to the largest.
    MinMax,
}

/// The shape of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Linear,
    LinearExact,
    Sigmoid,
}

/// All that turns the grey values of one frame into brightness.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chain {
    pub modality: Modality,
    pub voi: Voi,
    /// Stored values that are no picture but filling.
    padding: Option<(f64, f64)>,
}

impl Chain {
    /// What the data set says of a frame.
    pub(crate) fn of(set: &DataSet<'_>, frame: u32) -> Result<Self, DicomError> {
        let groups = Groups::of(set, frame);
        Ok(Self { modality: modality(&groups)?, voi: voi(&groups)?, padding: padding(set) })
    }

    /// The grey picture of a frame, one byte for each pixel.
    pub(crate) fn picture(&self, frame: &RawFrame) -> Vec<u8> {
        let inverted = frame.photometric == Photometric::Monochrome1;
        match &frame.samples {
            Samples::U8(values) => self.by_table(values, usize::from, inverted),
            Samples::I8(values) => self.by_table(values, |v| usize::from(v.cast_unsigned() ^ 0x80), inverted),
            Samples::U16(values) => self.by_table(values, usize::from, inverted),
            Samples::I16(values) => {
                self.by_table(values, |v| usize::from(v.cast_unsigned() ^ 0x8000), inverted)
            }
            Samples::U32(values) => self.one_by_one(values, f64::from, inverted),
            Samples::I32(values) => self.one_by_one(values, f64::from, inverted),
            Samples::F32(values) => self.one_by_one(values, f64::from, inverted),
            Samples::F64(values) => self.one_by_one(values, |v| v, inverted),
        }
    }

    /// The smallest, the largest and the mean value after the modality stage, filling included.
    pub(crate) fn statistics(&self, frame: &RawFrame) -> Statistics {
        match &frame.samples {
            Samples::U8(values) => self.statistics_of(values, f64::from),
            Samples::I8(values) => self.statistics_of(values, f64::from),
            Samples::U16(values) => self.statistics_of(values, f64::from),
            Samples::I16(values) => self.statistics_of(values, f64::from),
            Samples::U32(values) => self.statistics_of(values, f64::from),
            Samples::I32(values) => self.statistics_of(values, f64::from),
            Samples::F32(values) => self.statistics_of(values, f64::from),
            Samples::F64(values) => self.statistics_of(values, |v| v),
        }
    }

    fn statistics_of<T: Copy>(&self, values: &[T], number: impl Fn(T) -> f64) -> Statistics {
        let (mut min, mut max, mut sum) = (f64::INFINITY, f64::NEG_INFINITY, 0.0);
        for value in values.iter().map(|&value| self.modality.apply(number(value))) {
            (min, max, sum) = (min.min(value), max.max(value), sum + value);
        }
        Statistics { min, max, mean: sum / values.len() as f64 }
    }

    /// By one table over all values between the smallest and the largest; `index` keeps their order.
    fn by_table<T>(&self, values: &[T], index: impl Fn(T) -> usize + Copy, inverted: bool) -> Vec<u8>
    where
        T: Copy + Ord + Into<f64> + Neighbour,
    {
        let Some((low, high)) = self.range(values) else { return vec![0; values.len()] };
        let (min, max) = self.ends(low.into(), high.into());
        // As long as any index can be, so that no lookup needs a check of its bounds.
        let mut table = vec![0_u8; 1 << (8 * size_of::<T>())];
        let everything = values.iter().fold((values[0], values[0]), |(a, b), &v| (a.min(v), b.max(v)));
        let mut value = everything.0;
        loop {
            let shown = self.voi.apply(self.modality.apply(value.into()), min, max);
            table[index(value)] = if inverted { 255 - shown } else { shown };
            if value == everything.1 {
                break;
            }
            value = value.next();
        }
        values.iter().map(|&value| table[index(value)]).collect()
    }

    fn one_by_one<T: Copy>(&self, values: &[T], number: impl Fn(T) -> f64, inverted: bool) -> Vec<u8> {
        let finite = values
            .iter()
            .map(|&value| number(value))
            .filter(|value| value.is_finite() && !self.is_padding(*value));
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        let (min, max) = self.ends(low, high);
        let show = |&value: &T| {
            let shown = self.voi.apply(self.modality.apply(number(value)), min, max);
            if inverted { 255 - shown } else { shown }
        };
        values.iter().map(show).collect()
    }

    /// The smallest and the largest value that is not filling; of all where there is nothing but filling.
    fn range<T: Copy + Ord + Into<f64>>(&self, values: &[T]) -> Option<(T, T)> {
        let ends = |mut values: std::slice::Iter<'_, T>| {
            let &first = values.next()?;
            Some(values.fold((first, first), |(low, high), &value| (low.min(value), high.max(value))))
        };
        if self.voi == Voi::MinMax && self.padding.is_some() {
            let kept: Vec<T> =
                values.iter().copied().filter(|&value| !self.is_padding(value.into())).collect();
            return ends(kept.iter()).or_else(|| ends(values.iter()));
        }
        ends(values.iter())
    }

    fn is_padding(&self, value: f64) -> bool {
        self.padding.is_some_and(|(low, high)| low <= value && value <= high)
    }

    /// The ends of the modality's values, whichever way the rescale runs. A table need not be monotonous.
    fn ends(&self, low: f64, high: f64) -> (f64, f64) {
        match &self.modality {
            Modality::Table(table) => {
                let (low, high) = (table.index(low), table.index(high));
                let entries = &table.entries[low.min(high)..=high.max(low)];
                let (min, max) = (entries.iter().min(), entries.iter().max());
                (min.map_or(0.0, |&v| f64::from(v)), max.map_or(0.0, |&v| f64::from(v)))
            }
            modality => {
                let (a, b) = (modality.apply(low), modality.apply(high));
                (a.min(b), a.max(b))
            }
        }
    }
}

/// The value after one, for walking a range of any integer.
trait Neighbour {
    fn next(self) -> Self;
}

macro_rules! neighbours {
    ($($number:ty),*) => {$(impl Neighbour for $number {
        fn next(self) -> Self {
            self + 1
        }
    })*};
}
neighbours!(u8, i8, u16, i16);

impl Modality {
    pub(crate) fn apply(&self, value: f64) -> f64 {
        match self {
            Self::Rescale { slope, intercept } => value * slope + intercept,
            Self::Table(table) => f64::from(table.entries[table.index(value)]),
        }
    }
}

impl Table {
    fn index(&self, value: f64) -> usize {
        // A cast saturates: what is not a number is the first entry.
        ((value - self.first) as usize).min(self.entries.len() - 1)
    }

    fn share(&self, value: f64) -> f64 {
        f64::from(self.entries[self.index(value.round())]) / ((1_u32 << self.bits) - 1) as f64
    }
}

impl Voi {
    /// Brightness from 0 to 255.
    fn apply(&self, value: f64, min: f64, max: f64) -> u8 {
        let share = match self {
            Self::Table(table) => table.share(value),
            Self::Window { centre, width, function } => function.share(value, *centre, *width),
            // One value only is shown as black.
            Self::MinMax if max > min => (value - min) / (max - min),
            Self::MinMax => 0.0,
        };
        // The cast saturates, and takes what is not a number for 0.
        (share.clamp(0.0, 1.0) * 255.0 + 0.5) as u8
    }
}

impl Function {
    /// PS3.3 section C.11.2.1.2 and C.11.2.1.3.
    fn share(self, value: f64, centre: f64, width: f64) -> f64 {
        match self {
            // A window narrower than one value is a step.
            Self::Linear if width <= 1.0 => {
                if value > centre - 0.5 {
                    1.0
                } else {
                    0.0
                }
            }
            Self::Linear => (value - (centre - 0.5)) / (width - 1.0) + 0.5,
            Self::LinearExact => (value - centre) / width + 0.5,
            Self::Sigmoid => 1.0 / (1.0 + (-4.0 * (value - centre) / width).exp()),
        }
    }
}

/// Where the parameters of a frame are looked for: its functional groups, those of all frames, the data set.
struct Groups<'a> {
    places: Vec<DataSet<'a>>,
    root: DataSet<'a>,
}

impl<'a> Groups<'a> {
    fn of(set: &DataSet<'a>, frame: u32) -> Self {
        let own = set.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).nth(frame as usize);
        let shared = set.items(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).next();
        Self { places: own.into_iter().chain(shared).collect(), root: *set }
    }

    /// The first of them that says something of the kind: an item of the sequence that has the tag, or the data
    /// set itself.
    fn find(&self, sequence: Tag, tag: Tag) -> Option<DataSet<'a>> {
        let grouped = self
            .places
            .iter()
            .find_map(|place| place.items(sequence).find(|item| item.element(tag).is_some()));
        grouped.or_else(|| self.root.element(tag).map(|_| self.root))
    }
}

fn modality(groups: &Groups<'_>) -> Result<Modality, DicomError> {
    if let Some(item) = groups.root.items(tags::MODALITY_LUT_SEQUENCE).next() {
        return table(&item).map(Modality::Table);
    }
    let plain = Modality::Rescale { slope: 1.0, intercept: 0.0 };
    let Some(item) = groups.find(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, tags::RESCALE_SLOPE) else {
        return Ok(plain);
    };
    let slope = item.numbers(tags::RESCALE_SLOPE).first().copied().unwrap_or(1.0);
    let intercept = item.numbers(tags::RESCALE_INTERCEPT).first().copied().unwrap_or(0.0);
    if !slope.is_finite() || slope == 0.0 {
        let reason = "is not a number other than zero".to_owned();
        return Err(invalid(tags::RESCALE_SLOPE, "Rescale Slope", reason));
    }
    if !intercept.is_finite() {
        return Err(invalid(tags::RESCALE_INTERCEPT, "Rescale Intercept", "is not a number".to_owned()));
    }
    Ok(Modality::Rescale { slope, intercept })
}

fn voi(groups: &Groups<'_>) -> Result<Voi, DicomError> {
    // A table says more than a window that stands beside it.
    if let Some(item) = groups.root.items(tags::VOILUT_SEQUENCE).next() {
        return table(&item).map(Voi::Table);
    }
    let Some(item) = groups.find(tags::FRAME_VOILUT_SEQUENCE, tags::WINDOW_CENTER) else {
        return Ok(Voi::MinMax);
    };
    let first = |tag| item.numbers(tag).first().copied();
    let (Some(centre), Some(width)) = (first(tags::WINDOW_CENTER), first(tags::WINDOW_WIDTH)) else {
        return Ok(Voi::MinMax);
    };
    if !centre.is_finite() {
        return Err(invalid(tags::WINDOW_CENTER, "Window Center", "is not a number".to_owned()));
    }
    if !width.is_finite() || width <= 0.0 {
        return Err(invalid(tags::WINDOW_WIDTH, "Window Width", "is not a number above zero".to_owned()));
    }
    let function = match item.code(tags::VOILUT_FUNCTION).as_deref() {
        Some("SIGMOID") => Function::Sigmoid,
        Some("LINEAR_EXACT") => Function::LinearExact,
        _ => Function::Linear,
    };
    Ok(Voi::Window { centre, width, function })
}

/// Reads a lookup table: how many entries, the value of the first, the bits of each, and the entries.
fn table(item: &DataSet<'_>) -> Result<Table, DicomError> {
    let descriptor = item.integers(tags::LUT_DESCRIPTOR);
    let [entries, first, bits] = *descriptor.first_chunk().ok_or_else(|| {
        invalid(tags::LUT_DESCRIPTOR, "LUT Descriptor", "has fewer than three values".to_owned())
    })?;
    let entries = if entries & 0xFFFF == 0 { 65_536 } else { entries as usize & 0xFFFF };
    // Signed where its own representation says so; without one it is unknown, and pixels decide.
    let signed = item.element(tags::LUT_DESCRIPTOR).is_some_and(|element| element.vr == VR::SS);
    let first = if signed { f64::from(first as i16) } else { first as f64 };
    if !(1..=16).contains(&bits) {
        return Err(invalid(
            tags::LUT_DESCRIPTOR,
            "LUT Descriptor",
            format!("declares {bits} bits an entry"),
        ));
    }
    let bytes = item.value(tags::LUT_DATA).unwrap_or_default();
    let entries = entries_of(item, bytes, entries, bits as u32).ok_or_else(|| {
        let reason = format!("has {} bytes, too few for {entries} entries", bytes.len());
        invalid(tags::LUT_DATA, "LUT Data", reason)
    })?;
    Ok(Table { first, entries, bits: bits as u32 })
}

/// The entries of a table: bytes where there are no more than one for each entry of at most 8 bits, else words.
pub(crate) fn entries_of(set: &DataSet<'_>, bytes: &[u8], entries: usize, bits: u32) -> Option<Vec<u16>> {
    if bits <= 8 && bytes.len() < 2 * entries {
        let bytes = bytes.get(..entries)?;
        return Some(bytes.iter().map(|&byte| u16::from(byte)).collect());
    }
    let mask = u16::MAX >> (16 - bits);
    let big = set.big_endian;
    let word = |pair: &[u8]| {
        if big { u16::from_be_bytes([pair[0], pair[1]]) } else { u16::from_le_bytes([pair[0], pair[1]]) }
    };
    Some(bytes.get(..2 * entries)?.chunks_exact(2).map(|pair| word(pair) & mask).collect())
}

fn padding(set: &DataSet<'_>) -> Option<(f64, f64)> {
    let signed = set.integer(tags::PIXEL_REPRESENTATION) == Some(1);
    let value = |tag| {
        let value = set.integer(tag)?;
        // Of unknown representation it was read without a sign.
        Some(if signed && value > 0x7FFF && value <= 0xFFFF {
            f64::from(value as u16 as i16)
        } else {
            value as f64
        })
    };
    let one = value(tags::PIXEL_PADDING_VALUE)?;
    let other = value(tags::PIXEL_PADDING_RANGE_LIMIT).unwrap_or(one);
    Some((one.min(other), one.max(other)))
}
