//! Records as rows of an export, and back.
//!
//! A row pairs an image with a text, as clip-retrieval has it. A record has as many rows as it has images,
//! or texts, whichever are more: the n-th row has the n-th image and the n-th text; of a long text, each
//! chunk counts as one. Where there is no n-th, the part is absent, its vector is zeros, and its text is
//! empty. The rows of a record stand together, and each has the record's attributes.

use diptych_core::{Digest, ImagePart, Key, Modality, Part, PartRef, Record, TextPart};

use crate::attributes;
use crate::import::Vectors;
use crate::table::TableRow;

/// What is said of a row's two vectors.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Row {
    /// The image's source.
    pub(crate) image_path: String,
    /// The text, or the chunk of one.
    pub(crate) caption: String,
    /// The record.
    pub(crate) key: String,
    /// Which image of the record.
    pub(crate) image_part: Option<String>,
    /// Which text or chunk of the record.
    pub(crate) text_part: Option<String>,
    /// BLAKE3 of the image's file, in hexadecimal digits; absent when it is not known.
    pub(crate) image_digest: Option<String>,
    pub(crate) image_width: Option<u32>,
    pub(crate) image_height: Option<u32>,
    /// Tokens of the whole text that no vector sees.
    pub(crate) truncated_tokens: Option<u32>,
    /// JSON.
    pub(crate) attributes: String,
}

/// The digest of an image whose file is not known.
const NO_DIGEST: Digest = Digest([0; 32]);

impl Row {
    /// Bytes of its texts.
    pub(crate) fn bytes(&self) -> usize {
        self.image_path.len() + self.caption.len() + self.key.len() + self.attributes.len()
    }

    fn set_image(&mut self, part: PartRef, image: &ImagePart) {
        self.image_path.clone_from(&image.source);
        self.image_part = Some(part.to_string());
        self.image_digest = (image.digest != NO_DIGEST).then(|| image.digest.to_string());
        self.image_width = Some(image.width);
        self.image_height = Some(image.height);
    }

    fn set_text(&mut self, part: PartRef, text: &TextPart) {
        let range = part.chunk.and_then(|n| text.chunk(n));
        self.caption = text.text[range.unwrap_or(0..text.text.len())].to_owned();
        self.text_part = Some(part.to_string());
        self.truncated_tokens = Some(text.truncated_tokens);
    }
}

/// One row with the parts whose vectors belong to it.
pub(crate) struct Paired {
    pub(crate) row: Row,
    pub(crate) image: Option<PartRef>,
    pub(crate) text: Option<PartRef>,
}

/// The rows of a record.
pub(crate) fn of_record(record: &Record) -> Vec<Paired> {
    let of = |modality: Modality| record.part_refs().filter(move |(part, _)| part.modality == modality);
    let (mut images, mut texts) = (of(Modality::Image), of(Modality::Text));
    let attributes = attributes::to_json(record.attributes());
    let mut rows = Vec::new();
    loop {
        let (image, text) = (images.next(), texts.next());
        if image.is_none() && text.is_none() {
            return rows;
        }
        let mut row = Row { key: record.key().to_string(), attributes: attributes.clone(), ..Row::default() };
        if let Some((part, Part::Image(image))) = image {
            row.set_image(part, image);
        }
        if let Some((part, Part::Text(text))) = text {
            row.set_text(part, text);
        }
        rows.push(Paired { row, image: image.map(|(part, _)| part), text: text.map(|(part, _)| part) });
    }
}

/// The columns by which rows of an export are recognised.
pub(crate) const OWN_COLUMNS: [&str; 4] = ["key", "image_part", "text_part", "attributes"];

/// A row of an export as it is read, with its vectors.
pub(crate) struct ReadRow {
    pub(crate) row: TableRow,
    pub(crate) image: Option<Vec<f32>>,
    pub(crate) text: Option<Vec<f32>>,
}

