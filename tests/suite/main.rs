//! Tests by property, in one binary so that the model is compiled once.
#![recursion_limit = "256"]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    missing_docs,
    reason = "a test that cannot go on should stop there"
)]

mod config;
mod invariance;
mod loading;
mod parity;
mod reference;
mod tokenizer;
mod updates;
