//! What a word is, and which words are the same.
//!
//! Owns: the two ways of reading a text. A *stem* is what is left of a word without its case, its accents
//! and its English ending: `Effusions` and `effusion` share one. A *form* keeps the ending, and is what
//! phrases are made of. Letters and digits make up words, everything else parts them; a script without
//! spaces is read as words of whole runs. Deliberately absent: what is done with words.

use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, NumericOptions, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::{
    AsciiFoldingFilter, Language, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, TextAnalyzer,
    TokenizerManager,
};

/// Bytes from which on a word is none: a number in base64 or the like, which nobody types.
const WORD_BYTES: usize = 256;
const STEMS: &str = "diptych_stems";
const FORMS: &str = "diptych_forms";

/// A word as it is read in both ways.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Word {
    pub form: String,
    pub stem: String,
}

/// The fields of a document, which is one piece of a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    /// The point that the piece stands for.
    pub point: Field,
    /// The record that it belongs to.
    pub record: Field,
    /// Its words by their stems, with how often each occurs.
    pub stems: Field,
    /// Its words by their forms, with where each occurs.
    pub forms: Field,
}

/// Names of the numeric columns.
pub(crate) const POINT: &str = "point";
pub(crate) const RECORD: &str = "record";

/// The schema of a document.
pub(crate) fn schema() -> (Schema, Fields) {
    let text = |tokenizer: &str, option| {
        let indexing = TextFieldIndexing::default().set_tokenizer(tokenizer).set_index_option(option);
        TextOptions::default().set_indexing_options(indexing)
    };
    let mut builder = Schema::builder();
    let fields = Fields {
        point: builder.add_u64_field(POINT, NumericOptions::default() | INDEXED | FAST),
        record: builder.add_u64_field(RECORD, FAST),
        stems: builder.add_text_field("stems", text(STEMS, IndexRecordOption::WithFreqs)),
        forms: builder.add_text_field("forms", text(FORMS, IndexRecordOption::WithFreqsAndPositions)),
    };
    (builder.build(), fields)
}

/// The two ways, by the names that the schema knows them by.
pub(crate) fn tokenizers() -> TokenizerManager {
    // Fields of numbers ask for the default one, too.
    let manager = TokenizerManager::default();
    manager.register(STEMS, stems());
    manager.register(FORMS, forms());
    manager
}

fn forms() -> TextAnalyzer {
    TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(WORD_BYTES))
        .filter(LowerCaser)
        .filter(AsciiFoldingFilter)
        .build()
}

fn stems() -> TextAnalyzer {
    TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(WORD_BYTES))
        .filter(LowerCaser)
        .filter(AsciiFoldingFilter)
        .filter(Stemmer::new(Language::English))
        .build()
}

/// The words of a text, in order.
pub(crate) fn words(text: &str) -> Vec<Word> {
    let read = |mut analyzer: TextAnalyzer| {
        let mut words = Vec::new();
        analyzer.token_stream(text).process(&mut |token| words.push(token.text.clone()));
        words
    };
    // Both leave out the same words, so that they stand side by side.
    read(forms()).into_iter().zip(read(stems())).map(|(form, stem)| Word { form, stem }).collect()
}

/// Where the first `count` words of a text end, in bytes.
pub(crate) fn after_words(text: &str, count: usize) -> usize {
    let mut seen = 0;
    let mut within = false;
    for (at, c) in text.char_indices() {
        match (within, c.is_alphanumeric()) {
            (true, false) if seen == count => return at,
            (false, true) => seen += 1,
            _ => {}
        }
        within = c.is_alphanumeric();
    }
    text.len()
}
