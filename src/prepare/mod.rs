//! Turns what users have (tables, corpora) into manifests.
//!
//! A corpus goes through the same steps whichever it is: its reader gives utterances and what it counted,
//! [`audio::settle`] sees to their files, its protocol puts them into parts, [`folder::write`] writes these with a
//! `split.json` that says how they came about.

pub mod audio;
mod delimited;
pub mod folder;
pub mod idiom;
pub mod iemocap;
pub mod librispeech;
pub mod magpie;
pub mod mist;
pub(crate) mod reading;
pub mod slurp;
pub mod split;
pub mod table;
mod table_reader;
mod table_rows;
