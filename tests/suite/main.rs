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

mod ahead;
mod audio;
mod bad_input;
mod check;
mod checkpoint_files;
mod compare;
mod config;
mod corpora;
mod cuda;
mod devices;
mod features;
mod fuzz;
mod hostile_hub;
mod hub;
mod invariance;
mod json;
mod labels;
mod limits;
mod loading;
mod memory;
mod methods;
mod models;
mod outputs;
mod parity;
mod predict;
mod prepare;
mod program;
mod readme;
mod real_weights;
mod reference;
mod runs;
mod statistics;
mod test_data;
mod tokenizer;
mod train;
mod updates;
mod watch;
