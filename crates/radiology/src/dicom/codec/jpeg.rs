//! JPEG streams (ITU-T T.81): markers, tables, and the choice of the process.
//!
//! Owns: everything around the scans. Sequential processes are in `jpeg_dct` (8 and 12 bits) and
//! `jpeg_lossless`; a progressive stream, which no DICOM syntax of today allows, is left to the crate image.
//! Deliberately absent: hierarchical and arithmetic processes, refused by name; conversion of colours.

use super::huffman::Huffman;
use super::{Colours, Decoded, DicomError, Patterns, Shape, jpeg_dct, jpeg_lossless};

const CODEC: &str = "JPEG";

/// A colour component of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Component {
    pub id: u8,
    /// Sampling factors.
    pub horizontal: usize,
    pub vertical: usize,
    pub quantiser: usize,
}

/// A frame header, and the tables in force.
pub(super) struct Frame {
    pub precision: u32,
    pub rows: usize,
    pub columns: usize,
    pub components: Vec<Component>,
    pub quantisers: [Option<[u16; 64]>; 4],
    pub dc: [Option<Huffman>; 4],
    pub ac: [Option<Huffman>; 4],
    /// Units between restart markers; zero for none.
    pub restart: usize,
}

/// A scan header.
pub(super) struct Scan {
    /// Index of each component, and its tables of codes.
    pub components: Vec<(usize, usize, usize)>,
    /// Ss: the predictor, in a lossless scan.
    pub start: u8,
    /// Al: the point transform, in a lossless scan.
    pub low: u8,
}

/// The marker of the first frame header of a stream.
pub(super) fn start_of_frame(stream: &[u8]) -> Option<u8> {
    let mut markers = Markers { stream, at: 0 };
    while let Ok(Some((marker, _))) = markers.next() {
        match marker {
            0xC4 | 0xC8 | 0xCC => {}
            0xC0..=0xCF | 0xF7 => return Some(marker),
            0xDA => return None,
            _ => {}
        }
    }
    None
}

/// Decodes a frame.
pub(super) fn decode(stream: &[u8], shape: Shape) -> Result<Decoded, DicomError> {
    let mut markers = Markers { stream, at: 0 };
    let mut frame: Option<(u8, Frame)> = None;
    let mut tables = Tables::default();
    let mut marks = Marks::default();
    let mut sink = Sink::None;
    while let Some((marker, body)) = markers.next()? {
        match marker {
            0xC4 => tables.huffman(body)?,
            0xDB => tables.quantisers(body)?,
            0xDD => tables.restart = usize::from(word(body, 0)?),
            0xEE if body.starts_with(b"Adobe") => marks.adobe = body.get(11).copied(),
            0xE0 if body.starts_with(b"JFIF") => marks.jfif = true,
            0xC2 | 0xC6 => return progressive(stream, shape),
            0xC0 | 0xC1 | 0xC3 => {
                if frame.is_some() {
                    return Err(DicomError::codec(CODEC, "it has two frame headers"));
                }
                let header = frame_header(body, shape)?;
                sink = Sink::new(marker, &header, shape)?;
                frame = Some((marker, header));
            }
            0xC5..=0xCF if marker != 0xC8 && marker != 0xCC => return Err(unsupported_process(marker)),
            0xDA => {
                let Some((_, frame)) = &mut frame else {
                    return Err(DicomError::codec(CODEC, "a scan comes before the frame header"));
                };
                tables.move_into(frame);
                let scan = scan_header(body, frame)?;
                sink.scan(frame, &scan, &stream[markers.at..])?;
                if sink.is_complete() {
                    break;
                }
                markers.skip_scan();
            }
            0xD9 => break,
            _ => {}
        }
    }
    let Some((_, frame)) = frame else { return Err(DicomError::codec(CODEC, "there is no frame header")) };
    if !sink.is_complete() {
        return Err(DicomError::codec(CODEC, "the scan of a component is missing"));
    }
    let colours = colours(&frame, marks);
    Ok(Decoded { bits: Some(frame.precision), colours, ..Decoded::plain(sink.finish(&frame)) })
}

/// Marks that tell about colours.
#[derive(Clone, Copy, Default)]
struct Marks {
    jfif: bool,
    /// The colour transform of an Adobe marker.
    adobe: Option<u8>,
}

/// What a stream says of its colours where it says it plainly: components with the names of colours, or a mark
/// that promises luminance and chrominance. The absence of marks says nothing (PS3.5 section 8.2.1).
fn colours(frame: &Frame, marks: Marks) -> Option<Colours> {
    let ids: Vec<u8> = frame.components.iter().map(|component| component.id.to_ascii_uppercase()).collect();
    match ids.as_slice() {
        b"RGB" => Some(Colours::Rgb),
        [_, _, _] if marks.jfif || marks.adobe == Some(1) => Some(Colours::Ybr),
        _ => None,
    }
}

