//! Embeddings to nearest ids: a live HNSW graph, sealed segments in checked files, and their exact oracle.
//!
//! Owns: [`Index`], which answers "which points are nearest to this vector" while points come and go.
//! Deliberately absent: what the points are (the engine knows), and durability (the store has the truth;
//! the files of an index spare building it again, and can be built again at any time).
//!
//! ```
//! use diptych_core::{Embedding, PointId};
//! use diptych_index::{Index, IndexOptions};
//!
//! let index = Index::new(2, IndexOptions::default())?;
//! index.insert(PointId(1), &Embedding::new([1.0, 0.0])?)?;
//! index.insert(PointId(2), &Embedding::new([0.0, 1.0])?)?;
//! let nearest = index.nearest(&Embedding::new([3.0, 4.0])?, 1, None)?;
//! assert_eq!(nearest[0].id, PointId(2));
//! assert!((nearest[0].score - 0.8).abs() < 1e-6);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod dot;
mod graph;
mod index;
mod live;
mod manifest;
mod mix;
mod nodes;
mod options;
mod rank;
mod registry;
mod sealed;
mod search;
mod state;
mod training;
mod upkeep;

pub use dot::cosine_with;
pub use index::Index;
pub use options::{CONNECTIONS_MAX, CONNECTIONS_MIN, EF_DEFAULT, IndexError, IndexOptions, Kind, default_ef};
pub use rank::Neighbor;
pub use search::{Answer, Plan, PointSet, Search};
pub use state::IndexStats;
