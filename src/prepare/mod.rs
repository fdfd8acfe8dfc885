//! Turns what users have (tables, corpora) into manifests.

mod split;
pub mod table;
mod table_reader;