/// Where the scans of a process go.
enum Sink {
    None,
    Lossless(jpeg_lossless::Planes),
    Dct(jpeg_dct::Planes),
}

impl Sink {
    fn new(marker: u8, frame: &Frame, shape: Shape) -> Result<Self, DicomError> {
        match marker {
            0xC3 => jpeg_lossless::Planes::new(frame, shape).map(Self::Lossless),
            _ => jpeg_dct::Planes::new(frame).map(Self::Dct),
        }
    }

    fn scan(&mut self, frame: &Frame, scan: &Scan, data: &[u8]) -> Result<(), DicomError> {
        match self {
            Self::None => Err(DicomError::codec(CODEC, "a scan comes before the frame header")),
            Self::Lossless(planes) => planes.scan(frame, scan, data),
            Self::Dct(planes) => planes.scan(frame, scan, data),
        }
    }

    fn is_complete(&self) -> bool {
        match self {
            Self::None => false,
            Self::Lossless(planes) => planes.is_complete(),
            Self::Dct(planes) => planes.is_complete(),
        }
    }

    fn finish(self, frame: &Frame) -> Patterns {
        match self {
            Self::None => Patterns::Bytes(Vec::new()),
            Self::Lossless(planes) => planes.finish(frame),
            Self::Dct(planes) => planes.finish(frame),
        }
    }
}

/// A progressive stream, by the decoder of photographs; of eight bits, colours already red, green and blue.
fn progressive(stream: &[u8], shape: Shape) -> Result<Decoded, DicomError> {
    let mut markers = Markers { stream, at: 0 };
    while let Some((marker, body)) = markers.next()? {
        if marker == 0xC2 {
            frame_header(body, shape)?;
            break;
        }
        if marker == 0xC6 || marker == 0xDA {
            return Err(unsupported_process(marker));
        }
    }
    let image = image::load_from_memory_with_format(stream, image::ImageFormat::Jpeg)
        .map_err(|error| DicomError::codec(CODEC, error.to_string()))?;
    let bytes = match shape.samples {
        1 => image.into_luma8().into_raw(),
        _ => image.into_rgb8().into_raw(),
    };
    if bytes.len() != shape.len() {
        return Err(DicomError::codec(CODEC, "the decoded frame has another size than its header says"));
    }
    let colours = (shape.samples == 3).then_some(Colours::Rgb);
    Ok(Decoded { colours, ..Decoded::plain(Patterns::Bytes(bytes)) })
}

fn unsupported_process(marker: u8) -> DicomError {
    let what = match marker {
        0xC6 | 0xC5 | 0xC7 | 0xCD..=0xCF => "hierarchical JPEG",
        0xC9..=0xCB => "JPEG with arithmetic coding",
        _ => "this process of JPEG",
    };
    DicomError::unsupported(what)
}

/// The markers of a stream, each with its body.
struct Markers<'a> {
    stream: &'a [u8],
    at: usize,
}

impl<'a> Markers<'a> {
    /// The next marker; none at the end of the stream.
    fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, DicomError> {
        loop {
            let rest = self.stream.get(self.at..).unwrap_or_default();
            let Some(start) =
                rest.windows(2).position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF))
            else {
                return Ok(None);
            };
            let marker = rest[start + 1];
            self.at += start + 2;
            match marker {
                0xD8 | 0x01 | 0xD0..=0xD7 => {}
                0xD9 => return Ok(Some((marker, &[]))),
                _ => {
                    let length = usize::from(word(self.stream, self.at)?);
                    let body = self.stream.get(self.at + 2..self.at + length.max(2));
                    let body = body.ok_or_else(|| DicomError::codec(CODEC, "a segment is cut short"))?;
                    self.at += length.max(2);
                    return Ok(Some((marker, body)));
                }
            }
        }
    }

    /// Goes to the marker behind the coded bits that begin here.
    fn skip_scan(&mut self) {
        let rest = self.stream.get(self.at..).unwrap_or_default();
        let end =
            rest.windows(2).position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xD0..=0xD7 | 0xFF));
        self.at += end.unwrap_or(rest.len());
    }
}

#[derive(Default)]
struct Tables {
    quantisers: [Option<[u16; 64]>; 4],
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    restart: usize,
}

