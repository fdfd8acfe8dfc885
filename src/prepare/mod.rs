//! Turns what users have (tables, corpora) into manifests.

pub mod idiom;
mod split;
pub mod table;
mod table_reader;
