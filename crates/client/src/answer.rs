//! What a server answers, as plain values.
//!
//! Owns: the values and how they are read from the wire. Deliberately absent: calls.

use std::ops::Range;
use std::time::Duration;

use diptych_core::{
    AttributeSchema, Attributes, CollectionName, Digest, FacetCounts, ImagePart, Key, PartRef, Plan, Time,
};
use diptych_proto::Timestamp;
use diptych_proto::convert::{
    attributes_from_wire, facet_counts_from_wire, part_ref_from_wire, plan_from_wire, schema_from_wire,
    time_from_wire,
};
use diptych_proto::v1 as wire;

use crate::Error;

/// The answer to a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Best first, one per record.
    pub hits: Vec<Hit>,
    /// With a `min_relevance` that no record has: the best that there are, which are no good matches.
    pub below: Vec<Hit>,
    /// Whether `min_relevance` was given and no record has it.
    pub no_good_match: bool,
    /// Gives the next page; absent on the last one.
    pub next_page_token: Option<String>,
    /// What the search did.
    pub stats: SearchStats,
    /// The counts of attribute values, as they were asked for, in that order.
    pub facets: Vec<FacetCounts>,
    /// What the answer was made from: see [`Client::replay`](crate::Client::replay).
    pub receipt: Receipt,
}

/// A record that answers a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The record.
    pub key: Key,
    /// Cosine similarity of the query and the best part, -1 to 1.
    pub score: f32,
    /// The probability that it is a match, 0 to 1; absent where the collection has too few pairs to learn it from.
    pub relevance: Option<f64>,
    /// The record's best part; absent when it was not asked for.
    pub part: Option<Part>,
    /// The record's attributes.
    pub attributes: Attributes,
    /// The cosine of the best part with every term, in their order; empty for a single one.
    pub term_scores: Vec<f32>,
    /// The text that has the words, where there are words and it has any.
    pub lexical: Option<LexicalMatch>,
    /// A small picture, as a JPEG file; absent when it was not asked for or none is kept.
    pub thumbnail: Option<Vec<u8>>,
}

impl Hit {
    /// The text that was found; of a long text, the chunk. Absent when it was an image.
    pub fn text(&self) -> Option<&str> {
        match &self.part.as_ref()?.content {
            Some(PartContent::Text(text)) => Some(&text.text),
            _ => None,
        }
    }
}

/// A text that has the words.
#[derive(Debug, Clone, PartialEq)]
pub struct LexicalMatch {
    /// Its BM25 score.
    pub score: f32,
    /// The text, or the chunk of it.
    pub part: Part,
}

impl LexicalMatch {
    /// The text.
    pub fn text(&self) -> &str {
        match &self.part.content {
            Some(PartContent::Text(text)) => &text.text,
            _ => "",
        }
    }
}

/// One piece of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its place in the record.
    pub at: PartRef,
    /// What is kept of it.
    pub content: Option<PartContent>,
}

/// What is kept of a part.
#[derive(Debug, Clone, PartialEq)]
pub enum PartContent {
    /// An image: where it came from and what it was.
    Image(ImagePart),
    /// A text.
    Text(TextContent),
}

/// What is kept of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextContent {
    /// The text as given; in a hit of a chunk, that chunk.
    pub text: String,
    /// Tokens beyond the model's context, which no embedding sees.
    pub truncated_tokens: u32,
    /// In a hit of a chunk, its bytes in the text as given.
    pub span: Option<Range<usize>>,
    /// In a record, the chunks that a long text is searched by, in bytes; empty when it is one piece.
    pub chunks: Vec<Range<usize>>,
}

/// What a search did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SearchStats {
    /// How the nearest were found; absent where the client does not know the way.
    pub plan: Option<Plan>,
    /// The size of the candidate list; absent after a scan.
    pub ef: Option<u64>,
    /// Points that could be found.
    pub searched_points: u64,
    /// Points whose records meet the filter; absent without one.
    pub matching_points: Option<u64>,
    /// Time to turn the query into vectors.
    pub encode: Duration,
    /// Time in the index.
    pub search: Duration,
    /// Time to look up words.
    pub lexical: Duration,
    /// Records that have the words; absent without any.
    pub lexical_matches: Option<u64>,
    /// Time to read the hits from the store.
    pub fetch: Duration,
    /// Tokens of the query text beyond the model's context.
    pub truncated_tokens: u32,
    /// What the caller may want to know.
    pub notes: Vec<String>,
}