impl Tables {
    fn huffman(&mut self, mut body: &[u8]) -> Result<(), DicomError> {
        while let Some((&head, rest)) = body.split_first() {
            let short = || DicomError::codec(CODEC, "a Huffman table is cut short");
            let counts: &[u8; 16] = rest.first_chunk().ok_or_else(short)?;
            let total: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let symbols = rest.get(16..16 + total).ok_or_else(short)?;
            let place = usize::from(head & 15);
            let tables = if head >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            let table =
                tables.get_mut(place).ok_or_else(|| DicomError::codec(CODEC, "a table has no place"))?;
            *table = Some(Huffman::new(counts, symbols)?);
            body = &rest[16 + total..];
        }
        Ok(())
    }

    fn quantisers(&mut self, mut body: &[u8]) -> Result<(), DicomError> {
        while let Some((&head, rest)) = body.split_first() {
            let wide = head >> 4 != 0;
            let bytes = if wide { 128 } else { 64 };
            let short = || DicomError::codec(CODEC, "a quantisation table is cut short");
            let values = rest.get(..bytes).ok_or_else(short)?;
            let mut table = [0; 64];
            for (index, value) in table.iter_mut().enumerate() {
                *value = if wide { word(values, 2 * index)? } else { u16::from(values[index]) };
            }
            let place = self.quantisers.get_mut(usize::from(head & 15));
            *place.ok_or_else(|| DicomError::codec(CODEC, "a table has no place"))? = Some(table);
            body = &rest[bytes..];
        }
        Ok(())
    }

    /// Puts the tables that have come since in force.
    fn move_into(&mut self, frame: &mut Frame) {
        for index in 0..4 {
            if let Some(table) = self.dc[index].take() {
                frame.dc[index] = Some(table);
            }
            if let Some(table) = self.ac[index].take() {
                frame.ac[index] = Some(table);
            }
            if let Some(table) = self.quantisers[index].take() {
                frame.quantisers[index] = Some(table);
            }
        }
        frame.restart = self.restart;
    }
}

fn frame_header(body: &[u8], shape: Shape) -> Result<Frame, DicomError> {
    let short = || DicomError::codec(CODEC, "the frame header is cut short");
    let precision = u32::from(*body.first().ok_or_else(short)?);
    let (rows, columns) = (word(body, 1)?, word(body, 3)?);
    let count = usize::from(*body.get(5).ok_or_else(short)?);
    shape.check(CODEC, u32::from(rows), u32::from(columns), count)?;
    let mut components = Vec::new();
    for index in 0..count {
        let [id, sampling, quantiser] =
            *body.get(6 + 3 * index..).and_then(|rest| rest.first_chunk()).ok_or_else(short)?;
        let (horizontal, vertical) = (usize::from(sampling >> 4), usize::from(sampling & 15));
        if !(1..=4).contains(&horizontal) || !(1..=4).contains(&vertical) || quantiser > 3 {
            return Err(DicomError::codec(CODEC, "a component is sampled in an impossible way"));
        }
        components.push(Component { id, horizontal, vertical, quantiser: usize::from(quantiser) });
    }
    let (rows, columns) = (usize::from(rows), usize::from(columns));
    let (quantisers, dc, ac) = Default::default();
    Ok(Frame { precision, rows, columns, components, quantisers, dc, ac, restart: 0 })
}

fn scan_header(body: &[u8], frame: &Frame) -> Result<Scan, DicomError> {
    let short = || DicomError::codec(CODEC, "a scan header is cut short");
    let count = usize::from(*body.first().ok_or_else(short)?);
    let mut components: Vec<(usize, usize, usize)> = Vec::new();
    for index in 0..count {
        let [id, tables] =
            *body.get(1 + 2 * index..).and_then(|rest| rest.first_chunk()).ok_or_else(short)?;
        let component = frame.components.iter().position(|component| component.id == id);
        let component = component.ok_or_else(|| DicomError::codec(CODEC, "a scan is of no component"))?;
        if components.iter().any(|&(other, ..)| other == component) {
            return Err(DicomError::codec(CODEC, "a scan names a component twice"));
        }
        components.push((component, usize::from(tables >> 4 & 3), usize::from(tables & 3)));
    }
    if components.is_empty() {
        return Err(DicomError::codec(CODEC, "a scan is of no component"));
    }
    let [start, _, approximation] =
        *body.get(1 + 2 * count..).and_then(|rest| rest.first_chunk()).ok_or_else(short)?;
    Ok(Scan { components, start, low: approximation & 15 })
}

fn word(bytes: &[u8], at: usize) -> Result<u16, DicomError> {
    match bytes.get(at..at + 2) {
        Some(pair) => Ok(u16::from_be_bytes([pair[0], pair[1]])),
        None => Err(DicomError::codec(CODEC, "a segment is cut short")),
    }
}