/// The record of some rows with the same key, and its vectors.
pub(crate) fn to_record(rows: Vec<ReadRow>) -> Result<(Record, Vectors), String> {
    let first = rows.first().map(|read| &read.row).ok_or("there are no rows")?;
    let key = Key::new(first.text("key").unwrap_or_default()).map_err(|e| e.to_string())?;
    let attributes = attributes::from_json(first.text("attributes").ok_or("it has no attributes")?)?;
    let (mut images, mut texts): (Vec<Part>, Vec<TextPart>) = Default::default();
    let mut vectors = Vectors::new();
    for ReadRow { row, image, text } in rows {
        if let Some(name) = row.text("image_part") {
            let expected = PartRef::whole(Modality::Image, images.len() as u32);
            if name != expected.to_string() {
                return Err(out_of_order(name, expected));
            }
            images.push(Part::Image(image_of(&row)?));
            vectors.push((expected, image.ok_or_else(|| no_vector(expected))?));
        }
        if let Some(name) = row.text("text_part") {
            let part = add_text(&mut texts, name, &row)?;
            vectors.push((part, text.ok_or_else(|| no_vector(part))?));
        }
    }
    let parts = images.into_iter().chain(texts.into_iter().map(Part::Text)).collect();
    let record = Record::new(key, parts, attributes).map_err(|e| e.to_string())?;
    Ok((record, vectors))
}

fn out_of_order(name: &str, expected: PartRef) -> String {
    let name: String = name.chars().take(32).collect();
    format!(
        "its part '{name}' comes where {expected} is expected; keep the rows of a record together and in order"
    )
}

fn no_vector(part: PartRef) -> String {
    format!("there is no vector for {part}, since there is no array of {}s beside it", part.modality)
}

fn image_of(row: &TableRow) -> Result<ImagePart, String> {
    let digest = match row.text("image_digest") {
        None => NO_DIGEST,
        Some(hex) => digest(hex).ok_or("its image_digest is no BLAKE3 in 64 hexadecimal digits")?,
    };
    let size = |column: &str| row.number(column).unwrap_or_default();
    let (width, height) = (size("image_width"), size("image_height"));
    Ok(ImagePart { source: row.text("image_path").unwrap_or_default().to_owned(), digest, width, height })
}

pub(crate) fn digest(hex: &str) -> Option<Digest> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).ok()?;
    }
    Some(Digest(bytes))
}

/// Takes up a text, or the next chunk of one.
fn add_text(texts: &mut Vec<TextPart>, name: &str, row: &TableRow) -> Result<PartRef, String> {
    let part: PartRef = name.parse()?;
    let caption = row.text("caption").unwrap_or_default();
    let truncated = row.number("truncated_tokens").unwrap_or_default();
    let begun = texts.last().map_or(0, |text| text.chunk_ends.len() as u32);
    let next = texts.len() as u32;
    match part {
        PartRef { modality: Modality::Text, ordinal, chunk: None } if ordinal == next => {
            texts.push(TextPart::whole(caption, truncated));
        }
        PartRef { modality: Modality::Text, ordinal, chunk: Some(0) } if ordinal == next => {
            let chunk_ends = vec![caption.len() as u32];
            texts.push(TextPart { text: caption.to_owned(), truncated_tokens: truncated, chunk_ends });
        }
        PartRef { modality: Modality::Text, ordinal, chunk: Some(n) }
            if ordinal + 1 == next && n == begun =>
        {
            let text = texts.last_mut().expect("a text that has begun");
            text.text.push_str(caption);
            text.chunk_ends.push(u32::try_from(text.text.len()).map_err(|_| "its text is too long")?);
        }
        _ => return Err(out_of_order(name, PartRef::whole(Modality::Text, next))),
    }
    match texts.last() {
        Some(text) if text.text.len() > diptych_core::limits::TEXT_BYTES_MAX => {
            Err(format!("{part} has more than {} bytes; shorten it", diptych_core::limits::TEXT_BYTES_MAX))
        }
        _ => Ok(part),
    }
}
