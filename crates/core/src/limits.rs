//! Every bound of the system in one place. Anything larger is refused with an error that names the
//! bound; nothing is silently cut to fit.

/// Most hits one search may ask for.
pub const K_MAX: usize = 1_000;
/// Largest candidate list a graph search may keep.
pub const EF_MAX: usize = 4_096;
/// Longest text, in bytes, that is tokenised.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Largest encoded image file, in bytes.
pub const IMAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most pixels a decoded image may have; the header is checked before anything is decoded.
pub const IMAGE_PIXELS_MAX: u64 = 64_000_000;
/// Longest record key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// Longest collection name, in bytes.
pub const COLLECTION_NAME_BYTES_MAX: usize = 64;
/// Most images and texts one record may have.
pub const PARTS_MAX: usize = 256;
/// Most embeddings one record may have: its images, its texts and the chunks of its long texts.
pub const POINTS_MAX: usize = 1_024;
/// Most attributes one record may have.
pub const ATTRIBUTES_MAX: usize = 256;
/// Longest attribute name, in bytes.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 128;
/// Longest attribute string, in bytes.
pub const ATTRIBUTE_VALUE_BYTES_MAX: usize = 64 * 1024;
/// Longest text, in bytes, that a filter may ask an attribute to begin with.
pub const FILTER_PREFIX_BYTES_MAX: usize = 64;
/// Longest request id, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Most dimensions an embedding may have.
pub const DIM_MAX: usize = 65_536;
/// Most conditions of a filter that may lie within each other.
pub const FILTER_DEPTH_MAX: usize = 16;
/// Most values a filter may name; a condition without one counts as one.
pub const FILTER_VALUES_MAX: usize = 1_024;
/// Most terms one query may have.
pub const TERMS_MAX: usize = 32;
/// Most images and texts that one search by a set may have.
pub const SET_PARTS_MAX: usize = 256;
/// Most neighbours of each of them that such a search looks at.
pub const POOL_MAX: usize = 1_000;
/// Largest small picture of an image that is kept, in bytes.
pub const THUMBNAIL_BYTES_MAX: usize = 256 * 1024;
/// Most labels that one classification chooses among.
pub const LABELS_MAX: usize = 1_000;
/// Most prompts that one label may have.
pub const PROMPTS_MAX: usize = 100;
/// Most attributes whose values one query may have counted.
pub const FACETS_MAX: usize = 16;
/// Most values of one attribute that are answered with their counts.
pub const FACET_VALUES_MAX: usize = 1_000;
/// Largest weight of a term, either way.
pub const WEIGHT_MAX: f32 = 1_000.0;
/// Largest constant of reciprocal rank fusion.
pub const RANK_CONSTANT_MAX: f32 = 10_000.0;