/// What an answer was made from. Keep its message to ask again later.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Receipt {
    /// As the server made it.
    pub message: wire::Receipt,
}

impl Receipt {
    /// The model's id.
    pub fn model_id(&self) -> &str {
        &self.message.model_id
    }

    /// The position in the order of writes up to which the search had seen everything.
    pub fn generation(&self) -> u64 {
        self.message.generation
    }
}

/// A stored record.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Unique within its collection.
    pub key: Key,
    /// In the order in which they were given; empty when they were not asked for.
    pub parts: Vec<Part>,
    /// By name; empty when they were not asked for.
    pub attributes: Attributes,
    /// Position in the order of writes; 0 when it was not asked for.
    pub seq: u64,
}

/// Embeddings of unit L2 norm, one for each input in its order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Embeddings {
    /// Of the images.
    pub images: Vec<Vec<f32>>,
    /// Of the texts.
    pub texts: Vec<Vec<f32>>,
    /// For each text its tokens beyond the model's context, which its embedding does not see.
    pub truncated_tokens: Vec<u32>,
    /// The model that made them.
    pub model_id: String,
}

/// What a collection is.
#[derive(Debug, Clone, PartialEq)]
pub struct Collection {
    /// Its name.
    pub name: CollectionName,
    /// What its records' attributes are.
    pub schema: AttributeSchema,
    /// The model that all its vectors come from.
    pub model_id: String,
    /// Dimensions of that model.
    pub dimension: u32,
    /// When it was created; absent when it is older than such notes.
    pub created: Option<Time>,
    /// Records.
    pub records: u64,
    /// Image parts.
    pub image_points: u64,
    /// Text parts; of a long text, its chunks.
    pub text_points: u64,
    /// Texts of which some tokens are in no embedding.
    pub truncated_texts: u64,
}

/// What a server holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    /// Version of the server.
    pub version: String,
    /// The model's id.
    pub model_id: String,
    /// Dimensions of the shared space.
    pub dimension: u32,
    /// All collections, by name.
    pub collections: Vec<CollectionStats>,
    /// The whole answer, with recall, relevance and indexes.
    pub message: wire::StatsResponse,
}

/// What one collection holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionStats {
    /// Its name.
    pub name: String,
    /// Records.
    pub records: u64,
    /// Image parts.
    pub image_points: u64,
    /// Text parts; of a long text, its chunks.
    pub text_points: u64,
    /// Texts of which some tokens are in no embedding.
    pub truncated_texts: u64,
}

impl Found {
    pub(crate) fn from_wire(answer: wire::SearchResponse) -> Result<Self, Error> {
        let hits = |hits: Vec<wire::Hit>| hits.into_iter().map(Hit::from_wire).collect::<Result<_, _>>();
        Ok(Self {
            hits: hits(answer.hits)?,
            below: hits(answer.below)?,
            no_good_match: answer.no_good_match,
            next_page_token: token(answer.next_page_token),
            stats: SearchStats::from_wire(answer.stats.unwrap_or_default()),
            facets: facets(answer.facets)?,
            receipt: Receipt { message: answer.receipt.unwrap_or_default() },
        })
    }
}

impl Hit {
    fn from_wire(hit: wire::Hit) -> Result<Self, Error> {
        let lexical = match (hit.lexical_score, hit.lexical_part) {
            (Some(score), Some(part)) => Some(LexicalMatch { score, part: Part::from_wire(part)? }),
            _ => None,
        };
        Ok(Self {
            key: key(hit.key)?,
            lexical,
            score: hit.score,
            relevance: hit.relevance,
            part: hit.part.map(Part::from_wire).transpose()?,
            attributes: attributes_from_wire(hit.attributes)?,
            term_scores: hit.term_scores,
            thumbnail: Some(hit.thumbnail).filter(|jpeg| !jpeg.is_empty()),
        })
    }
}

