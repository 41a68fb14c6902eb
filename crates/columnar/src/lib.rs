//! Folders of vectors and metadata: NumPy arrays beside Parquet, in the layout of clip-retrieval.
//!
//! ```text
//! DIR/img_emb/img_emb_0.npy         row i: the vector of an image
//! DIR/text_emb/text_emb_0.npy       row i: the vector of its text
//! DIR/metadata/metadata_0.parquet   row i: what both are of
//! DIR/diptych.json                  what an export of ours adds: the model, the schema, counts
//! ```
//!
//! Owns: the two formats, the layout, and how records become rows and rows records. Deliberately absent:
//! where records come from and go to, and whether vectors are any good.
//!
//! Reading order: `npy` and `table` (the formats), `rows` and `attributes` (records as rows), `export` and
//! `import` (folders).

mod attributes;
mod error;
mod export;
mod import;
mod npy;
mod rows;
mod table;
#[cfg(test)]
mod tests;

pub use error::ColumnarError;
pub use export::{About, DESCRIPTION_FILE, Description, ExportOptions, ExportWriter};
pub use import::{Folder, FolderOptions, Imported, Items, Vectors};
pub use npy::{Dtype, NpyReader, NpyWriter};
pub use table::{Table, TableRow, Value};
