//! CLASP: classifiers over a spoken utterance and its text, as "CLASP: Cross-modal Alignment Using Pre-trained Unimodal
//! Models" (Zhou, Zeng, Gong, Bhat; Findings of ACL 2024) describes them. The library exists so that tests and benches
//! reach the parts of the program. The paper's symbols, the words for them in the code and the shapes: `docs/model.md`.
#![recursion_limit = "256"]

// So that what tests share with `tests/` and `fuzz/` finds this library under the same name.
#[cfg(test)]
extern crate self as clasp;
#[cfg(test)]
#[path = "../fuzz/damage.rs"]
mod damage;
#[cfg(test)]
#[path = "../tests/suite/test_data.rs"]
mod test_data;

#[cfg(test)]
mod order;

// The modules in the order of dependency: each imports only those above it, which `order.rs` tests. The program,
// `main.rs` with `commands/`, stands on all of them.

// The ground: words, files, errors.
pub mod error;
pub mod units;
pub mod files;
pub mod hash;
pub mod keys;
pub mod choices;
pub mod panics;
pub use clasp_ops::random;

// From a manifest to batches, and from predictions to scores: no tensors.
pub mod data;
pub mod splits;
pub mod eval;
pub mod prepare;
pub mod demo;
pub mod check;
pub mod run;
pub mod terminal;

// From operations to a model.
pub mod profile;
pub mod ops;
pub mod nn;
pub mod encoder;
pub mod loss;
pub mod method;
pub mod model;

// The model in use.
pub mod config;
pub mod device;
pub mod memory;
pub mod checkpoint;
pub mod inference;
pub mod asr_tts;
pub mod train;
pub mod hub;
pub mod compare;

// What the program says and takes.
pub mod cli;
pub mod exit;