impl Part {
    pub(crate) fn from_wire(part: wire::Part) -> Result<Self, Error> {
        use wire::part::Content;
        let at = part_ref_from_wire(part.r#ref.ok_or_else(|| Error::lacks("place of a part"))?)?;
        let content = match part.content {
            None => None,
            Some(Content::Image(wire::ImagePart { source, digest, width, height })) => {
                let digest = digest.try_into().map_err(|_| Error::answer("a digest has not 32 bytes"))?;
                Some(PartContent::Image(ImagePart { source, digest: Digest(digest), width, height }))
            }
            Some(Content::Text(text)) => Some(PartContent::Text(TextContent {
                text: text.text,
                truncated_tokens: text.truncated_tokens,
                span: text.span.map(span),
                chunks: text.chunks.into_iter().map(span).collect(),
            })),
        };
        Ok(Self { at, content })
    }
}

impl SearchStats {
    pub(crate) fn from_wire(stats: wire::SearchStats) -> Self {
        Self {
            plan: plan_from_wire(stats.plan),
            ef: stats.ef,
            searched_points: stats.searched_points,
            matching_points: stats.matching_points,
            encode: Duration::from_micros(stats.encode_micros),
            search: Duration::from_micros(stats.search_micros),
            lexical: Duration::from_micros(stats.lexical_micros),
            lexical_matches: stats.lexical_matches,
            fetch: Duration::from_micros(stats.fetch_micros),
            truncated_tokens: stats.truncated_tokens,
            notes: stats.notes,
        }
    }
}

impl Record {
    pub(crate) fn from_wire(record: wire::Record) -> Result<Self, Error> {
        Ok(Self {
            key: key(record.key)?,
            parts: record.parts.into_iter().map(Part::from_wire).collect::<Result<_, _>>()?,
            attributes: attributes_from_wire(record.attributes)?,
            seq: record.seq,
        })
    }
}

impl Embeddings {
    /// Takes in the answer to a further request.
    pub(crate) fn add(&mut self, answer: wire::EmbedResponse) {
        let rows = |vectors: Vec<wire::Vector>| vectors.into_iter().map(|vector| vector.values);
        self.images.extend(rows(answer.image_embeddings));
        self.texts.extend(rows(answer.text_embeddings));
        self.truncated_tokens.extend(answer.truncated_tokens);
        self.model_id = answer.model_id;
    }
}

impl Collection {
    pub(crate) fn from_wire(collection: Option<wire::Collection>) -> Result<Self, Error> {
        let collection = collection.ok_or_else(|| Error::lacks("collection"))?;
        Ok(Self {
            name: CollectionName::new(collection.name).map_err(Error::answer)?,
            schema: schema_from_wire(collection.schema)?,
            model_id: collection.model_id,
            dimension: collection.dimension,
            created: time(collection.create_time, "create_time")?,
            records: collection.records,
            image_points: collection.image_points,
            text_points: collection.text_points,
            truncated_texts: collection.truncated_texts,
        })
    }
}

impl Stats {
    pub(crate) fn from_wire(message: wire::StatsResponse) -> Self {
        let collection = |of: &wire::CollectionStats| CollectionStats {
            name: of.name.clone(),
            records: of.records,
            image_points: of.image_points,
            text_points: of.text_points,
            truncated_texts: of.truncated_texts,
        };
        Self {
            version: message.version.clone(),
            model_id: message.model_id.clone(),
            dimension: message.dimension,
            collections: message.collections.iter().map(collection).collect(),
            message,
        }
    }
}

/// The counts of attribute values.
pub(crate) fn facets(counts: Vec<wire::FacetCounts>) -> Result<Vec<FacetCounts>, Error> {
    Ok(counts.into_iter().map(facet_counts_from_wire).collect::<Result<_, _>>()?)
}

/// A moment of an answer, where it has one.
pub(crate) fn time(time: Option<Timestamp>, what: &str) -> Result<Option<Time>, Error> {
    Ok(time.map(|time| time_from_wire(time, what)).transpose()?)
}

/// A page token, where there is a next page.
pub(crate) fn token(token: String) -> Option<String> {
    Some(token).filter(|token| !token.is_empty())
}

pub(crate) fn key(key: String) -> Result<Key, Error> {
    Key::new(key).map_err(Error::answer)
}

fn span(span: wire::TextSpan) -> Range<usize> {
    span.start as usize..span.end as usize
}
