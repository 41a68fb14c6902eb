//! Real files against the references that came with them, files made here for every encoding that can be
//! written, and what must be refused.

#![allow(clippy::unwrap_used)]

mod bad;
mod damage;
mod made;
mod references;
mod trees;
mod values;
